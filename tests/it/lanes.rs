//! What publishers are told and what is counted, over a store that does not take what it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings::bus::memory::MemoryBus;
use tidings::clock::Clock;
use tidings::domain::{Class, Draft, Epoch, Pattern, Seq, Timestamp, Topic};
use tidings::hub::{Hub, QueueSettings};
use tidings::log::{Log, LogSettings};
use tidings::metrics::Metrics;
use tidings::publish::{Lane, PublishError, PublishSettings, Publisher, SignalLoop, publisher};
use tidings::store::memory::{MemorySettings, MemoryStore};
use tidings::store::{Appended, Found, Head, LogStore, LogWriter, Mark, Page, StoreError, Turn};
use tokio_util::sync::CancellationToken;

pub const MEMORY: MemorySettings = MemorySettings {
    messages_max: 1_000,
    bytes_max: 1 << 20,
    items_max: 100_000,
    retention_s: 3600,
    idempotency_s: 86_400,
};

pub fn memory() -> MemoryStore {
    MemoryStore::new(MEMORY, Clock::system(), MemoryBus::default())
}

fn in_memory() -> Arc<dyn LogStore> {
    Arc::new(memory())
}

pub fn log(store: Arc<dyn LogStore>, metrics: &Metrics) -> Log {
    let queue = QueueSettings { messages_max: 100, bytes_max: 1 << 20 };
    let hub = Hub::new(queue, metrics.hub.clone());
    let settings = LogSettings {
        ring_messages_max: 100,
        ring_bytes_max: 1 << 20,
        tick: Duration::from_secs(1),
        polling_tick: Duration::from_secs(1),
        readers_max: 2,
    };
    Log::new(settings, store, hub, Clock::system(), metrics.clone()).0
}

/// One lane over a store, and the loop for signals.
pub fn publishing(store: &Arc<dyn LogStore>, metrics: &Metrics) -> (Publisher, Lane, SignalLoop) {
    let settings = PublishSettings {
        intake_messages_max: 100,
        intake_bytes_max: 1 << 20,
        batch_messages_max: 100,
        batch_bytes_max: 1 << 20,
        timeout: Duration::from_secs(30),
    };
    let log = log(store.clone(), metrics);
    let bus = Arc::new(MemoryBus::default().member(0));
    let (publisher, mut lanes, signals) = publisher(settings, 1, store, bus, &log, metrics.clone());
    (publisher, lanes.remove(0), signals)
}

/// Reads as memory does, and takes nothing: as Postgres does when its disk is full.
struct Full {
    store: MemoryStore,
    tries: Arc<AtomicUsize>,
}

struct FullWriter(Arc<AtomicUsize>);

#[async_trait]
impl LogWriter for FullWriter {
    async fn write(&mut self, _: &[Draft], _: Turn) -> Result<Appended, StoreError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        // As one that is asked over a network: others have their turn.
        tokio::task::yield_now().await;
        Err(StoreError::Unavailable("the disk is full".to_owned()))
    }

    async fn recover(&mut self, _: &[Draft]) -> Result<Option<Appended>, StoreError> {
        Ok(None)
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn release(&mut self) {}
}

#[async_trait]
impl LogStore for Full {
    async fn head(&self) -> Result<Head, StoreError> {
        self.store.head().await
    }

    async fn barrier(&self) -> Result<(), StoreError> {
        self.store.barrier().await
    }

    async fn range(&self, after: Seq, until: Seq, page: Page) -> Result<Found, StoreError> {
        self.store.range(after, until, page).await
    }

    async fn matching(
        &self,
        patterns: &[Pattern],
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Found, StoreError> {
        self.store.matching(patterns, after, until, page).await
    }

    async fn since(&self, moment: Timestamp) -> Result<Seq, StoreError> {
        self.store.since(moment).await
    }

    async fn mark(&self, seq: Seq) -> Result<Option<Mark>, StoreError> {
        self.store.mark(seq).await
    }

    async fn epoch_renew(&self, old: &Epoch) -> Result<(), StoreError> {
        self.store.epoch_renew(old).await
    }

    async fn writer(&self) -> Result<Box<dyn LogWriter>, StoreError> {
        Ok(Box::new(FullWriter(self.tries.clone())))
    }
}

fn draft(class: Class) -> Draft {
    Draft { class, ..Draft::new(Topic::parse("a").unwrap(), "1") }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_can_be_reached_and_takes_nothing_is_asked_ever_more_seldom() {
    let tries = Arc::new(AtomicUsize::new(0));
    let store: Arc<dyn LogStore> = Arc::new(Full { store: memory(), tries: tries.clone() });
    let (publisher, mut lane, _signals) = publishing(&store, &Metrics::new());
    let stop = CancellationToken::new();
    let first = publisher.publish(vec![draft(Class::Event)]);
    let later = async {
        // Time is paused, and goes on when nothing else can.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let troubled = publisher.troubled();
        let refused = publisher.publish(vec![draft(Class::Event)]).await;
        (troubled, refused)
    };
    let running = async {
        let _ = lane.run(&stop).await;
    };
    let (troubled, refused) = tokio::select! {
        (_, later) = async { tokio::join!(first, later) } => later,
        () = running => panic!("the lane ended"),
    };
    assert!(troubled, "publishers wait for a store that takes nothing");
    assert_eq!(refused, Err(PublishError::Unavailable));
    let tries = tries.load(Ordering::Relaxed);
    assert!((10..100).contains(&tries), "{tries} tries in 30 seconds");
}

#[tokio::test]
async fn a_signal_that_no_notification_can_carry_is_refused_alone() {
    let (publisher, _lane, _signals) = publishing(&in_memory(), &Metrics::new());
    let mut large = draft(Class::Signal);
    large.data = "1".repeat(7_000).into();
    // Each of these is six bytes as JSON.
    large.key = Some("\u{1}".repeat(200).into());
    let refused = publisher.publish(vec![large]).await;
    assert!(matches!(refused, Err(PublishError::TooLarge(_))), "{refused:?}");
    assert!(publisher.publish(vec![draft(Class::Signal)]).await.is_ok());
}

#[tokio::test]
async fn signals_that_wait_are_bounded_in_bytes() {
    let metrics = Metrics::new();
    let (publisher, _lane, _signals) = publishing(&in_memory(), &metrics);
    let mut signal = draft(Class::Signal);
    signal.data = "1".repeat(7_000).into();
    // Nobody takes them: far fewer than the requests that may wait.
    let mut taken = 0;
    while publisher.publish(vec![signal.clone(); 100]).await.is_ok() {
        taken += 1;
        assert!(taken < 100, "{taken} requests of 700 kB each wait");
    }
    assert!(taken > 10);
    let page = metrics.encode();
    assert!(page.contains(&format!("tidings_publish_signals_total {}\n", taken * 100)), "{page}");
    assert!(page.contains("tidings_publish_messages_total 0\n"), "signals are not committed");
}
