//! Many items, many observers, and whoever runs them is killed, twice.
//!
//! `TIDINGS_TASK_ITEMS` says how many items (10,000 unless told).

use super::watcher::Watcher;
use super::*;
use crate::harness;

const OBSERVERS: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn every_item_is_finished_once_though_two_replicas_die() {
    let named = std::env::var("TIDINGS_TASK_ITEMS").ok().and_then(|text| text.parse().ok());
    let count: usize = named.unwrap_or(10_000);
    let url = harness::database_url().await;
    let mut fleet = fleet(&url, 3, &[]).await;
    let urls = urls(&fleet);
    let observers: Vec<Watcher> = (0..OBSERVERS)
        .map(|place| {
            let urls = urls.iter().cycle().skip(place).take(3).cloned().collect();
            Watcher::start(urls, "")
        })
        .collect();
    for observer in &observers {
        observer.connected().await;
    }
    let executor = json!({"type": "simulate", "delay_ms": [20, 80]});
    let body = but(simulated(count, 0), json!({"executor": executor, "concurrency": 100}));
    let began = Instant::now();
    let id = submit(&urls[0], &body).await;
    for part in [3, 2] {
        let url = fleet[0].url.clone();
        let at_least = (count / part) as u64;
        let far = |task: &Value| {
            task["current"].as_u64().unwrap() >= at_least
                && fleet.iter().any(|replica| task["replica"] == replica.name)
        };
        let task = until_task(&url, &id, "it gets so far", far).await;
        let place = fleet.iter().position(|replica| task["replica"] == replica.name).unwrap();
        fleet.remove(place).kill().await;
        println!("{} killed at {} of {count}", task["replica"], task["current"]);
    }
    let ended = until_final(&fleet[0].url, &id).await;
    println!("{count} items, killed twice, {OBSERVERS} observers: {:.2?}", began.elapsed());
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(count)));
    for observer in &observers {
        let last = observer.finished("user:42", &id, 1).await;
        assert_eq!(last["current"], json!(count));
    }
    let client = harness::connect(&url).await;
    books_are_right(&client, &id).await;
    let most = progress_in_a_second(&client, &id).await;
    assert!(most <= 10, "{most} messages of progress in a second");
}
