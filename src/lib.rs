//! Tidings: a durable realtime notifier that needs nothing but Postgres.

/// The words of Tidings and the decisions that need nothing but them.
pub mod domain;

/// The time of day and the passing of time, as a parameter.
pub mod clock;
/// Every number that Tidings shows.
pub mod metrics;
/// The lives of loops: who runs, who is started again, and how everything ends.
pub mod supervise;

/// The settings: one catalogue, three places to set them, one typed result.
pub mod config;
/// Connection strings as managed Postgres hands them out.
pub mod dsn;
/// What is written while the replica runs.
pub mod logging;
/// The accept loop: every connection is counted, bounded in time and memory, and accounted for.
pub mod server;
