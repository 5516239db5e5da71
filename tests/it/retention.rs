//! Partitions come and go while everybody publishes: nothing is lost that is kept, and nobody is refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings::store::Upkeep;
use tidings::store::postgres::PostgresStore;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::fleet::{Replica, three, until, until_live, urls};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, lost_and_doubled_nothing};

/// The smallest that there are.
const PARTITION_ROWS: i64 = 100;

/// How many messages are published at least: many partitions.
const MESSAGES: usize = 3_000;

/// What is younger than this many messages is left alone, so that nobody still reads what goes.
const YOUNG: i64 = 500;

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// What a replica does each minute, again and again.
async fn look_after(store: PostgresStore, over: &AtomicBool) -> u64 {
    let mut dropped = 0;
    while !over.load(Ordering::Relaxed) {
        store.partition_ahead().await.unwrap();
        for first in store.partition_expire().await.unwrap() {
            // One that is in use is left for the next look.
            dropped += store.partition_drop(first).await.unwrap_or(0);
        }
    }
    dropped
}

/// Makes all but the newest messages old, and looks whether there is always a partition ahead.
async fn grow_old(client: &mut Client, published: impl Fn() -> usize) {
    let age = format!(
        "update tidings.message set at = at - interval '1 hour'
         where seq <= (select head - {YOUNG} from tidings.log) and at > now() - interval '30 minutes'"
    );
    while published() < MESSAGES {
        client.batch_execute(&age).await.unwrap();
        let transaction = client.transaction().await.unwrap();
        // Nobody appends between the look and the question.
        transaction.batch_execute("select from tidings.log for update").await.unwrap();
        transaction.batch_execute("select tidings.partition_ahead()").await.unwrap();
        let ahead = "select made_to - head from tidings.log";
        let ahead: i64 = transaction.query_one(ahead, &[]).await.unwrap().get(0);
        transaction.commit().await.unwrap();
        assert!(ahead >= PARTITION_ROWS, "after a look there is room for {ahead} messages only");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go_under_load_and_nobody_is_refused() {
    let url = harness::database_url().await;
    let settings = [("TIDINGS_PARTITION_ROWS", "100"), ("TIDINGS_RETENTION_S", "60")];
    let fleet = three(&url, &settings).await;
    until_live(&fleet).await;
    let follow = |way: Way, replica: &Replica| {
        Follower::start(way, vec![replica.url.clone()], "load:*", None)
    };
    let followers: Vec<Follower> = fleet
        .iter()
        .flat_map(|replica| [Way::WebSocket, Way::Sse].map(|way| follow(way, replica)))
        .collect();
    for follower in &followers {
        follower.connected().await;
    }
    let load = Load::start(&urls(&fleet), 6);
    let over = AtomicBool::new(false);
    let keeper = || {
        harness::store_with(harness::connector(&url), |settings| {
            settings.partition_rows = 100;
            settings.retention_s = 60;
        })
    };
    let mut client = harness::connect(&url).await;
    let grow_old = async {
        grow_old(&mut client, || followers[0].count()).await;
        over.store(true, Ordering::Relaxed);
    };
    let ((), one, two) =
        tokio::join!(grow_old, look_after(keeper(), &over), look_after(keeper(), &over));
    let published = load.end().await;
    let head = i64::try_from(published.len()).unwrap();
    assert_eq!(published, (1..=published.len() as u64).collect::<Vec<_>>(), "no hole");
    lost_and_doubled_nothing(&followers, &published).await;
    assert!(one + two >= 500, "only {} messages were dropped", one + two);
    for replica in &fleet {
        for reason in ["full", "unavailable", "unknown", "refused"] {
            let refused = format!("tidings_publish_refused_total{{reason=\"{reason}\"}}");
            assert_eq!(replica.metric(&refused).await, 0, "{} {reason}", replica.name);
        }
        assert_eq!(replica.metric("tidings_publish_retried_total").await, 0, "{}", replica.name);
    }

    let kept_from = number(&client, "select kept_from from tidings.log").await;
    assert_eq!(number(&client, "select head from tidings.log").await, head);
    assert!(kept_from > 500 && kept_from <= head - YOUNG + 1, "{kept_from} of {head}");
    let kept =
        "select count(*) from tidings.message where seq >= (select kept_from from tidings.log)";
    assert_eq!(number(&client, kept).await, head - kept_from + 1, "what is kept has no hole");
    let torn = "select count(*) from (
        select first_seq, lag(last_seq) over (order by first_seq) as before from tidings.partition) p
        where first_seq <> before + 1";
    assert_eq!(number(&client, torn).await, 0, "partitions join on to one another");
    let strangers =
        "select count(*) from pg_inherits where inhparent = 'tidings.message'::regclass";
    let listed = "select count(*) from tidings.partition";
    assert_eq!(number(&client, strangers).await, number(&client, listed).await);

    // A client that comes with the oldest good cursor gets all that is kept.
    let epoch: String =
        client.query_one("select epoch from tidings.log", &[]).await.unwrap().get(0);
    let kept_from = u64::try_from(kept_from).unwrap();
    for replica in &fleet {
        until("the replica knows what is kept", async || {
            replica.stats().await["log"]["oldest"] == kept_from
        })
        .await;
        for way in Way::ALL {
            let cursor = Some(format!("{epoch}-{}", kept_from - 1));
            let late = Follower::start(way, vec![replica.url.clone()], "load:*", cursor);
            let kept: Vec<u64> = (kept_from..=published.len() as u64).collect();
            let seen = late.has(kept.len()).await;
            assert_eq!((seen.seqs(), seen.resets), (kept, 0), "{way:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_too_old_goes_after_one_wait() {
    let url = harness::database_url().await;
    let settings = [("TIDINGS_PARTITION_ROWS", "100"), ("TIDINGS_RETENTION_S", "60")];
    let mut replica = Replica::start("one", &url, &settings).await;
    let client = harness::connect(&url).await;
    let many = "select tidings.publish('old', '0') from generate_series(1, 1050)";
    client.batch_execute(many).await.unwrap();
    until("all are in the log", async || {
        number(&client, "select head from tidings.log").await == 1_050
    })
    .await;
    assert_eq!(replica.leave().await, Some(0));
    client.batch_execute("update tidings.message set at = at - interval '1 hour'").await.unwrap();
    replica.start_again().await;
    let began = Instant::now();
    until("ten partitions are dropped", async || {
        replica.metric("tidings_recovery_partitions_dropped_total").await == 10
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(replica.metric("tidings_recovery_partitions_expired_total").await, 10);
    assert_eq!(replica.metric("tidings_recovery_messages_dropped_total").await, 1_000);
    assert_eq!(number(&client, "select kept_from from tidings.log").await, 1_001);
    assert_eq!(number(&client, "select count(*) from tidings.message").await, 50);
}
