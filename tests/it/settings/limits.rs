//! The settings of the part `limits`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Raw, Socket, get, post, publish};
use super::in_memory;
use crate::fleet::until;

/// A message whose `data` has exactly so many bytes.
fn message(bytes: usize) -> Value {
    json!({"topic": "a", "data": "x".repeat(bytes - 2)})
}

#[tokio::test]
pub(super) async fn larger_data_is_answered_413() {
    let replica = in_memory(&[("data_bytes_max", "2 KiB")]).await;
    assert_eq!(post(&replica, &message(2048)).await.status, 201);
    post(&replica, &message(2049)).await.is_problem(413);
    let mut socket = Socket::welcome(&replica, "").await;
    socket.send(&json!({"op": "publish", "message": message(2049), "ref": 1})).await;
    let error = socket.frame("error").await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("too-large"), &json!(1)), "{error}");
}

#[tokio::test]
pub(super) async fn a_larger_frame_closes_with_4413() {
    let replica = in_memory(&[("data_bytes_max", "2 KiB"), ("frame_bytes_max", "2 KiB")]).await;
    let mut socket = Socket::welcome(&replica, "").await;
    socket.send(&json!({"op": "publish", "message": message(1024), "ref": 1})).await;
    socket.frame("ok").await;
    socket.send(&json!({"op": "publish", "message": message(2048), "ref": 1})).await;
    assert_eq!(socket.close_code().await, 4413);

    // Unset, a frame may carry the largest message.
    let replica = in_memory(&[("data_bytes_max", "2 KiB")]).await;
    let mut socket = Socket::welcome(&replica, "").await;
    socket.send(&json!({"op": "publish", "message": message(2048), "ref": 1})).await;
    socket.frame("ok").await;
}

#[tokio::test]
pub(super) async fn a_larger_body_is_answered_413() {
    let settings = [("data_bytes_max", "2 KiB"), ("body_bytes_max", "4 KiB")];
    let replica = in_memory(&settings).await;
    let two = json!({"messages": [message(1500), message(1500)]});
    assert_eq!(post(&replica, &two).await.status, 201);
    let three = json!({"messages": [message(1500), message(1500), message(1500)]});
    post(&replica, &three).await.is_problem(413);
}

#[tokio::test]
pub(super) async fn more_messages_in_a_request_are_answered_413() {
    let replica = in_memory(&[("batch_messages_max", "3")]).await;
    let batch = |count: usize| json!({"messages": vec![message(2); count]});
    assert_eq!(post(&replica, &batch(3)).await.status, 201);
    post(&replica, &batch(4)).await.is_problem(413);
    assert_eq!(replica.metric("tidings_publish_messages_total").await, 3, "nothing is half done");
}

#[tokio::test]
pub(super) async fn frames_that_come_too_fast_close_with_4429() {
    let replica = in_memory(&[("frames_per_s_max", "1")]).await;
    let mut socket = Socket::welcome(&replica, "").await;
    // Twice as many may come at once; what is slow on the way gains a frame a second at most.
    for number in 0..60 {
        socket.send(&json!({"op": "ping", "ref": number})).await;
    }
    assert_eq!(socket.frame("pong").await["ref"], 0);
    assert_eq!(socket.frame("pong").await["ref"], 1);
    assert_eq!(socket.close_code().await, 4429);

    let replica = in_memory(&[("frames_per_s_max", "1000")]).await;
    let mut socket = Socket::welcome(&replica, "").await;
    for number in 0..60 {
        socket.send(&json!({"op": "ping", "ref": number})).await;
    }
    while socket.frame("pong").await["ref"] != 59 {}
}

#[tokio::test]
pub(super) async fn more_topics_are_refused_everywhere() {
    // Every user has `broadcast` and a topic of its own.
    let replica = in_memory(&[("topics_per_session_max", "4")]).await;
    let mut socket = Socket::welcome(&replica, "user=ann&topics=a").await;
    socket.send(&json!({"op": "subscribe", "topics": ["b"], "ref": 1})).await;
    socket.frame("ok").await;
    socket.send(&json!({"op": "subscribe", "topics": ["c"], "ref": 2})).await;
    assert_eq!(socket.frame("error").await["code"], "invalid");
    // A topic that it has already is none more.
    socket.send(&json!({"op": "subscribe", "topics": ["b"], "ref": 3})).await;
    socket.frame("ok").await;
    let mut too_many = Socket::open(&replica, "user=ann&topics=a,b,c").await;
    assert_eq!(too_many.close_code().await, 4400);
    // To come back later with as many would not help.
    get(&replica, "/v1/sse?user=ann&topics=a,b,c").await.is_problem(422);
    get(&replica, "/v1/messages?topics=a,b,c,d,e").await.is_problem(422);
}

#[tokio::test]
pub(super) async fn a_page_of_history_is_no_longer_than_that() {
    let replica = in_memory(&[("history_limit_max", "5")]).await;
    let begin = publish(&replica, "a", 12, 10).await;
    for limit in ["", "&limit=5", "&limit=1000"] {
        let page = get(&replica, &format!("/v1/messages?topic=a&after={begin}{limit}")).await;
        let page = page.json();
        assert_eq!(page["messages"].as_array().unwrap().len(), 5, "with {limit:?}");
        assert_eq!(page["more"], true);
    }
}

#[tokio::test]
pub(super) async fn a_body_that_does_not_come_is_answered_408() {
    let replica = in_memory(&[("body_timeout_s", "1")]).await;
    let begun = Instant::now();
    let head = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    let answer = Raw::send(&replica, head).await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("the body took longer than 1 s"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn bodies_that_are_read_at_once_have_a_bound_together() {
    let settings = [("intake_bytes_max", "1 MiB"), ("body_bytes_max", "1 MiB")];
    let replica = in_memory(&settings).await;
    let head = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048576\r\n\r\n{";
    let held = Raw::send(&replica, head).await;
    until("there is no room for another", async || post(&replica, &message(2)).await.status == 429)
        .await;
    drop(held);
    until("there is room again", async || post(&replica, &message(2)).await.status == 201).await;
}

#[tokio::test]
pub(super) async fn a_wait_is_no_longer_than_that() {
    for (max_s, at_least) in [("0", Duration::ZERO), ("1", Duration::from_secs(1))] {
        let replica = in_memory(&[("long_poll_s_max", max_s)]).await;
        let begun = Instant::now();
        let page = get(&replica, "/v1/messages?topic=a&wait_s=600").await.json();
        assert_eq!(page["messages"], json!([]));
        assert!(begun.elapsed() >= at_least);
        assert!(begun.elapsed() < Duration::from_secs(600));
    }
}
