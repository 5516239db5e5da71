//! The settings of the part `postgres`.

use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::client::{get, publish};
use super::{Lock, database, in_postgres, number, until_live};
use crate::fleet::{Replica, until};
use crate::harness;

/// Every look at the head of the log waits until it is committed.
const HEAD: &str = "tidings.log";

/// How many statements of a replica wait for a lock.
async fn stuck(database: &Client, name: &str) -> i64 {
    let stuck = format!(
        "select count(*) from pg_stat_activity
         where application_name = 'tidings/{name}' and wait_event_type = 'Lock'"
    );
    number(database, &stuck).await
}

/// Requests that must look at the head, because their cursor is beyond it.
fn look_at_the_head(replica: &Replica, begin: &str, requests: usize) -> JoinSet<u16> {
    let (epoch, _) = begin.split_once('-').unwrap();
    let mut looks = JoinSet::new();
    for _ in 0..requests {
        let address = format!("{}/v1/messages?topic=a&after={epoch}-999", replica.url);
        looks.spawn(async move { reqwest::get(address).await.unwrap().status().as_u16() });
    }
    looks
}

#[tokio::test]
pub(super) async fn the_log_is_in_the_database_that_is_named() {
    let (url, database) = database().await;
    let replica = in_postgres("one", &url, &[]).await;
    publish(&replica, "a", 3, 10).await;
    assert_eq!(number(&database, "select count(*) from tidings.message").await, 3);
}

#[tokio::test]
pub(super) async fn the_listener_goes_where_it_is_told() {
    let (url, database) = database().await;
    let named =
        format!("{url}{}application_name=ignored", if url.contains('?') { '&' } else { '?' });
    let listening = "select count(*) from pg_stat_activity
        where datname = current_database() and query ilike 'listen %'";
    let here = in_postgres("here", &url, &[("listen_database_url", &named)]).await;
    until_live(&here).await;
    assert_eq!(number(&database, listening).await, 1);
    drop(here);
    until("its listener is gone", async || number(&database, listening).await == 0).await;

    let elsewhere = harness::empty_database_url();
    let there = in_postgres("there", &url, &[("listen_database_url", &elsewhere)]).await;
    assert_eq!(there.readyz().await["listener"], "polling", "nothing is heard there");
    assert_eq!(number(&database, listening).await, 0);
}

#[tokio::test]
pub(super) async fn the_pool_holds_so_many_connections() {
    let (url, database) = database().await;
    for connections in [2, 5] {
        let name = format!("with-{connections}");
        let settings = [
            ("pool_connections_max", &*connections.to_string()),
            ("replay_readers_max", "1"),
            ("pool_wait_ms", "600000"),
            ("statement_timeout_ms", "600000"),
        ];
        let replica = in_postgres(&name, &url, &settings).await;
        let begin = publish(&replica, "a", 1, 10).await;
        let lock = Lock::take(&url, HEAD).await;
        let looks = look_at_the_head(&replica, &begin, 10);
        until("the pool is empty", async || stuck(&database, &name).await == connections).await;
        lock.release().await;
        // The head was looked at, and the cursor is beyond it.
        assert!(looks.join_all().await.iter().all(|status| *status == 410));
    }
}

#[tokio::test]
pub(super) async fn who_finds_no_connection_in_time_is_answered_503() {
    let (url, database) = database().await;
    for (wait_ms, status) in [("100", 503), ("600000", 200)] {
        let name = format!("waits-{wait_ms}");
        let settings = [
            ("pool_connections_max", "2"),
            ("replay_readers_max", "1"),
            ("ring_messages_max", "16"),
            ("pool_wait_ms", wait_ms),
            ("statement_timeout_ms", "600000"),
        ];
        let replica = in_postgres(&name, &url, &settings).await;
        let begin = publish(&replica, "a", 40, 10).await;
        let lock = Lock::take(&url, HEAD).await;
        let _looks = look_at_the_head(&replica, &begin, 2);
        until("the pool is empty", async || stuck(&database, &name).await == 2).await;
        let history = format!("{}/v1/messages?topic=a&after={begin}", replica.url);
        let mut asked = JoinSet::new();
        asked.spawn(async move { reqwest::get(history).await.unwrap() });
        if status == 503 {
            let answer = asked.join_next().await.unwrap().unwrap();
            assert_eq!(answer.status(), status);
            assert!(answer.headers().contains_key("retry-after"));
            assert!(replica.metric("tidings_store_pool_waits_total").await > 0);
        }
        lock.release().await;
        if let Some(answer) = asked.join_next().await {
            assert_eq!(answer.unwrap().status(), status);
        }
    }
}

