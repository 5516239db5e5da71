//! Bounds that no setting moves: they too are reached, and lead where the protocol says.

use serde_json::{Value, json};
use tidings::cluster::Options;

use super::client::{Socket, get, post, publish};
use super::{Lock, database, in_memory, in_postgres};
use crate::fleet::until;
use crate::harness;

/// What `feed` replays at the same time for one session.
const REPLAYS_MAX: usize = 128;

/// How many publishes of one WebSocket are under way.
const PUBLISHES_MAX: u64 = 32;

/// How many requests with signals wait.
const SIGNALS_MAX: usize = 1_024;

#[tokio::test]
async fn many_topics_are_subscribed_at_once_but_not_so_many_replays() {
    let replica = in_memory(&[("topics_per_session_max", "1000")]).await;
    let cursor = publish(&replica, "topic:0", 1, 10).await;
    let topics = |count: usize, cursor: Option<&str>| -> Vec<Value> {
        let topic = |number| format!("topic:{number}");
        let plain = (0..count).map(topic);
        match cursor {
            None => plain.map(Value::from).collect(),
            Some(cursor) => plain.map(|it| json!({"topic": it, "cursor": cursor})).collect(),
        }
    };
    let mut socket = Socket::welcome(&replica, "").await;
    let subscribe = |topics, number| json!({"op": "subscribe", "topics": topics, "ref": number});
    socket.send(&subscribe(topics(REPLAYS_MAX + 1, Some(&cursor)), 1)).await;
    assert_eq!(socket.frame("error").await["code"], "too-many");
    socket.send(&subscribe(topics(REPLAYS_MAX, Some(&cursor)), 2)).await;
    assert_eq!(socket.frame("ok").await["ref"], 2, "nothing was half done");
    for _ in 0..REPLAYS_MAX {
        socket.frame("replayed").await;
    }
    socket.send(&subscribe(topics(900, None), 3)).await;
    assert_eq!(socket.frame("ok").await["ref"], 3);
    publish(&replica, "topic:899", 1, 10).await;
    assert_eq!(socket.frame("message").await["topic"], "topic:899");
}

#[tokio::test]
async fn a_page_of_history_is_bounded_in_bytes() {
    let replica = in_memory(&[]).await;
    let begin = publish(&replica, "a", 20, 200_000).await;
    let page = get(&replica, &format!("/v1/messages?topic=a&after={begin}")).await.json();
    assert_eq!(page["messages"].as_array().unwrap().len(), 6, "a little more than 1 MiB");
    assert_eq!(page["more"], true);
}

#[tokio::test]
async fn a_websocket_is_not_read_while_too_much_of_it_is_under_way() {
    let (url, _) = database().await;
    let settings = [
        ("frames_per_s_max", "1000"),
        ("publish_timeout_s", "600"),
        ("statement_timeout_ms", "600000"),
    ];
    let replica = in_postgres("one", &url, &settings).await;
    let mut socket = Socket::welcome(&replica, "").await;
    let lock = Lock::take(&url, "tidings.log in exclusive mode").await;
    for number in 0..PUBLISHES_MAX + 8 {
        let message = json!({"topic": "a", "data": number});
        socket.send(&json!({"op": "publish", "message": message, "ref": number})).await;
    }
    until("as many are under way as may", async || {
        replica.metric("tidings_publish_intake_messages").await == PUBLISHES_MAX
    })
    .await;
    assert_eq!(replica.metric("tidings_publish_intake_messages").await, PUBLISHES_MAX);
    lock.release().await;
    for _ in 0..PUBLISHES_MAX + 8 {
        socket.frame("ok").await;
    }
}

#[tokio::test]
async fn signals_that_find_no_room_are_answered_429() {
    let cluster = harness::private(Options::test());
    let settings = [("statement_timeout_ms", "600000"), ("pool_wait_ms", "600000")];
    let replica = in_postgres("one", &cluster.url("postgres"), &settings).await;
    let signal = json!({"topic": "a", "data": 1, "class": "signal"});
    cluster.pause().unwrap();
    let mut taken = 0;
    let refused = loop {
        let answer = post(&replica, &signal).await;
        if answer.status != 201 {
            break answer;
        }
        taken += 1;
        // One more is in the hands of the loop that sends them.
        assert!(taken <= SIGNALS_MAX + 1);
    };
    refused.is_problem(429).says_when_to_come_back();
    assert!(taken >= SIGNALS_MAX, "{taken}");
    cluster.resume().unwrap();
    until("there is room again", async || post(&replica, &signal).await.status == 201).await;
}
