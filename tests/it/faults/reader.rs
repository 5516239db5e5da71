//! Readers that go away while the database still works for them.

use tokio::task::JoinSet;

use serde_json::json;

use crate::fleet::{Replica, until};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_no_statement_behind() {
    let url = harness::database_url().await;
    // So long that whatever ends before has not ended by it.
    let settings =
        [("TIDINGS_RING_MESSAGES_MAX", "16"), ("TIDINGS_STATEMENT_TIMEOUT_MS", "600000")];
    let replica = Replica::start("one", &url, &settings).await;
    let mut begin = String::new();
    for number in 0..40 {
        let answer = replica.publish(&json!({"topic": "a", "data": number})).await;
        let cursor = || answer["messages"][0]["cursor"].as_str().unwrap().to_owned();
        begin = if number == 0 { cursor() } else { begin };
    }
    let client = harness::connect(&url).await;
    let lock = harness::connect(&url).await;
    lock.batch_execute("begin; lock table tidings.message").await.unwrap();
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let address = format!("{}/v1/messages?topic=a&after={begin}", replica.url);
        readers.spawn(async move { reqwest::get(address).await.unwrap().status() });
    }
    let reading = async || {
        let reading = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
            and query like '%message_topics%'";
        client.query_one(reading, &[]).await.unwrap().get::<_, i64>(0)
    };
    until("they read", async || reading().await == 3).await;
    readers.shutdown().await;
    until("what they asked for is given up", async || reading().await == 0).await;
    lock.batch_execute("commit").await.unwrap();
    let address = format!("{}/v1/messages?topic=a&after={begin}", replica.url);
    assert_eq!(reqwest::get(address).await.unwrap().status(), 200);
}
