//! The contract of what keeps the log. `store/memory` and `store/postgres` pass the same suite.
//!
//! A store keeps, numbers and finds messages; it tells nobody of them, except that a writer
//! announces what it has made durable. Hearing is the bus's part, applying the log's.

pub mod memory;
pub mod notice;
pub mod postgres;
pub mod presence;
pub mod source;
pub mod task;

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{Draft, Epoch, Message, Pattern, Seq, Timestamp, Topic};

/// Where the log stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pub epoch: Epoch,
    /// The highest seq given out; committed, but durable only after a barrier.
    pub seq: Seq,
    /// The lowest seq that is still kept.
    pub oldest: Seq,
    /// The clock by which messages are dated and expire.
    pub now: Timestamp,
}

/// How much one read may return; at least one message comes, however large it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Page {
    pub messages_max: usize,
    pub bytes_max: usize,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub messages: Vec<Message>,
    /// Up to here everything that was asked for is in `messages`.
    pub read_to: Seq,
}

/// What became of one draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub seq: Seq,
    /// Its idempotency key was known; the seq is that of the first publish.
    pub duplicate: bool,
}

/// A batch that is committed and durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Appended {
    pub epoch: Epoch,
    pub at: Timestamp,
    /// Where the new ones begin; meaningless when none is new.
    pub first: Seq,
    /// One a draft, in order.
    pub placed: Vec<Placed>,
}

impl Appended {
    /// How many of the drafts are new.
    pub fn fresh(&self) -> u64 {
        self.placed.iter().filter(|placed| !placed.duplicate).count() as u64
    }

    /// The new messages of the batch, as every other replica will see them.
    pub fn messages(&self, drafts: &[Draft]) -> Vec<Message> {
        let pairs = drafts.iter().zip(&self.placed).filter(|(_, placed)| !placed.duplicate);
        pairs.map(|(draft, placed)| Message::from_draft(draft, Some(placed.seq), self.at)).collect()
    }
}

/// What the relay moved from the outbox to the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Relayed {
    pub taken: u64,
    pub epoch: Epoch,
    /// The new range, unless all were duplicates.
    pub range: Option<(Seq, Seq)>,
}

/// How many idempotency keys one call forgets at most; where there were as many there are more.
pub const FORGOTTEN_MAX: u64 = 5_000;

/// Why a store did not do what it was asked, cut by what the caller can do.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
pub enum StoreError {
    /// Try again later. Of a write it is not known whether it was done.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// Another replica holds the writer's slot: claim another one. Nothing was written.
    #[error("the writer's slot was taken by another replica")]
    Fenced,
    /// What was asked for is no longer kept: tell the client where the log begins.
    #[error("the log begins at {oldest}")]
    Expired { oldest: Seq },
    /// Nothing was written: what there is must go first.
    #[error("there is no room: {0}")]
    Full(String),
    /// Trying again will not help. Nothing was written.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// Held while the order of a batch is being decided; dropped when it is, so that the next may follow.
pub type Turn = Box<dyn std::any::Any + Send>;

/// Reads the log.
#[async_trait]
pub trait LogStore: Send + Sync {
    async fn head(&self) -> Result<Head, StoreError>;

    /// Returns when everything that was committed before is durable.
    async fn barrier(&self) -> Result<(), StoreError>;

    /// Every message after `after` up to `until`, expired ones too: what a replica applies.
    async fn range(&self, after: Seq, until: Seq, page: Page) -> Result<Found, StoreError>;

    /// The messages that match a pattern and have not expired: what a session reads.
    async fn matching(
        &self,
        patterns: &[Pattern],
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Found, StoreError>;

    /// The place before the first message at or after a moment.
    async fn since(&self, moment: Timestamp) -> Result<Seq, StoreError>;

    /// What stands at a seq, to see whether the log still is the one that was read.
    async fn mark(&self, seq: Seq) -> Result<Option<Mark>, StoreError>;

    /// Gives the log a new epoch, unless it no longer has the old one.
    async fn epoch_renew(&self, old: &Epoch) -> Result<(), StoreError>;

    /// A writer for one lane.
    async fn writer(&self) -> Result<Box<dyn LogWriter>, StoreError>;
}

/// Enough of a message to tell it from another one with the same seq.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub at: Timestamp,
    pub topic: Topic,
}

/// Writes batches, one after another.
#[async_trait]
pub trait LogWriter: Send {
    /// Commits a batch as a whole, awaits its durability and announces it.
    ///
    /// After `Unavailable` it is not known whether it happened: `recover` tells.
    async fn write(&mut self, drafts: &[Draft], turn: Turn) -> Result<Appended, StoreError>;

    /// After `Unavailable`: connects anew and says whether the batch was committed, having then
    /// awaited its durability and announced it. `None`: it was not, and will not be.
    async fn recover(&mut self, drafts: &[Draft]) -> Result<Option<Appended>, StoreError>;

    /// Keeps the writer's place while it has nothing to write.
    async fn renew(&mut self) -> Result<(), StoreError>;

    /// Hands its place back.
    async fn release(&mut self);
}

/// What keeps a store in order; called by `recovery`.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Moves outbox rows to the log, awaits their durability and announces them.
    /// `None`: there were none, or another replica is at it.
    async fn outbox_relay(&self) -> Result<Option<Relayed>, StoreError>;

    /// For how long the oldest row of the outbox has waited, if there is one.
    async fn outbox_oldest(&self) -> Result<Option<Duration>, StoreError>;

    /// Makes room for the messages to come.
    async fn partition_ahead(&self) -> Result<(), StoreError>;

    /// The partitions whose messages are all too old, oldest first; they are then no longer kept.
    async fn partition_expire(&self) -> Result<Vec<Seq>, StoreError>;

    /// Drops a partition that has been expired for a while. Returns how many seqs it held.
    async fn partition_drop(&self, first: Seq) -> Result<u64, StoreError>;

    /// Forgets idempotency keys that are too old, `FORGOTTEN_MAX` at most. Returns how many.
    async fn idempotency_expire(&self) -> Result<u64, StoreError>;
}
