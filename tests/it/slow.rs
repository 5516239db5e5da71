//! Clients that take little, or nothing, or never answer: they delay themselves, and nobody else.

mod client;
#[cfg(target_os = "linux")]
mod proof;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use self::client::{Client, Taken};
use crate::fleet::{PATIENCE, Replica, until};
use crate::follower::{Follower, Way};

const WAYS: [Way; 2] = [Way::WebSocket, Way::Sse];

/// Large messages, of which a socket's buffers hold a few dozen.
const LARGE_BYTES: usize = 200_000;

/// More of them than all buffers on the way can hold.
const MANY: usize = 60;

/// Publishes, and waits until it is applied; returns its seq.
async fn publish(replica: &Replica, message: Value) -> u64 {
    let answer = replica.publish(&message).await;
    let seq = answer["messages"][0]["seq"].as_u64();
    until("the message is applied", async || {
        Some(replica.metric("tidings_log_applied_seq").await) >= seq
    })
    .await;
    seq.unwrap_or(0)
}

async fn event(replica: &Replica, data: Value) -> u64 {
    publish(replica, json!({"topic": "a", "data": data})).await
}

fn seqs<'a>(frames: impl Iterator<Item = &'a Value>) -> Vec<u64> {
    frames.map(|frame| frame["seq"].as_u64().unwrap()).collect()
}

/// Publishes one after the other until a counter has moved; returns the seqs.
async fn publish_until(
    replica: &Replica,
    counter: &str,
    message: impl Fn(usize) -> Value,
) -> Vec<u64> {
    let before = replica.metric(counter).await;
    let mut seqs = Vec::new();
    while replica.metric(counter).await == before {
        assert!(seqs.len() < 2 * MANY, "{counter} does not move");
        seqs.push(publish(replica, message(seqs.len())).await);
    }
    seqs
}

