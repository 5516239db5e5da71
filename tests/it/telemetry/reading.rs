//! Sources are read: by one replica each, wherever their streams lead, whatever comes.

use serde_json::json;

use super::station::Station;
use super::{ask, borrowed, counter, create, get, names, settings, source, until_status};
use crate::fleet::{Replica, until};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
pub async fn a_source_is_read_by_one_replica_and_by_another_when_that_one_dies() {
    let station = Station::start().await;
    let (url, settings) = (harness::database_url().await, settings(&station));
    let mut fleet = vec![
        Replica::start("one", &url, &borrowed(&settings)).await,
        Replica::start("two", &url, &borrowed(&settings)).await,
    ];
    station.count("edge-1", "i-1", 100);
    source(&fleet[0], &station, "edge-1").await;
    until_status(&fleet[1], "edge-1", "connected").await;
    assert_eq!(station.listeners("edge-1"), 1);
    // The dashboard is read from the store: what counts from here on is not the first sample.
    until("it is kept", async || {
        get(&fleet[0], "/v1/dashboard").await["instances"] == json!({"up": 1})
    })
    .await;
    station.count("edge-1", "i-1", 50);
    until("it is seen everywhere", async || {
        counter(&fleet[0], "edge-1", "i-1").await == Some(150)
            && counter(&fleet[1], "edge-1", "i-1").await == Some(150)
    })
    .await;
    let holder = get(&fleet[0], "/v1/sources/edge-1").await["replica"].clone();
    let victim = usize::from(holder == "two");
    fleet[victim].kill().await;
    fleet.remove(victim);
    until("another one has it", async || {
        let now = get(&fleet[0], "/v1/sources/edge-1").await["replica"].clone();
        now.is_string() && now != holder
    })
    .await;
    until("it reads", async || station.listeners("edge-1") == 1).await;
    station.count("edge-1", "i-1", 25);
    until("it goes on", async || counter(&fleet[0], "edge-1", "i-1").await == Some(175)).await;
    // The first sample is worth nothing; the rest is all there, whoever read it.
    let one = get(&fleet[0], "/v1/instances/edge-1/i-1").await;
    assert_eq!(one["totals"], json!({"tcp_rx": 75, "tcp_tx": 150}));
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_shared_and_handed_over_by_one_that_leaves() {
    let station = Station::start().await;
    let (url, settings) = (harness::database_url().await, settings(&station));
    let one = Replica::start("one", &url, &borrowed(&settings)).await;
    let all: Vec<String> = (0..10).map(|number| format!("s-{number}")).collect();
    for name in &all {
        station.count(name, "i", 1);
        source(&one, &station, name).await;
    }
    let held = async |replica: &Replica| replica.metric("tidings_telemetry_sources").await;
    until("one has all", async || held(&one).await == 10).await;
    let mut two = Replica::start("two", &url, &borrowed(&settings)).await;
    until("they share", async || held(&one).await == 5 && held(&two).await == 5).await;
    for name in &all {
        until("it is read once", async || station.listeners(name) == 1).await;
    }
    assert_eq!(two.leave().await, Some(0));
    until("one has all again", async || held(&one).await == 10).await;
}

#[tokio::test]
async fn a_source_comes_back_from_where_it_was_and_is_left_alone_after_204() {
    let station = Station::start().await;
    let settings = settings(&station);
    let replica = Replica::in_memory("place", &borrowed(&settings)).await;
    source(&replica, &station, "a").await;
    until_status(&replica, "a", "connected").await;
    // Cut anywhere, ended in every way, with a comment, a mark of the byte order and a line that is too large.
    let large = format!("data: {}\r\n\r\n", "x".repeat(300 << 10));
    for piece in [
        "\u{feff}retry: 1\rid: 41\r\n: comment\nda",
        "ta: {\"type\":\"create\",\"insta",
        "nce\":\"i\",\ndata: \"counters\":{\"tcp_rx\":7}}\r\r",
        large.as_str(),
        "data: {\"type\":\"news\"}\n\ndata: not json\n\n",
        "id: 42\ndata: {\"type\":\"update\",\"instance\":\"i\",\"counters\":{\"tcp_rx\":9}}\n\n",
    ] {
        station.send("a", piece.to_owned());
    }
    until("all is read", async || counter(&replica, "a", "i").await == Some(9)).await;
    let ignored = async |why: &str| {
        replica.metric(&format!("tidings_telemetry_ignored_total{{reason=\"{why}\"}}")).await
    };
    assert_eq!((ignored("too_large").await, ignored("malformed").await), (1, 2));
    station.hang_up("a");
    until("it has come back", async || station.connections("a") == 2).await;
    assert_eq!(station.last_ids("a"), [None, Some("42".to_owned())]);
    station.answer("a", Some((204, None)));
    station.hang_up("a");
    until_status(&replica, "a", "stopped").await;
    let connections = station.connections("a");
    station.answer("a", None);
    let (status, _) =
        ask(&replica, "PATCH", "/v1/sources/a", Some(&json!({"enabled": true}))).await;
    assert_eq!(status, 200);
    until_status(&replica, "a", "connected").await;
    assert_eq!(station.connections("a"), connections + 1);
    // What is written there means nothing elsewhere.
    let change = json!({"url": station.url("elsewhere")});
    assert_eq!(ask(&replica, "PATCH", "/v1/sources/a", Some(&change)).await.0, 200);
    until("it is read elsewhere", async || station.connections("elsewhere") == 1).await;
    assert_eq!(station.last_ids("elsewhere"), [None]);
}

#[tokio::test]
async fn a_change_of_anything_but_the_url_reads_on_from_where_it_was() {
    let station = Station::start().await;
    let settings = settings(&station);
    let slow = ("TIDINGS_TELEMETRY_FLUSH_MS", "60000");
    let settings: Vec<_> =
        borrowed(&settings).into_iter().filter(|(name, _)| *name != slow.0).chain([slow]).collect();
    let replica = Replica::in_memory("on", &settings).await;
    source(&replica, &station, "a").await;
    until_status(&replica, "a", "connected").await;
    // Read, and not written yet.
    station.send("a", "id: 7\ndata: {\"type\":\"log\",\"text\":\"x\"}\n\n");
    station.send(
        "a",
        "data: {\"type\":\"create\",\"instance\":\"i\",\"counters\":{\"tcp_rx\":1}}\n\n",
    );
    until("it is read", async || counter(&replica, "a", "i").await == Some(1)).await;
    let change = json!({"headers": {"X-Key": "k"}});
    assert_eq!(ask(&replica, "PATCH", "/v1/sources/a", Some(&change)).await.0, 200);
    until("it is read anew", async || station.connections("a") == 2).await;
    assert_eq!(station.last_ids("a"), [None, Some("7".to_owned())]);
}

#[tokio::test]
async fn secrets_go_to_their_source_alone_and_are_shown_to_nobody() {
    let (station, other) = (Station::start().await, Station::start().await);
    let hosts = format!("{},{}", station.address, other.address);
    let mut settings = settings(&station);
    settings[0].1 = hosts;
    let (url, client) = {
        let url = harness::database_url().await;
        let client = harness::connect(&url).await;
        (url, client)
    };
    let mut replica = Replica::start("secrets", &url, &borrowed(&settings)).await;
    let secret = "s3cr3t-value";
    let body = json!({
        "name": "a", "url": format!("{}?token={secret}", station.url("a")), "headers": {"X-API-Key": secret},
    });
    create(&replica, &body).await;
    until("it is asked with its secret", async || {
        station.header("a", "x-api-key").as_deref() == Some(secret)
    })
    .await;
    station.answer("a", Some((307, Some(other.url("b")))));
    station.hang_up("a");
    until("it was led elsewhere", async || other.connections("b") == 1).await;
    assert_eq!(other.header("b", "x-api-key"), None);
    let shown = get(&replica, "/v1/sources/a").await;
    assert_eq!(shown["headers"], json!(["X-API-Key"]));
    assert_eq!(shown["url"], format!("{}?***", station.url("a")));
    let kept: String = client
        .query_one("select string_agg(s::text, ' ') from tidings.source s", &[])
        .await
        .unwrap()
        .get(0);
    assert!(!kept.contains(secret) && kept.contains("?***"), "{kept}");
    // A redirect to a host that is not listed is not followed.
    station.answer("a", Some((302, Some("http://127.0.0.1:1/".to_owned()))));
    let (_, tested) = ask(&replica, "POST", "/v1/sources/a/test", None).await;
    assert_eq!(tested["ok"], false);
    assert!(tested["detail"].as_str().unwrap().contains("telemetry_hosts"), "{tested}");
    let (_, said) = replica.leave_saying().await;
    assert!(!said.join("\n").contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_to_any_replica_counts_once() {
    let station = Station::start().await;
    let (url, settings) = (harness::database_url().await, settings(&station));
    let one = Replica::start("one", &url, &borrowed(&settings)).await;
    let two = Replica::start("two", &url, &borrowed(&settings)).await;
    create(&one, &json!({"name": "push"})).await;
    until_status(&two, "push", "connected").await;
    for round in 0..20_u64 {
        let event = |instance: &str| json!({"type": "update", "instance": instance, "counters": {"tcp_rx": round * 10}});
        let events = [
            event("a"),
            event("b"),
            json!({"type": "log", "instance": "a", "text": format!("line {round}")}),
        ];
        let replica = if round % 2 == 0 { &one } else { &two };
        let body = json!({"source": "push", "events": events});
        assert_eq!(ask(replica, "POST", "/v1/ingest", Some(&body)).await.0, 202);
    }
    until("all is counted", async || {
        let one = get(&two, "/v1/sources/push/instances").await;
        one["instances"].as_array().is_some_and(|all| {
            all.len() == 2 && all.iter().all(|one| one["totals"]["tcp_rx"] == 190)
        })
    })
    .await;
    until("the lines are kept", async || {
        get(&one, "/v1/logs?source=push&limit=1000").await["logs"].as_array().unwrap().len() == 20
    })
    .await;
    let first = get(&one, "/v1/logs?source=push&limit=8").await;
    assert_eq!(
        (first["logs"][0]["text"].as_str(), &first["more"]),
        (Some("line 19"), &json!(true))
    );
    let before = first["logs"][7]["id"].as_u64().unwrap();
    let second = get(&one, &format!("/v1/logs?source=push&limit=100&before={before}")).await;
    assert_eq!(
        (second["logs"][0]["text"].as_str(), &second["more"]),
        (Some("line 11"), &json!(false))
    );
    assert_eq!(names(&one, "push").await, ["a", "b"]);
}

#[tokio::test]
async fn what_is_not_in_the_list_is_gone_and_nothing_late_brings_it_back() {
    let station = Station::start().await;
    let settings = settings(&station);
    let replica = Replica::in_memory("list", &borrowed(&settings)).await;
    station.count("a", "stays", 1);
    station.count("a", "goes", 1);
    source(&replica, &station, "a").await;
    until("both are there", async || names(&replica, "a").await == ["goes", "stays"]).await;
    station.forget("a", "goes");
    station.hang_up("a");
    until("one is gone", async || names(&replica, "a").await == ["stays"]).await;
    station.tell("a", &json!({"type": "update", "instance": "goes", "counters": {"tcp_rx": 5}}));
    station.count("a", "stays", 5);
    until("what came after it was read", async || counter(&replica, "a", "stays").await == Some(6))
        .await;
    assert_eq!(names(&replica, "a").await, ["stays"]);
}
