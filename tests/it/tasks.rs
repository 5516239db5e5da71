//! Tasks through the real binary, on several replicas over one Postgres.

mod cli;
mod cost;
mod external;
mod faults;
pub mod http;
mod items;
pub mod kubernetes;
mod scenarios;
mod storm;
mod watcher;
mod wishes;
mod work;

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fleet::{PATIENCE, Replica, until};

/// A lease that runs out soon, so that takeovers are not waited for for long.
const QUICK: &[(&str, &str)] = &[
    ("TIDINGS_TASK_LEASE_MS", "2000"),
    ("TIDINGS_TASK_TICK_MS", "250"),
    ("TIDINGS_TICK_MS", "200"),
    ("TIDINGS_DRAIN_S", "5"),
];

async fn fleet(database_url: &str, count: usize, settings: &[(&str, &str)]) -> Vec<Replica> {
    let settings: Vec<_> = QUICK.iter().chain(settings).copied().collect();
    let start = |number: usize| {
        let (name, settings) = (format!("replica-{number}"), settings.clone());
        async move { Replica::start(&name, database_url, &settings).await }
    };
    futures_util::future::join_all((1..=count).map(start)).await
}

fn urls(fleet: &[Replica]) -> Vec<String> {
    fleet.iter().map(|replica| replica.url.clone()).collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("node-{number}")).collect()
}

/// A task of the user 42 whose items take so long.
pub fn simulated(count: usize, delay_ms: u64) -> Value {
    json!({
        "action": "cordon",
        "items": names(count),
        "owner": "42",
        "concurrency": 10,
        "executor": {"type": "simulate", "delay_ms": delay_ms},
    })
}

pub fn but(mut body: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("the changes are an object") };
    body.as_object_mut().unwrap().extend(changes);
    body
}

pub async fn post(url: &str, path: &str, body: &Value) -> (u16, Value) {
    let client = reqwest::Client::new();
    let answer = client.post(format!("{url}{path}")).json(body).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

pub async fn get(url: &str, path: &str) -> Value {
    let answer = reqwest::get(format!("{url}{path}")).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

pub async fn submit(url: &str, body: &Value) -> String {
    let (status, task) = post(url, "/v1/tasks", body).await;
    assert_eq!(status, 202, "{task}");
    task["id"].as_str().unwrap().to_owned()
}

pub async fn wish(url: &str, id: &str, wish: &str) -> Value {
    let (status, task) = post(url, &format!("/v1/tasks/{id}/{wish}"), &json!({})).await;
    assert_eq!(status, 202, "{task}");
    task
}

pub async fn task(url: &str, id: &str) -> Value {
    get(url, &format!("/v1/tasks/{id}")).await
}

/// Waits until a task is so, and returns it.
pub async fn until_task(url: &str, id: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let task = task(url, id).await;
        if so(&task) {
            return task;
        }
        assert!(Instant::now() < deadline, "in vain: {what}: {task}");
        tokio::task::yield_now().await;
    }
}

fn is_final(task: &Value) -> bool {
    !["pending", "running", "paused"].contains(&task["status"].as_str().unwrap())
}

pub async fn until_final(url: &str, id: &str) -> Value {
    until_task(url, id, "it ends", is_final).await
}

/// Waits until somebody works on it and some of it is done; returns where it runs.
pub async fn until_running<'a>(fleet: &'a [Replica], id: &str) -> &'a Replica {
    let some = |task: &Value| task["status"] == "running" && task["current"] != 0;
    let task = until_task(&fleet[0].url, id, "it runs", some).await;
    fleet.iter().find(|replica| task["replica"] == replica.name).unwrap()
}

/// The items that are so, page by page.
pub async fn items(url: &str, id: &str, status: &str) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    loop {
        let after = found.last().map_or("", |last| last["name"].as_str().unwrap());
        let after = if after.is_empty() { String::new() } else { format!("&after={after}") };
        let page =
            get(url, &format!("/v1/tasks/{id}/items?limit=1000&status={status}{after}")).await;
        found.extend(page["items"].as_array().unwrap().iter().cloned());
        if page["more"] == false {
            return found;
        }
    }
}

/// How the books stand: every item finished once, counters that say so, one last word, and nothing
/// said after it.
pub async fn books_are_right(database: &tokio_postgres::Client, id: &str) {
    let row = database
        .query_one(
            "select t.total, t.succeeded, t.failed, t.cancelled, t.attempt,
                 count(i.*) filter (where i.status = 'succeeded')::integer,
                 count(i.*) filter (where i.status = 'failed')::integer,
                 count(i.*) filter (where i.status = 'cancelled')::integer,
                 count(i.*) filter (where i.finished_at is null)::integer
             from tidings.task t join tidings.task_item i on i.task = t.number
             where t.id = $1 group by t.number",
            &[&id],
        )
        .await
        .unwrap();
    let number = |place: usize| row.get::<_, i32>(place);
    assert_eq!((number(1), number(2), number(3)), (number(5), number(6), number(7)));
    assert_eq!((number(1) + number(2) + number(3), number(8)), (number(0), 0));
    let rows = database
        .query(
            "select kind, data from tidings.message where topic = 'task:' || $1 order by seq",
            &[&id],
        )
        .await
        .unwrap();
    let said: Vec<(&str, Value)> =
        rows.iter().map(|row| (row.get(0), serde_json::from_str(row.get(1)).unwrap())).collect();
    assert_eq!(said.last().unwrap().0, "task.finished", "something was said after the last word");
    let finished = said.iter().filter(|(kind, _)| *kind == "task.finished").count();
    assert_eq!(finished, usize::try_from(number(4)).unwrap(), "one last word an attempt");
    // Every success was told once, whoever told it.
    let mut told: HashMap<&str, usize> = HashMap::new();
    for (_, data) in &said {
        for name in data["succeeded_items"].as_array().unwrap() {
            *told.entry(name.as_str().unwrap()).or_default() += 1;
        }
    }
    let twice: Vec<_> = told.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "finished twice: {twice:?}");
    if said.iter().all(|(kind, data)| *kind == "task.finished" || data["truncated"] == false) {
        assert_eq!(told.len(), usize::try_from(number(1)).unwrap());
    }
    for pair in said.windows(2) {
        let place = |data: &Value| (data["attempt"].as_u64(), data["current"].as_u64());
        assert!(place(&pair[0].1) <= place(&pair[1].1), "current went back: {pair:?}");
    }
}

/// How many messages of progress at most fell into one second.
async fn progress_in_a_second(database: &tokio_postgres::Client, id: &str) -> i64 {
    let most = "select max(n) from (
        select count(*) over (order by at range between current row and interval '999 ms' following) as n
        from tidings.message where topic = 'task:' || $1 and kind = 'task.progress') windows";
    database.query_one(most, &[&id]).await.unwrap().get(0)
}

/// Waits until a number of a replica's metrics is at least so high.
pub async fn until_metric(replica: &Replica, name: &str, at_least: u64) {
    until(name, async || replica.metric(name).await >= at_least).await;
}
