//! Clients that take nothing for a while: what they get when they read again.

use serde_json::{Value, json};

use crate::fleet::{Replica, until};
use crate::settings::client::{Events, Socket, publish};

/// Large messages, of which a socket's buffers hold a few dozen.
const LARGE_BYTES: usize = 200_000;

/// More of them than all buffers on the way can hold.
const MANY: usize = 60;

/// So long that nobody is sent away while nothing is read.
const PATIENT: &[(&str, &str)] = &[("TIDINGS_STALL_S", "600"), ("TIDINGS_HEARTBEAT_S", "600")];

/// A queue with room for as many as a test likes.
const WIDE: &[(&str, &str)] = &[("TIDINGS_SESSION_QUEUE_BYTES_MAX", "1 GiB")];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    WebSocket,
    Sse,
}

/// One that reads only when it is asked to.
enum Client {
    Socket(Box<Socket>),
    Events(Events),
}

impl Client {
    /// One that follows, and is no longer reading what went before.
    async fn open(way: Way, replica: &Replica, topics: &str) -> Client {
        let query = format!("topics={topics}");
        let mut client = match way {
            Way::WebSocket => Client::Socket(Box::new(Socket::open(replica, &query).await)),
            Way::Sse => Client::Events(Events::open(replica, &query).await),
        };
        assert_eq!(client.next().await["type"], "welcome");
        let mut published = 0;
        while replica.metric("tidings_hub_deliveries_total").await == 0 {
            publish(replica, "a", 1, 10).await;
            published += 1;
        }
        for _ in 0..published {
            assert_eq!(client.next().await["type"], "message");
        }
        client
    }

    async fn next(&mut self) -> Value {
        match self {
            Client::Socket(socket) => socket.any().await,
            Client::Events(events) => events.next().await,
        }
    }
}

async fn replica(settings: &[(&str, &str)]) -> Replica {
    Replica::in_memory("slow", &[PATIENT, settings].concat()).await
}

