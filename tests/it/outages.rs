//! What clients see while Postgres goes away, wholly or only for the listener: nothing twice, nothing lost.

use serde_json::{Value, json};
use tidings::cluster::{Mode, Options};

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, lost_and_doubled_nothing, received};

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
        let told = async |status: &str| {
            until("open sessions are told", async || {
                let mut open = followers.iter().filter(|follower| follower.way != Way::LongPoll);
                open.all(|follower| follower.seen().statuses.last().is_some_and(|s| s == status))
            })
            .await;
        };
        told("degraded").await;
        cluster.start_again().unwrap();
        for replica in &fleet {
            until("the replica is ready again", async || {
                let readyz = replica.readyz().await;
                readyz["status"] == "ready" && readyz["listener"] == "live"
            })
            .await;
        }
        told("ok").await;
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
