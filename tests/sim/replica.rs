//! A replica without sockets: the parts and loops that `app` runs, over a store and a bus that can fail.

use std::sync::Arc;
use std::time::Duration;

use tidings::api::SchemaCheck;
use tidings::app::loops::LogLoops;
use tidings::bus::Bus;
use tidings::clock::Clock;
use tidings::hub::{Hub, QueueSettings};
use tidings::log::{Log, LogSettings};
use tidings::metrics::Metrics;
use tidings::publish::{PublishSettings, Publisher, publisher};
use tidings::recovery::{Recovery, RecoverySettings};
use tidings::store::{LogStore, Page};
use tidings::supervise::{Shutdown, Supervisor};
use tokio::sync::watch;

use crate::faults::{Faults, FaultyStore};
use crate::operation::Trust;
use crate::wire::FaultyBus;

/// Small, so that every bound is reached.
const QUEUE: QueueSettings = QueueSettings { messages_max: 12, bytes_max: 1 << 20 };
const RING_MESSAGES_MAX: usize = 24;
pub const PAGE: Page = Page { messages_max: 7, bytes_max: 1 << 20 };

/// A tick that comes never.
const HOUR: Duration = Duration::from_secs(3600);

/// How long loops have to end; what takes longer was cut off from everything.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Replica {
    pub log: Log,
    pub hub: Hub,
    pub publisher: Publisher,
    metrics: Metrics,
    supervisor: Supervisor,
    /// Says to the loops that the schema is right, for as long as it is there.
    _ready: watch::Sender<SchemaCheck>,
}

impl Replica {
    pub fn start(
        store: FaultyStore,
        bus: Arc<dyn Bus>,
        faults: Faults,
        trust: Trust,
        clock: &Clock,
    ) -> Replica {
        let metrics = Metrics::new();
        let supervisor = Supervisor::new(Shutdown::new(), metrics.clone());
        let store = Arc::new(store);
        let log_store: Arc<dyn LogStore> = store.clone();
        let bus: Arc<dyn Bus> = Arc::new(FaultyBus { bus, faults });
        let hub = Hub::new(QUEUE, metrics.hub.clone());
        let (tick, polling_tick) = match trust {
            Trust::Bus => (HOUR, HOUR),
            Trust::Tick => (Duration::from_secs(1), Duration::from_millis(200)),
        };
        let settings = LogSettings {
            ring_messages_max: RING_MESSAGES_MAX,
            ring_bytes_max: 1 << 20,
            tick,
            polling_tick,
            readers_max: 2,
        };
        let (log, log_loop) =
            Log::new(settings, log_store.clone(), hub.clone(), clock.clone(), metrics.clone());
        let settings = PublishSettings {
            intake_messages_max: 200,
            intake_bytes_max: 1 << 20,
            batch_messages_max: 20,
            batch_bytes_max: 1 << 20,
            timeout: Duration::from_secs(5),
        };
        let (publisher, lanes, signals) =
            publisher(settings, 2, &log_store, bus.clone(), &log, metrics.clone());
        let recovery =
            Recovery::new(RecoverySettings::default(), store, log.clone(), metrics.clone());
        let (known, ready) = watch::channel(SchemaCheck::Right);
        LogLoops { bus, log: log_loop, lanes, signals, recovery }.start(&supervisor, &ready);
        Replica { log, hub, publisher, metrics, supervisor, _ready: known }
    }

    /// All loops go at once, wherever they are.
    pub async fn kill(self) -> Option<String> {
        self.supervisor.join_all(Duration::ZERO).await;
        self.health()
    }

    pub async fn stop(self) -> Option<String> {
        self.supervisor.shutdown().stop();
        self.supervisor.join_all(STOP_TIMEOUT).await;
        self.health()
    }

    /// What went wrong inside that nobody outside can see.
    pub fn health(&self) -> Option<String> {
        let text = self.metrics.encode();
        text.lines()
            .find(|line| line.starts_with("tidings_supervise_panics_total{"))
            .map(|line| format!("a loop panicked: {line}"))
    }
}
