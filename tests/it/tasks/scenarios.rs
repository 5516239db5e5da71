//! What people do: watch from anywhere, leave and come back, start many at once.

use serde_json::json;
use tokio::task::JoinSet;

use super::watcher::Watcher;
use super::*;
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_the_task_from_every_replica() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let watchers: Vec<Watcher> =
        fleet.iter().map(|replica| Watcher::start(vec![replica.url.clone()], "")).collect();
    for watcher in &watchers {
        watcher.connected().await;
    }
    let id = submit(&fleet[0].url, &simulated(60, 50)).await;
    // One of the two runs it, so that it comes to the other watcher from elsewhere.
    for watcher in &watchers {
        let last = watcher.finished("user:42", &id, 1).await;
        assert_eq!((&last["status"], &last["current"]), (&json!("completed"), &json!(60)));
        let frames = watcher.of("user:42", &id);
        assert_eq!(frames[0]["data"]["status"], "pending");
        assert!(frames.len() >= 4, "{} frames", frames.len());
        let mut listed: Vec<&str> = frames
            .iter()
            .flat_map(|frame| frame["data"]["succeeded_items"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        listed.sort_unstable();
        let mut all = names(60);
        all.sort_unstable();
        assert_eq!(listed, all, "each item is listed once");
    }
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reloads_is_shown_the_task_as_it_stands_and_then_what_follows() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let id = submit(&fleet[0].url, &simulated(200, 50)).await;
    let topic = format!("task:{id}");
    let mut began = Vec::new();
    for (at_least, replica) in (0_u64..150).step_by(15).zip(fleet.iter().cycle()) {
        let so = |task: &Value| task["current"].as_u64().unwrap() >= at_least;
        until_task(&fleet[0].url, &id, "it goes on", so).await;
        // Alternately on the replica that runs it and on the other one.
        let watcher = Watcher::start(vec![replica.url.clone()], &topic);
        until("the first frame comes", async || !watcher.of(&topic, &id).is_empty()).await;
        let first = watcher.of(&topic, &id)[0]["data"]["current"].as_u64().unwrap();
        assert!(first >= at_least, "{first} is shown after {at_least}");
        began.push(watcher);
    }
    for watcher in &began {
        watcher.finished(&topic, &id, 1).await;
    }
    // Who comes when all is over is told how it ended, and waits for nothing.
    let late = Watcher::start(vec![fleet[1].url.clone()], &topic);
    let last = late.finished(&topic, &id, 1).await;
    assert_eq!(last["status"], "completed");
    assert_eq!(late.of(&topic, &id).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_was_away_finds_the_end_on_return() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let id = submit(&fleet[0].url, &simulated(80, 50)).await;
    let topic = format!("task:{id}");
    let before = Watcher::start(vec![fleet[0].url.clone()], &topic);
    until("something of it is seen", async || before.of(&topic, &id).len() > 3).await;
    let (cursor, seen) = (before.cursor(), before.of(&topic, &id).len());
    drop(before);
    let during = task(&fleet[0].url, &id).await;
    assert_eq!(during["status"], "running", "away after {seen} frames");
    // Back while it runs, on another replica: the state first, then the end.
    let back = Watcher::start(vec![fleet[1].url.clone()], &topic);
    let first = async || back.of(&topic, &id).first().cloned();
    until("the state comes", async || first().await.is_some()).await;
    let shown = first().await.unwrap()["data"]["current"].as_u64().unwrap();
    assert!(shown >= during["current"].as_u64().unwrap());
    back.finished(&topic, &id, 1).await;
    // Back after the end, with the cursor from before it.
    let late = Watcher::resuming(vec![fleet[1].url.clone()], &topic, cursor);
    let last = late.finished("user:42", &id, 1).await;
    assert_eq!(last["status"], "completed");
    late.finished(&topic, &id, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_shown_long_after_its_messages_are_gone() {
    let settings = [("TIDINGS_MEMORY_MESSAGES_MAX", "16"), ("TIDINGS_RING_MESSAGES_MAX", "16")];
    let replica = Replica::in_memory("replica-1", &settings).await;
    let id = submit(&replica.url, &simulated(3, 0)).await;
    let ended = until_final(&replica.url, &id).await;
    let messages: Vec<Value> = (0..100).map(|n| json!({"topic": "a", "data": n})).collect();
    replica.publish(&json!({ "messages": messages })).await;
    until("its messages are gone", async || {
        replica.stats().await["log"]["oldest"].as_u64() > ended["seq"].as_u64()
    })
    .await;
    let topic = format!("task:{id}");
    let watcher = Watcher::start(vec![replica.url.clone()], &topic);
    assert_eq!(watcher.finished(&topic, &id, 1).await["status"], "completed");
    let page = get(&replica.url, &format!("/v1/messages?topic={topic}")).await;
    assert_eq!(page["messages"][0]["data"]["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tabs_of_one_user_see_the_same() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let tabs: Vec<Watcher> =
        (0..6).map(|tab| Watcher::start(vec![fleet[tab % 2].url.clone()], "")).collect();
    for tab in &tabs {
        tab.connected().await;
    }
    let id = submit(&fleet[1].url, &simulated(40, 30)).await;
    let mut ends = Vec::new();
    for tab in &tabs {
        ends.push(tab.finished("user:42", &id, 1).await);
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_users_start_tasks_at_once() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 3, &[]).await;
    let urls = urls(&fleet);
    let mut users = JoinSet::new();
    for user in 0..100 {
        let url = urls[user % 3].clone();
        let owner = format!("user-{user}");
        let body = but(simulated(20, 10), json!({"owner": owner}));
        users.spawn(async move { (owner, submit(&url, &body).await) });
    }
    let submitted = users.join_all().await;
    let client = harness::connect(&url).await;
    for (owner, id) in &submitted {
        let task = until_final(&urls[0], id).await;
        assert_eq!((&task["status"], &task["owner"]), (&json!("completed"), &json!(owner)));
        books_are_right(&client, id).await;
    }
    let claims = "select count(*) from tidings.task where term > 1";
    let again = client.query_one(claims, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(again, 0, "nobody took over what was being worked on");
    let page = get(&urls[2], "/v1/tasks?owner=user-7").await;
    assert_eq!(page["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_who_starts_all_he_can_leaves_hands_to_the_next() {
    let replica = Replica::in_memory("shared", &[("TIDINGS_DRAIN_S", "1")]).await;
    let of = |owner: &str, count: usize, delay_ms: u64| {
        let changes = json!({"owner": owner, "concurrency": 200, "item_timeout_s": 3_600});
        but(simulated(count, delay_ms), changes)
    };
    let mut greedy = Vec::new();
    for _ in 0..40 {
        greedy.push(submit(&replica.url, &of("ann", 200, 600_000)).await);
    }
    until("hands and places for tasks are as full as one owner makes them", async || {
        let lists = replica.metric("tidings_tasks_running").await;
        let mut in_hand = 0;
        for id in &greedy {
            in_hand += task(&replica.url, id).await["in_flight"].as_array().unwrap().len();
        }
        lists > 20 && in_hand > 400
    })
    .await;
    let next = submit(&replica.url, &of("ben", 5, 0)).await;
    assert_eq!(until_final(&replica.url, &next).await["status"], "completed");
}
