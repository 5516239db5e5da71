//! The settings of the part `telemetry`.

use serde_json::{Value, json};

use super::{database, in_memory, in_postgres, number};
use crate::fleet::{Replica, until};
use crate::telemetry::station::Station;
use crate::telemetry::{ask, counter, create, names, source, until_status};

async fn made(replica: &Replica, body: &Value) -> u16 {
    ask(replica, "POST", "/v1/sources", Some(body)).await.0
}

async fn push(replica: &Replica, events: &Value) {
    let body = json!({"source": "push", "events": events});
    assert_eq!(ask(replica, "POST", "/v1/ingest", Some(&body)).await.0, 202);
}

fn updates(count: u64) -> Value {
    let one = |number| json!({"type": "update", "instance": "i", "counters": {"tcp_rx": number}});
    (1..=count).map(one).collect()
}

#[tokio::test]
pub(super) async fn sources_are_read_at_hosts_that_are_listed() {
    let station = Station::start().await;
    let body = json!({"name": "a", "url": station.url("a")});
    assert_eq!(made(&in_memory(&[]).await, &body).await, 422);
    let replica = in_memory(&[("telemetry_hosts", &station.address.to_string())]).await;
    assert_eq!(made(&replica, &body).await, 201);
    until_status(&replica, "a", "connected").await;
}

#[tokio::test]
pub(super) async fn without_a_key_no_secret_is_taken() {
    let station = Station::start().await;
    let hosts = station.address.to_string();
    let body = json!({"name": "a", "url": station.url("a"), "headers": {"X-API-Key": "secret"}});
    let replica = in_memory(&[("telemetry_hosts", &hosts)]).await;
    assert_eq!(made(&replica, &body).await, 422);
    let key = ("telemetry_key", "0123456789abcdef");
    let replica = in_memory(&[("telemetry_hosts", &hosts), key]).await;
    assert_eq!(made(&replica, &body).await, 201);
}

#[tokio::test]
pub(super) async fn so_many_sources_there_may_be() {
    let replica = in_memory(&[("telemetry_sources_max", "2")]).await;
    for (name, status) in [("a", 201), ("b", 201), ("a", 409), ("c", 429)] {
        assert_eq!(made(&replica, &json!({"name": name})).await, status, "{name}");
    }
}

#[tokio::test]
pub(super) async fn so_many_instances_are_kept() {
    let replica = in_memory(&[("telemetry_instances_max", "2")]).await;
    create(&replica, &json!({"name": "push"})).await;
    let one = |name| json!({"type": "create", "instance": name});
    push(&replica, &["a", "b", "c"].into_iter().map(one).collect()).await;
    let ignored = "tidings_telemetry_ignored_total{reason=\"full\"}";
    until("one is ignored", async || replica.metric(ignored).await == 1).await;
    assert_eq!(names(&replica, "push").await, ["a", "b"]);
}

#[tokio::test]
pub(super) async fn a_source_that_is_silent_is_connected_to_anew() {
    let station = Station::start().await;
    let hosts = station.address.to_string();
    let replica = in_memory(&[("telemetry_hosts", &hosts), ("telemetry_silence_ms", "200")]).await;
    source(&replica, &station, "a").await;
    until("it was connected to anew", async || station.connections("a") >= 2).await;
    let replica = in_memory(&[("telemetry_hosts", &hosts)]).await;
    source(&replica, &station, "b").await;
    until_status(&replica, "b", "connected").await;
    until("others were many times", async || station.connections("a") >= 4).await;
    assert_eq!(station.connections("b"), 1);
}

/// What is kept of the counter of the one instance.
const KEPT: &str = "select coalesce(max((state -> 'counters' -> 'tcp_rx' ->> 0)::bigint), 0) from tidings.instance";

#[tokio::test]
pub(super) async fn gauges_and_counters_are_written_so_often() {
    for (flush_ms, written) in [("100", true), ("600000", false)] {
        let (url, client) = database().await;
        let replica = in_postgres("flush", &url, &[("telemetry_flush_ms", flush_ms)]).await;
        create(&replica, &json!({"name": "push"})).await;
        push(&replica, &updates(1)).await;
        until("what is new is written at once", async || number(&client, KEPT).await == 1).await;
        push(&replica, &json!([{"type": "update", "instance": "i", "counters": {"tcp_rx": 5}}]))
            .await;
        if written {
            until("it is written", async || number(&client, KEPT).await == 5).await;
        } else {
            until("it is in memory", async || counter(&replica, "push", "i").await == Some(5))
                .await;
            assert_eq!(number(&client, KEPT).await, 1);
        }
    }
}

const RAW: &str = "select coalesce(sum(count), 0)::bigint from tidings.source_events";

#[tokio::test]
pub(super) async fn so_many_raw_events_are_written_together() {
    let (url, client) = database().await;
    let replica = in_postgres("batch", &url, &[("telemetry_batch_events", "50")]).await;
    create(&replica, &json!({"name": "push"})).await;
    push(&replica, &updates(49)).await;
    until("they are in memory", async || counter(&replica, "push", "i").await == Some(49)).await;
    assert_eq!(number(&client, RAW).await, 0);
    push(&replica, &updates(51)).await;
    until("they are written", async || number(&client, RAW).await >= 50).await;
}

#[tokio::test]
pub(super) async fn raw_events_wait_no_longer_than_that() {
    for (age_ms, written) in [("300", true), ("600000", false)] {
        let (url, client) = database().await;
        let settings = [("telemetry_batch_age_ms", age_ms), ("telemetry_flush_ms", "100")];
        let replica = in_postgres("age", &url, &settings).await;
        create(&replica, &json!({"name": "push"})).await;
        push(&replica, &updates(9)).await;
        if written {
            until("they are written", async || number(&client, RAW).await == 9).await;
        } else {
            until("the rest is", async || number(&client, KEPT).await == 9).await;
            assert_eq!(number(&client, RAW).await, 0);
        }
    }
}

#[tokio::test]
pub(super) async fn what_does_not_fit_into_the_buffer_is_thinned() {
    let bounds = [("telemetry_buffer_events_max", "100"), ("telemetry_buffer_bytes_max", "64 KiB")];
    for (key, value) in bounds {
        // Nothing is written meanwhile: neither a batch is full nor a moment over.
        let settings =
            [(key, value), ("telemetry_batch_events", "100000"), ("telemetry_flush_ms", "600000")];
        let replica = in_memory(&settings).await;
        create(&replica, &json!({"name": "push"})).await;
        push(&replica, &updates(1_000)).await;
        until("all is counted", async || counter(&replica, "push", "i").await == Some(1_000)).await;
        let stats = replica.stats().await["telemetry"].clone();
        assert!(stats["buffer_usage"].as_f64().unwrap() <= 1.0, "{stats}");
        let kept = stats["buffer_events"].as_u64().unwrap();
        assert!(kept < 1_000, "{stats}");
    }
}
