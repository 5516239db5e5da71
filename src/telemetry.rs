//! Event sources in, memory first, few writes, live state and trends out.
//!
//! ```text
//!   source ──▶ reader ─┐                         ┌─▶ live: coalesced signals ─▶ every replica's mirror
//!   ingest ─▶ inbox ──▶│ books: owned sources,   │
//!   keeper: leases ───▶│ buffer of raw events ───┴─▶ flusher ─▶ store (one statement, single flight)
//! ```
//! One replica at a time reads a source: the keeper holds a lease on all of its sources, and each under a
//! term. What events say goes into memory first; what is flushed carries the term and a number, so that a
//! flush whose answer was lost is written once, and one of a replica that lost the source not at all.
//! Counters are cumulative and are flushed with the increments that were made of them, in one
//! transaction: whoever takes over goes on from there, and no growth is lost or counted twice.

mod books;
mod buffer;
mod flusher;
pub mod format;
mod keeper;
mod live;
mod mirror;
mod owned;
mod reader;
mod remote;
pub mod seal;
mod stream;
pub mod trend;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::books::Books;
pub use self::flusher::Flusher;
pub use self::keeper::Keeper;
pub use self::live::Live;
use self::mirror::{Mirror, Named};
use self::remote::Remote;
pub use self::remote::{Secrets, Tested};
pub use self::stream::{Decoder, Place, Told};
use crate::domain::{SourceId, Timestamp};
use crate::hosts::Hosts;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::store::StoreError;
use crate::store::source::{
    Created, Dashboard, Ingested, LogFilter, LogLine, ReaderStore, Source, SourceRules,
    SourceStore, TrendPoint, TrendQuery, instance_shown,
};

/// After how many intervals of flushing what was shown is written, unless the store is away: then nobody
/// answers from memory what another replica reads.
const SETTLES_AFTER: u32 = 2;

#[derive(Clone)]
pub struct TelemetrySettings {
    pub replica: Arc<str>,
    pub hosts: Hosts,
    pub key: Option<Arc<str>>,
    pub sources_max: usize,
    pub instances_max: usize,
    pub lease: Duration,
    pub silence: Duration,
    /// How often gauges and counters are written.
    pub flush: Duration,
    /// How many raw events make a batch, and how long one may wait.
    pub batch_events: usize,
    pub batch_age: Duration,
    pub buffer_events_max: usize,
    pub buffer_bytes_max: usize,
}

/// A cheap handle for everybody who has to do with sources.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    settings: TelemetrySettings,
    sources: Arc<dyn SourceStore>,
    readers: Arc<dyn ReaderStore>,
    log: Log,
    publisher: Publisher,
    metrics: Metrics,
    remote: Remote,
    /// Written by readers, keeper and flusher, each for a moment.
    books: Mutex<Books>,
    mirror: Mutex<Mirror>,
    /// Wakes the flusher: something is to be written at once, or a batch is full.
    flush: tokio::sync::Notify,
    /// Wakes whoever shows instances.
    show: tokio::sync::Notify,
    /// Wakes readers that found no room.
    room: tokio::sync::Notify,
    /// Set by the keeper when nothing is read any more, and by the flusher when all is written.
    unread: CancellationToken,
    drained: CancellationToken,
    begun: AtomicBool,
}

/// A page of instances, and whether they come from memory.
pub struct Instances {
    pub instances: Vec<Value>,
    pub more: bool,
}

