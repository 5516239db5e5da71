//! The replica's own reading of the log: what it has applied, the last of it in memory, and how it hears of more.
//!
//! `apply` is the loop that moves forward, `enter` is how it finds its place, `look` what it asks the
//! store, `order` decides what may be applied next, `sight` what is said of it all; `ring` holds what
//! was applied last, already encoded. A replica applies up to a number that was announced, or
//! that it has put a barrier behind; never merely what it can see in the table.

mod apply;
mod enter;
mod look;
mod order;
mod ring;
mod sight;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::apply::LogLoop;
use self::ring::Ring;
use crate::bus::BusState;
use crate::clock::Clock;
use crate::domain::{
    Cursor, Epoch, Message, Pattern, PatternSet, Seq, SourceId, TaskId, Timestamp,
};
use crate::frame::Frame;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::notification::Announcement;
use crate::store::{Head, LogStore, Page, StoreError};

/// How many frames of the ring one read looks at before it lets others have the processor.
const RING_SCAN_MAX: usize = 8_192;

/// How often to look whether the position has reached a place: it is mostly there already.
const REACH_PAUSE: Duration = Duration::from_millis(2);
const REACH_PAUSE_MAX: Duration = Duration::from_millis(100);

/// How many signals about instances wait for somebody to take them.
const SHOWN_MAX: usize = 4_096;

/// How many hints about tasks wait for somebody to take them.
const STIRRED_MAX: usize = 1_024;

#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    pub ring_messages_max: usize,
    pub ring_bytes_max: usize,
    pub tick: Duration,
    pub polling_tick: Duration,
    /// How many sessions may read from the store at the same time.
    pub readers_max: usize,
}

/// A handle on the log, for everybody but its loop.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    settings: LogSettings,
    store: Arc<dyn LogStore>,
    clock: Clock,
    metrics: Metrics,
    hub: Hub,
    /// Written by the loop; read by every session. `None` until the log was reached once.
    ring: RwLock<Option<Ring>>,
    /// The lowest seq that the store still keeps, as of the last tick.
    oldest: AtomicU64,
    /// How far the store's clock is ahead of ours, in milliseconds.
    clock_offset_ms: AtomicI64,
    readers: Semaphore,
    /// To the loop: batches that this replica wrote. Full: the lane waits.
    own: mpsc::Sender<Announcement>,
    state: watch::Sender<BusState>,
    /// Whether nothing new has been seen for a while because Postgres cannot be reached.
    degraded: watch::Sender<bool>,
    /// Hints for the relay, which come over the same wire.
    outbox_filled: Notify,
    /// Hints for those who work on tasks. Full: the oldest are lost, and whoever lost some looks at all.
    tasks_stirred: broadcast::Sender<TaskId>,
    /// The same for those who read sources.
    sources_stirred: broadcast::Sender<(SourceId, bool)>,
    /// What other replicas say of the instances that they read. Full: the oldest are lost, and whoever
    /// lost some reads the store.
    sources_shown: broadcast::Sender<Message>,
}

/// What a session read.
#[derive(Debug)]
pub struct Read {
    /// The life of the log in which it was read.
    pub epoch: Epoch,
    pub frames: Vec<Arc<Frame>>,
    /// Up to here everything that matches is in `frames`.
    pub read_to: Seq,
}

impl Log {
    /// A handle, and the loop that must be run for it.
    pub fn new(
        settings: LogSettings,
        store: Arc<dyn LogStore>,
        hub: Hub,
        clock: Clock,
        metrics: Metrics,
    ) -> (Log, LogLoop) {
        // Lanes wait for room here; each has one batch in hand, so few places are enough.
        let (own, own_batches) = mpsc::channel(16);
        let shared = Arc::new(Shared {
            settings,
            store,
            clock,
            metrics,
            hub,
            ring: RwLock::new(None),
            oldest: AtomicU64::new(1),
            clock_offset_ms: AtomicI64::new(0),
            readers: Semaphore::new(settings.readers_max),
            own,
            state: watch::Sender::new(BusState::Down),
            degraded: watch::Sender::new(false),
            outbox_filled: Notify::new(),
            tasks_stirred: broadcast::Sender::new(STIRRED_MAX),
            sources_stirred: broadcast::Sender::new(STIRRED_MAX),
            sources_shown: broadcast::Sender::new(SHOWN_MAX),
        });
        shared.show_metric(BusState::Down);
        let log = Log { shared };
        (log.clone(), LogLoop::new(log, own_batches))
    }

    /// How far this replica has applied the log; `None` until it was reached once.
    pub fn position(&self) -> Option<Cursor> {
        self.shared.ring.read().as_ref().map(Ring::position)
    }

    /// The lowest seq that is still kept.
    pub fn oldest(&self) -> Seq {
        Seq::from_db(i64::try_from(self.shared.oldest.load(Ordering::Relaxed)).unwrap_or(0))
    }

    /// How far the bus can be trusted, which is what `/readyz` and sessions say of this replica.
    pub fn state(&self) -> watch::Receiver<BusState> {
        self.shared.state.subscribe()
    }

    /// Whether this replica has lost sight of the log for longer than a reconnect takes: what
    /// sessions are told.
    pub fn degraded(&self) -> watch::Receiver<bool> {
        self.shared.degraded.subscribe()
    }

    /// The time by the store's clock, as well as it is known.
    pub fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// Counts a session whose cursor could not be honoured.
    pub fn reset_note(&self, reason: &'static str) {
        self.shared.metrics.log.resets.get_or_create(&reason.into()).inc();
    }

    /// A batch that this replica wrote; nobody needs to read it back.
    pub async fn announce_own(&self, announcement: Announcement) {
        // The loop is gone only when the replica stops, and then the others have it.
        let _ = self.shared.own.send(announcement).await;
    }

