//! Bounds that no setting moves: they too are reached, and lead where the protocol says.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidings::cluster::Options;
use tokio::time::Instant;

use super::auth::{claims, signed_with_secret, strict};
use super::client::{Raw, Socket, get, post, publish};
use super::{Lock, database, in_memory, in_postgres};
use crate::fleet::until;
use crate::harness;

/// What `feed` replays at the same time for one session.
const REPLAYS_MAX: usize = 128;

/// How many publishes of one WebSocket are under way.
const PUBLISHES_MAX: u64 = 32;

/// How many requests with signals wait.
const SIGNALS_MAX: usize = 1_024;

/// How long a WebSocket may say nothing of who it is.
const HELLO: Duration = Duration::from_secs(10);

/// How long a token may be.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// How many parameters a request may have.
const PARAMETERS_MAX: usize = 1_000;

/// How many connections too many are answered at once.
const REFUSALS_MAX: usize = 64;

#[tokio::test]
async fn a_websocket_that_does_not_say_who_it_is_is_closed() {
    let replica = strict(&[("api_keys", "the key of a server")]).await;
    let begun = Instant::now();
    let mut silent = Socket::open(&replica, "topics=a").await;
    let mut known = Socket::open(&replica, "topics=a").await;
    known.send(&json!({"op": "hello", "token": "the key of a server"})).await;
    known.frame("welcome").await;
    assert_eq!(silent.close_code().await, 4401);
    assert!(begun.elapsed() >= HELLO, "{:?}", begun.elapsed());
    known.send(&json!({"op": "ping"})).await;
    known.frame("pong").await;
}

#[tokio::test]
async fn a_token_that_is_too_long_is_refused() {
    const SECRET: &str = "a secret of at least thirty-two bytes";
    let replica = strict(&[("jwt_secret", SECRET)]).await;
    // In a token four bytes stand for three.
    let signed = |topic_bytes: usize| {
        let mut claims = claims();
        let topics: Vec<String> = vec!["t".repeat(topic_bytes); 70];
        claims["tidings"] = json!({"subscribe": topics});
        signed_with_secret(&claims)
    };
    let (long, too_long) = (signed(160), signed(190));
    assert!(long.len() <= TOKEN_BYTES_MAX && too_long.len() > TOKEN_BYTES_MAX);
    let mut socket = Socket::open(&replica, "").await;
    socket.send(&json!({"op": "hello", "token": too_long})).await;
    assert_eq!(socket.close_code().await, 4401);
    let mut socket = Socket::open(&replica, "").await;
    socket.send(&json!({"op": "hello", "token": long})).await;
    socket.frame("welcome").await;
    socket.send(&json!({"op": "auth", "token": too_long, "ref": 1})).await;
    let error = socket.frame("error").await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("unauthenticated"), &json!(1)), "{error}");
    socket.send(&json!({"op": "auth", "token": long, "ref": 2})).await;
    socket.frame("ok").await;
}

#[tokio::test]
async fn a_request_with_too_many_parameters_is_answered_400() {
    let replica = in_memory(&[]).await;
    for path in ["/v1/messages", "/v1/sse"] {
        let parameters = |count: usize| format!("{path}?{}", vec!["topic=a"; count].join("&"));
        let refused = get(&replica, &parameters(PARAMETERS_MAX + 1)).await;
        assert!(refused.is_problem(400).text.contains("1000 parameters"), "{}", refused.text);
    }
    let most = format!("/v1/messages?{}", vec!["topic=a"; PARAMETERS_MAX].join("&"));
    assert_eq!(get(&replica, &most).await.status, 200);
    // The last one counts as well.
    let unknown =
        format!("/v1/messages?{}&unknown=1", vec!["topic=a"; PARAMETERS_MAX - 1].join("&"));
    get(&replica, &unknown).await.is_problem(400);
}

#[tokio::test]
async fn of_connections_too_many_only_some_are_answered() {
    const TOO_MANY: usize = 200;
    let replica = in_memory(&[("connections_max", "2"), ("sessions_max", "1")]).await;
    let mut held = None;
    while held.is_none() {
        held = Socket::try_open(&replica, "").await.ok();
    }
    let mut idle = Raw::send(&replica, "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    idle.until("live").await;
    // They say nothing yet, so each that is answered at all keeps its place for a moment.
    let mut silent = Vec::new();
    for _ in 0..TOO_MANY {
        silent.push(Raw::send(&replica, "").await);
    }
    let ask = |mut raw: Raw| async move {
        raw.say("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        raw.rest().await
    };
    let answers = join_all(silent.into_iter().map(ask)).await;
    let answered = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 ")).count();
    let ignored = answers.iter().filter(|answer| answer.is_empty()).count();
    assert_eq!(answered + ignored, TOO_MANY, "{answers:?}");
    // As many at once: one that has gone makes room for another.
    assert!(ignored > 0 && answered >= REFUSALS_MAX / 2, "{answered} were answered");
    let mut held = held.unwrap();
    held.send(&json!({"op": "ping"})).await;
    held.frame("pong").await;
    drop((held, idle));
    let refused = "tidings_server_refused_total{reason=\"full\"}";
    // Whoever asks needs a place too.
    until("there is a place again, and all were counted", async || {
        reqwest::get(format!("{}/livez", replica.url)).await.is_ok_and(|it| it.status() == 200)
            && replica.metric(refused).await >= TOO_MANY as u64
    })
    .await;
}

#[tokio::test]
async fn a_quiet_event_stream_gets_a_comment() {
    let replica = in_memory(&[("heartbeat_s", "3600")]).await;
    let mut stream = Raw::get(&replica, "/v1/sse").await;
    stream.until("event: welcome").await;
    for _ in 0..2 {
        let came = stream.until("\n:\n\n").await;
        assert!(!came.contains("event: cursor"), "{came}");
    }
}

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
