//! What an application publishes from its own transactions.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fleet::{Replica, three, until, until_live};
use crate::follower::{Follower, Way};
use crate::harness;

/// How long a transaction stays open.
const HELD: Duration = Duration::from_secs(5);

/// What nobody may wait for while it does: far less than that, however loaded the machine is.
const BOUND: Duration = Duration::from_secs(3);

/// Publishes in a transaction that stays open for a while before it commits.
async fn hold(url: String, publishes: &str) {
    let client = harness::connect(&url).await;
    let sleep = format!("select pg_sleep({})", HELD.as_secs());
    client.batch_execute(&format!("begin; {publishes} {sleep}; commit")).await.unwrap();
}

/// From the call to the moment at which a client on every replica has it.
async fn arrival(followers: &[Follower], topic: &str, began: Instant) -> Duration {
    until("every client has it", async || followers.iter().all(|one| one.had_on(topic))).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_delays_nobody() {
    let url = harness::database_url().await;
    let fleet = three(&url, &[]).await;
    until_live(&fleet).await;
    let follow =
        |replica: &Replica| Follower::start(Way::WebSocket, vec![replica.url.clone()], "*", None);
    let followers: Vec<Follower> = fleet.iter().map(follow).collect();
    for follower in &followers {
        follower.connected().await;
    }
    let rolled_back = harness::connect(&url).await;
    rolled_back.batch_execute("begin; select tidings.publish('a', '5'); rollback").await.unwrap();
    let sql = harness::connect(&url).await;
    // Opposite orders of topics, and one key in both: nothing locks, so nothing can deadlock.
    let mut held = JoinSet::new();
    held.spawn(hold(
        url.clone(),
        "select tidings.publish('a', '1'); select tidings.publish('b', '2');
         select tidings.publish('once', '1', idempotency_key => 'k');",
    ));
    held.spawn(hold(
        url.clone(),
        "select tidings.publish('once', '2', idempotency_key => 'k');
         select tidings.publish('b', '3'); select tidings.publish('a', '4');",
    ));
    let open = async || -> i64 {
        let open = "select count(*) from pg_stat_activity where datname = current_database()
            and state = 'active' and wait_event = 'PgSleep'";
        sql.query_one(open, &[]).await.unwrap().get(0)
    };
    until("both transactions are open", async || open().await == 2).await;
    let (mut number, mut slowest) = (0, Duration::ZERO);
    while open().await == 2 {
        for replica in &fleet {
            let (by_http, by_sql) = (format!("http:{number}"), format!("sql:{number}"));
            let began = Instant::now();
            replica.publish(&json!({"topic": by_http, "data": number})).await;
            slowest = slowest.max(arrival(&followers, &by_http, began).await);
            let began = Instant::now();
            let publish = "select tidings.publish($1, '0')";
            sql.query_one(publish, &[&by_sql]).await.unwrap();
            slowest = slowest.max(arrival(&followers, &by_sql, began).await);
            number += 1;
        }
    }
    assert!(slowest < BOUND, "a message took {slowest:?} while transactions were open");
    assert!(number >= 3, "{number} rounds while they were open show nothing");
    held.join_all().await;
    for follower in &followers {
        let seen = follower.has(2 * number + 5).await;
        let late: Vec<&str> = seen.messages.iter().map(|(topic, _)| topic.as_str()).collect();
        let count = |topic: &str| late.iter().filter(|one| **one == topic).count();
        assert_eq!([count("a"), count("b"), count("once")], [2, 2, 1]);
    }
    let (once, data) = ("select data from tidings.message where topic = $1 order by seq", "once");
    assert_eq!(sql.query(once, &[&data]).await.unwrap().len(), 1, "one key is one message");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_application_publishes_keeps_its_order() {
    let url = harness::database_url().await;
    let fleet = three(&url, &[]).await;
    let follower = Follower::start(Way::WebSocket, vec![fleet[0].url.clone()], "sql", None);
    follower.connected().await;
    let client = harness::connect(&url).await;
    for number in 0..300 {
        let two = format!(
            "begin; select tidings.publish('sql', '{}'); select tidings.publish('sql', '{}'); commit",
            number * 2,
            number * 2 + 1
        );
        client.batch_execute(&two).await.unwrap();
    }
    follower.has(600).await;
    let rows = client.query("select data from tidings.message order by seq", &[]).await.unwrap();
    let datas: Vec<u32> = rows.iter().map(|row| row.get::<_, &str>(0).parse().unwrap()).collect();
    assert_eq!(datas, (0..600).collect::<Vec<_>>());
}

/// In how many transactions the relay moved what is in the log.
async fn relays(client: &tokio_postgres::Client) -> i64 {
    let relays = "select count(distinct xmin::text) from tidings.message";
    client.query_one(relays, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_many_rows_is_moved_in_parts_and_keeps_its_order() {
    let url = harness::database_url().await;
    let fleet = three(&url, &[]).await;
    let follower = Follower::keeping(Way::WebSocket, vec![fleet[0].url.clone()], "sql", None);
    follower.connected().await;
    let client = harness::connect(&url).await;
    let publish = "select tidings.publish('sql', to_json(n)) from generate_series(1, 1200) n";
    client.batch_execute(publish).await.unwrap();
    let seen = follower.has(1_200).await;
    assert_eq!(seen.seqs(), (1..=1_200).collect::<Vec<_>>());
    for (text, number) in seen.texts.iter().zip(1..) {
        assert!(text.ends_with(&format!("\"data\":{number}}}")), "{number}: {text}");
    }
    assert_eq!(relays(&client).await, 3, "of 500 rows at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_large_rows_is_moved_in_parts_and_keeps_its_order() {
    // With its quotes the largest message that there is.
    const BYTES: usize = (256 << 10) - 2;
    let url = harness::database_url().await;
    let fleet = three(&url, &[]).await;
    let follower = Follower::keeping(Way::WebSocket, vec![fleet[0].url.clone()], "sql", None);
    follower.connected().await;
    let client = harness::connect(&url).await;
    let publish = format!(
        "select tidings.publish('sql', to_json(repeat(n::text, {BYTES}))) from generate_series(1, 5) n"
    );
    client.batch_execute(&publish).await.unwrap();
    let seen = follower.has(5).await;
    assert_eq!(seen.seqs(), [1, 2, 3, 4, 5]);
    for (text, number) in seen.texts.iter().zip(1..) {
        let data = format!("\"data\":\"{}\"}}", number.to_string().repeat(BYTES));
        assert!(text.ends_with(&data), "the data of {number} is another one");
    }
    assert_eq!(relays(&client).await, 2, "the fourth row fills a part of 1 MiB");
}

/// Connections that publish by SQL one after the other, until they are dropped.
async fn publish_without_a_pause(url: &str) -> JoinSet<()> {
    let mut publishers = JoinSet::new();
    for _ in 0..8 {
        let client = harness::connect(url).await;
        publishers.spawn(async move {
            while client.batch_execute("select tidings.publish('sql', '0')").await.is_ok() {}
        });
    }
    publishers
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_without_a_pause_keeps_a_replica_neither_from_upkeep_nor_from_leaving() {
    const OLD: i64 = 350;
    let url = harness::database_url().await;
    let settings = [("TIDINGS_PARTITION_ROWS", "100"), ("TIDINGS_RETENTION_S", "60")];
    let mut replica = Replica::start("relay", &url, &settings).await;
    let client = harness::connect(&url).await;
    let many = format!("select tidings.publish('sql', '0') from generate_series(1, {OLD})");
    client.batch_execute(&many).await.unwrap();
    until("all are in the log", async || {
        let head = "select head from tidings.log";
        client.query_one(head, &[]).await.unwrap().get::<_, i64>(0) == OLD
    })
    .await;
    assert_eq!(replica.leave().await, Some(0));
    client.batch_execute("update tidings.message set at = at - interval '1 hour'").await.unwrap();
    let publishers = publish_without_a_pause(&url).await;
    replica.start_again().await;
    until("what is too old is dropped", async || {
        replica.metric("tidings_recovery_partitions_dropped_total").await > 0
    })
    .await;
    assert!(replica.metric("tidings_recovery_outbox_relayed_total").await > 100);
    assert_eq!(replica.leave().await, Some(0));
    drop(publishers);
}
