//! How the loop goes on after it failed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::enter::reach;
use super::ring::Ring;
use super::*;
use crate::bus::memory::MemoryBus;
use crate::domain::{Draft, Pattern, Topic};
use crate::hub::QueueSettings;
use crate::store::memory::{MemorySettings, MemoryStore};

fn log() -> (Log, Hub) {
    let (clock, _hand) = Clock::test(Timestamp(1_790_000_000_000));
    let settings = MemorySettings {
        messages_max: 100,
        bytes_max: 1 << 20,
        items_max: 100_000,
        retention_s: 3_600,
        idempotency_s: 3_600,
    };
    let store = MemoryStore::new(settings, clock.clone(), MemoryBus::default());
    let metrics = Metrics::new();
    let hub =
        Hub::new(QueueSettings { messages_max: 100, bytes_max: 1 << 20 }, metrics.hub.clone());
    let settings = LogSettings {
        ring_messages_max: 100,
        ring_bytes_max: 1 << 20,
        tick: Duration::from_secs(1),
        polling_tick: Duration::from_secs(1),
        readers_max: 1,
    };
    let (log, _) = Log::new(settings, Arc::new(store), hub.clone(), clock, metrics);
    (log, hub)
}

#[tokio::test]
async fn what_the_ring_has_and_the_hub_was_not_given_is_read_by_the_sessions() {
    let (log, hub) = log();
    let epoch = Epoch::parse("e").unwrap();
    let mut ring = Ring::new(Cursor::new(epoch.clone(), Seq::ZERO), 100, 1 << 20);
    let queue = hub.join();
    hub.subscribe(&queue, &Pattern::parse("a").unwrap());
    assert!(queue.go_live(Seq::ZERO));
    // The loop failed here: in the ring, and not in the hub.
    let draft = Draft::new(Topic::parse("a").unwrap(), "1");
    let message = Message::from_draft(&draft, Seq::new(1), Timestamp(0));
    ring.push(Arc::new(Frame::new(&message, &epoch)));
    *log.shared.ring.write() = Some(ring);
    let place = reach(&log.shared, &CancellationToken::new()).await.unwrap();
    assert_eq!(place.order.applied(), Seq::new(1).unwrap());
    assert!(queue.is_behind());
    assert_eq!(hub.delivered(), Seq::new(1).unwrap());
}

#[test]
fn the_bus_is_in_one_state_at_a_time_from_the_beginning() {
    let (log, _) = log();
    let shown = |state: &str| {
        let line = format!("tidings_bus_state{{state=\"{state}\"}} 1\n");
        log.shared.metrics.encode().contains(&line)
    };
    assert!(shown("down") && !shown("live"));
    log.shared.show(BusState::Live);
    assert!(shown("live") && !shown("down"));
}
