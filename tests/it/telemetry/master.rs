//! A NodePass master, whose stream is read as it is: what comes of its instances, and nothing of its key.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::station::Station;
use super::{ask, borrowed, create, get, names, settings, until_status};
use crate::client::{self, Socket};
use crate::fleet::{Replica, until};
use crate::harness;

/// The key of the master: it is in our header, and in what the master tells of itself.
const KEY: &str = "9f86d081884c7d659a2feaa0c55ad015";

/// What tunnels are guarded by: in URLs, and in the lines that instances print.
const TUNNEL_KEY: &str = "tunn3l-k3y";

/// An instance with every field that a master tells, and one that none tells yet.
fn instance(id: &str, rx: u64) -> Value {
    json!({
        "id": id, "alias": format!("alias of {id}"), "type": "server", "status": "running",
        "url": format!("server://{TUNNEL_KEY}@0.0.0.0:10101/127.0.0.1:8080?log=info&tls=1"),
        "config": format!("server://{TUNNEL_KEY}@0.0.0.0:10101/127.0.0.1:8080?log=info&max=1024"),
        "restart": true, "meta": {"peer": {"sid": "", "type": "", "alias": ""}, "tags": {"a": "b"}},
        "mode": 1, "ping": 12, "pool": 64, "tcps": 3, "udps": null,
        "tcprx": rx, "tcptx": rx * 2, "udprx": 0, "udptx": null, "tomorrow": [{"a": null}],
    })
}

/// The instance under which a master keeps its own key.
fn master() -> Value {
    let mut own = instance("********", 0);
    (own["url"], own["alias"]) = (KEY.into(), KEY.into());
    own
}

/// As a master writes it.
fn event(kind: &str, instance: &Value) -> String {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(8)));
    let time = now.strftime("%Y-%m-%dT%H:%M:%S.%f%:z").to_string();
    let event = json!({"type": kind, "time": time, "instance": instance});
    format!("event: instance\ndata: {event}\n\n")
}

fn log(id: &str, text: &str) -> String {
    let event = json!({"type": "log", "time": "2026-11-21T18:00:00+08:00", "instance": instance(id, 0), "logs": text});
    format!("event: instance\ndata: {event}\n\n")
}

/// How it greets whoever connects.
fn greeting(instances: &[Value]) -> String {
    let all = [master()].into_iter().chain(instances.iter().cloned());
    let initial: String = all.map(|one| event("initial", &one)).collect();
    format!("retry: 3000\n\n{initial}")
}

async fn shown(replica: &Replica, id: &str) -> Value {
    ask(replica, "GET", &format!("/v1/instances/np/{id}"), None).await.1
}

/// All that is kept, in every table there is.
async fn dump(client: &Client) -> String {
    let tables = "select c.oid::regclass::text from pg_class c where c.relkind = 'r'
        and c.relnamespace = 'tidings'::regnamespace";
    let mut all = String::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        let rows = client.query(&format!("select t::text from {table} t"), &[]).await.unwrap();
        for row in rows {
            all.push_str(&format!("{table} {}\n", row.get::<_, &str>(0)));
        }
    }
    all
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn keeps_quiet(what: &str, said: &str) {
    for secret in [KEY, TUNNEL_KEY] {
        let found = said.lines().find(|line| line.contains(secret) || line.contains(&hex(secret)));
        assert_eq!(found, None, "{what} shows a secret");
    }
}