impl Telemetry {
    /// A handle, and the loops that must be run for it.
    pub fn new(
        settings: TelemetrySettings,
        sources: Arc<dyn SourceStore>,
        readers: Arc<dyn ReaderStore>,
        log: Log,
        publisher: Publisher,
        metrics: Metrics,
    ) -> (Telemetry, Keeper, Flusher, Live) {
        let remote = Remote::new(settings.hosts.clone(), settings.key.as_deref());
        let books = Books::new(&settings);
        let mirror = Mirror::new(settings.instances_max, settings.flush * SETTLES_AFTER);
        let shared = Shared {
            settings,
            sources,
            readers,
            log,
            publisher,
            metrics,
            remote,
            books: Mutex::new(books),
            mirror: Mutex::new(mirror),
            flush: tokio::sync::Notify::new(),
            show: tokio::sync::Notify::new(),
            room: tokio::sync::Notify::new(),
            unread: CancellationToken::new(),
            drained: CancellationToken::new(),
            begun: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let telemetry = Telemetry { shared: shared.clone() };
        let keeper = Keeper::new(shared.clone());
        (telemetry, keeper, Flusher::new(shared.clone()), Live::new(shared))
    }

    /// What of a URL and headers is kept in the open, and the rest sealed; the reason says what to change.
    pub fn sealed(
        &self,
        id: &SourceId,
        secrets: &Secrets,
    ) -> Result<(String, Option<String>), String> {
        self.shared.remote.sealed(id, secrets)
    }

    /// What was sealed.
    pub fn secrets(&self, source: &Source) -> Result<Secrets, String> {
        self.shared.remote.opened(
            &source.id,
            source.rules.url.as_deref(),
            source.rules.sealed.as_deref(),
        )
    }

    pub async fn create(&self, id: &SourceId, rules: &SourceRules) -> Result<Created, StoreError> {
        self.shared.sources.create(id, rules, self.shared.settings.sources_max).await
    }

    pub async fn get(&self, id: &SourceId) -> Result<Option<Source>, StoreError> {
        self.shared.sources.get(id).await
    }

    pub async fn list(
        &self,
        after: Option<&SourceId>,
        limit: usize,
    ) -> Result<Vec<Source>, StoreError> {
        self.shared.sources.list(after, limit).await
    }

    pub async fn change(
        &self,
        id: &SourceId,
        revision: i64,
        rules: &SourceRules,
    ) -> Result<bool, StoreError> {
        self.shared.sources.change(id, revision, rules).await
    }

    pub async fn delete(&self, id: &SourceId) -> Result<bool, StoreError> {
        self.shared.mirror.lock().forget(id);
        self.shared.sources.delete(id).await
    }

    /// Connects to a source and reads for a moment, whoever else reads it.
    pub async fn test(&self, source: &Source) -> Tested {
        self.shared.remote.test(source).await
    }

    pub async fn ingest(&self, id: &SourceId, events: &str) -> Result<Ingested, StoreError> {
        self.shared.sources.ingest(id, events).await
    }

    pub async fn trend(&self, query: &TrendQuery) -> Result<Vec<TrendPoint>, StoreError> {
        self.shared.sources.trend(query).await
    }

    pub async fn logs(
        &self,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Vec<(i64, LogLine)>, StoreError> {
        self.shared.sources.logs(filter, limit).await
    }

    pub async fn dashboard(&self, of: Option<&[SourceId]>) -> Result<Dashboard, StoreError> {
        self.shared.sources.dashboard(of).await
    }

    /// The time by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.log.now()
    }

    /// The instances of a source in the order of their names, those that are gone left out.
    pub async fn instances(
        &self,
        id: &SourceId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Instances, StoreError> {
        let mut found = match self.in_memory(id, |name| after.is_none_or(|after| name > after)) {
            Some(found) => found,
            None => self
                .load(id)
                .await?
                .into_iter()
                .filter(|(name, _)| after.is_none_or(|after| &**name > after))
                .collect(),
        };
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let more = found.len() > limit;
        found.truncate(limit);
        let instances = found.into_iter().map(|(_, shown)| Value::Object(shown)).collect();
        Ok(Instances { instances, more })
    }

    /// One instance, also one that is gone but still known.
    pub async fn instance(&self, id: &SourceId, name: &str) -> Result<Option<Value>, StoreError> {
        let found = match self.in_memory(id, |own| own == name) {
            Some(found) => found,
            None => self.load(id).await?,
        };
        let own = found.into_iter().find(|(own, _)| &**own == name);
        Ok(own.map(|(_, shown)| Value::Object(shown)))
    }

    fn in_memory(&self, id: &SourceId, wanted: impl Fn(&str) -> bool) -> Option<Named> {
        let shared = &self.shared;
        let own = shared.books.lock().shown(id, &wanted);
        let found = own.or_else(|| {
            let trusted = *shared.log.state().borrow() == crate::bus::BusState::Live;
            shared.mirror.lock().shown(id, trusted, &wanted)
        });
        let way = if found.is_some() { "memory" } else { "store" };
        shared.metrics.telemetry.reads.get_or_create(&way.into()).inc();
        found
    }

    /// From the store, and from now on followed by what its reader shows.
    async fn load(&self, id: &SourceId) -> Result<Named, StoreError> {
        let shared = &self.shared;
        // First followed, then read: nothing lies between.
        shared.mirror.lock().follow(id);
        let read = tokio::time::Instant::now();
        let instances = shared.readers.instances(id).await?;
        let shown =
            |(name, instance): &(Arc<str>, _)| (name.clone(), instance_shown(id, name, instance));
        let shown: Vec<_> = instances.iter().map(shown).collect();
        shared.mirror.lock().fill(id, read, &shown);
        Ok(shown.into_iter().filter(|(_, shown)| shown["status"] != "deleted").collect())
    }

    /// What statistics show of the buffers.
    pub fn stats(&self) -> Value {
        self.shared.stats()
    }

    /// What `/readyz` says while the buffer has been nearly full for a while.
    pub fn warning(&self) -> Option<String> {
        self.shared.books.lock().warning()
    }

    /// Resolves when this replica, having been told to leave, has written all and let its sources go.
    pub async fn drained(&self) {
        if self.shared.begun.load(Ordering::Relaxed) {
            self.shared.drained.cancelled().await;
        }
    }
}

impl Shared {
    fn stats(&self) -> Value {
        let metrics = &self.metrics.telemetry;
        // One after the other: each holds the family while it lives, and the second may have to be made.
        let memory = metrics.reads.get_or_create(&"memory".into()).get();
        let store = metrics.reads.get_or_create(&"store".into()).get();
        let rate = |part: u64, all: u64| {
            if all == 0 { Value::Null } else { (part as f64 / all as f64).into() }
        };
        let (flushes, errors) = (metrics.flushed.get(), metrics.flush_errors.get());
        let books = self.books.lock();
        let (events, bytes) = books.buffer.size();
        serde_json::json!({
            "sources": books.sources(),
            "instances": books.instances(),
            "events": metrics.events.get(),
            "memory_reads": memory,
            "store_reads": store,
            "hit_rate": rate(memory, memory + store),
            "flushes": flushes,
            "rows": metrics.rows.get(),
            "errors": errors,
            "error_rate": rate(errors, flushes + errors),
            "buffer_events": events,
            "buffer_bytes": bytes,
            "buffer_usage": books.buffer.usage(),
            "thinned": metrics.thinned.get(),
            "last_flush": books.last_flush.map(crate::store::task::time_text),
        })
    }
}
