//! What clients see while Postgres goes away, wholly or only for the listener: nothing twice, nothing lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tidings::cluster::{Mode, Options};
use tokio::task::JoinHandle;

use crate::fleet::{Replica, publish_to, until};
use crate::follower::{Follower, Way};
use crate::harness;

/// Publishers that go on whatever happens, and insist until each message is answered.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<u64>>>,
}

impl Load {
    fn start(urls: &[String], publishers: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let publish = |publisher: usize| {
            let (stop, urls) = (stop.clone(), urls.to_vec());
            #[expect(clippy::disallowed_methods, reason = "a client of a test, ended by it")]
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let start = publisher % urls.len();
                let urls: Vec<&str> =
                    urls[start..].iter().chain(&urls[..start]).map(String::as_str).collect();
                let mut seqs = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{publisher}-{}", seqs.len());
                    let topic = format!("load:{publisher}");
                    let body = json!({"topic": topic, "data": seqs.len(), "idempotency_key": key});
                    let answer = publish_to(&client, &urls, &body).await;
                    seqs.push(answer["messages"][0]["seq"].as_u64().unwrap());
                }
                seqs
            })
        };
        let tasks = (0..publishers).map(publish).collect();
        Load { stop, tasks }
    }

    /// Every seq that was answered, in order.
    async fn end(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seqs = Vec::new();
        for task in self.tasks {
            seqs.extend(task.await.unwrap());
        }
        seqs.sort_unstable();
        seqs
    }
}

async fn fleet(database_url: &str) -> Vec<Replica> {
    let mut fleet = Vec::new();
    for number in 1..=3 {
        fleet.push(Replica::start(&format!("replica-{number}"), database_url, &[]).await);
    }
    fleet
}

async fn followers(fleet: &[Replica]) -> Vec<Follower> {
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap();
    let mut followers = Vec::new();
    for replica in fleet {
        for way in Way::ALL {
            let urls = vec![replica.url.clone()];
            followers.push(Follower::start(way, urls, "load:*", Some(cursor.to_owned())));
        }
    }
    for follower in followers.iter().filter(|follower| follower.way != Way::LongPoll) {
        follower.connected().await;
    }
    followers
}

async fn received(followers: &[Follower], messages: usize) {
    until("every client has had some of it", async || {
        followers.iter().all(|follower| follower.seen().messages.len() >= messages)
    })
    .await;
}

async fn lost_and_doubled_nothing(followers: &[Follower], published: &[u64]) {
    for follower in followers {
        let seen = follower.has(published.len()).await;
        assert_eq!(seen.seqs(), published, "{:?}", follower.way);
        assert_eq!(seen.resets, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_that_are_cut_off_under_load_cost_nobody_a_message() {
    let url = harness::database_url().await;
    let fleet = fleet(&url).await;
    let followers = followers(&fleet).await;
    let load = Load::start(&fleet.iter().map(|one| one.url.clone()).collect::<Vec<_>>(), 6);
    received(&followers, 20).await;
    let client = harness::connect(&url).await;
    for round in 1..=5 {
        let cut: Vec<bool> = client
            .query(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and query ilike 'listen %'",
                &[],
            )
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(cut, [true; 3], "each replica has one listener");
        for replica in &fleet {
            until("the replica says that it lost its listener and has another", async || {
                let stats = replica.stats().await;
                stats["bus"]["reconnects"] == round && stats["listener"] == "live"
            })
            .await;
        }
        let had = followers[0].seen().messages.len();
        received(&followers, had + 20).await;
    }
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_goes_and_comes_back_under_load_costs_nobody_a_message() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let fleet = fleet(&url).await;
    let followers = followers(&fleet).await;
    let load = Load::start(&fleet.iter().map(|one| one.url.clone()).collect::<Vec<_>>(), 6);
    for mode in [Mode::Fast, Mode::Immediate, Mode::Fast] {
        let had = followers.iter().map(|one| one.seen().messages.len()).max().unwrap();
        received(&followers, had + 50).await;
        cluster.stop(mode).unwrap();
        for replica in &fleet {
            until("the replica says that it is not ready", async || {
                replica.readyz().await["status"] == "not_ready"
            })
            .await;
            let readyz = replica.readyz().await;
            assert_eq!(readyz["listener"], "down");
            let refused = reqwest::Client::new()
                .post(format!("{}/v1/messages", replica.url))
                .json(&json!({"topic": "a", "data": 0, "idempotency_key": "refused"}))
                .send()
                .await
                .unwrap();
            assert_eq!(refused.status(), 503);
            assert!(refused.headers().contains_key("retry-after"));
            let problem: Value = refused.json().await.unwrap();
            assert_eq!(problem["status"], 503, "{problem}");
        }
        cluster.start_again().unwrap();
        for replica in &fleet {
            until("the replica is ready again", async || {
                let readyz = replica.readyz().await;
                readyz["status"] == "ready" && readyz["listener"] == "live"
            })
            .await;
        }
    }
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
    for replica in &fleet {
        assert_eq!(replica.stats().await["log"]["epochs"], 0, "the log went on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_waits_for_a_postgres_that_comes_later() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    cluster.stop(Mode::Fast).unwrap();
    let mut replica = Replica::spawned("late", &url, &[]).await;
    assert_eq!(replica.readyz().await["status"], "not_ready");
    cluster.start_again().unwrap();
    replica.until_ready().await;
    let published = replica.publish(&json!({"topic": "a", "data": 0})).await;
    assert_eq!(published["messages"][0]["seq"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_replicas_that_come_back_have_lost_and_doubled_nothing() {
    let url = harness::database_url().await;
    let mut fleet = fleet(&url).await;
    let urls: Vec<String> = fleet.iter().map(|one| one.url.clone()).collect();
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap();
    let mut followers = Vec::new();
    for start in 0..3 {
        for way in Way::ALL {
            let urls = [&urls[start..], &urls[..start]].concat();
            followers.push(Follower::start(way, urls, "load:*", Some(cursor.to_owned())));
        }
    }
    let load = Load::start(&urls, 6);
    for killed in [0, 1, 2, 0] {
        let had = followers.iter().map(|one| one.seen().messages.len()).max().unwrap();
        received(&followers, had + 50).await;
        fleet[killed].kill().await;
        received(&followers, had + 100).await;
        fleet[killed].start_again().await;
    }
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_told_to_leave_sends_its_clients_away_and_ends_well() {
    let url = harness::database_url().await;
    let mut fleet = [
        Replica::start("one", &url, &[("TIDINGS_DRAIN_S", "5")]).await,
        Replica::start("two", &url, &[("TIDINGS_DRAIN_S", "5")]).await,
    ];
    let urls: Vec<String> = fleet.iter().map(|one| one.url.clone()).collect();
    let follow = |way| Follower::start(way, urls.clone(), "load:*", None);
    let followers: Vec<Follower> = [Way::WebSocket, Way::Sse].map(follow).into();
    for follower in &followers {
        follower.connected().await;
    }
    let load = Load::start(&urls, 4);
    received(&followers, 20).await;
    assert_eq!(fleet[0].leave().await, Some(0));
    let had = followers.iter().map(|one| one.seen().messages.len()).max().unwrap();
    received(&followers, had + 20).await;
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
    assert_eq!(fleet[1].leave().await, Some(0));
}
