//! What a replica makes of what it hears and sees, each against one promise.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings::bus::{Bus, BusError, BusEvent, BusState};
use tidings::clock::Clock;
use tidings::domain::{Draft, Seq, Timestamp, Topic};
use tidings::notification::Announcement;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::MORNING;
use crate::backend::Backend;
use crate::faults::Faults;
use crate::operation::Trust;
use crate::replica::Replica;

/// How long anything may take that is not to take for ever.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    backend: Backend,
    clock: Clock,
}

impl World {
    fn new() -> World {
        let (clock, _hand) = Clock::test(MORNING);
        World { backend: Backend::in_memory(&clock, 1), clock }
    }

    fn start(&self, at: usize) -> (Replica, Faults) {
        let faults = Faults::default();
        let (store, bus) = self.backend.replica(at, &faults);
        (Replica::start(store, bus, faults.clone(), Trust::Tick, &self.clock), faults)
    }
}

async fn publish(replica: &Replica) {
    let draft = Draft::new(Topic::parse("a").unwrap(), "1");
    replica.publisher.publish(vec![draft]).await.unwrap();
}

async fn is(replica: &Replica, state: BusState) {
    let mut states = replica.log.state();
    let reached = timeout(PATIENCE, states.wait_for(|now| *now == state)).await;
    assert!(reached.is_ok(), "it is {}", *replica.log.state().borrow());
}

async fn degraded(replica: &Replica, told: bool) {
    let mut degraded = replica.log.degraded();
    timeout(PATIENCE, degraded.wait_for(|now| *now == told)).await.unwrap().unwrap();
}

async fn applied(replica: &Replica, seq: u64) {
    let at = || replica.log.position().map(|position| position.seq.get());
    let all = async {
        while at() != Some(seq) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(PATIENCE, all).await.is_ok(), "it is at {:?}", at());
}

/// A bus whose address refuses.
struct Refused;

#[async_trait]
impl Bus for Refused {
    async fn listen(&self, events: mpsc::Sender<BusEvent>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let _ = events.send(BusEvent::Deaf(BusState::Down)).await;
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn signal(&self, _drafts: &[Draft], _at: Timestamp) -> Result<(), BusError> {
        Ok(())
    }

    fn suspect(&self) {}
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_listen_polls_as_long_as_it_sees_the_log() {
    let world = World::new();
    let faults = Faults::default();
    let (store, _) = world.backend.replica(0, &faults);
    let deaf = Replica::start(store, Arc::new(Refused), faults.clone(), Trust::Tick, &world.clock);
    let (other, _) = world.start(1);
    is(&deaf, BusState::Polling).await;
    publish(&other).await;
    applied(&deaf, 1).await;
    sleep(PATIENCE).await;
    is(&deaf, BusState::Polling).await;
    assert!(!*deaf.log.degraded().borrow());
    faults.cut_store();
    is(&deaf, BusState::Down).await;
    degraded(&deaf, true).await;
    faults.heal();
    is(&deaf, BusState::Polling).await;
    degraded(&deaf, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_hears_and_cannot_see_the_log_says_so() {
    let world = World::new();
    let (replica, faults) = world.start(0);
    is(&replica, BusState::Live).await;
    faults.cut_store();
    is(&replica, BusState::Down).await;
    degraded(&replica, true).await;
    faults.heal();
    is(&replica, BusState::Live).await;
    degraded(&replica, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_finds_a_gap_in_the_log_says_so() {
    let world = World::new();
    let (replica, faults) = world.start(0);
    let (other, _) = world.start(1);
    is(&replica, BusState::Live).await;
    publish(&other).await;
    applied(&replica, 1).await;
    faults.lose_news(1);
    faults.lose_rows(true);
    publish(&other).await;
    is(&replica, BusState::Down).await;
    degraded(&replica, true).await;
    assert_eq!(replica.log.position().unwrap().seq, Seq::new(1).unwrap(), "it passes over nothing");
    faults.lose_rows(false);
    applied(&replica, 2).await;
    is(&replica, BusState::Live).await;
}

#[tokio::test(start_paused = true)]
async fn announcements_do_not_wait_for_a_store_that_answers_late() {
    let world = World::new();
    let (replica, faults) = world.start(0);
    let (other, _) = world.start(1);
    is(&replica, BusState::Live).await;
    is(&other, BusState::Live).await;
    faults.slow_store(900);
    let since = Instant::now();
    for seq in 1..=20 {
        let before = Instant::now();
        publish(&other).await;
        applied(&replica, seq).await;
        assert!(before.elapsed() < Duration::from_millis(50), "{:?}", before.elapsed());
        sleep(Duration::from_millis(150)).await;
    }
    assert!(since.elapsed() > Duration::from_secs(3), "it has looked meanwhile");
}

#[tokio::test(start_paused = true)]
async fn an_announcement_of_what_is_not_there_is_given_up() {
    let world = World::new();
    let (replica, faults) = world.start(0);
    publish(&replica).await;
    is(&replica, BusState::Live).await;
    let Backend::Memory(disk) = &world.backend else { unreachable!() };
    disk.wire().announce(&Announcement {
        epoch: replica.log.position().unwrap().epoch,
        first: Seq::ZERO.next(),
        last: Seq::MAX,
        messages: None,
    });
    sleep(Duration::from_secs(3)).await;
    let before = faults.ranges();
    sleep(PATIENCE).await;
    assert_eq!(faults.ranges(), before, "it reads on for what is not there");
    is(&replica, BusState::Live).await;
    publish(&replica).await;
    applied(&replica, 2).await;
}

#[tokio::test(start_paused = true)]
async fn publishers_are_answered_while_the_log_is_busy() {
    let world = World::new();
    let (publisher, lane, _log_loop) = Replica::without_its_log(&world.backend, &world.clock);
    let _lane = lane;
    let mut answered = 0;
    for _ in 0..17 {
        let draft = Draft::new(Topic::parse("a").unwrap(), "1");
        answered += usize::from(publisher.publish(vec![draft]).await.is_ok());
    }
    assert_eq!(answered, 17, "one more than the log has places for");
}
