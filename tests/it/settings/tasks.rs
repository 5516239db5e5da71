//! The settings of the part `tasks`.

use serde_json::{Value, json};

use super::{database, in_memory, in_postgres, number, until_live};
use crate::fleet::{Replica, until};
use crate::tasks::{but, post, simulated, submit, task, until_final, until_task};

fn of_workers() -> Value {
    but(simulated(1, 0), json!({"executor": {"type": "external"}}))
}

/// Asks for a task as a worker whose lease runs out soon.
async fn claim(replica: &Replica, wait_s: u32) -> u16 {
    let body = json!({"actions": ["cordon"], "worker": "w", "lease_s": 1, "wait_s": wait_s});
    post(&replica.url, "/v1/tasks/claim", &body).await.0
}

/// Tasks without an end that this replica works on.
async fn running(replica: &Replica) -> u64 {
    replica.metric("tidings_tasks_running").await
}

#[tokio::test]
pub(super) async fn so_many_tasks_are_worked_on_at_once() {
    for (max, expected) in [("2", 2), ("32", 4)] {
        let replica = in_memory(&[("tasks_max", max), ("drain_s", "1")]).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(submit(&replica.url, &simulated(1, 600_000)).await);
        }
        until("it has all that it takes", async || running(&replica).await == expected).await;
        // One that ends makes room for another, and for no more.
        let mut waiting = Vec::new();
        for id in &ids {
            if task(&replica.url, id).await["status"] == "pending" {
                waiting.push(id);
            }
        }
        assert_eq!(waiting.len() as u64, 4 - expected);
        assert_eq!(running(&replica).await, expected);
    }
}

#[tokio::test]
pub(super) async fn so_many_items_are_in_hand_at_once() {
    for (max, expected) in [("3", 3), ("512", 10)] {
        let replica = in_memory(&[("task_items_at_once_max", max), ("drain_s", "1")]).await;
        let id = submit(&replica.url, &simulated(60, 600_000)).await;
        let in_hand = |task: &Value| task["in_flight"].as_array().unwrap().len() == expected;
        until_task(&replica.url, &id, "so many are in hand", in_hand).await;
    }
}

#[tokio::test]
pub(super) async fn more_concurrency_is_answered_422() {
    let replica = in_memory(&[("task_concurrency_max", "5")]).await;
    let with = |concurrency: u32| but(simulated(1, 0), json!({"concurrency": concurrency}));
    assert_eq!(post(&replica.url, "/v1/tasks", &with(5)).await.0, 202);
    let (status, problem) = post(&replica.url, "/v1/tasks", &with(6)).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/concurrency")));
    // Unless it is said, it is no more than may be.
    let mut unsaid = simulated(1, 0);
    unsaid.as_object_mut().unwrap().remove("concurrency");
    assert_eq!(post(&replica.url, "/v1/tasks", &unsaid).await.1["concurrency"], 5);
}

#[tokio::test]
pub(super) async fn more_items_are_answered_413() {
    let replica = in_memory(&[("task_items_max", "3")]).await;
    assert_eq!(post(&replica.url, "/v1/tasks", &simulated(3, 0)).await.0, 202);
    assert_eq!(post(&replica.url, "/v1/tasks", &simulated(4, 0)).await.0, 413);
}

#[tokio::test]
pub(super) async fn a_lease_lasts_so_long() {
    for (lease_ms, low, high) in [("5000", 1, 5_000), ("900000", 100_000, 900_000)] {
        let (url, client) = database().await;
        let settings = [("task_lease_ms", lease_ms), ("drain_s", "1")];
        let replica = in_postgres("lease", &url, &settings).await;
        let id = submit(&replica.url, &simulated(1, 600_000)).await;
        let held = |task: &Value| task["status"] == "running";
        until_task(&replica.url, &id, "it is held", held).await;
        let left = "select (extract(epoch from due_at - clock_timestamp()) * 1000)::bigint from tidings.task";
        let left = number(&client, left).await;
        assert!((low..=high).contains(&left), "{left} ms of {lease_ms}");
    }
}

