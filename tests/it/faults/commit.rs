//! A replica that is killed inside a commit: its batch is there as a whole, or not at all.

use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::fleet::{Replica, until};
use crate::harness;

/// How many messages stand in one request, hence in one batch.
const BATCH: i64 = 20;

/// How often it is killed while its append waits for the log, and how often at any moment.
const ROUNDS_HELD: usize = 6;
const ROUNDS_FREE: usize = 18;

/// From when a request is sent to when its answer is there, and a little more.
const ROUND_TRIP: Duration = Duration::from_millis(12);

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn publish(url: String, topic: String) -> bool {
    let message = |n: i64| json!({"topic": topic, "data": n});
    let messages: Vec<Value> = (0..BATCH).map(message).collect();
    let body = json!({ "messages": messages });
    let sent = reqwest::Client::new().post(format!("{url}/v1/messages")).json(&body).send().await;
    sent.is_ok_and(|answer| answer.status() == 201)
}

/// What the dead replica had asked of Postgres is done, or never will be.
async fn until_settled(client: &Client) {
    let left = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'tidings/%'";
    until("its connections are gone", async || number(client, left).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed_inside_a_commit_leaves_its_batch_whole_or_not_at_all() {
    let url = harness::database_url().await;
    let mut replica = Replica::start("killed", &url, &[]).await;
    let (mut holder, client) = (harness::connect(&url).await, harness::connect(&url).await);
    let waiting = "select count(*) from pg_stat_activity where datname = current_database()
        and wait_event_type = 'Lock' and query ilike '%log_append%'";
    let mut came = std::collections::BTreeMap::new();
    for round in 0..ROUNDS_HELD + ROUNDS_FREE {
        let topic = format!("batch:{round}");
        let sent = publish(replica.url.clone(), topic.clone());
        let kill = async {
            if round < ROUNDS_HELD {
                // Its append has begun, and waits for the log's lock when the replica dies.
                let held = holder.transaction().await.unwrap();
                held.execute("select from tidings.log for update", &[]).await.unwrap();
                let killed = async {
                    until("its append waits", async || number(&client, waiting).await > 0).await;
                    replica.kill().await;
                };
                let (answered, ()) = tokio::join!(sent, killed);
                held.commit().await.unwrap();
                answered
            } else {
                let moment = ROUND_TRIP.mul_f64(rand::rng().random_range(0.0..1.0));
                let killed = async {
                    // At any moment: this is the fault, and nothing is waited for.
                    tokio::time::sleep(moment).await;
                    replica.kill().await;
                };
                tokio::join!(sent, killed).0
            }
        };
        let answered = kill.await;
        until_settled(&client).await;
        let rows = "select count(*) from tidings.message where topic = $1";
        let rows: i64 = client.query_one(rows, &[&topic]).await.unwrap().get(0);
        assert!(rows == 0 || rows == BATCH, "half of a batch: {rows} of {BATCH} in round {round}");
        assert!(!answered || rows == BATCH, "round {round} was answered 201 and is not there");
        *came.entry((answered, rows)).or_insert(0) += 1;
        replica.start_again().await;
    }
    println!("(answered, rows): rounds {came:?}");
    assert!(came.contains_key(&(false, BATCH)), "none died inside its commit: {came:?}");
    let head = number(&client, "select head from tidings.log").await;
    assert_eq!(number(&client, "select count(*) from tidings.message").await, head, "no hole");
}
