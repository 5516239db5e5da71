//! Workers that claim, report and finish over HTTP, on whatever replica.

use std::time::Duration;

use super::watcher::Watcher;
use super::*;
use crate::harness;

fn external(count: usize) -> Value {
    but(simulated(count, 0), json!({"executor": {"type": "external"}}))
}

async fn claim(url: &str, worker: &str, changes: Value) -> (u16, Value) {
    let body = json!({"actions": ["cordon"], "worker": worker, "lease_s": 1});
    post(url, "/v1/tasks/claim", &but(body, changes)).await
}

async fn report(url: &str, id: &str, body: Value) -> (u16, Value) {
    post(url, &format!("/v1/tasks/{id}/report"), &body).await
}

async fn finish(url: &str, id: &str, term: &Value) -> (u16, Value) {
    post(url, &format!("/v1/tasks/{id}/finish"), &json!({"term": term})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_claims_reports_and_finishes_on_any_replica() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let (one, two) = (&fleet[0].url, &fleet[1].url);
    let watcher = Watcher::start(urls(&fleet), "");
    watcher.connected().await;
    assert_eq!(claim(one, "w1", json!({})).await, (204, Value::Null));
    // It waits on one replica, and the task is submitted on the other.
    let (claimed, id) =
        tokio::join!(claim(one, "w1", json!({"lease_s": 60, "wait_s": 30})), async {
            submit(two, &external(3)).await
        });
    let (status, task) = claimed;
    assert_eq!((status, &task["id"], &task["status"]), (200, &json!(id), &json!("running")));
    assert_eq!((&task["replica"], &task["more"]), (&json!("w1"), &json!(false)));
    let names: Vec<&Value> =
        task["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["node-0", "node-1", "node-2"]);
    assert_eq!(claim(two, "w2", json!({})).await.0, 204, "it is taken");
    let term = &task["term"];
    let results = json!([
        {"item": "node-0", "status": "succeeded"},
        {"item": "node-1", "status": "failed", "error": "no such node"},
    ]);
    let (status, task) =
        report(two, &id, json!({"term": term, "results": results, "in_flight": ["node-2"]})).await;
    assert_eq!((status, &task["current"], &task["stop"]), (200, &json!(2), &json!(false)));
    assert_eq!(task["in_flight"], json!(["node-2"]));
    // Told twice, it is booked once.
    let (_, again) = report(one, &id, json!({"term": term, "results": results})).await;
    assert_eq!((&again["current"], &again["seq"]), (&task["current"], &task["seq"]));
    let unknown = json!([{"item": "node-9", "status": "succeeded"}]);
    let (status, problem) = report(one, &id, json!({"term": term, "results": unknown})).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/results/0/item")));
    let last = json!([{"item": "node-2", "status": "succeeded"}]);
    assert_eq!(report(one, &id, json!({"term": term, "results": last})).await.0, 200);
    assert_eq!(finish(one, &id, term).await.1["status"], "partial");
    // The answer may have been lost.
    assert_eq!(finish(two, &id, term).await.0, 200);
    let ended = watcher.finished("user:42", &id, 1).await;
    assert_eq!(ended["failed_items"], json!([{"name": "node-1", "error": "no such node"}]));
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_silent_loses_its_task_and_is_told_so() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let (one, two) = (&fleet[0].url, &fleet[1].url);
    let id = submit(one, &external(2)).await;
    let (_, first) = claim(one, "w1", json!({})).await;
    let began = Instant::now();
    let (status, second) = claim(two, "w2", json!({"wait_s": 30, "lease_s": 60})).await;
    assert_eq!((status, &second["id"]), (200, &json!(id)));
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?} for a lease of 1 s");
    assert!(second["term"].as_u64() > first["term"].as_u64());
    let before = task(one, &id).await;
    let results = json!([{"item": "node-0", "status": "succeeded"}]);
    let stale = json!({"term": first["term"], "results": results});
    let (status, problem) = report(one, &id, stale).await;
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains("claim again"), "{problem}");
    assert_eq!(finish(one, &id, &first["term"]).await.0, 409);
    assert_eq!(task(one, &id).await, before, "nothing was changed");
    // What the second one does not report has failed when it finishes.
    let body = json!({"term": second["term"], "results": results});
    assert_eq!(report(two, &id, body).await.0, 200);
    assert_eq!(finish(two, &id, &second["term"]).await.1["status"], "partial");
    let failed = items(one, &id, "failed").await;
    assert_eq!(failed[0]["error"], "not reported");
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_reports_without_a_pause_is_slowed_down() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 1, &[]).await;
    let id = submit(&fleet[0].url, &external(25)).await;
    let (_, claimed) = claim(&fleet[0].url, "w1", json!({"lease_s": 60})).await;
    for name in names(25) {
        let results = json!([{"item": name, "status": "succeeded"}]);
        let body = json!({"term": claimed["term"], "results": results});
        assert_eq!(report(&fleet[0].url, &id, body).await.0, 200);
    }
    assert_eq!(finish(&fleet[0].url, &id, &claimed["term"]).await.1["status"], "completed");
    // Neither are many at once a way around.
    let client = harness::connect(&url).await;
    let crowd = submit(&fleet[0].url, &external(15)).await;
    let (_, claimed) = claim(&fleet[0].url, "w1", json!({"lease_s": 60})).await;
    let reports = names(15).into_iter().map(|name| {
        let results = json!([{"item": name, "status": "succeeded"}]);
        report(&fleet[0].url, &crowd, json!({"term": claimed["term"], "results": results}))
    });
    for (status, _) in futures_util::future::join_all(reports).await {
        assert_eq!(status, 200);
    }
    let most = progress_in_a_second(&client, &crowd).await;
    assert!(most <= 10, "{most} messages of progress in a second");
    let most = progress_in_a_second(&client, &id).await;
    assert!(most <= 10, "{most} messages of progress in a second");
    books_are_right(&client, &id).await;
}

#[tokio::test]
async fn nobody_reports_on_a_task_that_the_server_runs() {
    let replica = Replica::in_memory("own", &[("TIDINGS_DRAIN_S", "1")]).await;
    let id = submit(&replica.url, &simulated(3, 600_000)).await;
    let running = |task: &Value| task["in_flight"].as_array().unwrap().len() == 3;
    until_task(&replica.url, &id, "it is run", running).await;
    let results = json!([{"item": "node-0", "status": "succeeded"}]);
    let (status, problem) = report(&replica.url, &id, json!({"term": 1, "results": results})).await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(finish(&replica.url, &id, &json!(1)).await.0, 409);
    let task = task(&replica.url, &id).await;
    assert_eq!((&task["status"], &task["current"]), (&json!("running"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_told_to_stop_with_the_answer_to_its_report() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let id = submit(&fleet[0].url, &external(5)).await;
    let (_, claimed) = claim(&fleet[0].url, "w1", json!({"lease_s": 60})).await;
    wish(&fleet[1].url, &id, "cancel").await;
    let results = json!([{"item": "node-0", "status": "succeeded"}]);
    let body = json!({"term": claimed["term"], "results": results});
    let (_, told) = report(&fleet[0].url, &id, body).await;
    assert_eq!(told["stop"], true);
    let (_, ended) = finish(&fleet[0].url, &id, &claimed["term"]).await;
    assert_eq!((&ended["status"], &ended["cancelled"]), (&json!("cancelled"), &json!(4)));
    books_are_right(&harness::connect(&url).await, &id).await;
}