/// Frames up to one that is looked for.
async fn frames_until(socket: &mut Socket, all: &mut String, wanted: impl Fn(&Value) -> bool) {
    loop {
        let frame = socket.frame().await;
        all.push_str(&format!("{frame}\n"));
        if wanted(&frame) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_is_followed_through_a_life_and_its_key_is_nowhere() {
    let station = Station::start().await;
    let mut settings = settings(&station);
    settings.push(("TIDINGS_TELEMETRY_BATCH_AGE_MS", "300".to_owned()));
    settings.push(("TIDINGS_LOG", "info,tidings::telemetry=debug".to_owned()));
    let url = harness::database_url().await;
    let client = harness::connect(&url).await;
    let mut replica = Replica::start("master", &url, &borrowed(&settings)).await;
    let mut socket = client::connect(&replica.url, "/v1/ws?topics=source:np", &[]).await.unwrap();
    let mut frames = String::new();
    station.greet("np", greeting(&[instance("a1", 1_000), instance("b2", 500)]));
    create(&replica, &json!({
        "name": "np", "format": "nodepass", "url": station.url("np"), "headers": {"X-API-Key": KEY},
    }))
    .await;
    until_status(&replica, "np", "connected").await;
    assert_eq!(station.header("np", "x-api-key").as_deref(), Some(KEY));
    until("both are there", async || names(&replica, "np").await == ["a1", "b2"]).await;
    let one = shown(&replica, "a1").await;
    assert_eq!(one["counters"], json!({"tcp_rx": 1_000, "tcp_tx": 2_000, "udp_rx": 0}));
    assert_eq!(one["gauges"], json!({"ping_ms": 12.0, "pool": 64.0, "tcps": 3.0}));
    let place = "server://***@0.0.0.0:10101/127.0.0.1:8080?log=info";
    assert_eq!(
        one["static"],
        json!({
            "alias": "alias of a1", "type": "server", "status": "running", "mode": 1, "restart": true,
            "url": format!("{place}&tls=1"), "config": format!("{place}&max=1024"),
        })
    );
    // It counts; a new one comes, speaks and goes; the master tells of itself.
    station.send("np", event("update", &instance("a1", 1_500)));
    station.send("np", event("update", &master()));
    station.send("np", event("create", &instance("c3", 0)));
    station.send(
        "np",
        log(
            "c3",
            &format!("\u{1b}[32mINFO\u{1b}[0m Server started: server://{TUNNEL_KEY}@:1/:2?max=1"),
        ),
    );
    station.send("np", log("********", KEY));
    station.send("np", event("update", &instance("c3", 70)));
    let mut stopped = instance("b2", 500);
    (stopped["status"], stopped["ping"]) = ("stopped".into(), Value::Null);
    station.send("np", event("update", &stopped));
    station.send("np", event("delete", &instance("c3", 70)));
    until("it has gone", async || names(&replica, "np").await == ["a1", "b2"]).await;
    assert_eq!(shown(&replica, "a1").await["totals"]["tcp_rx"], 500);
    let other = shown(&replica, "b2").await;
    assert_eq!(
        (&other["static"]["status"], &other["gauges"]["ping_ms"]),
        (&json!("stopped"), &json!(12.0))
    );
    frames_until(&mut socket, &mut frames, |frame| frame["kind"] == "instance.deleted").await;
    // It begins anew: one counter from zero, one instance is gone while nobody looked.
    station.greet("np", greeting(&[instance("a1", 300)]));
    station.send("np", event("shutdown", &Value::Null));
    until("both are down", async || {
        get(&replica, "/v1/dashboard?source=np").await["instances"]["down"] == 2
    })
    .await;
    station.hang_up("np");
    until("one is gone", async || names(&replica, "np").await == ["a1"]).await;
    station.send("np", event("update", &instance("b2", 900)));
    station.send("np", event("update", &instance("a1", 400)));
    until("what came after it was read", async || {
        shown(&replica, "a1").await["counters"]["tcp_rx"] == 400
    })
    .await;
    let one = shown(&replica, "a1").await;
    assert_eq!((&one["status"], &one["totals"]["tcp_rx"]), (&json!("up"), &json!(900)));
    assert_eq!(names(&replica, "np").await, ["a1"]);
    frames_until(&mut socket, &mut frames, |frame| frame["data"]["counters"]["tcp_rx"] == 400)
        .await;
    // Within a row texts have their quotes twice.
    until("all is kept", async || dump(&client).await.contains("tcp_rx\"\":400")).await;
    let lines = get(&replica, "/v1/logs?source=np").await;
    assert_eq!(
        lines["logs"][0]["text"],
        "\u{1b}[32mINFO\u{1b}[0m Server started: server://***@:1/:2?max=1"
    );
    assert_eq!(lines["logs"].as_array().unwrap().len(), 1, "{lines}");
    // Whoever asks and looks, wherever.
    for target in [
        "/v1/sources",
        "/v1/sources/np",
        "/v1/sources/np/instances",
        "/v1/instances/np/a1",
        "/v1/instances/np/********",
        "/v1/dashboard",
        "/v1/trends?source=np&metric=tcp_rx",
        "/v1/logs?source=np",
        "/v1/messages?topic=source:np",
        "/v1/stats",
        "/v1/settings",
        "/metrics",
        "/readyz",
    ] {
        let answer = reqwest::get(format!("{}{target}", replica.url)).await.unwrap();
        keeps_quiet(target, &answer.text().await.unwrap());
    }
    let (_, tested) = ask(&replica, "POST", "/v1/sources/np/test", None).await;
    assert_eq!((&tested["ok"], &tested["malformed"]), (&json!(true), &json!(0)));
    keeps_quiet("the test", &tested.to_string());
    keeps_quiet("a frame", &frames);
    drop(socket);
    let (code, said) = replica.leave_saying().await;
    assert_eq!(code, Some(0));
    let said = said.join("\n");
    assert!(said.contains("a source cannot be read"), "it tells all that it would tell: {said}");
    keeps_quiet("the log of the replica", &said);
    let kept = dump(&client).await;
    for table in ["source", "instance", "rollup", "source_events", "source_log", "message"] {
        assert!(kept.contains(&format!("tidings.{table}")), "{table} is empty");
    }
    keeps_quiet("the database", &kept);
}
