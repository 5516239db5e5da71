//! One version beside the next: a rollout, and its way back.
//!
//! Of the version before there is its schema; what its replicas do with the log is done here, by the
//! statements of the oldest version that must go on beside ours.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tidings::store::postgres::migrate::MIGRATIONS;

use crate::fleet::{Replica, until, until_live};
use crate::follower::{Follower, Way};
use crate::harness;

/// A database with the first of our migrations, as the version that knew no more has left it.
pub async fn brought_up_by(count: usize) -> String {
    let whole = harness::database_url().await;
    let recorded = harness::connect(&whole).await;
    let rows = "select name, hash from tidings.migration order by name";
    let rows = recorded.query(rows, &[]).await.unwrap();
    let hash = |name: &str| {
        let row = rows.iter().find(|row| row.get::<_, &str>(0) == name).unwrap();
        row.get::<_, String>(1)
    };
    let url = harness::empty_database_url();
    let client = harness::connect(&url).await;
    let mut text = "create schema tidings; create table tidings.migration (name text primary key,
         hash text not null, at timestamptz not null default clock_timestamp());"
        .to_owned();
    for (name, migration) in &MIGRATIONS[..count] {
        let hash = hash(name);
        text += &format!(
            "{migration}; insert into tidings.migration (name, hash) values ('{name}', '{hash}');"
        );
    }
    client.batch_execute(&text).await.unwrap();
    url
}

/// What a lane of the version before writes, and what applications publish meanwhile.
async fn version_before(url: &str, over: &AtomicBool) -> (Vec<u64>, usize) {
    let lane = harness::connect(url).await;
    let slot = lane.query_one("select slot, fence from tidings.writer_claim('before', 600)", &[]);
    let slot = slot.await.unwrap();
    let (slot, fence): (i32, i64) = (slot.get(0), slot.get(1));
    let shop = harness::connect(url).await;
    let (mut answered, mut published) = (Vec::new(), 0_usize);
    while !over.load(Ordering::Relaxed) {
        let number = answered.len();
        let batch = format!("{slot}, {fence}, {}", number + 1);
        let append = format!(
            "select first_seq from tidings.append({batch}, array['before'], array['{number}'],
             array[null], array[0::smallint], array[null], array[1::smallint], array[null::int], null)"
        );
        let appended: i64 = lane.query_one(&append, &[]).await.unwrap().get(0);
        answered.push(u64::try_from(appended).unwrap());
        let announce = format!(
            "select pg_logical_emit_message(true, 'before', '');
             select tidings.announce({batch}, array[1],
                 array['[[\"before\",{number},null,0,null,1,null]]'])"
        );
        lane.batch_execute(&announce).await.unwrap();
        shop.batch_execute("select tidings.publish('shop', '1')").await.unwrap();
        published += 1;
    }
    (answered, published)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_goes_on_while_the_next_one_is_rolled_out() {
    for count in 1..=MIGRATIONS.len() {
        let url = brought_up_by(count).await;
        let over = AtomicBool::new(false);
        let rollout = async {
            let mut fleet = Vec::new();
            for name in ["one", "two"] {
                fleet.push(Replica::start(name, &url, &[]).await);
            }
            until_live(&fleet).await;
            // Those of the new version publish too, beside the old one.
            for number in 0..50 {
                fleet[number % 2].publish(&json!({"topic": "after", "data": number})).await;
            }
            over.store(true, Ordering::Relaxed);
            fleet
        };
        let ((answered, published), fleet) = tokio::join!(version_before(&url, &over), rollout);
        assert!(answered.len() > 20, "there was no load");

        let client = harness::connect(&url).await;
        until("the outbox is relayed", async || {
            let row = client.query_one("select count(*) from tidings.outbox", &[]).await.unwrap();
            row.get::<_, i64>(0) == 0
        })
        .await;
        let total = answered.len() + published + 50;
        let epoch = fleet[0].stats().await["log"]["epoch"].as_str().unwrap().to_owned();
        let from = Some(format!("{epoch}-0"));
        let follower =
            Follower::start(Way::WebSocket, vec![fleet[1].url.clone()], "before,shop,after", from);
        let seen = follower.has(total).await;
        // Without a hole and without a double, so nothing is lost and nothing twice.
        assert_eq!(seen.seqs(), (1..=total as u64).collect::<Vec<_>>(), "from {count}");
        let of_before = seen.messages.iter().filter(|(topic, _)| topic == "before");
        assert_eq!(of_before.map(|(_, seq)| *seq).collect::<Vec<_>>(), answered);
    }
}

/// Back to this version after the next one was tried: its schema has grown, and serves us too.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_serves_under_the_schema_of_the_next_version() {
    let url = harness::database_url().await;
    let client = harness::connect(&url).await;
    client
        .batch_execute(
            "alter table tidings.message add column grown text;
             alter table tidings.outbox add column grown text default 'a';
             alter table tidings.writer add column grown integer;
             create table tidings.grown (n int);
             insert into tidings.migration (name, hash) values ('9999_grown', 'of the next version')",
        )
        .await
        .unwrap();
    let settings = [("TIDINGS_PARTITION_ROWS", "100")];
    let replica = Replica::start("one", &url, &settings).await;
    assert_eq!(replica.readyz().await["schema"], "right");
    let follower = Follower::start(Way::Sse, vec![replica.url.clone()], "a", None);
    follower.connected().await;
    // More than a partition holds, so that new ones are made under the grown schema.
    for _ in 0..3 {
        let messages: Vec<_> = (0..100).map(|n| json!({"topic": "a", "data": n})).collect();
        replica.publish(&json!({ "messages": messages })).await;
    }
    client.batch_execute("select tidings.publish('a', '1')").await.unwrap();
    follower.has(301).await;
    let task = json!({"action": "try", "items": ["a"], "executor": {"type": "simulate"}});
    let posted = reqwest::Client::new().post(format!("{}/v1/tasks", replica.url)).json(&task);
    assert_eq!(posted.send().await.unwrap().status(), 202);
    until("the task is finished", async || {
        replica.metric("tidings_tasks_finished_total{state=\"completed\"}").await == 1
    })
    .await;
}
