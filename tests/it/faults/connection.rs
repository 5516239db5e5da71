//! Networks between replicas and Postgres.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fleet::{Replica, until, until_live};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, lost_and_doubled_nothing, received};
use crate::proxy::{Proxy, Weather};

/// A replica whose listener alone goes through a proxy, and one beside it that is well.
async fn behind_a_listener_proxy(url: &str) -> (Proxy, Replica, Replica) {
    let (proxy, listen) = Proxy::to_database(url).await;
    let settings = [("LISTEN_DATABASE_URL", listen.as_str()), ("TIDINGS_PULSE_S", "1")];
    let replica = Replica::start("one", url, &settings).await;
    until("it hears", async || replica.readyz().await["listener"] == "live").await;
    (proxy, replica, Replica::start("two", url, &[]).await)
}

fn follow(replica: &Replica) -> Follower {
    Follower::start(Way::WebSocket, vec![replica.url.clone()], "load:*", None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_listener_is_noticed_and_delays_messages_by_a_tick_at_most() {
    let url = harness::database_url().await;
    let (proxy, listen) = Proxy::to_database(&url).await;
    // The tick comes before a pulse would notice anything.
    let settings = [("LISTEN_DATABASE_URL", listen.as_str()), ("TIDINGS_PULSE_S", "60")];
    let replica = Replica::start("one", &url, &settings).await;
    let other = Replica::start("two", &url, &[]).await;
    until_live(std::slice::from_ref(&replica)).await;
    let follower = follow(&replica);
    follower.connected().await;
    let load = Load::start(std::slice::from_ref(&other.url), 2);
    received(std::slice::from_ref(&follower), 50).await;
    let before_it = load.end().await;
    follower.has(before_it.len()).await;
    proxy.weather(Weather::HalfOpen);
    // Counted in ticks, so that a slow machine changes nothing: one that is under way when the
    // message is written, the one that sees it, and one while it is read.
    let ticks = async || replica.metric("tidings_log_wakes_total{why=\"tick\"}").await;
    let found = "tidings_log_announced_total{way=\"tick\"}";
    let (ticked, found_before) = (ticks().await, replica.metric(found).await);
    other.publish(&json!({"topic": "load:alone", "data": 0})).await;
    follower.has(before_it.len() + 1).await;
    let ticked = ticks().await - ticked;
    assert!((1..=3).contains(&ticked), "it was found after {ticked} ticks");
    assert_eq!(replica.metric(found).await - found_before, 1);
    let load = Load::start(std::slice::from_ref(&other.url), 2);
    // The tick finds what the listener does not hear, and suspects it.
    let had = follower.seen().messages.len();
    received(std::slice::from_ref(&follower), had + 50).await;
    until("the replica has another listener", async || {
        let stats = replica.stats().await;
        stats["bus"]["reconnects"].as_u64() >= Some(1) && stats["listener"] == "live"
    })
    .await;
    let alone = before_it.len() as u64 + 1;
    let published = [before_it, vec![alone], load.end().await].concat();
    lost_and_doubled_nothing(std::slice::from_ref(&follower), &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_that_are_lost_and_doubled_cost_nothing() {
    let url = harness::database_url().await;
    let (proxy, replica, other) = behind_a_listener_proxy(&url).await;
    let follower = follow(&replica);
    follower.connected().await;
    proxy.weather(Weather::Notifications { lost: 0.3, doubled: 0.3 });
    let load = Load::start(&[other.url.clone(), replica.url.clone()], 4);
    received(std::slice::from_ref(&follower), 500).await;
    let published = load.end().await;
    lost_and_doubled_nothing(std::slice::from_ref(&follower), &published).await;
    let holes = replica.stats().await["log"]["holes"].as_u64();
    assert!(holes > Some(0), "nothing was lost on the way, so nothing was tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_hears_nothing_at_all_leaves_the_tick() {
    let url = harness::database_url().await;
    let (proxy, replica, other) = behind_a_listener_proxy(&url).await;
    let follower = follow(&replica);
    follower.connected().await;
    proxy.weather(Weather::Notifications { lost: 1.0, doubled: 0.0 });
    let load = Load::start(std::slice::from_ref(&other.url), 2);
    received(std::slice::from_ref(&follower), 100).await;
    until("the replica polls", async || replica.readyz().await["listener"] == "polling").await;
    let had = follower.seen().messages.len();
    received(std::slice::from_ref(&follower), had + 100).await;
    let published = load.end().await;
    lost_and_doubled_nothing(std::slice::from_ref(&follower), &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled() {
    let direct = harness::database_url().await;
    let (proxy, url) = Proxy::to_database(&direct).await;
    let replica = Replica::start("one", &url, &[("TIDINGS_LANES", "1")]).await;
    let client = harness::connect(&direct).await;
    let count = async || -> i64 {
        let query = "select count(*) from tidings.message";
        client.query_one(query, &[]).await.unwrap().get(0)
    };
    let http = reqwest::Client::new();
    let (mut sent, mut unknown) = (0, 0);
    for round in 0..20 {
        // The lane is connected again.
        replica.publish(&json!({"topic": "a", "data": format!("{round}")})).await;
        sent += 1;
        proxy.weather(Weather::AnswersLost);
        let before = count().await;
        let mut publishes = JoinSet::new();
        // No key protects these: only the replica's own writer slot does.
        for number in 0..4 {
            let body = json!({"topic": "a", "data": format!("{round}-{number}")});
            publishes.spawn(http.post(format!("{}/v1/messages", replica.url)).json(&body).send());
        }
        // Now and then the answer that was lost is one that the lane waits for before it writes;
        // then nothing is committed, and the publishes are answered all the same.
        let committed = until("it is committed", async || count().await > before);
        unknown += usize::from(timeout(Duration::from_secs(1), committed).await.is_ok());
        proxy.weather(Weather::Fair);
        proxy.cut();
        for answer in publishes.join_all().await {
            assert_eq!(answer.unwrap().status(), 201);
            sent += 1;
        }
    }
    assert_eq!(count().await, sent);
    let twice = "select count(*) - count(distinct data) from tidings.message";
    assert_eq!(client.query_one(twice, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert!(unknown >= 5, "nobody knew the outcome in {unknown} rounds only");
    assert!(replica.stats().await["publish"]["retried_batches"].as_u64() >= Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_slow_cut_or_black_cost_nobody_a_message() {
    let direct = harness::database_url().await;
    let (proxy, url) = Proxy::to_database(&direct).await;
    let settings = [("TIDINGS_STATEMENT_TIMEOUT_MS", "500"), ("TIDINGS_PULSE_S", "1")];
    let fleet =
        [Replica::start("one", &url, &settings).await, Replica::start("two", &direct, &[]).await];
    let followers: Vec<Follower> = fleet.iter().map(follow).collect();
    for follower in &followers {
        follower.connected().await;
    }
    let load = Load::start(&fleet.iter().map(|one| one.url.clone()).collect::<Vec<_>>(), 4);
    for round in 0..6 {
        let had = followers.iter().map(|one| one.seen().messages.len()).max().unwrap();
        received(&followers, had + 50).await;
        match round % 3 {
            0 => {
                assert!(proxy.cut() > 0);
            }
            1 => proxy.weather(Weather::Slow(Duration::from_millis(20))),
            _ => {
                proxy.weather(Weather::Black);
                until("the replica says that it is not ready", async || {
                    fleet[0].readyz().await["status"] == "not_ready"
                })
                .await;
                proxy.weather(Weather::Fair);
            }
        }
    }
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
}
