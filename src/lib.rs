//! Tidings: a durable realtime notifier that needs nothing but Postgres.

pub mod domain;
