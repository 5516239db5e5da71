//! With the feature `otel` a collector sees the way of a traced message: `make otel`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fleet::{Replica, until, until_live};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::trace::{publish, trace};

/// What was sent: the type of its content, and the body.
type Had = Arc<Mutex<Vec<(String, Bytes)>>>;

/// A collector of OpenTelemetry, which keeps what it is sent.
struct Collector {
    url: String,
    had: Had,
    server: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One span, and the replica that told it.
#[derive(Debug, Clone)]
struct Span {
    replica: String,
    service: String,
    span: Value,
}

async fn keep(State(had): State<Had>, headers: HeaderMap, body: Bytes) -> axum::Json<Value> {
    had.lock().push((headers["content-type"].to_str().unwrap().to_owned(), body));
    axum::Json(json!({}))
}

impl Collector {
    async fn start() -> Collector {
        let had = Had::default();
        let router = Router::new().route("/v1/traces", post(keep)).with_state(had.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a server of a test, ended with it")]
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Collector { url, had, server }
    }

    /// What a replica is told to tell it, quickly and to be read.
    fn settings(&self) -> [(&str, &str); 3] {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &self.url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ]
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for (content, body) in &*self.had.lock() {
            assert_eq!(content, "application/json");
            let told: Value = serde_json::from_slice(body).unwrap();
            for resource in told["resourceSpans"].as_array().unwrap() {
                let named = |name| attribute(&resource["resource"], name)["stringValue"].clone();
                let text = |value: Value| value.as_str().unwrap().to_owned();
                for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                    spans.push(Span {
                        replica: text(named("service.instance.id")),
                        service: text(named("service.name")),
                        span: span.clone(),
                    });
                }
            }
        }
        spans
    }

    /// Spans by replica and name, in an order of their own.
    fn named(&self) -> Vec<String> {
        let name = |one: &Span| format!("{} {}", one.replica, one.span["name"].as_str().unwrap());
        let mut names: Vec<String> = self.spans().iter().map(name).collect();
        names.sort();
        names
    }

    async fn has(&self, expected: &[&str]) {
        until("the collector has as many spans", async || self.named().len() >= expected.len())
            .await;
        assert_eq!(self.named(), expected);
    }
}

fn attribute<'a>(of: &'a Value, name: &str) -> &'a Value {
    let found = of["attributes"].as_array().unwrap().iter().find(|one| one["key"] == name);
    &found.unwrap_or_else(|| panic!("no {name} in {of}"))["value"]
}

