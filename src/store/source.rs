//! The contract of what keeps telemetry: sources, their leases, what is flushed of them, and what is asked of it.
//!
//! A reader holds its sources under one lease, and each source under a term. What it has gathered it flushes in
//! parts, one a source; a part carries the term and a number, so that a part which comes twice, or from
//! a reader that lost the source, changes nothing.

mod document;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

pub use self::document::{
    bucket_value, facts_value, gauges_value, instance_parts, instance_read, instance_shown, whole,
};
use super::StoreError;
use crate::domain::telemetry::instance::Instance;
use crate::domain::telemetry::rollup::{Bucket, Course, Growth, Level};
use crate::domain::{SourceId, SourceStatus, Timestamp};

/// How many pushed batches may wait for the reader of one source, and what they may weigh before no more is taken.
pub const INBOX_MAX: usize = 256;
pub const INBOX_BYTES_MAX: usize = 32 << 20;

/// How many batches are read at a time, and how many bytes of them before no more is added.
pub const PUSHED_MAX: usize = 64;
pub const PUSHED_BYTES_MAX: usize = 4 << 20;

/// How many rows of a kind one sweep removes at most.
pub const SWEPT_MAX: u32 = 5_000;

/// What a user says of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceRules {
    pub format: Arc<str>,
    /// Without what may be secret; `None` for one that pushes.
    pub url: Option<Arc<str>>,
    /// The rest of its URL and its headers, encrypted.
    pub sealed: Option<Arc<str>>,
    pub headers: Vec<Arc<str>>,
    pub enabled: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub id: SourceId,
    pub rules: SourceRules,
    pub revision: i64,
    pub status: SourceStatus,
    pub detail: Option<Arc<str>>,
    pub replica: Option<Arc<str>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub seen_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    Done,
    /// There is one of that name.
    Known,
    Full,
}

/// Who asks for sources to read.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceClaim {
    /// The replica and which life of it: `name uuid`.
    pub holder: Arc<str>,
    pub lease: Duration,
    pub sources_max: usize,
    /// Whether others' may be taken over; not by one that has just come back to the store itself.
    pub takes: bool,
    /// Whether it holds some.
    pub holds: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SourceClaimed {
    /// How many there are to be read.
    pub total: usize,
    /// How many of them are this reader's due.
    pub share: usize,
    pub leases: Vec<SourceLease>,
}

/// A source that this reader holds.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceLease {
    pub id: SourceId,
    pub term: i64,
    /// The last flush of this term.
    pub flushed: i64,
    pub revision: i64,
    pub format: Arc<str>,
    pub url: Option<Arc<str>>,
    pub sealed: Option<Arc<str>>,
    pub last_event_id: Option<Arc<str>>,
    /// The day, counted from 1970, and how many lines of its logs are kept.
    pub logged: (i64, u32),
}

/// What is to be written of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub id: SourceId,
    pub term: i64,
    pub number: i64,
    pub status: Option<(SourceStatus, Option<Arc<str>>)>,
    pub last_event_id: Option<Arc<str>>,
    pub instances: Vec<(Arc<str>, Instance)>,
    /// Increments, by instance and minute.
    pub rollups: Vec<(Arc<str>, Timestamp, Bucket)>,
    /// Raw events in the generic form.
    pub events: Vec<(Timestamp, Arc<str>)>,
    pub logs: Vec<LogLine>,
    pub logged: Option<(i64, u32)>,
    /// Up to here what was pushed is in this part or in those before.
    pub inbox: Option<i64>,
    /// What is published with it.
    pub messages: Vec<Said>,
    /// The source is let go.
    pub release: bool,
}

/// A message on the topic of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub kind: &'static str,
    pub key: Option<Arc<str>>,
    pub data: Arc<str>,
}

