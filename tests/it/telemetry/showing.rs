//! What sources do is seen: live, as a dashboard, as trends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::station::Station;
use super::{ask, borrowed, get, settings, source, until_status};
use crate::client;
use crate::fleet::{Replica, until};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_on_the_other_replica_sees_a_state_within_a_quarter_of_a_second() {
    const UPDATES: u64 = 200;
    let station = Station::start().await;
    let (url, settings) = (harness::database_url().await, settings(&station));
    let fleet = [
        Replica::start("one", &url, &borrowed(&settings)).await,
        Replica::start("two", &url, &borrowed(&settings)).await,
    ];
    crate::fleet::until_live(&fleet).await;
    station.count("live", "i", 1);
    source(&fleet[0], &station, "live").await;
    until_status(&fleet[0], "live", "connected").await;
    let holder = get(&fleet[0], "/v1/sources/live").await["replica"].clone();
    let other = &fleet[usize::from(holder == "one")];
    let mut socket = client::connect(&other.url, "/v1/ws?topics=source:live", &[]).await.unwrap();
    let mut within = Vec::new();
    for _ in 0..UPDATES {
        let (sent, counter) = (Instant::now(), station.count("live", "i", 1));
        loop {
            let frame = socket.frame().await;
            if frame["kind"] == "instance.state" && frame["data"]["counters"]["tcp_rx"] == counter {
                break;
            }
        }
        within.push(sent.elapsed());
    }
    within.sort_unstable();
    let p99 = within[within.len() * 99 / 100];
    println!("p50 {:?}, p99 {p99:?}", within[within.len() / 2]);
    assert!(p99 < Duration::from_millis(250), "{p99:?}");
}

#[tokio::test]
async fn what_happens_is_said_on_the_topic_of_the_source() {
    let station = Station::start().await;
    let settings = settings(&station);
    let replica = Replica::in_memory("said", &borrowed(&settings)).await;
    let mut socket = client::connect(&replica.url, "/v1/ws?topics=source:a", &[]).await.unwrap();
    source(&replica, &station, "a").await;
    until_status(&replica, "a", "connected").await;
    station.count("a", "i", 1);
    station.tell("a", &json!({"type": "log", "instance": "i", "text": "a line"}));
    station.tell("a", &json!({"type": "delete", "instance": "i"}));
    let mut wanted = vec!["source.status", "instance.created", "log", "instance.deleted"];
    while !wanted.is_empty() {
        let frame = socket.frame().await;
        let kind = frame["kind"].as_str().unwrap_or_default().to_owned();
        let expected =
            if kind.starts_with("log") || kind == "instance.state" { "signal" } else { "event" };
        if frame["type"] == "message" {
            assert_eq!(frame["class"], expected, "{frame}");
        }
        wanted.retain(|name| *name != kind);
    }
}

#[tokio::test]
async fn trends_and_the_dashboard_are_what_was_counted() {
    for url in [String::new(), harness::database_url().await] {
        let station = Station::start().await;
        let settings = settings(&station);
        let replica = match url.as_str() {
            "" => Replica::in_memory("trend", &borrowed(&settings)).await,
            url => Replica::start("trend", url, &borrowed(&settings)).await,
        };
        source(&replica, &station, "a").await;
        until_status(&replica, "a", "connected").await;
        for _ in 0..6 {
            station.count("a", "i", 10);
            station.count("a", "j", 100);
        }
        let sum = |trend: &Value, name: &str| -> f64 {
            trend["points"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|point| point[name].as_f64())
                .sum()
        };
        for step in ["1m", "1h", "1d"] {
            for (instance, expected) in [("", 550.0), ("&instance=i", 50.0)] {
                let target = format!(
                    "/v1/trends?source=a&metric=tcp_rx&step={step}&tz=Europe/Berlin{instance}"
                );
                until("it is counted", async || {
                    sum(&get(&replica, &target).await, "sum") == expected
                })
                .await;
            }
        }
        let trend = get(&replica, "/v1/trends?source=a&metric=ping_ms&step=1m").await;
        let points = trend["points"].as_array().unwrap();
        assert!(points.len() >= 60, "{}", points.len());
        assert_eq!(
            points[0],
            json!({"at": points[0]["at"], "avg": null, "min": null, "max": null, "samples": 0})
        );
        let shown = points.iter().rev().find(|point| point["samples"] != 0).unwrap();
        assert_eq!(
            (&shown["avg"], &shown["min"], &shown["max"]),
            (&json!(1.5), &json!(1.5), &json!(1.5))
        );
        let dashboard = get(&replica, "/v1/dashboard").await;
        assert_eq!(dashboard["sources"], json!({"connected": 1}));
        assert_eq!(dashboard["instances"], json!({"up": 2}));
        assert_eq!(dashboard["counters"]["tcp_rx"], json!({"total": 550, "last_hour": 550}));
        let far = "/v1/trends?source=a&metric=x&step=1m&from=2020-01-01T00:00:00Z";
        assert_eq!(ask(&replica, "GET", far, None).await.0, 422);
    }
}
