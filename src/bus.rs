//! The contract of what carries wake-ups between replicas.
//!
//! A bus may lose, double or delay what it carries: whoever hears nothing finds it in the log.
//! It says in which state it is, so that others know how far to trust its silence.

pub mod memory;
pub mod postgres;

use std::fmt;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::{Draft, Message, SourceId, TaskId, Timestamp};
use crate::notification::Announcement;

/// How far the bus can be trusted to tell of new messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BusState {
    /// Hears every announcement.
    Live,
    /// Listens again, and what was said meanwhile is being read.
    CatchingUp,
    /// Cannot listen (a transaction pooler is in the way): the log is asked, often.
    Polling,
    /// Cannot reach anything.
    Down,
}

impl BusState {
    pub const ALL: [BusState; 4] =
        [BusState::Live, BusState::CatchingUp, BusState::Polling, BusState::Down];

    pub const fn as_str(self) -> &'static str {
        match self {
            BusState::Live => "live",
            BusState::CatchingUp => "catching_up",
            BusState::Polling => "polling",
            BusState::Down => "down",
        }
    }
}

impl fmt::Display for BusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the bus tells the log.
#[derive(Debug, Clone, PartialEq)]
pub enum BusEvent {
    /// From here on everything that is announced is heard: read up to now, then trust it.
    Listening,
    Announced(Announcement),
    Signals(Vec<Message>),
    OutboxFilled,
    TaskStirred(TaskId),
    /// Whether it is because something was pushed to it.
    SourceStirred(SourceId, bool),
    EpochRenewed,
    /// Announcements may be missed from here on.
    Deaf(BusState),
}

/// The bus could not carry something; at most signals are lost by that.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the bus cannot be reached: {0}")]
pub struct BusError(pub String);

#[async_trait]
pub trait Bus: Send + Sync {
    /// Hears until told to stop, reconnecting by itself. Waits when `events` is full.
    async fn listen(&self, events: mpsc::Sender<BusEvent>, stop: CancellationToken);

    /// Carries signals to the other replicas, at most once.
    async fn signal(&self, drafts: &[Draft], at: Timestamp) -> Result<(), BusError>;

    /// A suspicion from outside: the log has moved on and the bus has not said so.
    fn suspect(&self);
}
