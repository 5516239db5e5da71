//! Bounds of what one look at the log goes through: what lies beyond them is found by the next look.

use serde_json::{Value, json};

use super::client::{Socket, get};
use super::{database, in_memory, in_postgres, number};
use crate::fleet::until;

/// How many messages in memory one read looks at.
const RING_SCAN_MAX: u64 = 8_192;

/// How many seqs of the store one read for prefixes looks at.
const PREFIX_WINDOW: u64 = 20_000;

#[tokio::test]
async fn a_rare_topic_is_found_in_a_long_ring() {
    let replica = in_memory(&[]).await;
    let rare = json!({"topic": "rare", "data": 1});
    let first = replica.publish(&rare).await;
    let cursor = first["messages"][0]["cursor"].as_str().unwrap().to_owned();
    let many: Vec<Value> = (0..1_000).map(|n| json!({"topic": "other", "data": n})).collect();
    let mut seqs = Vec::new();
    for _ in 0..2 {
        // Each of them is more than one read away from the one before.
        for _ in 0..RING_SCAN_MAX / 1_000 + 1 {
            replica.publish(&json!({ "messages": many })).await;
        }
        seqs.push(replica.publish(&rare).await["messages"][0]["seq"].as_u64().unwrap());
    }
    let last = seqs[1];
    assert!(seqs[0] > RING_SCAN_MAX && last > 2 * RING_SCAN_MAX);
    until("it is applied", async || replica.metric("tidings_log_applied_seq").await == last).await;
    let mut socket = Socket::open(&replica, &format!("topics=rare&cursor={cursor}")).await;
    for seq in &seqs {
        assert_eq!(socket.frame("message").await["seq"], *seq);
    }
    assert_eq!(socket.frame("replayed").await["count"], 2);
    let page = get(&replica, &format!("/v1/messages?topic=rare&after={cursor}")).await.json();
    assert_eq!(page["messages"].as_array().unwrap().len(), 2);
    assert_eq!(page["more"], false);
    assert_eq!(replica.metric("tidings_log_read_total{way=\"store\"}").await, 0);
}

#[tokio::test]
async fn a_rare_prefix_is_found_in_a_long_log() {
    const ROWS: u64 = 2 * PREFIX_WINDOW + 5_000;
    let (url, database) = database().await;
    // One in the first window, none in the second, one in the third.
    let append = format!(
        "select count(*) from (select tidings.log_append(
            array_agg(case n when 10 then 'rare:1' when {ROWS} - 100 then 'rare:2' else 'other' end order by n),
            array_agg('1'::text), array_agg(null::text), array_agg(0::smallint), array_agg(null::text),
            array_agg(1::smallint), array_agg(null::integer), null)
         from generate_series(1, {ROWS}) n) appended"
    );
    number(&database, &append).await;
    let epoch: String =
        database.query_one("select epoch from tidings.log", &[]).await.unwrap().get(0);
    let replica = in_postgres("one", &url, &[("ring_messages_max", "16")]).await;
    let mut socket = Socket::open(&replica, &format!("topics=rare:*&cursor={epoch}-0")).await;
    for seq in [10, ROWS - 100] {
        assert_eq!(socket.frame("message").await["seq"], seq);
    }
    assert_eq!(socket.frame("replayed").await["count"], 2);
    let reads = "tidings_store_seconds_count{query=\"message_prefixes\"}";
    assert_eq!(replica.metric(reads).await, 3, "a window each");
    let page = get(&replica, &format!("/v1/messages?topic=rare:*&after={epoch}-0")).await.json();
    assert_eq!(page["messages"].as_array().unwrap().len(), 2);
    assert_eq!(page["more"], false);
}

#[tokio::test]
async fn keys_that_are_too_old_are_forgotten_a_part_at_a_time() {
    let (url, database) = database().await;
    let keys = "insert into tidings.idempotency (key, seq, at)
        select n::text, n, now() - case when n > 12000 then interval '1 hour' else interval '2 days' end
        from generate_series(1, 12010) n";
    database.batch_execute(keys).await.unwrap();
    let replica = in_postgres("one", &url, &[]).await;
    let left = "select count(*) from tidings.idempotency";
    until("the old ones are gone, long before the next minute", async || {
        number(&database, left).await == 10
    })
    .await;
    let looks = "tidings_store_seconds_count{query=\"idempotency_expire\"}";
    until("it took three statements", async || replica.metric(looks).await == 3).await;
}
