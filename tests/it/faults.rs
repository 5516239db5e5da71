//! Faults, one at a time, each doing its best to break a promise; `storm` throws them all at once.
//!
//! Every fault is a real one: processes are killed and frozen, connections are cut by a proxy, the
//! server is stopped, paused and set back to an older state.

mod clock;
mod commit;
mod connection;
mod crash;
mod process;
mod reader;
mod restored;
mod server;
mod storm;
