//! What a finished item costs Postgres, however large its task is.

use super::*;
use crate::harness;

/// The naive way: the item, the counters of the task, and a notification, each on its own.
const NAIVE: &[&str] = &[
    "update tidings.task_item set status = 'succeeded', finished_at = now() where task = 1 and name = $1",
    "update tidings.task set succeeded = succeeded + 1 where number = 1 and $1 <> ''",
    "select pg_notify('naive', $1)",
];

/// Every statement that the replica has sent, its ticks included.
async fn statements(replica: &Replica) -> u64 {
    let page = reqwest::get(format!("{}/metrics", replica.url)).await.unwrap();
    let page = page.text().await.unwrap();
    let counts = page.lines().filter_map(|line| {
        let (_, count) = line.strip_prefix("tidings_store_seconds_count{")?.split_once("} ")?;
        count.parse::<u64>().ok()
    });
    counts.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_for_an_item_do_not_grow_with_the_task() {
    let url = harness::database_url().await;
    let replica = Replica::start("replica-1", &url, &[]).await;
    let client = harness::connect(&url).await;
    let mut before = f64::MAX;
    for count in [100_u32, 1_000, 10_000] {
        let body = but(simulated(count as usize, 0), json!({"concurrency": 100}));
        let executor = json!({"type": "simulate", "delay_ms": [20, 80]});
        let sent = statements(&replica).await;
        let began = Instant::now();
        let id = submit(&replica.url, &but(body, json!({"executor": executor}))).await;
        until("it has ended", async || ended(&client, &id).await).await;
        let took = began.elapsed();
        let sent = statements(&replica).await - sent;
        let each = f64::from(u32::try_from(sent).unwrap()) / f64::from(count);
        println!("{count} items: {sent} statements, {each:.4} for an item, {took:.2?}");
        assert!(each * 10.0 <= 3.0, "{each} statements for an item, 3 in the naive way");
        // A task that takes longer reports more often: a slow machine is left some room.
        assert!(each <= before * 2.0, "{each} after {before}: it grows with the task");
        before = each;
        books_are_right(&client, &id).await;
        let most = progress_in_a_second(&client, &id).await;
        assert!((1..=10).contains(&most), "{most} messages of progress in a second");
    }
    let began = Instant::now();
    let mut naive = 0;
    for name in names(1_000) {
        for statement in NAIVE {
            client.execute(*statement, &[&name]).await.unwrap();
            naive += 1;
        }
    }
    println!("the naive way: 1000 items: {naive} statements, {:.2?}", began.elapsed());
}

/// Asked on a connection of the test, which is not counted.
async fn ended(client: &tokio_postgres::Client, id: &str) -> bool {
    let ended = "select finished_at is not null from tidings.task where id = $1";
    client.query_one(ended, &[&id]).await.unwrap().get(0)
}
