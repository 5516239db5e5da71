//! A store that one replica cannot reach, or reaches late, or whose answers it loses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings::domain::{Draft, Epoch, Pattern, Seq, Timestamp};
use tidings::store::{
    Appended, Found, Head, LogStore, LogWriter, Mark, Page, Relayed, StoreError, Turn, Upkeep,
};
use tokio::sync::{oneshot, watch};

/// What a loop says that was made to panic.
const MEANT: &str = "this was meant to happen";

/// The switches of one replica. Written by the world, read by what the replica was given.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Switches>,
}

struct Switches {
    store_cut: watch::Sender<bool>,
    bus_cut: watch::Sender<bool>,
    delay_ms: AtomicU64,
    /// How many reads of sessions have begun.
    reads: AtomicUsize,
    /// How many reads of the loop that applies the log have begun.
    ranges: AtomicUsize,
    /// Whether the rows of such reads are missing.
    rows_lost: AtomicBool,
    /// How many barriers panic, and the loop that awaits them with them.
    panics: AtomicUsize,
    answers_lost: AtomicUsize,
    news_lost: AtomicUsize,
    news_doubled: AtomicUsize,
    news_late: AtomicUsize,
}

impl Default for Faults {
    fn default() -> Faults {
        let shared = Switches {
            store_cut: watch::Sender::new(false),
            bus_cut: watch::Sender::new(false),
            delay_ms: AtomicU64::new(0),
            reads: AtomicUsize::new(0),
            ranges: AtomicUsize::new(0),
            rows_lost: AtomicBool::new(false),
            panics: AtomicUsize::new(0),
            answers_lost: AtomicUsize::new(0),
            news_lost: AtomicUsize::new(0),
            news_doubled: AtomicUsize::new(0),
            news_late: AtomicUsize::new(0),
        };
        Faults { shared: Arc::new(shared) }
    }
}

/// What becomes of one announcement.
pub enum Fate {
    Heard,
    Lost,
    Doubled,
    Late,
}

impl Faults {
    pub fn cut_store(&self) {
        self.shared.store_cut.send_replace(true);
    }

    pub fn cut_bus(&self) {
        self.shared.bus_cut.send_replace(true);
    }

    pub fn slow_store(&self, ms: u64) {
        self.shared.delay_ms.store(ms, Ordering::Relaxed);
    }

    pub fn lose_answer(&self) {
        self.shared.answers_lost.fetch_add(1, Ordering::Relaxed);
    }

    pub fn lose_news(&self, count: usize) {
        self.shared.news_lost.fetch_add(count, Ordering::Relaxed);
    }

    pub fn double_news(&self, count: usize) {
        self.shared.news_doubled.fetch_add(count, Ordering::Relaxed);
    }

    pub fn late_news(&self, count: usize) {
        self.shared.news_late.fetch_add(count, Ordering::Relaxed);
    }

    pub fn reads(&self) -> usize {
        self.shared.reads.load(Ordering::Relaxed)
    }

    pub fn ranges(&self) -> usize {
        self.shared.ranges.load(Ordering::Relaxed)
    }

    pub fn lose_rows(&self, lost: bool) {
        self.shared.rows_lost.store(lost, Ordering::Relaxed);
    }

    pub fn panic(&self) {
        self.shared.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub fn heal(&self) {
        let switches = &self.shared;
        switches.delay_ms.store(0, Ordering::Relaxed);
        for count in [
            &switches.answers_lost,
            &switches.news_lost,
            &switches.news_doubled,
            &switches.news_late,
            &switches.panics,
        ] {
            count.store(0, Ordering::Relaxed);
        }
        switches.store_cut.send_replace(false);
        switches.bus_cut.send_if_modified(|cut| std::mem::replace(cut, false));
    }

    pub fn bus(&self) -> watch::Receiver<bool> {
        self.shared.bus_cut.subscribe()
    }

    pub fn fate(&self) -> Fate {
        let switches = &self.shared;
        if taken(&switches.news_lost) {
            Fate::Lost
        } else if taken(&switches.news_doubled) {
            Fate::Doubled
        } else if taken(&switches.news_late) {
            Fate::Late
        } else {
            Fate::Heard
        }
    }

    /// Does something with the store, as far as it can be reached.
    async fn reach<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut cut = self.shared.store_cut.subscribe();
        let delay = Duration::from_millis(self.shared.delay_ms.load(Ordering::Relaxed));
        let work = async {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            work.await
        };
        tokio::select! {
            biased;
            _ = cut.wait_for(|cut| *cut) => Err(StoreError::Unavailable("cut off".to_owned())),
            result = work => result,
        }
    }
}

