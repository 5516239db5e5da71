//! What somebody wants of a task, on a replica that does not run it.

use super::watcher::Watcher;
use super::*;
use crate::harness;

/// One that does not run it.
fn another<'a>(fleet: &'a [Replica], running: &Replica) -> &'a Replica {
    fleet.iter().find(|replica| replica.name != running.name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_on_another_replica() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let watcher = Watcher::start(urls(&fleet), "");
    watcher.connected().await;
    let id = submit(&fleet[0].url, &simulated(1_000, 50)).await;
    let other = another(&fleet, until_running(&fleet, &id).await);
    let asked = wish(&other.url, &id, "cancel").await;
    assert_eq!(
        (&asked["status"], &asked["message"]),
        (&json!("running"), &json!("being cancelled"))
    );
    // Asked twice it is asked once.
    wish(&other.url, &id, "cancel").await;
    let ended = watcher.finished("user:42", &id, 1).await;
    assert_eq!(ended["status"], "cancelled", "{ended}");
    let number = |name: &str| ended[name].as_u64().unwrap();
    assert_eq!(number("succeeded") + number("cancelled"), 1_000, "what was in hand was finished");
    assert!(number("succeeded") > 0 && number("current") < 1_000);
    assert_eq!(items(&other.url, &id, "cancelled").await.len() as u64, number("cancelled"));
    books_are_right(&harness::connect(&url).await, &id).await;
    for refused in ["pause", "resume"] {
        let path = format!("/v1/tasks/{id}/{refused}");
        let (status, problem) = post(&other.url, &path, &json!({})).await;
        assert_eq!(status, 409);
        assert!(problem["detail"].as_str().unwrap().contains("cancelled"), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_paused_on_one_replica_and_resumed_on_another() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 3, &[]).await;
    let watcher = Watcher::start(urls(&fleet), "");
    watcher.connected().await;
    let id = submit(&fleet[0].url, &simulated(100, 50)).await;
    let running = until_running(&fleet, &id).await;
    let other = another(&fleet, running);
    assert_eq!(wish(&other.url, &id, "pause").await["status"], "paused");
    let lets_go = |task: &Value| task["in_flight"] == json!([]);
    let paused = until_task(&running.url, &id, "what is in hand is finished", lets_go).await;
    assert_eq!(paused["status"], "paused");
    let current = paused["current"].as_u64().unwrap();
    assert!((1..100).contains(&current), "{paused}");
    let client = harness::connect(&url).await;
    until("its holder lets go", async || {
        let held = "select held from tidings.task";
        !client.query_one(held, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    let waiting = items(&other.url, &id, "unfinished").await;
    assert_eq!(waiting.len() as u64, 100 - current, "nothing is lost and nothing goes on");
    // Whoever has hands free may have it before the answer is written.
    let resumed = wish(&fleet[0].url, &id, "resume").await;
    assert!(resumed["status"] == "pending" || resumed["status"] == "running", "{resumed}");
    let ended = watcher.finished("user:42", &id, 1).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(1)));
    books_are_right(&client, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_retried_as_another_attempt() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let watcher = Watcher::start(urls(&fleet), "");
    watcher.connected().await;
    let executor = json!({"type": "simulate", "fail_rate": 0.4, "seed": 11});
    let id = submit(&fleet[0].url, &but(simulated(50, 0), json!({"executor": executor}))).await;
    let mut ended = watcher.finished("user:42", &id, 1).await;
    assert_eq!((&ended["status"], &ended["error"]), (&json!("partial"), &Value::Null));
    let listed = ended["failed_items"].as_array().unwrap();
    assert_eq!(listed.len() as u64, ended["failed"].as_u64().unwrap());
    assert_eq!(listed[0]["error"], "simulated failure");
    let mut attempts = 1;
    while ended["status"] != "completed" {
        let succeeded = ended["succeeded"].as_u64().unwrap();
        let retried = wish(&fleet[attempts % 2].url, &id, "retry").await;
        attempts += 1;
        assert_eq!(retried["attempt"].as_u64().unwrap(), attempts as u64);
        ended = watcher.finished("user:42", &id, attempts).await;
        assert!(ended["succeeded"].as_u64().unwrap() >= succeeded, "what succeeded stays so");
    }
    assert!(attempts > 1);
    books_are_right(&harness::connect(&url).await, &id).await;
    let (status, _) = post(&fleet[0].url, &format!("/v1/tasks/{id}/retry"), &json!({})).await;
    assert_eq!(status, 409, "there is nothing left to run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_wishes_anything_of_a_task_that_is_not_there() {
    let replica = Replica::in_memory("replica-1", &[]).await;
    for id in ["none", "NONE", "a%20b", "%00"] {
        for wish in ["cancel", "pause", "resume", "retry", "report", "finish"] {
            let path = format!("/v1/tasks/{id}/{wish}");
            let (status, problem) = post(&replica.url, &path, &json!({"term": 1})).await;
            assert_eq!(status, 404, "{path}: {problem}");
        }
        for path in [format!("/v1/tasks/{id}"), format!("/v1/tasks/{id}/items")] {
            let answer = reqwest::get(format!("{}{path}", replica.url)).await.unwrap();
            assert_eq!(answer.status(), 404, "{path}");
        }
    }
}
