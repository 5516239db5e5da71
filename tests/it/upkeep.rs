//! What keeps the log in order, and what becomes of it when a part of it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings::domain::{Epoch, Seq};
use tidings::metrics::Metrics;
use tidings::recovery::{Recovery, RecoverySettings};
use tidings::store::{FORGOTTEN_MAX, Relayed, StoreError, Upkeep};
use tokio_postgres::SimpleQueryMessage;
use tokio_util::sync::CancellationToken;

use crate::{harness, lanes};

/// Fails at every step but the last ones, and has many keys to forget.
#[derive(Default)]
struct Poor {
    keys: AtomicU64,
    dropped: AtomicU64,
}

fn refused<T>() -> Result<T, StoreError> {
    Err(StoreError::Refused("nothing goes".to_owned()))
}

#[async_trait]
impl Upkeep for Poor {
    async fn outbox_relay(&self) -> Result<Option<Relayed>, StoreError> {
        refused()
    }

    async fn outbox_oldest(&self) -> Result<Option<Duration>, StoreError> {
        refused()
    }

    async fn partition_ahead(&self) -> Result<(), StoreError> {
        refused()
    }

    async fn partition_expire(&self) -> Result<Vec<Seq>, StoreError> {
        Ok(vec![Seq::new(1).unwrap()])
    }

    async fn partition_drop(&self, _: Seq) -> Result<u64, StoreError> {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        Ok(100)
    }