fn taken(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// A store and its upkeep, as one replica reaches them.
pub struct FaultyStore {
    pub store: Arc<dyn LogStore>,
    pub upkeep: Arc<dyn Upkeep>,
    /// What the replica's lanes write with, if it is not what the store gives by itself.
    pub writer: Option<Box<dyn Fn() -> Box<dyn LogWriter> + Send + Sync>>,
    pub faults: Faults,
}

#[async_trait]
impl LogStore for FaultyStore {
    async fn head(&self) -> Result<Head, StoreError> {
        self.faults.reach(self.store.head()).await
    }

    async fn barrier(&self) -> Result<(), StoreError> {
        if taken(&self.faults.shared.panics) {
            // Without the hook, which would print it.
            std::panic::resume_unwind(Box::new(MEANT));
        }
        self.faults.reach(self.store.barrier()).await
    }

    async fn range(&self, after: Seq, until: Seq, page: Page) -> Result<Found, StoreError> {
        self.faults.shared.ranges.fetch_add(1, Ordering::Relaxed);
        let mut found = self.faults.reach(self.store.range(after, until, page)).await?;
        if self.faults.shared.rows_lost.load(Ordering::Relaxed) {
            found.messages.clear();
        }
        Ok(found)
    }

    async fn matching(
        &self,
        patterns: &[Pattern],
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Found, StoreError> {
        self.faults.shared.reads.fetch_add(1, Ordering::Relaxed);
        self.faults.reach(self.store.matching(patterns, after, until, page)).await
    }

    async fn since(&self, moment: Timestamp) -> Result<Seq, StoreError> {
        self.faults.reach(self.store.since(moment)).await
    }

    async fn mark(&self, seq: Seq) -> Result<Option<Mark>, StoreError> {
        self.faults.reach(self.store.mark(seq)).await
    }

    async fn epoch_renew(&self, old: &Epoch) -> Result<(), StoreError> {
        self.faults.reach(self.store.epoch_renew(old)).await
    }

    async fn writer(&self) -> Result<Box<dyn LogWriter>, StoreError> {
        let writer = match &self.writer {
            Some(writer) => writer(),
            None => self.store.writer().await?,
        };
        Ok(Box::new(FaultyWriter { writer, faults: self.faults.clone() }))
    }
}

#[async_trait]
impl Upkeep for FaultyStore {
    async fn outbox_relay(&self) -> Result<Option<Relayed>, StoreError> {
        self.faults.reach(self.upkeep.outbox_relay()).await
    }

    async fn outbox_oldest(&self) -> Result<Option<Duration>, StoreError> {
        self.faults.reach(self.upkeep.outbox_oldest()).await
    }

    async fn partition_ahead(&self) -> Result<(), StoreError> {
        self.faults.reach(self.upkeep.partition_ahead()).await
    }

    async fn partition_expire(&self) -> Result<Vec<Seq>, StoreError> {
        self.faults.reach(self.upkeep.partition_expire()).await
    }

    async fn partition_drop(&self, first: Seq) -> Result<u64, StoreError> {
        self.faults.reach(self.upkeep.partition_drop(first)).await
    }

    async fn idempotency_expire(&self) -> Result<u64, StoreError> {
        self.faults.reach(self.upkeep.idempotency_expire()).await
    }
}

struct FaultyWriter {
    writer: Box<dyn LogWriter>,
    faults: Faults,
}

/// Says when the turn has passed on, which is when the batch is committed.
struct Passed {
    _turn: Turn,
    told: Option<oneshot::Sender<()>>,
}

impl Drop for Passed {
    fn drop(&mut self) {
        let _ = self.told.take().map(|told| told.send(()));
    }
}

#[async_trait]
impl LogWriter for FaultyWriter {
    async fn write(&mut self, drafts: &[Draft], turn: Turn) -> Result<Appended, StoreError> {
        if !taken(&self.faults.shared.answers_lost) {
            return self.faults.reach(self.writer.write(drafts, turn)).await;
        }
        let (told, mut committed) = oneshot::channel();
        let turn = Box::new(Passed { _turn: turn, told: Some(told) });
        let writing = self.faults.reach(self.writer.write(drafts, turn));
        tokio::select! {
            biased;
            _ = &mut committed => Err(StoreError::Unavailable("the answer was lost".to_owned())),
            result = writing => result,
        }
    }

    async fn recover(&mut self, drafts: &[Draft]) -> Result<Option<Appended>, StoreError> {
        self.faults.reach(self.writer.recover(drafts)).await
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        self.faults.reach(self.writer.renew()).await
    }

    async fn release(&mut self) {
        let release = async {
            self.writer.release().await;
            Ok(())
        };
        let _ = self.faults.reach(release).await;
    }
}
