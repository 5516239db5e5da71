//! The replica that runs a task dies, freezes, or is cut off: another one finishes it.

use std::time::Duration;

use tidings::cluster::Options;

use super::http::Target;
use super::watcher::Watcher;
use super::*;
use crate::harness;
use crate::proxy::{Proxy, Weather};

const LEASE: Duration = Duration::from_secs(2);

/// For a machine that is slow: what is promised is the lease and a tick.
const SLACK: Duration = Duration::from_secs(3);

/// Waits until another replica has it; says how long that took.
async fn taken_over(url: &str, id: &str, from: &str, since: Instant) {
    let other = |task: &Value| task["replica"] != from || is_final(task);
    until_task(url, id, "another one takes it over", other).await;
    let took = since.elapsed();
    println!("taken over after {took:?} (lease {LEASE:?})");
    assert!(took < LEASE + SLACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_killed_and_another_one_finishes() {
    let url = harness::database_url().await;
    let mut fleet = fleet(&url, 3, &[]).await;
    let watchers: Vec<Watcher> = (0..3)
        .map(|first| {
            let urls = urls(&fleet).into_iter().cycle().skip(first).take(3).collect();
            Watcher::start(urls, "")
        })
        .collect();
    for watcher in &watchers {
        watcher.connected().await;
    }
    let id = submit(&fleet[0].url, &simulated(200, 100)).await;
    let name = until_running(&fleet, &id).await.name.clone();
    let place = fleet.iter().position(|replica| replica.name == name).unwrap();
    let mut dead = fleet.remove(place);
    dead.kill().await;
    taken_over(&fleet[0].url, &id, &name, Instant::now()).await;
    for watcher in &watchers {
        let last = watcher.finished("user:42", &id, 1).await;
        assert_eq!((&last["status"], &last["succeeded"]), (&json!("completed"), &json!(200)));
    }
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_frozen_changes_nothing_when_it_wakes() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let id = submit(&fleet[0].url, &simulated(100, 100)).await;
    let frozen = until_running(&fleet, &id).await;
    let other = fleet.iter().find(|replica| replica.name != frozen.name).unwrap();
    frozen.signal("-STOP");
    taken_over(&other.url, &id, &frozen.name, Instant::now()).await;
    // It wakes while the other one works, and a second time when all is over.
    let more = |task: &Value| task["replica"] == other.name && task["status"] == "running";
    let during = until_task(&other.url, &id, "the other one works", more).await;
    frozen.signal("-CONT");
    until_metric(frozen, "tidings_tasks_lost_total", 1).await;
    let after = task(&other.url, &id).await;
    assert_eq!(after["replica"], *other.name);
    assert!(after["current"].as_u64() >= during["current"].as_u64());
    let ended = until_final(&other.url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(100)));
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_sleeps_through_it_all_wakes_and_says_nothing() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let id = submit(&fleet[0].url, &simulated(40, 100)).await;
    let frozen = until_running(&fleet, &id).await;
    let other = fleet.iter().find(|replica| replica.name != frozen.name).unwrap();
    frozen.signal("-STOP");
    let ended = until_final(&other.url, &id).await;
    assert_eq!(ended["status"], "completed");
    frozen.signal("-CONT");
    until_metric(frozen, "tidings_tasks_lost_total", 1).await;
    assert_eq!(task(&frozen.url, &id).await, ended);
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_cut_from_postgres_loses_its_task_and_no_more() {
    let url = harness::database_url().await;
    let (proxy, through) = Proxy::to_database(&url).await;
    let cut = Replica::start("cut", &through, QUICK).await;
    let id = submit(&cut.url, &simulated(100, 100)).await;
    until_running(std::slice::from_ref(&cut), &id).await;
    let other = Replica::start("other", &url, QUICK).await;
    proxy.weather(Weather::Black);
    taken_over(&other.url, &id, "cut", Instant::now()).await;
    let ended = until_final(&other.url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(100)));
    proxy.weather(Weather::Fair);
    until_metric(&cut, "tidings_tasks_lost_total", 1).await;
    assert_eq!(task(&cut.url, &id).await, ended);
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_finished_while_postgres_was_away_is_told_when_it_is_back() {
    let url = harness::database_url().await;
    let target = Target::start().await;
    let (proxy, through) = Proxy::to_database(&url).await;
    let settings = [("TIDINGS_TASK_LEASE_MS", "60000"), ("TIDINGS_TASK_HTTP_HOSTS", &target.host)];
    let replica = Replica::start("replica-1", &through, &settings).await;
    let items: Vec<String> = (0..40).map(|number| format!("slow-{}", 300 + number)).collect();
    let body = but(simulated(1, 0), json!({"items": items, "executor": target.executor()}));
    let id = submit(&replica.url, &body).await;
    until("the first are in hand", async || target.counts().len() >= 10).await;
    proxy.weather(Weather::Black);
    // It holds the lease and goes on by itself.
    until("twenty are begun", async || target.counts().len() >= 20).await;
    proxy.cut();
    proxy.weather(Weather::Fair);
    let ended = until_final(&replica.url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(40)));
    assert!(target.counts().values().all(|count| *count == 1), "{:?}", target.counts());
    let client = harness::connect(&url).await;
    let term = client.query_one("select term from tidings.task", &[]).await.unwrap();
    assert_eq!(term.get::<_, i64>(0), 1, "nobody had to take it over");
    books_are_right(&client, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_at_most_once_is_never_run_again() {
    let url = harness::database_url().await;
    let target = Target::start().await;
    let mut fleet = fleet(&url, 2, &[("TIDINGS_TASK_HTTP_HOSTS", &target.host)]).await;
    let items: Vec<String> = (0..60).map(|number| format!("slow-{}", 100 + number)).collect();
    let executor = target.executor();
    let body = but(
        simulated(1, 0),
        json!({"items": items, "executor": executor, "at_most_once": true, "retries": 0}),
    );
    let id = submit(&fleet[0].url, &body).await;
    let name = until_running(&fleet, &id).await.name.clone();
    let place = fleet.iter().position(|replica| replica.name == name).unwrap();
    fleet.remove(place).kill().await;
    let ended = until_final(&fleet[0].url, &id).await;
    assert_eq!(ended["status"], "partial", "{ended}");
    let counts = target.counts();
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let failed = super::items(&fleet[0].url, &id, "failed").await;
    assert!((1..=10).contains(&failed.len()), "{} interrupted", failed.len());
    assert!(failed.iter().all(|item| item["error"] == "interrupted"), "{failed:?}");
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_leaves_hands_over_at_the_end_of_its_items() {
    let url = harness::database_url().await;
    let target = Target::start().await;
    let settings = [("TIDINGS_TASK_LEASE_MS", "600000"), ("TIDINGS_TASK_HTTP_HOSTS", &target.host)];
    let mut fleet = fleet(&url, 2, &settings).await;
    let items: Vec<String> = (0..60).map(|number| format!("slow-{}", 100 + number)).collect();
    let body = but(simulated(1, 0), json!({"items": items, "executor": target.executor()}));
    let id = submit(&fleet[0].url, &body).await;
    let name = until_running(&fleet, &id).await.name.clone();
    let place = fleet.iter().position(|replica| replica.name == name).unwrap();
    assert_eq!(fleet.remove(place).leave().await, Some(0));
    // Long before its lease would run out, and without running anything twice.
    let ended = until_final(&fleet[0].url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(60)));
    assert_eq!(ended["replica"], fleet[0].name);
    let counts = target.counts();
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_finished_while_a_replica_leaves_and_postgres_stands_still_is_told_in_the_drain() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let target = Target::start().await;
    let settings = [
        ("TIDINGS_TASK_LEASE_MS", "600000"),
        ("TIDINGS_TASK_HTTP_HOSTS", &*target.host),
        ("TIDINGS_STATEMENT_TIMEOUT_MS", "2000"),
        ("TIDINGS_DRAIN_S", "60"),
    ];
    let mut leaving = Replica::start("leaving", &url, &settings).await;
    let items: Vec<String> = (0..40).map(|number| format!("slow-{}", 500 + number)).collect();
    let body = but(simulated(1, 0), json!({"items": items, "executor": target.executor()}));
    let id = submit(&leaving.url, &body).await;
    until("the first are in hand", async || target.counts().len() >= 10).await;
    cluster.pause().unwrap();
    leaving.signal("-TERM");
    let begun = until_quiet(&target).await;
    cluster.resume().unwrap();
    assert_eq!(leaving.ended().await, Some(0));
    let client = harness::connect(&url).await;
    let done = "select count(*) from tidings.task_item where status = 'succeeded'";
    let done: i64 = client.query_one(done, &[]).await.unwrap().get(0);
    assert_eq!(usize::try_from(done).unwrap(), begun, "what it had in hand was booked");
    let other = Replica::start("other", &url, &settings).await;
    let ended = until_final(&other.url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(40)));
    assert!(target.counts().values().all(|count| *count == 1), "{:?}", target.counts());
    books_are_right(&client, &id).await;
}

/// Waits until everything that was begun was answered, and says how much that was.
async fn until_quiet(target: &Target) -> usize {
    until("what is in hand is answered", async || target.answered() == target.counts().len()).await;
    target.counts().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_leaves_well_though_its_task_cannot_be_handed_back() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let settings = [("TIDINGS_STATEMENT_TIMEOUT_MS", "60000"), ("TIDINGS_DRAIN_S", "1")];
    let mut leaving = Replica::start("leaving", &url, &settings).await;
    let id = submit(&leaving.url, &simulated(100, 100)).await;
    until_running(std::slice::from_ref(&leaving), &id).await;
    cluster.pause().unwrap();
    assert_eq!(leaving.leave().await, Some(0));
    cluster.resume().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_at_most_once_that_outlasts_the_drain_is_not_run_again() {
    let url = harness::database_url().await;
    let target = Target::start().await;
    let settings = [("TIDINGS_TASK_HTTP_HOSTS", &*target.host), ("TIDINGS_DRAIN_S", "1")];
    let mut fleet = fleet(&url, 2, &settings).await;
    let changes = json!({
        "items": ["hang-1", "node-1", "node-2"],
        "executor": target.executor(),
        "at_most_once": true,
        "item_timeout_s": 600,
        "concurrency": 2,
    });
    let id = submit(&fleet[0].url, &but(simulated(1, 0), changes)).await;
    until("it hangs", async || !target.asked("hang-1").is_empty()).await;
    let task = task(&fleet[0].url, &id).await;
    let place = fleet.iter().position(|replica| task["replica"] == replica.name).unwrap();
    fleet.remove(place).leave().await;
    let ended = until_final(&fleet[0].url, &id).await;
    assert_eq!(ended["status"], "partial", "{ended}");
    let failed = items(&fleet[0].url, &id, "failed").await;
    assert_eq!((failed.len(), &failed[0]["error"]), (1, &json!("interrupted")), "{failed:?}");
    assert!(target.counts().values().all(|count| *count == 1), "{:?}", target.counts());
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_whoever_takes_it_is_interrupted() {
    let url = harness::database_url().await;
    let settings = [("TIDINGS_TASK_TAKEOVERS_MAX", "1")];
    let mut fleet = fleet(&url, 3, &settings).await;
    let id = submit(&fleet[0].url, &simulated(1, 600_000)).await;
    for _ in 0..2 {
        let url = fleet[0].url.clone();
        let held = |task: &Value| {
            task["status"] == "running"
                && fleet.iter().any(|replica| task["replica"] == replica.name)
        };
        let task = until_task(&url, &id, "somebody has it", held).await;
        let place = fleet.iter().position(|replica| task["replica"] == replica.name).unwrap();
        fleet.remove(place).kill().await;
    }
    let ended = until_final(&fleet[0].url, &id).await;
    assert_eq!(ended["status"], "interrupted", "{ended}");
    assert!(ended["error"].as_str().unwrap().contains("died"), "{ended}");
    // A person may try again.
    assert_eq!(wish(&fleet[0].url, &id, "retry").await["attempt"], 2);
}
