//! Many items, submitted once.

use super::*;
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_items_are_taken_and_one_more_is_not() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 1, &[]).await;
    let (status, problem) = post(&fleet[0].url, "/v1/tasks", &simulated(100_001, 0)).await;
    assert_eq!(status, 413);
    assert!(problem["detail"].as_str().unwrap().contains("100000"), "{problem}");
    let began = Instant::now();
    let id = submit(&fleet[0].url, &simulated(100_000, 1_000)).await;
    println!("100,000 items were taken in {:?}", began.elapsed());
    let task = until_running(&fleet, &id).await;
    let shown = super::task(&task.url, &id).await;
    assert_eq!(shown["total"], 100_000);
    wish(&fleet[0].url, &id, "cancel").await;
    assert_eq!(until_final(&fleet[0].url, &id).await["status"], "cancelled");
    let client = harness::connect(&url).await;
    books_are_right(&client, &id).await;
    let tasks = client.query_one("select count(*) from tidings.task", &[]).await.unwrap();
    assert_eq!(tasks.get::<_, i64>(0), 1, "nothing of what was refused is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_submitted_once_however_often_it_is_sent() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let body = but(simulated(10, 10), json!({"idempotency_key": "again"}));
    let send = |place: usize| post(&fleet[place % 2].url, "/v1/tasks", &body);
    let answers = futures_util::future::join_all((0..20).map(send)).await;
    let id = answers[0].1["id"].clone();
    assert!(answers.iter().all(|(status, task)| *status == 202 && task["id"] == id));
    let fresh = answers.iter().filter(|(_, task)| task["duplicate"] == false).count();
    assert_eq!(fresh, 1);
    // And long after it has ended.
    let ended = until_final(&fleet[0].url, id.as_str().unwrap()).await;
    let (_, again) = send(1).await;
    assert_eq!((&again["id"], &again["status"]), (&id, &ended["status"]));
    // Another user's key is another key.
    let other = format!("{}/v1/tasks?user=7", fleet[0].url);
    let client = reqwest::Client::new();
    let answer: Value = client.post(other).json(&body).send().await.unwrap().json().await.unwrap();
    assert_ne!(answer["id"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_page_by_page_and_hold_no_null() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let executor = json!({"type": "simulate", "fail": ["node-3"]});
    let id = submit(&fleet[0].url, &but(simulated(7, 0), json!({"executor": executor}))).await;
    let ended = until_final(&fleet[1].url, &id).await;
    assert_eq!(ended["status"], "partial");
    assert_eq!(ended["in_flight"], json!([]));
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(&fleet[1].url, &format!("/v1/tasks/{id}/items?limit=3{after}")).await;
        let names = page["items"].as_array().unwrap().iter().map(|item| item["name"].clone());
        found.extend(names);
        if page["more"] == false {
            break;
        }
        after = format!("&after={}", found.last().unwrap().as_str().unwrap());
    }
    assert_eq!(found, names(7), "in the order of submission");
    let failed = items(&fleet[0].url, &id, "failed").await;
    assert_eq!((failed.len(), &failed[0]["name"]), (1, &json!("node-3")));
    let mut ids = vec![id];
    for _ in 0..4 {
        ids.push(submit(&fleet[0].url, &simulated(1, 0)).await);
    }
    let first = get(&fleet[1].url, "/v1/tasks?limit=3&owner=42").await;
    let of = |page: &Value| -> Vec<String> {
        let tasks = page["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut listed = of(&first);
    assert_eq!((listed.len(), &first["more"]), (3, &json!(true)));
    let rest = get(&fleet[1].url, &format!("/v1/tasks?limit=3&after={}", listed[2])).await;
    assert_eq!(rest["more"], false);
    listed.extend(of(&rest));
    ids.reverse();
    assert_eq!(listed, ids, "the newest first");
}