    /// Signals: handed to the sessions of this replica at once, since no order is promised for them.
    pub fn signal(&self, messages: &[Message]) {
        let Some(position) = self.position() else { return };
        let frames: Vec<Arc<Frame>> =
            messages.iter().map(|message| Arc::new(Frame::new(message, &position.epoch))).collect();
        self.shared.hub.deliver(&frames);
        #[cfg(feature = "otel")]
        crate::spans::delivered(messages, self.shared.now());
    }

    /// Resolves when a transaction that published from SQL has committed since the last call.
    pub async fn outbox_filled(&self) {
        self.shared.outbox_filled.notified().await;
    }

    /// Which tasks want to be looked at, from now on.
    pub fn tasks_stirred(&self) -> broadcast::Receiver<TaskId> {
        self.shared.tasks_stirred.subscribe()
    }

    /// Which sources want to be looked at, from now on, and whether because something was pushed.
    pub fn sources_stirred(&self) -> broadcast::Receiver<(SourceId, bool)> {
        self.shared.sources_stirred.subscribe()
    }

    /// What other replicas say of instances, from now on.
    pub fn sources_shown(&self) -> broadcast::Receiver<Message> {
        self.shared.sources_shown.subscribe()
    }

    /// The next messages after a place that match, from memory if they are there, else from the store.
    pub async fn read(
        &self,
        patterns: &PatternSet,
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Read, StoreError> {
        match self.read_memory(patterns, after, until, page) {
            Some(read) => Ok(read),
            None => self.read_store(&patterns.to_vec(), after, until, page).await,
        }
    }

    /// `None` when memory does not reach back that far.
    pub fn read_memory(
        &self,
        patterns: &PatternSet,
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Option<Read> {
        let ring = self.shared.ring.read();
        let read = ring.as_ref()?.read(patterns, after, until, page, self.now(), RING_SCAN_MAX)?;
        self.shared.read_note("memory", &read);
        Some(read)
    }

    /// Waits for its turn among all who read the store.
    pub async fn read_store(
        &self,
        patterns: &[Pattern],
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Read, StoreError> {
        let _place = self.shared.reader().await;
        let reached = || {
            let text = "the log was not reached yet";
            self.position().ok_or_else(|| StoreError::Unavailable(text.to_owned()))
        };
        let position = reached()?;
        // Never beyond what was applied: the rest may not be durable yet.
        let until = until.min(position.seq);
        let found = self.shared.store.matching(patterns, after, until, page).await?;
        let now = reached()?.epoch;
        if now != position.epoch {
            // It cannot be told of which life these are.
            return Ok(Read { epoch: now, frames: Vec::new(), read_to: after });
        }
        let frame = |message: &Message| Arc::new(Frame::new(message, &position.epoch));
        let frames = found.messages.iter().map(frame).collect();
        let read = Read { frames, read_to: found.read_to, epoch: position.epoch };
        self.shared.read_note("store", &read);
        Ok(read)
    }

    /// Whether a cursor that is beyond this replica's own position can be one of this log.
    ///
    /// Another replica may be a little ahead; a cursor that the log never reached was made up, or
    /// belongs to a log that was set back.
    pub async fn reaches(&self, seq: Seq) -> bool {
        match self.shared.store.head().await {
            Ok(head) => seq <= head.seq,
            // It cannot be known; the log will say so when it is back.
            Err(_) => true,
        }
    }

    /// The position, once it is at a seq that is known to exist. `None` if that takes too long.
    pub async fn reached(&self, seq: Seq, within: Duration) -> Option<Cursor> {
        let mut pause = REACH_PAUSE;
        let reaching = async {
            loop {
                if let Some(position) = self.position().filter(|position| position.seq >= seq) {
                    return position;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(REACH_PAUSE_MAX);
            }
        };
        tokio::time::timeout(within, reaching).await.ok()
    }

    /// The place before the first message at or after a moment.
    pub async fn since(&self, moment: Timestamp) -> Result<Seq, StoreError> {
        let _place = self.shared.reader().await;
        self.shared.store.since(moment).await
    }
}

impl Shared {
    /// What every look at the head tells besides the head.
    fn note(&self, head: &Head) {
        self.oldest.store(head.oldest.get(), Ordering::Relaxed);
        self.clock_offset_ms.store(head.now.0 - self.clock.now().0, Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now().0 + self.clock_offset_ms.load(Ordering::Relaxed))
    }

    fn show(&self, state: BusState) {
        let shown = *self.state.borrow();
        if shown != state {
            tracing::info!(from = %shown, to = %state, "bus state");
            self.state.send_replace(state);
            self.show_metric(state);
        }
    }

    fn show_metric(&self, state: BusState) {
        for known in BusState::ALL {
            let series = self.metrics.bus.state.get_or_create(&known.as_str().into());
            series.set(i64::from(known == state));
        }
    }

    /// Waits for a place among those who read the store; the semaphore is never closed.
    async fn reader(&self) -> Reader<'_> {
        let place = self.readers.acquire().await.ok();
        self.metrics.log.readers.inc();
        Reader { _place: place, gauge: &self.metrics.log.readers }
    }

    fn read_note(&self, way: &'static str, read: &Read) {
        let count = u64::try_from(read.frames.len()).unwrap_or(u64::MAX);
        self.metrics.log.read.get_or_create(&way.into()).inc_by(count);
    }
}

/// Whatever this replica saw, while the loop does not run it sees nothing.
struct Unseen<'a> {
    shared: &'a Shared,
    stop: &'a CancellationToken,
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.shared.show(BusState::Down);
        }
    }
}

/// A place among those who read the store, counted.
struct Reader<'a> {
    _place: Option<SemaphorePermit<'a>>,
    gauge: &'a Gauge,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests;
