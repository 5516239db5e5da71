//! Tests from outside: over every implementation of a contract, over real sockets, over several
//! replicas on one database, and over the real binary.

mod auth;
mod cli;
mod client;
mod commands;
mod contract;
mod demo;
mod doctor;
mod faults;
mod fleet;
mod follower;
mod harness;
mod hostile;
mod idle;
mod leaving;
mod load;
mod outages;
mod pooler;
mod protocol;
mod proxy;
mod replicas;
mod schema;
mod settings;
mod task_contract;
mod tasks;
