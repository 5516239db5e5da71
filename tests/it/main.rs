//! Tests from outside: over every implementation of a contract, over real sockets, over several
//! replicas on one database, and over the real binary.

mod cli;
mod commands;
mod contract;
mod demo;
mod doctor;
mod faults;
mod fleet;
mod follower;
mod harness;
mod idle;
mod leaving;
mod load;
mod outages;
mod pooler;
mod proxy;
mod replicas;
mod schema;
