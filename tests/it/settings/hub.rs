//! The settings of the part `hub`.

use super::client::{Raw, Socket, get, publish};
use super::in_memory;
use crate::fleet::{Replica, until};

/// Large messages, of which a socket's buffers hold a few dozen.
const LARGE_BYTES: usize = 200_000;

/// More of them than all buffers on the way can hold.
const MANY: usize = 60;

#[tokio::test]
pub(super) async fn a_session_too_many_is_refused() {
    let replica = in_memory(&[("sessions_max", "2")]).await;
    let mut first = Socket::welcome(&replica, "user=ann").await;
    let _second = Socket::welcome(&replica, "user=bob").await;
    assert_eq!(Socket::open(&replica, "user=cid").await.close_code().await, 4409);
    get(&replica, "/v1/sse?user=cid").await.is_problem(429).says_when_to_come_back();
    first.send(&serde_json::json!({"op": "ping"})).await;
    first.frame("pong").await;
    drop(first);
    until_let_in(&replica, "user=cid").await;
}

#[tokio::test]
pub(super) async fn a_session_too_many_of_one_user_is_refused() {
    let replica = in_memory(&[("sessions_per_user_max", "2")]).await;
    let first = Socket::welcome(&replica, "user=ann").await;
    let _second = Socket::welcome(&replica, "user=ann").await;
    assert_eq!(Socket::open(&replica, "user=ann").await.close_code().await, 4409);
    get(&replica, "/v1/sse?user=ann").await.is_problem(429).says_when_to_come_back();
    let _other = Socket::welcome(&replica, "user=bob").await;
    drop(first);
    until_let_in(&replica, "user=ann").await;
}

/// What a client leaves is given to the next one as soon as the replica sees that it is gone.
async fn until_let_in(replica: &Replica, query: &str) {
    until("there is a place again", async || {
        let path = format!("{}/v1/sse?{query}", replica.url);
        reqwest::get(path).await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test]
pub(super) async fn a_session_that_falls_behind_reads_the_log() {
    const WIDE: (&str, &str) = ("session_queue_messages_max", "1000000");
    const DEEP: (&str, &str) = ("session_queue_bytes_max", "1 GiB");
    for (settings, goes_behind) in [
        ([("session_queue_messages_max", "16"), DEEP], true),
        ([WIDE, ("session_queue_bytes_max", "512 KiB")], true),
        ([WIDE, DEEP], false),
    ] {
        let replica = in_memory(&settings).await;
        let mut slow = Socket::welcome(&replica, "topics=a").await;
        let mut published = 0;
        // Before that it is behind because it has just begun.
        while replica.metric("tidings_hub_deliveries_total").await == 0 {
            publish(&replica, "a", 1, 10).await;
            published += 1;
        }
        for _ in 0..MANY {
            publish(&replica, "a", 1, LARGE_BYTES).await;
        }
        let behind = replica.metric("tidings_hub_behind_total").await;
        assert_eq!(behind > 0, goes_behind, "{behind} with {settings:?}");
        for seq in 1..=published + MANY {
            assert_eq!(slow.frame("message").await["seq"], seq, "with {settings:?}");
        }
    }
}

#[tokio::test]
pub(super) async fn a_websocket_that_takes_nothing_is_closed_with_4408() {
    let replica = in_memory(&[("stall_s", "1")]).await;
    let _stalled = Socket::open(&replica, "topics=a").await;
    is_closed_with_4408(&replica).await;
    assert_eq!(replica.metric("tidings_hub_sessions").await, 0);
}

#[tokio::test]
pub(super) async fn an_event_stream_that_is_not_taken_is_cut_off() {
    let replica = in_memory(&[("stall_s", "1")]).await;
    let mut stalled = Raw::get(&replica, "/v1/sse?topics=a").await;
    stalled.until("event: welcome").await;
    is_closed_with_4408(&replica).await;
    assert_eq!(replica.metric("tidings_server_stalled_total").await, 1);
    assert_eq!(replica.metric("tidings_hub_sessions").await, 0);
}

/// Publishes more than the buffers hold, and waits until the one session is gone.
async fn is_closed_with_4408(replica: &Replica) {
    until("the session is there", async || replica.metric("tidings_hub_sessions").await == 1).await;
    for _ in 0..MANY {
        publish(replica, "a", 1, LARGE_BYTES).await;
    }
    until("the session is closed", async || {
        replica.metric("tidings_hub_closed_total{code=\"4408\"}").await == 1
    })
    .await;
    until("its memory is free", async || replica.metric("tidings_hub_sessions").await == 0).await;
}

#[tokio::test]
pub(super) async fn sessions_get_signs_of_life() {
    let replica = in_memory(&[("heartbeat_s", "1")]).await;
    let mut socket = Socket::open(&replica, "").await;
    assert_eq!(socket.frame("welcome").await["heartbeat_s"], 1);
    let mut stream = Raw::get(&replica, "/v1/sse").await;
    for _ in 0..2 {
        socket.frame("cursor").await;
        stream.until("event: cursor").await;
    }
}

#[tokio::test]
pub(super) async fn a_websocket_that_gives_no_sign_of_life_is_closed_with_4408() {
    let replica = in_memory(&[("heartbeat_s", "1")]).await;
    // Nobody reads from it, so that nobody answers its pings; what it is sent fits into buffers.
    let _dead = Socket::open(&replica, "").await;
    until("it is closed", async || {
        replica.metric("tidings_hub_closed_total{code=\"4408\"}").await == 1
    })
    .await;
}