fn nanos(span: &Value, name: &str) -> u64 {
    span[name].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_a_message_from_its_publisher_to_every_replica() {
    let collector = Collector::start().await;
    let url = harness::database_url().await;
    let settings = collector.settings();
    let mut fleet = Vec::new();
    for name in ["one", "two"] {
        fleet.push(Replica::start(name, &url, &settings).await);
    }
    until_live(&fleet).await;
    // Of these nothing is told: one has no trace, of one nobody records the trace.
    let message = json!({"topic": "order:7", "data": "hush", "kind": "hush", "key": "hush"});
    publish(&fleet[0], &[], &message).await;
    let unsampled = trace(1).replace("-01", "-00");
    publish(&fleet[0], &[&unsampled], &message).await;
    publish(&fleet[0], &[&trace(2)], &message).await;
    let whole = ["one commit", "one deliver", "one publish", "two deliver"];
    collector.has(&whole).await;
    let publisher = trace(2);
    let (trace_id, parent) = (&publisher[3..35], &publisher[36..52]);
    for Span { service, span, .. } in collector.spans() {
        assert_eq!((service.as_str(), &span["traceId"]), ("tidings", &json!(trace_id)));
        assert_eq!(span["parentSpanId"], parent);
        assert!(nanos(&span, "startTimeUnixNano") <= nanos(&span, "endTimeUnixNano"), "{span}");
        assert_eq!(attribute(&span, "messaging.system")["stringValue"], "tidings");
        assert!(!span.to_string().contains("hush"), "what is said is nobody's to watch: {span}");
        if span["name"] != "commit" {
            assert_eq!(attribute(&span, "messaging.destination.name")["stringValue"], "order:7");
        }
        if span["name"] == "deliver" {
            assert_eq!(attribute(&span, "tidings.seq")["intValue"], json!("3"));
        }
    }

    // A signal is not committed, and from SQL nobody asks a replica.
    let signal = json!({"topic": "order:7", "data": 1, "class": "signal"});
    publish(&fleet[0], &[&trace(3)], &signal).await;
    let shop = harness::connect(&url).await;
    let set = format!("begin; set local tidings.traceparent = '{}'", trace(4));
    let tell = format!("{set}; select tidings.publish('order:7', '1'); commit");
    shop.batch_execute(&tell).await.unwrap();
    let mut more: Vec<&str> = whole.to_vec();
    more.extend(["one publish", "one deliver", "two deliver", "one deliver", "two deliver"]);
    more.sort_unstable();
    collector.has(&more).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_several_traces_is_linked_to_each() {
    let collector = Collector::start().await;
    let replica = Replica::in_memory("one", &collector.settings()).await;
    let message = |number| json!({"topic": "a", "data": 1, "traceparent": trace(number)});
    let batch =
        json!({"messages": [message(1), message(2), message(1), {"topic": "a", "data": 1}]});
    publish(&replica, &[], &batch).await;
    let deliver = ["one deliver"; 3];
    let expected = [&["one commit"][..], &deliver, &["one publish"; 2]].concat();
    collector.has(&expected).await;
    let spans = collector.spans();
    let commit = spans.iter().find(|one| one.span["name"] == "commit").unwrap();
    assert_eq!(commit.span["traceId"], trace(1)[3..35]);
    let links = commit.span["links"].as_array().unwrap();
    assert_eq!((links.len(), &links[0]["traceId"]), (1, &json!(trace(2)[3..35])));
    assert_eq!(attribute(&commit.span, "messaging.batch.message_count")["intValue"], json!("4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_so_and_what_is_left_is_sent_at_the_end() {
    let collector = Collector::start().await;
    let mut settings = collector.settings().to_vec();
    // An hour: nothing is sent before the end.
    settings.push(("OTEL_BSP_SCHEDULE_DELAY", "3600000"));
    settings.push(("OTEL_SERVICE_NAME", "shop-tidings"));
    let mut replica = Replica::in_memory("one", &settings).await;
    publish(&replica, &[&trace(1)], &json!({"topic": "a", "data": 1})).await;
    // Small enough to be read, too large for a notification.
    let word = "\"".repeat(200);
    let large = json!({"topic": "a".repeat(200), "data": "x".repeat(6_990), "kind": word, "key": word,
        "class": "signal", "traceparent": trace(2)});
    let request = reqwest::Client::new().post(format!("{}/v1/messages", replica.url)).json(&large);
    assert_eq!(request.send().await.unwrap().status(), 413);
    assert!(collector.spans().is_empty());
    assert_eq!(replica.leave().await, Some(0));
    assert_eq!(collector.named(), ["one commit", "one deliver", "one publish", "one publish"]);
    let spans = collector.spans();
    assert!(spans.iter().all(|one| one.service == "shop-tidings"));
    let failed: Vec<&Span> =
        spans.iter().filter(|one| one.span["traceId"] == trace(2)[3..35]).collect();
    assert_eq!((failed.len(), &failed[0].span["status"]["code"]), (1, &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_protobuf_unless_told_otherwise() {
    let collector = Collector::start().await;
    let endpoint = format!("{}/v1/traces", collector.url);
    let settings = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str())];
    let mut replica = Replica::in_memory("one", &settings).await;
    publish(&replica, &[&trace(1)], &json!({"topic": "a", "data": 1})).await;
    assert_eq!(replica.leave().await, Some(0));
    let had = collector.had.lock().clone();
    let id = u128::from_str_radix(&trace(1)[3..35], 16).unwrap().to_be_bytes();
    let times = |body: &Bytes| body.windows(16).filter(|window| *window == id).count();
    assert!(had.iter().all(|(content, _)| content == "application/x-protobuf"));
    assert_eq!(had.iter().map(|(_, body)| times(body)).sum::<usize>(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_a_line_and_nothing_else() {
    // Bound and never listened on: whoever connects is refused, and nobody else gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let away = format!("http://{}", socket.local_addr().unwrap());
    let settings =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", away.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let mut replica = Replica::in_memory("one", &settings).await;
    let follower = Follower::start(Way::WebSocket, vec![replica.url.clone()], "a", None);
    follower.connected().await;
    for number in 1..=200 {
        publish(&replica, &[&trace(number)], &json!({"topic": "a", "data": 1})).await;
    }
    follower.has(200).await;
    let (code, said) = replica.leave_saying().await;
    let lines = said.iter().filter(|line| line.contains("spans cannot be sent")).count();
    assert_eq!((code, lines), (Some(0), 1), "{said:?}");
    let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", away.as_str()), ("OTEL_SDK_DISABLED", "true")];
    let mut off = Replica::in_memory("one", &off).await;
    publish(&off, &[&trace(1)], &json!({"topic": "a", "data": 1})).await;
    let (_, said) = off.leave_saying().await;
    assert!(!said.iter().any(|line| line.contains("spans")), "{said:?}");
}
