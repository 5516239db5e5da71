//! A Postgres that is paused.

use std::time::Duration;

use serde_json::json;
use tidings::cluster::Options;
use tokio::time::Instant;

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, lost_and_doubled_nothing, received};

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_stands_still_for_a_while_costs_nobody_a_message() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let settings = [("TIDINGS_STATEMENT_TIMEOUT_MS", "1000"), ("TIDINGS_PULSE_S", "1")];
    let fleet = [
        Replica::start("one", &url, &settings).await,
        Replica::start("two", &url, &settings).await,
    ];
    let follow = |replica: &Replica| {
        Follower::start(Way::WebSocket, vec![replica.url.clone()], "load:*", None)
    };
    let followers: Vec<Follower> = fleet.iter().map(follow).collect();
    for follower in &followers {
        follower.connected().await;
    }
    let load = Load::start(&fleet.iter().map(|one| one.url.clone()).collect::<Vec<_>>(), 4);
    for _ in 0..2 {
        let had = followers.iter().map(|one| one.seen().messages.len()).max().unwrap();
        received(&followers, had + 50).await;
        cluster.pause().unwrap();
        for replica in &fleet {
            until("the replica has noticed", async || {
                replica.readyz().await["status"] == "not_ready"
            })
            .await;
        }
        cluster.resume().unwrap();
    }
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
}

/// A statement that hangs goes on hanging: nobody is freed by a bound on its time.
const HANGS: &[(&str, &str)] = &[
    ("TIDINGS_STATEMENT_TIMEOUT_MS", "60000"),
    ("TIDINGS_POOL_WAIT_MS", "60000"),
    ("TIDINGS_TICK_MS", "100"),
    ("TIDINGS_TASK_TICK_MS", "100"),
    ("TIDINGS_PULSE_S", "1"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_leaves_well_and_soon_though_postgres_stands_still() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let notices = [HANGS, &[("TIDINGS_STATEMENT_TIMEOUT_MS", "1000")]].concat();
    let mut noticed = Replica::start("noticed", &url, &notices).await;
    let mut unaware = Replica::start("unaware", &url, HANGS).await;
    for replica in [&noticed, &unaware] {
        replica.publish(&json!({"topic": "a", "data": 0})).await;
    }
    cluster.pause().unwrap();
    let told = Instant::now();
    assert_eq!(unaware.leave().await, Some(0), "told before it could notice");
    let took = told.elapsed();
    until("the other one has noticed", async || noticed.readyz().await["status"] == "not_ready")
        .await;
    let mut late = Replica::spawned("late", &url, HANGS).await;
    for (replica, name) in [(&mut noticed, "noticed"), (&mut late, "late")] {
        let told = Instant::now();
        assert_eq!(replica.leave().await, Some(0), "{name}");
        assert!(told.elapsed() < Duration::from_secs(3), "{name}: {:?}", told.elapsed());
    }
    assert!(took < Duration::from_secs(3), "unaware: {took:?}");
    cluster.resume().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_leaves_while_a_batch_hangs_leaves_well() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let settings = [HANGS, &[("TIDINGS_DRAIN_S", "1")]].concat();
    let mut replica = Replica::start("one", &url, &settings).await;
    replica.publish(&json!({"topic": "a", "data": 0})).await;
    cluster.pause().unwrap();
    let body = json!({"topic": "a", "data": 1});
    let address = format!("{}/v1/messages", replica.url);
    let caught = reqwest::Client::new().post(address).json(&body).send();
    let leave = async {
        until("it is on its way", async || replica.metric("tidings_server_connections").await >= 2)
            .await;
        replica.leave().await
    };
    let (caught, code) = tokio::join!(caught, leave);
    assert_eq!(code, Some(0));
    let answered = caught.is_ok_and(|answer| answer.status() == 201);
    assert!(!answered, "nobody knows whether it was committed");
    cluster.resume().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_leaves_leaves_nothing_waiting_in_postgres() {
    let url = harness::database_url().await;
    let mut replica = Replica::start("gone", &url, HANGS).await;
    let (mut holder, client) = (harness::connect(&url).await, harness::connect(&url).await);
    let held = holder.transaction().await.unwrap();
    held.batch_execute("lock table tidings.log, tidings.outbox in access exclusive mode")
        .await
        .unwrap();
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    let waiting = async || -> i64 { client.query_one(waiting, &[]).await.unwrap().get(0) };
    let body = json!({"topic": "a", "data": 1});
    let address = format!("{}/v1/messages", replica.url);
    let caught = reqwest::Client::new().post(address).json(&body).send();
    let leave = async {
        until("a look, the outbox and a batch wait", async || waiting().await >= 3).await;
        replica.leave().await
    };
    let (code, _) = tokio::join!(leave, caught);
    assert_eq!(code, Some(0));
    until("nothing waits for who is gone", async || waiting().await == 0).await;
    held.rollback().await.unwrap();
}
