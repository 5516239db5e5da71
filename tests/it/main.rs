//! Tests from outside: over every implementation of a contract, over real sockets, over several
//! replicas on one database, and over the real binary.

#[macro_use]
mod suite;

mod auth;
mod bus_contract;
mod check;
mod cli;
mod client;
mod cluster;
mod commands;
mod contract;
mod demo;
mod doctor;
mod faults;
mod fleet;
mod follower;
mod harness;
mod heard;
mod hostile;
mod idle;
mod lanes;
mod large;
mod leaving;
mod load;
mod notice_contract;
mod notices;
mod outages;
mod outbox;
mod paused;
mod pooler;
mod protocol;
mod proxy;
mod replicas;
mod retention;
mod schema;
mod settings;
mod signals;
mod slow;
mod task_contract;
mod tasks;
mod telemetry;
mod upkeep;
mod writer;
