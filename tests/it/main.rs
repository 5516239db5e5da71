//! Tests from outside: over every implementation of a contract, over real sockets, over several
//! replicas on one database, and over the real binary.

mod cli;
mod commands;
mod contract;
mod doctor;
mod fleet;
mod follower;
mod harness;
mod outages;
mod replicas;
mod schema;
