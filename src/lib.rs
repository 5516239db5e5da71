//! Tidings: a durable realtime notifier that needs nothing but Postgres.

pub mod domain;
pub mod clock;
pub mod notification;
pub mod store;
pub mod bus;