#[tokio::test]
pub(super) async fn a_statement_that_takes_too_long_is_given_up() {
    let (url, database) = database().await;
    let settings = [("ring_messages_max", "16"), ("statement_timeout_ms", "500")];
    let replica = in_postgres("one", &url, &settings).await;
    let begin = publish(&replica, "a", 40, 10).await;
    let lock = Lock::take(&url, "tidings.message").await;
    let history = format!("/v1/messages?topic=a&after={begin}");
    get(&replica, &history).await.is_problem(503).says_when_to_come_back();
    assert!(replica.metric("tidings_store_errors_total{query=\"message_topics\"}").await > 0);
    until("the server too has given it up", async || stuck(&database, "one").await == 0).await;

    // A batch too: its publisher is answered once the lock is free, and it is there once.
    let message = json!({"topic": "b", "data": 1, "idempotency_key": "once"});
    let written = async {
        until("a batch was given up", async || {
            replica.metric("tidings_publish_retried_total").await > 0
        })
        .await;
        lock.release().await;
    };
    tokio::join!(replica.publish(&message), written);
    let own = "select count(*) from tidings.message where topic = 'b'";
    assert_eq!(number(&database, own).await, 1);
    until("nothing is left behind", async || stuck(&database, "one").await == 0).await;
}

#[tokio::test]
pub(super) async fn messages_that_are_too_old_are_gone() {
    let (url, database) = database().await;
    let keeps = [("retention_s", "7200"), ("partition_rows", "100"), ("tick_ms", "100")];
    let keeps = in_postgres("keeps", &url, &keeps).await;
    let begin = publish(&keeps, "a", 150, 10).await;
    let message = json!({"topic": "a", "data": 1, "ttl_s": 7201});
    super::client::post(&keeps, &message).await.is_problem(422);
    let older = "update tidings.message set at = at - interval '1 hour'";
    database.batch_execute(older).await.unwrap();
    let history = format!("/v1/messages?topic=a&after={begin}");
    let looked = "tidings_store_seconds_count{query=\"partition_expire\"}";

    // Retention is looked after at the start, and then each minute.
    let keeps_too = [("retention_s", "7200"), ("partition_rows", "100")];
    let keeps_too = in_postgres("keeps-too", &url, &keeps_too).await;
    until("it has looked", async || keeps_too.metric(looked).await > 0).await;
    assert_eq!(get(&keeps_too, &history).await.status, 200);

    let drops = [("retention_s", "1800"), ("partition_rows", "100"), ("tick_ms", "100")];
    let drops = in_postgres("drops", &url, &drops).await;
    for replica in [&drops, &keeps] {
        until("the first partition is gone", async || get(replica, &history).await.status == 410)
            .await;
        let answer = get(replica, &history).await;
        let cursor = answer.is_problem(410).json()["cursor"].as_str().unwrap().to_owned();
        assert!(cursor.ends_with("-100"), "{cursor}");
        let rest = get(replica, &format!("/v1/messages?topic=a&after={cursor}")).await.json();
        assert_eq!(rest["messages"].as_array().unwrap().len(), 50);
    }
}

#[tokio::test]
pub(super) async fn messages_are_kept_in_partitions_of_so_many() {
    let (url, database) = database().await;
    let replica = in_postgres("one", &url, &[("partition_rows", "100")]).await;
    publish(&replica, "a", 150, 10).await;
    let first = "select count(*) from tidings.message_1";
    assert_eq!(number(&database, first).await, 100);
    let second = "select count(*) from tidings.message_101";
    assert_eq!(number(&database, second).await, 50);
}