async fn signals_that_find_no_room_are_counted(way: Way) {
    // More topics than are counted apart.
    const TOPICS: usize = 100;
    const SENT: usize = 1_000;
    let replica = replica(&[("TIDINGS_SESSION_QUEUE_MESSAGES_MAX", "16")]).await;
    let mut client = Client::open(way, &replica, "a,s:*").await;
    for _ in 0..MANY {
        publish(&replica, "a", 1, LARGE_BYTES).await;
    }
    // Each has a key of its own, so that none stands for another one.
    let signal = |number: usize| {
        let topic = format!("s:{}", number % TOPICS);
        json!({"topic": topic, "data": number, "class": "signal", "key": number.to_string()})
    };
    for chunk in (0..SENT).collect::<Vec<_>>().chunks(100) {
        let signals: Vec<Value> = chunk.iter().map(|number| signal(*number)).collect();
        replica.publish(&json!({ "messages": signals })).await;
    }
    until("some found no room", async || {
        replica.metric("tidings_hub_dropped_signals_total").await > 0
    })
    .await;
    let (mut received, mut dropped, mut gaps, mut events) = (0, 0, 0, 0);
    let mut ended = false;
    while received + dropped < SENT || events < MANY || !ended {
        if received + dropped == SENT && events == MANY && !ended {
            publish(&replica, "a", 1, 10).await;
        }
        let frame = client.next().await;
        match frame["type"].as_str().unwrap() {
            "message" if frame["class"] == "signal" => received += 1,
            "message" if events == MANY => ended = true,
            "message" => events += 1,
            "gap" => {
                assert!(frame["topic"].as_str().unwrap().starts_with("s:"), "{frame}");
                dropped += usize::try_from(frame["dropped"].as_u64().unwrap()).unwrap();
                gaps += 1;
            }
            _ => {}
        }
        assert!(received + dropped <= SENT, "{received} received and {dropped} dropped");
    }
    assert!(gaps > 0, "all of {received} signals found room");
    let counted = replica.metric("tidings_hub_dropped_signals_total").await;
    assert_eq!(counted, dropped as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_told_how_many_signals_found_no_room() {
    signals_that_find_no_room_are_counted(Way::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_is_told_how_many_signals_found_no_room() {
    signals_that_find_no_room_are_counted(Way::Sse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_urgent_overtakes_what_waits() {
    for way in [Way::WebSocket, Way::Sse] {
        let replica = replica(WIDE).await;
        let mut client = Client::open(way, &replica, "a").await;
        let large = "x".repeat(LARGE_BYTES);
        let low = json!({"topic": "a", "data": large, "priority": "low"});
        let mut first = 0;
        for number in 0..MANY {
            let answer = replica.publish(&low).await;
            if number == 0 {
                first = answer["messages"][0]["seq"].as_u64().unwrap();
            }
        }
        let high = json!({"topic": "a", "data": "urgent", "priority": "high"});
        let high = replica.publish(&high).await["messages"][0]["seq"].as_u64().unwrap();
        assert_eq!(high, first + MANY as u64);
        until("it waits with the others", async || {
            replica.metric("tidings_log_applied_seq").await == high
        })
        .await;
        let mut came = Vec::new();
        let mut cursors = Vec::new();
        while came.len() <= MANY {
            let frame = client.next().await;
            if frame["type"] == "message" {
                came.push(frame["seq"].as_u64().unwrap());
                cursors.push(frame["cursor"].is_string());
            }
        }
        let place = came.iter().position(|seq| *seq == high).unwrap();
        assert!(place < MANY, "{way:?}: it came last of all");
        assert!(!cursors[place], "{way:?}: whoever resumed from it would miss those before it");
        came.remove(place);
        assert_eq!(came, (first..high).collect::<Vec<_>>(), "{way:?}: the others keep their order");
        assert!(cursors.last().unwrap(), "{way:?}: nothing waits before the last one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_state_that_waits_only_the_newest_is_sent() {
    const STATES: u64 = 300;
    for way in [Way::WebSocket, Way::Sse] {
        let room = [WIDE, &[("TIDINGS_SESSION_QUEUE_MESSAGES_MAX", "100")]].concat();
        let replica = replica(&room).await;
        let mut client = Client::open(way, &replica, "a,state").await;
        for _ in 0..MANY {
            publish(&replica, "a", 1, LARGE_BYTES).await;
        }
        for number in 0..STATES {
            let key = (number % 2).to_string();
            let state = json!({"topic": "state", "data": number, "class": "state", "key": key});
            replica.publish(&state).await;
        }
        publish(&replica, "a", 1, 10).await;
        let (mut events, mut states) = (0, Vec::new());
        while events <= MANY {
            let frame = client.next().await;
            match (frame["type"].as_str(), frame["topic"].as_str()) {
                (Some("message"), Some("state")) => states.push(frame["data"].as_u64().unwrap()),
                (Some("message"), _) => events += 1,
                (Some("gap" | "reset"), _) => panic!("{frame}"),
                _ => {}
            }
        }
        assert!(states.len() < 150, "{way:?}: {} of {STATES} states were sent", states.len());
        assert!(states.is_sorted(), "{way:?}: {states:?}");
        let newest = |odd: u64| states.iter().rev().find(|state| **state % 2 == odd).copied();
        assert_eq!([newest(0), newest(1)], [Some(STATES - 2), Some(STATES - 1)], "{way:?}");
        assert!(replica.metric("tidings_hub_coalesced_total").await > 0, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_sent_away_with_the_others_when_the_replica_leaves() {
    let drain = [WIDE, &[("TIDINGS_DRAIN_S", "10")]].concat();
    let mut replica = replica(&drain).await;
    let client = Client::open(Way::WebSocket, &replica, "a").await;
    for _ in 0..MANY {
        publish(&replica, "a", 1, LARGE_BYTES).await;
    }
    // It stands in a write, which nobody will take.
    let (code, said) = replica.leave_saying().await;
    assert_eq!(code, Some(0));
    let cut = said.iter().find(|line| line.contains("cut off"));
    assert_eq!(cut, None, "it was not told to go in its time");
    drop(client);
}
