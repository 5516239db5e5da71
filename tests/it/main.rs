//! Tests from outside: over every implementation of a contract, over real sockets, over several
//! replicas on one database, and over the real binary.

mod auth;
mod client;
mod contract;
mod fleet;
mod follower;
mod harness;
mod hostile;
mod outages;
mod protocol;
mod replicas;
mod schema;