impl Part {
    pub fn new(id: SourceId, term: i64, number: i64) -> Part {
        Part {
            id,
            term,
            number,
            status: None,
            last_event_id: None,
            instances: Vec::new(),
            rollups: Vec::new(),
            events: Vec::new(),
            logs: Vec::new(),
            logged: None,
            inbox: None,
            messages: Vec::new(),
            release: false,
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Part::new(self.id.clone(), self.term, self.number)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogLine {
    pub instance: Option<Arc<str>>,
    pub at: Timestamp,
    pub text: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    Done,
    /// The source is somebody else's, or gone.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingested {
    Done,
    Absent,
    Disabled,
    /// It is read, and does not push.
    Read,
    /// Its reader does not keep up.
    Full,
}

/// A batch that was pushed.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    pub id: SourceId,
    pub number: i64,
    /// A JSON array of events in the generic form.
    pub events: Arc<str>,
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TrendQuery {
    pub source: SourceId,
    pub instance: Option<Arc<str>>,
    pub metric: Arc<str>,
    pub level: Level,
    /// Where each bucket begins and ends.
    pub buckets: Vec<(Timestamp, Timestamp)>,
}

/// What one bucket of a trend holds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TrendPoint {
    pub growth: Option<Growth>,
    pub course: Option<Course>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter {
    pub source: SourceId,
    pub instance: Option<Arc<str>>,
    pub before: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dashboard {
    /// How many sources and instances, by status.
    pub sources: BTreeMap<String, u64>,
    pub instances: BTreeMap<String, u64>,
    /// Of each counter all growth, and that of the last hour.
    pub counters: BTreeMap<String, (Value, Value)>,
}

/// What retention removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub events: u64,
    pub minutes: u64,
    pub hours: u64,
    pub days: u64,
    pub logs: u64,
    pub instances: u64,
    /// Rows of sources that are no more.
    pub orphans: u64,
}

impl Swept {
    /// Whether there may be more to remove.
    pub fn is_full(self) -> bool {
        let most = [self.events, self.minutes, self.hours, self.days, self.logs, self.instances];
        most.into_iter().chain([self.orphans]).any(|rows| rows >= u64::from(SWEPT_MAX))
    }
}

/// What users do with sources, and ask of them.
#[async_trait]
pub trait SourceStore: Send + Sync {
    async fn create(
        &self,
        id: &SourceId,
        rules: &SourceRules,
        max: usize,
    ) -> Result<Created, StoreError>;

    async fn get(&self, id: &SourceId) -> Result<Option<Source>, StoreError>;

    /// In the order of their names.
    async fn list(&self, after: Option<&SourceId>, limit: usize)
    -> Result<Vec<Source>, StoreError>;

    /// Whether it still had that revision.
    async fn change(
        &self,
        id: &SourceId,
        revision: i64,
        rules: &SourceRules,
    ) -> Result<bool, StoreError>;

    async fn delete(&self, id: &SourceId) -> Result<bool, StoreError>;

    /// Takes a batch that was pushed, for its reader.
    async fn ingest(&self, id: &SourceId, events: &str) -> Result<Ingested, StoreError>;

    /// One point a bucket.
    async fn trend(&self, query: &TrendQuery) -> Result<Vec<TrendPoint>, StoreError>;

    /// Lines with their numbers, the newest first.
    async fn logs(
        &self,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Vec<(i64, LogLine)>, StoreError>;

    /// Over these sources, or over all.
    async fn dashboard(&self, of: Option<&[SourceId]>) -> Result<Dashboard, StoreError>;
}

/// What readers of sources do.
#[async_trait]
pub trait ReaderStore: Send + Sync {
    async fn claim(&self, claim: &SourceClaim) -> Result<SourceClaimed, StoreError>;

    /// A reader that leaves, having let go of its sources.
    async fn release(&self, holder: &str) -> Result<(), StoreError>;

    /// The instances of a source as they were flushed.
    async fn instances(&self, id: &SourceId) -> Result<Vec<(Arc<str>, Instance)>, StoreError>;

    /// After `Unavailable` it may be told again: what was written is not written twice.
    async fn flush(&self, parts: &[Part]) -> Result<Vec<(SourceId, Flushed)>, StoreError>;

    /// What was pushed to these sources after these numbers, in order; with more than `PUSHED_BYTES_MAX`
    /// there is more to be asked for.
    async fn inbox(
        &self,
        after: &[(SourceId, i64)],
        limit: usize,
    ) -> Result<Vec<Pushed>, StoreError>;

    /// Removes what is too old.
    async fn sweep(&self) -> Result<Swept, StoreError>;
}
