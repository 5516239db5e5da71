//! Replicas that are killed, frozen, and woken when others have long gone on.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::fleet::{Replica, publish_to, until};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, lost_and_doubled_nothing, received};

/// After it listens nobody reads its pipe any more, as with a collector of logs that hangs.
#[tokio::test]
async fn a_replica_whose_log_nobody_reads_goes_on() {
    let replica = Replica::in_memory("unheard", &[("TIDINGS_LOG", "trace")]).await;
    // Each of them makes several lines; a pipe takes 64 KiB.
    for _ in 0..1_000 {
        let answer = reqwest::get(format!("{}/v1/stats", replica.url)).await.unwrap();
        assert!(answer.status().is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_frozen_goes_on_where_it_was() {
    let url = harness::database_url().await;
    let frozen = Replica::start("frozen", &url, &[]).await;
    let awake = Replica::start("awake", &url, &[]).await;
    let mut followers = Vec::new();
    for replica in [&frozen, &awake] {
        for way in [Way::WebSocket, Way::Sse] {
            followers.push(Follower::start(way, vec![replica.url.clone()], "load:*", None));
        }
    }
    for follower in &followers {
        follower.connected().await;
    }
    let load = Load::start(std::slice::from_ref(&awake.url), 4);
    for _ in 0..3 {
        let had = followers.iter().map(|one| one.seen().messages.len()).max().unwrap();
        received(&followers, had + 20).await;
        frozen.signal("-STOP");
        let had = followers[2].seen().messages.len();
        received(&followers[2..], had + 200).await;
        frozen.signal("-CONT");
    }
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_replica_whose_writer_slot_was_taken_writes_nothing_with_it() {
    let url = harness::database_url().await;
    let frozen = Replica::start("frozen", &url, &[]).await;
    frozen.publish(&json!({"topic": "load:0", "data": 0, "idempotency_key": "first"})).await;
    let client = harness::connect(&url).await;
    let slots = "select count(*) from tidings.writer where replica like '%frozen%'";
    assert!(client.query_one(slots, &[]).await.unwrap().get::<_, i64>(0) > 0);
    let body = json!({"topic": "load:0", "data": 1, "idempotency_key": "caught"});
    frozen.signal("-STOP");
    // It is on its way into a replica that does not move.
    let (http, urls) = (reqwest::Client::new(), [frozen.url.clone()]);
    let caught = async {
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        publish_to(&http, &urls, &body).await
    };
    let others = async {
        // So long that its slots are free for others.
        client
            .execute("update tidings.writer set used_at = now() - interval '1 hour'", &[])
            .await
            .unwrap();
        let other = Replica::start("other", &url, &[]).await;
        for number in 0..50 {
            other.publish(&json!({"topic": "load:0", "data": number})).await;
        }
        let taken = client.query_one(slots, &[]).await.unwrap().get::<_, i64>(0);
        assert_eq!(taken, 0, "the other replica has the slots of the frozen one");
        frozen.signal("-CONT");
        other
    };
    let (answer, other) = tokio::join!(caught, others);
    assert_eq!(answer["messages"][0]["seq"], 52, "after all that was published meanwhile");
    other.publish(&json!({"topic": "load:0", "data": "last"})).await;
    let follower = Follower::start(
        Way::WebSocket,
        vec![frozen.url.clone()],
        "load:*",
        Some(answer["messages"][0]["cursor"].as_str().unwrap().to_owned()),
    );
    assert_eq!(follower.has(1).await.seqs(), [53]);
    let count = "select count(*), max(seq) from tidings.message";
    let row = client.query_one(count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (53, 53));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_replica_and_a_second_signal_leave_at_once() {
    let url = harness::database_url().await;
    let mut replica = Replica::start("idle", &url, &[("TIDINGS_DRAIN_S", "600")]).await;
    let follower = Follower::start(Way::WebSocket, vec![replica.url.clone()], "a", None);
    follower.connected().await;
    replica.signal("-TERM");
    until("it is not ready any more", async || {
        let answer = reqwest::get(format!("{}/readyz", replica.url)).await;
        answer.map_or(true, |answer| answer.status() == 503)
    })
    .await;
    let told = Instant::now();
    replica.signal("-TERM");
    assert!(replica.ended().await.is_some(), "the second signal ends what the first had asked for");
    assert!(told.elapsed() < Duration::from_secs(10), "it took {:?}", told.elapsed());
}