#[tokio::test]
pub(super) async fn what_was_not_announced_is_found_by_the_tick() {
    // A worker's task becomes a replica's behind everybody's back.
    let changed = "update tidings.task set external = false, executor = '{\"type\":\"simulate\"}'";
    let (looks, heads) = (
        "tidings_store_seconds_count{query=\"task_claim\"}",
        "tidings_store_seconds_count{query=\"log_head\"}",
    );
    for (tick_ms, found) in [("100", true), ("600000", false)] {
        let (url, client) = database().await;
        let settings = [("task_tick_ms", tick_ms), ("tick_ms", "100")];
        let replica = in_postgres("tick", &url, &settings).await;
        until_live(&replica).await;
        until("it has looked", async || replica.metric(looks).await > 0).await;
        let before = replica.metric(looks).await;
        let id = submit(&replica.url, &of_workers()).await;
        until("the hint was followed", async || replica.metric(looks).await > before).await;
        client.batch_execute(changed).await.unwrap();
        if found {
            assert_eq!(until_final(&replica.url, &id).await["status"], "completed");
        } else {
            let before = replica.metric(heads).await;
            until("time passes", async || replica.metric(heads).await > before + 10).await;
            assert_eq!(task(&replica.url, &id).await["status"], "pending");
        }
    }
}

#[tokio::test]
pub(super) async fn so_many_leases_may_run_out() {
    for (max, statuses) in [("0", [204, 204]), ("1", [200, 204])] {
        let replica = in_memory(&[("task_takeovers_max", max)]).await;
        let id = submit(&replica.url, &of_workers()).await;
        assert_eq!(claim(&replica, 0).await, 200);
        for status in statuses {
            assert_eq!(claim(&replica, 3).await, status, "of {max} takeovers");
        }
        assert_eq!(until_final(&replica.url, &id).await["status"], "interrupted");
    }
}

#[tokio::test]
pub(super) async fn tasks_that_ended_too_long_ago_are_gone() {
    let (url, client) = database().await;
    let looked = "tidings_store_seconds_count{query=\"task_expire\"}";
    let submitting = in_postgres("submitting", &url, &[]).await;
    let id = submit(&submitting.url, &simulated(3, 0)).await;
    until_final(&submitting.url, &id).await;
    let long_ago = "update tidings.task set finished_at = finished_at - interval '61 s'";
    client.batch_execute(long_ago).await.unwrap();
    let tasks = "select count(*) from tidings.task";
    let items = "select count(*) from tidings.task_item";
    let week = in_postgres("week", &url, &[]).await;
    until("it has looked", async || week.metric(looked).await > 0).await;
    assert_eq!((number(&client, tasks).await, number(&client, items).await), (1, 3));
    let _minute = in_postgres("minute", &url, &[("task_retention_s", "60")]).await;
    until("it is gone", async || number(&client, tasks).await == 0).await;
    assert_eq!(number(&client, items).await, 0);
}

#[tokio::test]
pub(super) async fn hosts_that_are_not_listed_are_not_asked() {
    let replica = in_memory(&[("task_http_hosts", "nodes.test,10.0.0.7:8080")]).await;
    for (url, status) in [
        ("https://nodes.test/{item}", 202),
        ("http://10.0.0.7:8080/", 202),
        ("http://10.0.0.7/", 422),
        ("https://other.test/", 422),
    ] {
        let executor = json!({"type": "http", "url": url});
        let changes = json!({"executor": executor, "items": ["a"], "retries": 0});
        let (came, said) = post(&replica.url, "/v1/tasks", &but(simulated(1, 0), changes)).await;
        assert_eq!(came, status, "{url}: {said}");
        // It cannot be reached, whatever it is.
        if let Some(id) = said["id"].as_str() {
            wish_cancel(&replica, id).await;
        }
    }
}

async fn wish_cancel(replica: &Replica, id: &str) {
    post(&replica.url, &format!("/v1/tasks/{id}/cancel"), &json!({})).await;
}
