//! The settings of the part `memory`.

use serde_json::json;

use super::client::{get, publish};
use super::in_memory;
use crate::fleet::until;
use crate::tasks::{but, post, simulated, submit, until_final};

#[tokio::test]
pub(super) async fn what_memory_does_not_keep_is_gone() {
    for (key, value, bytes, kept) in
        [("memory_messages_max", "16", 10, 16), ("memory_bytes_max", "1 MiB", 100_000, 10)]
    {
        let replica = in_memory(&[(key, value), ("tick_ms", "100")]).await;
        let begin = publish(&replica, "a", 40, bytes).await;
        let gone = format!("/v1/messages?topic=a&after={begin}");
        until("it is known what is gone", async || get(&replica, &gone).await.status == 410).await;
        let answer = get(&replica, &gone).await;
        let cursor = answer.is_problem(410).json()["cursor"].as_str().unwrap().to_owned();
        let good = get(&replica, &format!("/v1/messages?topic=a&after={cursor}")).await;
        assert_eq!(good.json()["messages"].as_array().unwrap().len(), kept, "{key}");
    }
}

#[tokio::test]
pub(super) async fn tasks_weigh_so_much_at_most() {
    let replica = in_memory(&[("memory_bytes_max", "1 MiB"), ("drain_s", "1")]).await;
    let of = |kib: usize| {
        let items = [json!({"name": "a", "data": "x".repeat(kib << 10)})];
        but(simulated(1, 600_000), json!({"items": items}))
    };
    submit(&replica.url, &of(700)).await;
    let (status, problem) = post(&replica.url, "/v1/tasks", &of(400)).await;
    assert_eq!(status, 429, "{problem}");
    submit(&replica.url, &of(200)).await;
}

#[tokio::test]
pub(super) async fn of_tasks_those_that_ended_go_first_and_then_none_is_taken() {
    let replica = in_memory(&[("memory_items_max", "10"), ("drain_s", "1")]).await;
    let first = submit(&replica.url, &simulated(6, 0)).await;
    until_final(&replica.url, &first).await;
    submit(&replica.url, &simulated(6, 600_000)).await;
    let gone = format!("/v1/tasks/{first}");
    assert_eq!(get(&replica, &gone).await.status, 404);
    let (status, problem) = post(&replica.url, "/v1/tasks", &simulated(5, 0)).await;
    assert_eq!(status, 429, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("10 items"), "{problem}");
    submit(&replica.url, &simulated(4, 0)).await;
}
