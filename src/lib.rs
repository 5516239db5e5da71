//! Tidings: a durable realtime notifier that needs nothing but Postgres.
//!
//! A message's way: `api -> publish -> store | Postgres | bus -> log -> hub -> feed -> api`.
//! The parts, in the order in which they are best read:

/// The words of Tidings and the decisions that need nothing but them.
pub mod domain;

/// The time of day and the passing of time, as a parameter.
pub mod clock;
/// Every number that Tidings shows.
pub mod metrics;
/// The lives of loops: who runs, who is started again, and how everything ends.
pub mod supervise;

/// Wake-ups within one that are cheap to wait for.
pub mod wake;

/// What carries wake-ups between replicas: a contract, in memory and in Postgres.
pub mod bus;
/// What goes through NOTIFY.
pub mod notification;
/// What keeps the log: a contract, in memory and in Postgres.
pub mod store;

/// Who speaks: API keys and JWTs become principals.
pub mod auth;
/// What one session receives: a cursor over the log, live as long as it keeps up.
pub mod feed;
/// A message encoded once for all its receivers.
pub mod frame;
/// Which hosts may be reached for users.
pub mod hosts;
/// From topics to sessions, without waiting for anybody.
pub mod hub;
/// The replica's own reading of the log: applied in order, the last of it in memory.
pub mod log;
/// What people are told, and how far it has come with each of them.
pub mod notices;
/// Who has a session, where, and on which topics.
pub mod presence;
/// Takes messages in, commits them in batches, answers when they are durable.
pub mod publish;
/// What is found again: the outbox, retention.
pub mod recovery;
/// What a collector of OpenTelemetry is told of messages that are traced.
#[cfg(feature = "otel")]
pub mod spans;
/// Batch operations, worked on under a lease by whichever replica has hands for them.
pub mod tasks;

/// Event sources: read by one replica each, kept in memory first, shown live and as trends.
pub mod telemetry;

/// What users see: HTTP, WebSocket, server-sent events.
pub mod api;
/// Puts the parts together into a running replica.
pub mod app;
/// Measures an installation from outside: how fast, and at what cost.
pub mod bench;
/// Checks an installation from outside: that what was published is delivered, once and in order.
pub mod check;
/// The command line.
pub mod cli;
/// A client that publishes once and follows without a hole, however often it must come back.
pub mod client;
/// A private Postgres for tests and for `tidings demo`, found or made without being told.
pub mod cluster;
/// The settings: one catalogue, three places to set them, one typed result.
pub mod config;
/// Three replicas over one Postgres, to look at.
pub mod demo;
/// Connection strings as managed Postgres hands them out.
pub mod dsn;
/// What is written while the replica runs.
pub mod logging;
/// The accept loop: every connection is counted, bounded in time and memory, and accounted for.
pub mod server;
