//! A whole fleet: many sources, two replicas of which one is killed, and Postgres away for a while. Nothing that
//! was counted is lost or counted twice, and the database hardly feels it.

use std::time::Duration;

use serde_json::json;
use tidings::cluster::Options;
use tokio::time::{Instant, interval};

use super::station::Station;
use super::{borrowed, settings};
use crate::fleet::{Replica, until};
use crate::harness;

const SOURCES: usize = 200;
const INSTANCES: usize = 20;

/// A round of updates of all instances: five seconds, made shorter.
const ROUND: Duration = Duration::from_millis(1_000);
const ROUNDS: usize = 24;

/// Rows written so far, in every table, whatever wrote them.
const ROWS: &str = "select sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint from pg_stat_user_tables
    where schemaname = 'tidings'";

fn name(source: usize) -> String {
    format!("s-{source:03}")
}

/// All instances count, spread over a round.
async fn round(station: &Station, growth: u64) -> u64 {
    let mut ticks = interval(ROUND / u32::try_from(INSTANCES).unwrap());
    let mut sent = 0;
    for instance in 0..INSTANCES {
        ticks.tick().await;
        for source in 0..SOURCES {
            station.count(&name(source), &format!("i-{instance:02}"), growth);
            sent += 1;
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_counted_whole_though_a_replica_dies_and_postgres_is_away() {
    let station = Station::start().await;
    let cluster = harness::private(Options::test().setting("log_statement", "all"));
    let url = cluster.url("postgres");
    // Five times as fast as in earnest, and so are its intervals.
    let mut settings = settings(&station);
    settings[2].1 = "3000".to_owned();
    settings[3].1 = "1000".to_owned();
    settings.push(("TIDINGS_TELEMETRY_BATCH_AGE_MS", "12000".to_owned()));
    let one = Replica::start("one", &url, &borrowed(&settings)).await;
    let mut two = Replica::start("two", &url, &borrowed(&settings)).await;
    crate::fleet::until_live(std::slice::from_ref(&one)).await;
    for source in 0..SOURCES {
        super::create(&one, &json!({"name": name(source), "url": station.url(&name(source))}))
            .await;
    }
    until("all are read", async || {
        (0..SOURCES).all(|source| station.listeners(&name(source)) == 1)
    })
    .await;
    round(&station, 0).await;
    // While the database catches up it may be answered 503.
    let dashboard = async || super::ask(&one, "GET", "/v1/dashboard", None).await.1;
    let all = SOURCES * INSTANCES;
    until("all are there", async || dashboard().await["instances"] == json!({"up": all})).await;
    let statements = || {
        let log = cluster.with_dir(|dir| std::fs::read_to_string(dir.join("postgres.log")));
        let log = log.unwrap().unwrap();
        log.lines()
            .filter(|line| line.contains(" execute ") || line.contains(" statement: "))
            .count()
    };
    let client = harness::connect(&url).await;
    let rows = async || {
        let row = client.query_one(ROWS, &[]).await.unwrap();
        usize::try_from(row.get::<_, i64>(0)).unwrap()
    };
    // What it costs while nothing fails.
    let (before, rows_before, begun) = (statements(), rows().await, Instant::now());
    let mut sent = 0;
    for _ in 0..ROUNDS / 2 {
        sent += round(&station, 7).await;
    }
    let asked = statements() - before;
    let (written, took) = (rows().await - rows_before, begun.elapsed());
    let share = |count: usize| count as f64 * 100.0 / sent as f64;
    println!(
        "{sent} updates in {took:?}: {asked} statements ({:.2} % of one insert per update), {written} rows ({:.0} %)",
        share(asked),
        share(written),
    );
    assert!(asked * 20 <= usize::try_from(sent).unwrap(), "{asked} statements for {sent} updates");
    // Postgres is away, and one replica dies.
    cluster.pause().unwrap();
    let back = Instant::now() + 20 * ROUND / 5;
    while Instant::now() < back {
        round(&station, 7).await;
    }
    cluster.resume().unwrap();
    two.kill().await;
    for _ in 0..ROUNDS / 4 {
        round(&station, 7).await;
    }
    until("all are read again", async || {
        (0..SOURCES).all(|source| station.listeners(&name(source)) == 1)
    })
    .await;
    round(&station, 7).await;
    let counted: u64 = (0..SOURCES)
        .map(|source| {
            (0..INSTANCES)
                .map(|one| station.counter(&name(source), &format!("i-{one:02}")))
                .sum::<u64>()
        })
        .sum();
    let expected = json!({"total": counted, "last_hour": counted});
    let mut last = json!(null);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(45) && last != expected {
        last = dashboard().await["counters"]["tcp_rx"].clone();
    }
    assert_eq!(last, expected);
    until("no instance is missing", async || dashboard().await["instances"] == json!({"up": all}))
        .await;
    println!("rows {}", one.metric("tidings_telemetry_rows_total").await);
}
