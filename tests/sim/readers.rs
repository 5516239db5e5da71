//! Sessions that read the log while other things happen to them, each against one promise.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings::bus::{Bus, BusError, BusEvent};
use tidings::clock::Clock;
use tidings::domain::{Class, Cursor, Draft, Message, Pattern, PatternSet, Seq, Timestamp, Topic};
use tidings::feed::{Feed, Item, Start};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::MORNING;
use crate::backend::Backend;
use crate::faults::Faults;
use crate::operation::Trust;
use crate::replica::{PAGE, Replica};

/// More than the ring of a replica holds.
const MESSAGES: u64 = 60;

/// How long a client that is treated well waits at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replica with a log that its ring does not reach back through.
async fn replica() -> (Replica, Faults, Cursor) {
    let (clock, _hand) = Clock::test(MORNING);
    let backend = Backend::in_memory(&clock, 1);
    let faults = Faults::default();
    let (store, bus) = backend.replica(0, &faults);
    let replica = Replica::start(store, bus, faults.clone(), Trust::Tick, &clock);
    for number in 0..MESSAGES {
        let draft = Draft::new(Topic::parse("a").unwrap(), number.to_string());
        replica.publisher.publish(vec![draft]).await.unwrap();
    }
    let applied = async || replica.log.position().map(|position| position.seq.get());
    while applied().await != Some(MESSAGES) {
        sleep(Duration::from_millis(1)).await;
    }
    let begin = Cursor::new(replica.log.position().unwrap().epoch, Seq::ZERO);
    (replica, faults, begin)
}

async fn open(replica: &Replica, begin: &Cursor) -> Feed {
    let patterns: PatternSet = [Pattern::parse("a").unwrap()].into_iter().collect();
    let start = Start::After(begin.clone());
    Feed::open(replica.log.clone(), replica.hub.clone(), PAGE, patterns, start).await.unwrap()
}

fn seqs(items: &[Item]) -> Vec<u64> {
    let seq = |item: &Item| match item {
        Item::Message { frame, .. } => frame.seq.map(Seq::get),
        _ => None,
    };
    items.iter().filter_map(seq).collect()
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_called_away_goes_on_where_it_was() {
    let (replica, faults, begin) = replica().await;
    let mut feed = open(&replica, &begin).await;
    faults.slow_store(200);
    let before = faults.reads();
    // A client that pings ten times while one page is read.
    let mut got = Vec::new();
    let until = Instant::now() + PATIENCE;
    while got.len() < usize::try_from(MESSAGES).unwrap() && Instant::now() < until {
        let mut items = Vec::new();
        tokio::select! {
            () = feed.next(&mut items) => got.extend(seqs(&items)),
            () = sleep(Duration::from_millis(20)) => {}
        }
    }
    assert_eq!(got, (1..=MESSAGES).collect::<Vec<_>>());
    // What is older than the ring of 24, in pages of seven.
    assert_eq!(faults.reads() - before, 6, "each page was read once");
}

#[tokio::test(start_paused = true)]
async fn what_changes_during_a_read_is_neither_lost_nor_sent() {
    let (replica, faults, begin) = replica().await;
    let mut feed = open(&replica, &begin).await;
    faults.slow_store(200);
    let called_away = async |feed: &mut Feed| {
        let mut items = Vec::new();
        tokio::select! {
            () = feed.next(&mut items) => panic!("too early: {items:?}"),
            () = sleep(Duration::from_millis(20)) => {}
        }
    };
    let next = async |feed: &mut Feed| {
        let mut items = Vec::new();
        timeout(PATIENCE, feed.next(&mut items)).await.unwrap();
        seqs(&items)
    };
    // Subscribed while a page is read: of it comes what is published from here on, all of it.
    called_away(&mut feed).await;
    feed.subscribe(Pattern::parse("b").unwrap(), Start::Now).await.unwrap();
    let draft = Draft::new(Topic::parse("b").unwrap(), "1");
    replica.publisher.publish(vec![draft]).await.unwrap();
    let mut got = Vec::new();
    while got.last() != Some(&(MESSAGES + 1)) {
        got.extend(next(&mut feed).await);
    }
    assert_eq!(got, (1..=MESSAGES + 1).collect::<Vec<_>>());
    // A replay that is given up while it is read sends nothing more.
    feed.subscribe(Pattern::parse("*").unwrap(), Start::After(begin)).await.unwrap();
    called_away(&mut feed).await;
    feed.unsubscribe(&Pattern::parse("*").unwrap());
    let draft = Draft::new(Topic::parse("b").unwrap(), "2");
    replica.publisher.publish(vec![draft]).await.unwrap();
    assert_eq!(next(&mut feed).await, [MESSAGES + 2]);
}

#[tokio::test(start_paused = true)]
async fn signals_without_end_do_not_keep_a_session_from_the_log() {
    let (replica, _faults, begin) = replica().await;
    let mut feed = open(&replica, &begin).await;
    let mut draft = Draft::new(Topic::parse("a").unwrap(), "0");
    draft.class = Class::Signal;
    let mut got = Vec::new();
    let mut signals = 0;
    for _ in 0..40 {
        // More than fits, whenever the socket has taken what there was.
        for number in 0..20 {
            draft.key = Some(number.to_string().into());
            replica.log.signal(&[Message::from_draft(&draft, None, MORNING)]);
        }
        let mut items = Vec::new();
        timeout(PATIENCE, feed.next(&mut items)).await.unwrap();
        signals += items.len() - seqs(&items).len();
        got.extend(seqs(&items));
    }
    assert_eq!(got, (1..=MESSAGES).collect::<Vec<_>>());
    assert!(signals > 0);
}

/// A bus that carries nothing, and takes for ever to find that out.
struct Stuck;

#[async_trait]
impl Bus for Stuck {
    async fn listen(&self, events: mpsc::Sender<BusEvent>, stop: CancellationToken) {
        let _ = events.send(BusEvent::Listening).await;
        stop.cancelled().await;
    }

    async fn signal(&self, _drafts: &[Draft], _at: Timestamp) -> Result<(), BusError> {
        std::future::pending().await
    }

    fn suspect(&self) {}
}

#[tokio::test(start_paused = true)]
async fn signals_wait_for_no_bus_on_the_replica_that_took_them() {
    let (clock, _hand) = Clock::test(MORNING);
    let backend = Backend::in_memory(&clock, 1);
    let faults = Faults::default();
    let (store, _) = backend.replica(0, &faults);
    let replica = Replica::start(store, Arc::new(Stuck), faults, Trust::Tick, &clock);
    while replica.log.position().is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    let begin = replica.log.position().unwrap();
    let mut feed = open(&replica, &begin).await;
    let mut draft = Draft::new(Topic::parse("a").unwrap(), "0");
    draft.class = Class::Signal;
    for _ in 0..3 {
        replica.publisher.publish(vec![draft.clone()]).await.unwrap();
        let mut signals = 0;
        while signals == 0 {
            let mut items = Vec::new();
            timeout(Duration::from_secs(1), feed.next(&mut items)).await.unwrap();
            let is_message = |item: &&Item| matches!(item, Item::Message { .. });
            signals = items.iter().filter(is_message).count();
        }
    }
}
