//! Tests from outside: over every implementation of a contract, over real sockets, over several
//! replicas on one database, and over the real binary.

#[macro_use]
mod suite;

mod auth;
mod bench;
mod bus_contract;
mod check;
mod cli;
mod client;
mod cluster;
mod commands;
mod console;
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
mod loops;
mod notice_contract;
mod notices;
mod outages;
mod outbox;
mod paused;
mod pooler;
mod programs;
mod protocol;
mod proxies;
mod proxy;
mod replicas;
mod retention;
mod rights;
mod schema;
mod settings;
mod signals;
mod slow;
mod source_contract;
#[cfg(feature = "otel")]
mod spans;
mod task_contract;
mod tasks;
mod telemetry;
mod tls;
mod trace;
mod upgrade;
mod upkeep;
mod walkthrough;
mod writer;