async fn stops_and_goes_on(way: Way) {
    let settings = [("TIDINGS_SESSION_QUEUE_MESSAGES_MAX", "16"), ("TIDINGS_STALL_S", "600")];
    let replica = Replica::in_memory("slow", &settings).await;
    let other = Follower::start(way, vec![replica.url.clone()], "b", None);
    other.connected().await;
    let mut client = Client::open(&replica, way, "topics=a").await;
    let mut events = vec![event(&replica, json!("first")).await];
    client.until("\"first\"").await;

    // From here on it takes nothing. Of what waits for it the newest state stays, ...
    let large = "x".repeat(LARGE_BYTES);
    let state = |_| json!({"topic": "a", "class": "state", "key": "k", "data": large});
    let coalesced = "tidings_hub_coalesced_total";
    let mut states = publish_until(&replica, coalesced, state).await;
    // The socket is full, and its session not just late, when that happens again and again.
    let mut fresh = 0;
    while fresh < 8 {
        let before = replica.metric(coalesced).await;
        for _ in 0..10 {
            states.push(publish(&replica, state(0)).await);
        }
        fresh = replica.metric(coalesced).await - before;
        assert!(states.len() < 4 * MANY, "the socket is never full: {fresh} of 10 coalesced");
    }
    // ... signals are dropped and counted, ...
    let signal = |number: usize| {
        let key = number.to_string();
        json!({"topic": "a", "class": "signal", "key": key, "data": number})
    };
    let signals = publish_until(&replica, "tidings_hub_dropped_signals_total", signal).await;
    // ... and no event is queued beyond the bound.
    let small = |number| json!({"topic": "a", "data": number});
    events.extend(publish_until(&replica, "tidings_hub_behind_total", small).await);
    for number in 0..MANY {
        events.push(event(&replica, json!(number)).await);
        publish(&replica, json!({"topic": "b", "data": number})).await;
    }
    assert_eq!(other.has(MANY).await.connects, 1, "the other one has had everything meanwhile");
    events.push(event(&replica, json!("last")).await);

    client.until("\"last\"").await;
    let taken = client.taken();
    assert_eq!(seqs(taken.class("event")), events, "{way:?}: every event once, in order");
    let had = seqs(taken.class("state"));
    assert_eq!(had.last(), states.last(), "{way:?}: the newest state");
    assert!(had.len() < states.len() && had.is_sorted(), "{way:?}: older ones were left out");
    let dropped: u64 = taken.of("gap").map(|gap| gap["dropped"].as_u64().unwrap()).sum();
    let had = taken.class("signal").count() as u64;
    assert!(dropped > 0 && taken.of("gap").all(|gap| gap["topic"] == "a"));
    assert_eq!(had + dropped, signals.len() as u64, "{way:?}: every signal came or was counted");
    assert_eq!(taken.of("reset").count(), 0);
    // It is live again: what comes now is queued for it.
    let read = replica.metric("tidings_log_read_total{way=\"memory\"}").await;
    event(&replica, json!("afterwards")).await;
    client.until("\"afterwards\"").await;
    assert_eq!(replica.metric("tidings_log_read_total{way=\"memory\"}").await, read);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stops_taking_reads_the_log_when_it_goes_on() {
    for way in WAYS {
        stops_and_goes_on(way).await;
    }
}

/// Takes a byte now and then, or nothing at all, until the replica has had enough.
async fn is_cut_off(way: Way, takes_bytes: bool) {
    let settings = [("TIDINGS_STALL_S", "1"), ("TIDINGS_SESSION_QUEUE_MESSAGES_MAX", "16")];
    let replica = Replica::in_memory("slow", &settings).await;
    let urls = vec![replica.url.clone()];
    let other = Follower::start(way, urls.clone(), "*", None);
    other.connected().await;
    let mut client = Client::open(&replica, way, "topics=*").await;
    let mut published = Vec::new();
    for _ in 0..MANY {
        published.push(event(&replica, json!("x".repeat(LARGE_BYTES))).await);
    }
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let closed = "tidings_hub_closed_total{code=\"4408\"}";
    let deadline = Instant::now() + PATIENCE;
    while replica.metric(closed).await == 0 {
        assert!(Instant::now() < deadline, "{way:?}: it is never counted as cut off");
        pace.tick().await;
        assert!(!takes_bytes || client.take(1).await, "it is not cut off before it is counted");
    }
    let taken = client.rest().await;
    // Who takes what is left within two seconds sees why; an event stream just ends.
    assert!([None, Some(4408)].contains(&taken.closed), "{way:?}: {:?}", taken.closed);
    assert!(way == Way::WebSocket || taken.closed.is_none());
    until("nothing of it is left", async || replica.stats().await["sessions"] == 1).await;
    assert_eq!(other.has(MANY).await.connects, 1, "nobody else has noticed");
    comes_back(way, urls, &taken, &published).await;
}

/// With the last cursor that it was given it gets the rest, and nothing twice.
async fn comes_back(way: Way, urls: Vec<String>, taken: &Taken, published: &[u64]) {
    let had = seqs(taken.of("message"));
    assert!(had.len() < published.len() && published.starts_with(&had), "{way:?}: {had:?}");
    let back = Follower::start(way, urls, "*", taken.cursor());
    assert_eq!(back.has(published.len() - had.len()).await.seqs(), published[had.len()..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_takes_nothing_is_cut_off_and_comes_back() {
    for way in WAYS {
        is_cut_off(way, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_takes_a_byte_now_and_then_is_cut_off_and_comes_back() {
    for way in WAYS {
        is_cut_off(way, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_answers_no_pings_is_closed_and_those_that_do_are_not() {
    let replica = Replica::in_memory("slow", &[("TIDINGS_HEARTBEAT_S", "1")]).await;
    let urls = vec![replica.url.clone()];
    let others = WAYS.map(|way| Follower::start(way, urls.clone(), "a", None));
    for other in &others {
        other.connected().await;
    }
    // An event stream has nothing to answer with: it stays as long as it takes what comes.
    let mut stream = Client::open(&replica, Way::Sse, "topics=a").await;
    let mut mute = Client::open(&replica, Way::WebSocket, "topics=a").await;
    let taken = mute.rest().await;
    assert_eq!(taken.closed, Some(4408));
    assert_eq!(taken.of("cursor").count(), 3, "it had three signs of life to answer to");
    event(&replica, json!("afterwards")).await;
    stream.until("\"afterwards\"").await;
    for other in &others {
        assert_eq!(other.has(1).await.connects, 1, "{:?}", other.way);
    }
}

/// Everything a tenth as large, so that it is over in seconds: what is measured then says nothing
/// about time, but the bound on memory holds all the same, and nobody misses anything.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn stalled_clients_cost_no_more_memory_than_their_bounds() {
    let verdict = proof::prove(&proof::Scale {
        healthy: 20,
        stalled: 20,
        messages_per_s: 400,
        data_bytes: 4_096,
        queue_bytes: 256 << 10,
        rounds: 1,
        phase: Duration::from_secs(2),
    })
    .await;
    assert!(verdict.grown_bytes < verdict.bound_bytes);
}

/// `make slow`: takes minutes, and wants a machine that does nothing else.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: run by make slow, optimised, on a quiet machine"]
async fn stalled_clients_cost_healthy_ones_nothing() {
    let verdict = proof::prove(&proof::Scale {
        healthy: 200,
        stalled: 200,
        messages_per_s: 2_000,
        data_bytes: 4_096,
        queue_bytes: 1 << 20,
        rounds: 5,
        phase: Duration::from_secs(10),
    })
    .await;
    assert!(verdict.grown_bytes < verdict.bound_bytes);
    assert!(verdict.ratio < 1.25, "the p99 of healthy clients moved");
}
