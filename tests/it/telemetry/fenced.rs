//! What is written once, and by whom: a reader that slept past its lease, and a flush whose answer was lost.

use serde_json::json;

use super::station::Station;
use super::{ask, borrowed, counter, get, settings, source, until_status};
use crate::fleet::{Replica, until};
use crate::harness;
use crate::proxy::Proxy;

/// All growth of the counter `tcp_rx` as it is kept: in the roll-ups of each level, and with the instances.
async fn kept(client: &tokio_postgres::Client) -> (Vec<i64>, i64) {
    let sums = "select coalesce(sum((r.counters -> 'tcp_rx' ->> 0)::numeric), 0)::bigint
        from generate_series(0, 2) level left join tidings.rollup r using (level) group by level order by level";
    let rollups = client.query(sums, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let totals = "select coalesce(sum((state -> 'counters' -> 'tcp_rx' ->> 2)::numeric), 0)::bigint from tidings.instance";
    (rollups, client.query_one(totals, &[]).await.unwrap().get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_slept_past_its_lease_writes_nothing_when_it_wakes() {
    let station = Station::start().await;
    let mut settings = settings(&station);
    // What it has not written when it falls asleep is what it would write when it wakes.
    settings[3].1 = "60000".to_owned();
    let url = harness::database_url().await;
    let client = harness::connect(&url).await;
    let fleet = [
        Replica::start("one", &url, &borrowed(&settings)).await,
        Replica::start("two", &url, &borrowed(&settings)).await,
    ];
    station.count("a", "i", 100);
    source(&fleet[0], &station, "a").await;
    until_status(&fleet[1], "a", "connected").await;
    until("it is kept", async || {
        get(&fleet[0], "/v1/dashboard").await["instances"] == json!({"up": 1})
    })
    .await;
    let holder = get(&fleet[0], "/v1/sources/a").await["replica"].clone();
    let sleeper = usize::from(holder == "two");
    let (asleep, awake) = (&fleet[sleeper], &fleet[1 - sleeper]);
    station.count("a", "i", 50);
    station.tell("a", &json!({"type": "log", "instance": "i", "text": "told before it slept"}));
    until("it is read", async || counter(asleep, "a", "i").await == Some(150)).await;
    asleep.signal("-STOP");
    until("the other one has it", async || {
        get(awake, "/v1/sources/a").await["replica"] == awake.name
    })
    .await;
    until("it reads", async || station.connections("a") == 2).await;
    // Both are told of it: one now, the other one when it wakes.
    station.count("a", "i", 25);
    until("it goes on", async || counter(awake, "a", "i").await == Some(175)).await;
    asleep.signal("-CONT");
    until("it has noticed", async || {
        asleep.metric("tidings_telemetry_sources").await == 0 && station.listeners("a") == 1
    })
    .await;
    station.count("a", "i", 25);
    until("it is told everywhere", async || counter(awake, "a", "i").await == Some(200)).await;
    let written = async || {
        let row = client
            .query_one("select holder, term, flushed from tidings.source where id = 'a'", &[])
            .await
            .unwrap();
        (row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, i64>(2))
    };
    let (holder, term, _) = written().await;
    assert!(holder.starts_with(&awake.name) && term == 2, "{holder} {term}");
    assert_eq!(get(awake, "/v1/logs?source=a").await["logs"], json!([]));
    let mut fleet = Vec::from(fleet);
    for mut replica in fleet.drain(..) {
        assert_eq!(replica.leave().await, Some(0));
    }
    // The first sample is worth nothing; the rest is all there, once.
    assert_eq!(kept(&client).await, (vec![100, 100, 100], 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_whose_answer_was_lost_is_written_once() {
    const ROUNDS: u64 = 8;
    let station = Station::start().await;
    let url = harness::database_url().await;
    let client = harness::connect(&url).await;
    let (proxy, through) = Proxy::to_database(&url).await;
    let mut settings = settings(&station);
    settings[2].1 = "60000".to_owned();
    settings[3].1 = "50".to_owned();
    settings.push(("TIDINGS_TELEMETRY_BATCH_AGE_MS", "50".to_owned()));
    let mut replica = Replica::start("lost", &through, &borrowed(&settings)).await;
    station.count("a", "i", 0);
    source(&replica, &station, "a").await;
    until_status(&replica, "a", "connected").await;
    until("it is kept", async || {
        get(&replica, "/v1/dashboard").await["instances"] == json!({"up": 1})
    })
    .await;
    let value = "select (state -> 'counters' -> 'tcp_rx' ->> 0)::bigint from tidings.instance";
    let value =
        async || client.query_one(value, &[]).await.unwrap().get::<_, Option<i64>>(0).unwrap_or(-1);
    let mut unanswered = 0;
    for round in 1..=ROUNDS {
        let before = replica.metric("tidings_telemetry_flush_errors_total").await;
        // Nothing else than a flush says this.
        proxy.lose_answer_to(b"\"pending\"");
        let counter = station.count("a", "i", 10);
        station
            .tell("a", &json!({"type": "log", "instance": "i", "text": format!("line {round}")}));
        // It is written, and the replica does not know.
        until("it is written", async || value().await == i64::try_from(counter).unwrap()).await;
        until("it has tried again", async || {
            replica.metric("tidings_telemetry_flush_errors_total").await > before
        })
        .await;
        unanswered += 1;
    }
    until("all lines are kept", async || {
        let (_, lines) = ask(&replica, "GET", "/v1/logs?source=a", None).await;
        lines["logs"]
            .as_array()
            .is_some_and(|lines| lines.len() >= usize::try_from(ROUNDS).unwrap())
    })
    .await;
    assert_eq!(replica.leave().await, Some(0));
    assert_eq!(kept(&client).await, (vec![80, 80, 80], 80));
    let count = async |query: &str| client.query_one(query, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count("select count(*) from tidings.source_log").await, 8);
    let updates =
        "select count(*) from tidings.source_events, jsonb_array_elements(events::jsonb) e
        where e ->> 'type' = 'update'";
    assert_eq!(count(updates).await, 8);
    println!("{unanswered} flushes were written and not answered");
}
