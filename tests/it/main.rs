//! Tests from outside: over every implementation of a contract, over real sockets, over several
//! replicas on one database, and over the real binary.

mod contract;
mod fleet;
mod follower;
mod harness;
mod idle;
mod outages;
mod pooler;
mod replicas;
mod schema;
mod task_contract;
