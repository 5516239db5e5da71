//! One suite over every bus: what replicas are told, whoever carries it.

use std::sync::Arc;
use std::time::Duration;

use tidings::bus::memory::MemoryBus;
use tidings::bus::postgres::PostgresBus;
use tidings::bus::{Bus, BusEvent};
use tidings::clock::Clock;
use tidings::domain::{Class, Draft, Seq, Timestamp, Topic};
use tidings::metrics::Metrics;
use tidings::store::LogStore;
use tidings::store::memory::{MemorySettings, MemoryStore};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fleet::PATIENCE;
use crate::harness;

/// Two replicas on one bus, and a log whose batches are announced on it.
struct Subject {
    members: [Arc<dyn Bus>; 2],
    log: Arc<dyn LogStore>,
}

async fn memory() -> Subject {
    let wire = MemoryBus::default();
    let settings = MemorySettings {
        messages_max: 1_000,
        bytes_max: 1 << 20,
        items_max: 100_000,
        retention_s: 3600,
        idempotency_s: 86_400,
    };
    let log = Arc::new(MemoryStore::new(settings, Clock::system(), wire.clone()));
    Subject { members: [1, 2].map(|own| Arc::new(wire.member(own)) as Arc<dyn Bus>), log }
}

async fn postgres() -> Subject {
    let connector = harness::database().await;
    let store = harness::store(connector.clone());
    store.settings_store().await.unwrap();
    let member = |origin: &str| {
        let metrics = Metrics::new();
        let silence = Duration::from_secs(1);
        let database = store.database().clone();
        Arc::new(PostgresBus::new(connector.clone(), database, origin, silence, metrics.bus))
    };
    Subject { members: [member("one"), member("two")], log: Arc::new(store) }
}

suite! {
    a_member_is_told_first_that_it_listens
    what_is_written_is_announced_to_everybody
    signals_reach_the_others_alone
    a_member_that_takes_nothing_holds_up_nobody
    a_member_that_stops_hears_no_more
}

/// A member that listens.
struct Ear {
    events: mpsc::Receiver<BusEvent>,
    stop: CancellationToken,
    listening: tokio::task::JoinHandle<()>,
}

impl Ear {
    fn open(bus: &Arc<dyn Bus>, room: usize) -> Ear {
        let (sender, events) = mpsc::channel(room);
        let (bus, stop) = (bus.clone(), CancellationToken::new());
        let stopped = stop.clone();
        #[expect(clippy::disallowed_methods, reason = "ended by the test")]
        let listening = tokio::spawn(async move { bus.listen(sender, stopped).await });
        Ear { events, stop, listening }
    }

    async fn listening(bus: &Arc<dyn Bus>) -> Ear {
        let mut ear = Ear::open(bus, 100);
        assert_eq!(ear.next().await, BusEvent::Listening);
        ear
    }

    async fn next(&mut self) -> BusEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("something is heard").unwrap()
    }
}

fn draft(data: &str) -> Draft {
    Draft::new(Topic::parse("a").unwrap(), data)
}

fn signal(data: &str) -> Draft {
    Draft { class: Class::Signal, ..draft(data) }
}

async fn a_member_is_told_first_that_it_listens(subject: Subject) {
    for bus in &subject.members {
        assert_eq!(Ear::open(bus, 1).next().await, BusEvent::Listening);
    }
}

async fn what_is_written_is_announced_to_everybody(subject: Subject) {
    let [mut one, mut two] =
        [&subject.members[0], &subject.members[1]].map(|bus| Ear::open(bus, 9));
    let mut writer = subject.log.writer().await.unwrap();
    for ear in [&mut one, &mut two] {
        assert_eq!(ear.next().await, BusEvent::Listening);
    }
    for number in 1..=3_u64 {
        let drafts = [draft(&number.to_string())];
        writer.write(&drafts, Box::new(())).await.unwrap();
        for ear in [&mut one, &mut two] {
            let BusEvent::Announced(announced) = ear.next().await else {
                panic!("an announcement is next");
            };
            let seq = Seq::new(number).unwrap();
            assert_eq!((announced.first, announced.last), (seq, seq));
            let messages = announced.messages.expect("a small batch comes with its messages");
            assert_eq!(&*messages[0].data, number.to_string());
        }
    }
}

async fn signals_reach_the_others_alone(subject: Subject) {
    let [one, two] = &subject.members;
    let (mut own, mut other) = (Ear::listening(one).await, Ear::listening(two).await);
    one.signal(&[signal("1"), signal("2")], Timestamp(7)).await.unwrap();
    let BusEvent::Signals(signals) = other.next().await else { panic!("signals are next") };
    assert_eq!(signals.iter().map(|signal| &*signal.data).collect::<Vec<_>>(), ["1", "2"]);
    assert!(signals.iter().all(|signal| signal.seq.is_none() && signal.at == Timestamp(7)));
    // What the sender hears next is what the other one says.
    two.signal(&[signal("3")], Timestamp(8)).await.unwrap();
    let BusEvent::Signals(signals) = own.next().await else { panic!("signals are next") };
    assert_eq!(&*signals[0].data, "3");
}

async fn a_member_that_takes_nothing_holds_up_nobody(subject: Subject) {
    let [one, two] = &subject.members;
    let mut deaf = Ear::open(one, 1);
    let mut awake = Ear::listening(two).await;
    assert_eq!(deaf.next().await, BusEvent::Listening);
    let mut writer = subject.log.writer().await.unwrap();
    for number in 1..=50_u64 {
        let drafts = [draft("0")];
        timeout(PATIENCE, writer.write(&drafts, Box::new(()))).await.unwrap().unwrap();
        let BusEvent::Announced(announced) = awake.next().await else { panic!("it is announced") };
        assert_eq!(announced.last.get(), number);
    }
}

async fn a_member_that_stops_hears_no_more(subject: Subject) {
    let [one, two] = &subject.members;
    let (ear, mut other) = (Ear::listening(one).await, Ear::listening(two).await);
    ear.stop.cancel();
    timeout(PATIENCE, ear.listening).await.expect("it stops").unwrap();
    let mut events = ear.events;
    let mut writer = subject.log.writer().await.unwrap();
    writer.write(&[draft("0")], Box::new(())).await.unwrap();
    assert!(matches!(other.next().await, BusEvent::Announced(_)));
    assert_eq!(events.recv().await, None, "its way is closed");
}