    async fn idempotency_expire(&self) -> Result<u64, StoreError> {
        let left = self.keys.load(Ordering::Relaxed);
        let forgotten = left.min(FORGOTTEN_MAX);
        self.keys.store(left - forgotten, Ordering::Relaxed);
        Ok(forgotten)
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_for_ever_does_not_end_retention_and_all_old_keys_are_forgotten() {
    let poor = Arc::new(Poor::default());
    let keys = 20 * FORGOTTEN_MAX + 7;
    poor.keys.store(keys, Ordering::Relaxed);
    let metrics = Metrics::new();
    let log = lanes::log(Arc::new(lanes::memory()), &metrics);
    let mut recovery =
        Recovery::new(RecoverySettings::default(), poor.clone(), log, metrics.clone());
    let stop = CancellationToken::new();
    // Less than one tick of retention: time is paused, and goes on when nothing else can.
    let within = tokio::time::timeout(Duration::from_secs(30), recovery.run(&stop)).await;
    assert!(within.is_err(), "it runs until it is told to stop");
    assert_eq!(poor.keys.load(Ordering::Relaxed), 0);
    assert!(poor.dropped.load(Ordering::Relaxed) >= 1);
    let page = metrics.encode();
    let counted = format!("tidings_recovery_keys_forgotten_total {keys}\n");
    assert!(page.contains(&counted), "{page}");
}

/// Has an outbox that is never empty, and a partition that is too old.
#[derive(Default)]
struct Flooded {
    looks: AtomicU64,
    relays: AtomicU64,
    dropped: AtomicU64,
    away: AtomicBool,
}

impl Flooded {
    fn reach(&self) -> Result<(), StoreError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable("it is away".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Upkeep for Flooded {
    async fn outbox_relay(&self) -> Result<Option<Relayed>, StoreError> {
        self.reach()?;
        // As one that is asked over a network.
        tokio::time::sleep(Duration::from_millis(4)).await;
        self.relays.fetch_add(1, Ordering::Relaxed);
        let epoch = Epoch::parse("e").unwrap();
        Ok(Some(Relayed { taken: 1, epoch, range: None }))
    }

    async fn outbox_oldest(&self) -> Result<Option<Duration>, StoreError> {
        self.reach()?;
        self.looks.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Duration::from_secs(7)))
    }

    async fn partition_ahead(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn partition_expire(&self) -> Result<Vec<Seq>, StoreError> {
        Ok(vec![Seq::new(1).unwrap()])
    }

    async fn partition_drop(&self, _: Seq) -> Result<u64, StoreError> {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        Ok(100)
    }

    async fn idempotency_expire(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_outbox_grows_older_while_the_store_is_away() {
    let flooded = Arc::new(Flooded::default());
    let metrics = Metrics::new();
    let log = lanes::log(Arc::new(lanes::memory()), &metrics);
    let mut recovery =
        Recovery::new(RecoverySettings::default(), flooded.clone(), log, metrics.clone());
    let stop = CancellationToken::new();
    let told = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        flooded.away.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(30)).await;
        stop.cancel();
    };
    tokio::join!(recovery.run(&stop), told);
    let page = metrics.encode();
    // It was 7 s old at the start, and the last look was 30 s after it.
    assert!(page.contains("tidings_recovery_outbox_oldest_seconds 37\n"), "{page}");
    assert!(page.contains("tidings_recovery_outbox_found_total 1\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn an_outbox_that_is_never_empty_takes_no_turn_from_the_other_steps() {
    let flooded = Arc::new(Flooded::default());
    let metrics = Metrics::new();
    let log = lanes::log(Arc::new(lanes::memory()), &metrics);
    let mut recovery =
        Recovery::new(RecoverySettings::default(), flooded.clone(), log, metrics.clone());
    let stop = CancellationToken::new();
    let told = async {
        tokio::time::sleep(Duration::from_secs(29)).await;
        let page = metrics.encode();
        assert!(page.contains("tidings_recovery_outbox_oldest_seconds 7\n"), "{page}");
        stop.cancel();
    };
    let ended = async { tokio::join!(recovery.run(&stop), told) };
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
    assert!(ended.is_ok(), "it was told to stop a second ago");
    let looks = flooded.looks.load(Ordering::Relaxed);
    assert!(looks >= 5, "in 29 s it looked {looks} times at how old the oldest is");
    assert!(flooded.dropped.load(Ordering::Relaxed) >= 1);
    assert!(flooded.relays.load(Ordering::Relaxed) > 5_000, "nothing else takes time");
}

const PLANS: [&str; 3] = ["auto", "force_custom_plan", "force_generic_plan"];

/// The blocks that a statement of `sql/query` looks at, in each mode of planning.
async fn blocks(
    client: &tokio_postgres::Client,
    text: &str,
    types: &str,
    values: &str,
) -> Vec<i64> {
    client.batch_execute(&format!("prepare looked_at({types}) as {text}")).await.unwrap();
    let mut looked_at = Vec::new();
    for plans in PLANS {
        client.batch_execute(&format!("set plan_cache_mode = {plans}")).await.unwrap();
        let explain =
            format!("explain (analyze, buffers, format json) execute looked_at({values})");
        // In the mode auto it is from the sixth time on that a plan may be kept.
        for _ in 0..7 {
            let answer = client.simple_query(&explain).await.unwrap();
            let text = answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            let plan: serde_json::Value = serde_json::from_str(text.unwrap()).unwrap();
            let top = &plan[0]["Plan"];
            let blocks = |name: &str| top[name].as_i64().unwrap();
            looked_at.push(blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"));
        }
    }
    client.batch_execute("deallocate looked_at").await.unwrap();
    looked_at
}

#[tokio::test]
async fn a_rare_topic_is_found_without_reading_what_lies_between() {
    use tidings::store::postgres::query;
    let client = harness::database().await.connect().await.unwrap();
    // Three topics, of which one has five messages, at the very beginning.
    client
        .batch_execute(
            "update tidings.log set partition_rows = 50000, head = 200000;
             select tidings.partition_make(200000);
             insert into tidings.message (seq, at, class, priority, topic, data)
             select n, now(), 0, 1, case when n <= 5 then 'rare' when n % 2 = 0 then 'even' else 'odd' end, '{\"n\": 1}'
             from generate_series(1, 200000) n;
             analyze tidings.message;",
        )
        .await
        .unwrap();
    let types = "bigint, bigint, bigint, bigint, text[]";
    let topics = query::MESSAGE_TOPICS.text;
    let all = blocks(&client, topics, types, "0, 200000, 100, 1000000, '{rare,none}'").await;
    assert!(all.iter().all(|blocks| *blocks < 300), "{all:?}");
    let none = blocks(&client, topics, types, "5, 200000, 100, 1000000, '{rare}'").await;
    assert!(none.iter().all(|blocks| *blocks < 200), "{none:?}");
    let common =
        blocks(&client, topics, types, "100000, 200000, 100, 1000000, '{even,rare}'").await;
    assert!(common.iter().all(|blocks| *blocks < 2_000), "{common:?}");
}

#[tokio::test]
async fn keys_that_are_not_too_old_are_not_looked_at() {
    use tidings::store::postgres::query;
    let client = harness::database().await.connect().await.unwrap();
    client
        .batch_execute(
            "insert into tidings.idempotency
             select 'k' || n, n, now() - case when n <= 20 then interval '2 days' else interval '1 hour' end
             from generate_series(1, 120000) n;
             analyze tidings.idempotency;",
        )
        .await
        .unwrap();
    let blocks = blocks(&client, query::IDEMPOTENCY_EXPIRE.text, "bigint", "5000").await;
    assert!(blocks.iter().all(|blocks| *blocks < 300), "{blocks:?}");
    let left: i64 =
        client.query_one("select count(*) from tidings.idempotency", &[]).await.unwrap().get(0);
    assert_eq!(left, 119_980);
}

#[tokio::test]
async fn a_page_of_items_is_read_without_the_rest_of_them() {
    use tidings::store::postgres::query;
    let client = harness::database().await.connect().await.unwrap();
    client
        .batch_execute(
            "select tidings.task_submit('t' || t, null, 'cordon', null, false, 1, 0, 1, false, '{}', '{}',
                array_agg('node-' || n), array_agg(null::text))
             from generate_series(1, 4) t, generate_series(1, 30000) n group by t;
             analyze tidings.task_item; analyze tidings.task;",
        )
        .await
        .unwrap();
    let items = query::TASK_ITEMS.text;
    for values in ["'t2', null, 'node-20', 100", "'t2', 'unfinished', 'node-15000', 1000"] {
        let blocks = blocks(&client, items, "text, text, text, bigint", values).await;
        assert!(blocks.iter().all(|blocks| *blocks < 100), "{values}: {blocks:?}");
    }
}

#[tokio::test]
async fn whoever_finds_the_outbox_empty_writes_nothing() {
    let client = harness::database().await.connect().await.unwrap();
    let seen = client
        .simple_query(
            "begin; select * from tidings.outbox_relay(500, 1000000);
             select coalesce(pg_current_xact_id_if_assigned()::text, 'none'); commit",
        )
        .await
        .unwrap();
    let rows: Vec<_> = seen
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    assert_eq!(rows, ["none"]);
}
