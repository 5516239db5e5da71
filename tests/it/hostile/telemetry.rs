//! Sources that are none, events of nobody, and questions about times that cannot be.

use serde_json::{Value, json};

use super::{goes_on, replica};
use crate::fleet::until;
use crate::harness;

fn deep(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// A body for `POST /v1/sources`, and the status that it gets.
fn sources() -> Vec<(String, u16)> {
    let named = |name: &str| format!(r#"{{"name":"{name}"}}"#);
    let with = |field: &str| format!(r#"{{"name":"never","url":"http://127.0.0.1:9/",{field}}}"#);
    let at = |url: &str| format!(r#"{{"name":"never","url":"{url}"}}"#);
    let mut bodies = vec![
        (named("push"), 201),
        (named("push"), 409),
        (named(&long(100)), 201),
        (named(&long(101)), 422),
        (named(""), 422),
        (named("a b"), 422),
        (named("é"), 422),
        (named("a\\u0000"), 422),
        (named("*"), 422),
        (named("../etc"), 422),
        (named("'; drop table tidings.source; --"), 422),
        (r#"{"name":"a","name":"b"}"#.to_owned(), 201),
        (r#"{"name":7}"#.to_owned(), 400),
        (r#"{"name":"never","colour":1}"#.to_owned(), 400),
        (r#"{"name":"never","enabled":"yes"}"#.to_owned(), 400),
        (r#"{"name":"never","format":"xml"}"#.to_owned(), 422),
        (r#"{"name":"never","format":"nodepass"}"#.to_owned(), 422),
        (r#"{"name":"never","headers":{"a":"b"}}"#.to_owned(), 422),
        (at(""), 422),
        (at("nowhere"), 422),
        (at("ftp://127.0.0.1:9/"), 422),
        (at("file:///etc/passwd"), 422),
        (at("http://127.0.0.1/"), 422),
        (at("http://169.254.169.254/latest/meta-data"), 422),
        (at("http://[::1]:9/"), 422),
        (at("http://user:word@127.0.0.1:9/"), 422),
        (at("http://127.0.0.1:9/?***"), 422),
        (at("http://127.0.0.1:99999/"), 422),
        (at(&format!("http://127.0.0.1:9/{}", long(2_000))), 422),
        (with(r#""headers":[]"#), 400),
        (with(r#""headers":{"a":7}"#), 400),
        (with(r#""headers":{"a":null}"#), 400),
        (with(r#""headers":{"a b":"c"}"#), 422),
        (with(r#""headers":{"":"c"}"#), 422),
        (with(r#""headers":{"a":"b\r\nc: d"}"#), 422),
        (with(r#""headers":{"host":"elsewhere"}"#), 422),
        (with(r#""headers":{"Content-Length":"1"}"#), 422),
        (with(&format!(r#""headers":{{"a":"{}"}}"#, long(5_000))), 422),
        (with(&format!(r#""headers":{}"#, deep(100_000))), 400),
    ];
    let many: Vec<String> = (0..21).map(|n| format!(r#""h-{n}":"x""#)).collect();
    bodies.push((with(&format!(r#""headers":{{{}}}"#, many.join(","))), 422));
    for text in ["", "{", "[]", "null", "7", "\"x\"", "{}"] {
        bodies.push((text.to_owned(), 400));
    }
    bodies
}

/// What is pushed, and the status that it gets.
fn pushed() -> Vec<(String, u16)> {
    let events = |events: &str| format!(r#"{{"source":"push","events":{events}}}"#);
    let update = |field: &str| events(&format!(r#"[{{"type":"update","instance":"i",{field}}}]"#));
    let mut bodies = vec![
        (events("[]"), 202),
        (r#"{"source":"nobody","events":[]}"#.to_owned(), 404),
        (r#"{"source":"a b","events":[]}"#.to_owned(), 404),
        (r#"{"source":7,"events":[]}"#.to_owned(), 400),
        (r#"{"source":"push"}"#.to_owned(), 400),
        (events("{}"), 400),
        (events("null"), 400),
        (events("[null]"), 400),
        (events("[[]]"), 400),
        (events(r#"[{"type":"news","instance":"i"}]"#), 400),
        (events(r#"[{"type":"update","instance":""}]"#), 400),
        (events(r#"[{"type":"update","instance":"a\nb"}]"#), 400),
        (events(r#"[{"type":"update","instance":7}]"#), 400),
        (events(&format!(r#"[{{"type":"update","instance":"{}"}}]"#, long(201))), 400),
        (events(&format!(r#"[{{"type":"create","instance":"{}"}}]"#, long(200))), 202),
        // Nobody's, and said so by a count: it is no reason to send all again.
        (events(r#"[{"type":"update"}]"#), 202),
        (events(r#"[{"type":"delete","instance":"never"}]"#), 202),
        (update(r#""gauges":{"a":NaN}"#), 400),
        (update(r#""gauges":{"a":1e400}"#), 400),
        (update(r#""gauges":{"a":"NaN"}"#), 400),
        (update(r#""gauges":{"a":1.7976931348623157e308}"#), 400),
        (update(r#""gauges":{"a":1e290,"b":-0.0,"c":5e-324}"#), 202),
        (update(r#""gauges":{"a":1e290}"#), 202),
        (update(r#""gauges":{"a":1e290}"#), 202),
        (update(r#""counters":{"n":18446744073709551615}"#), 202),
        (update(r#""counters":{"n":18446744073709551616}"#), 400),
        (update(r#""counters":{"n":-1}"#), 400),
        (update(r#""counters":{"n":1.0}"#), 400),
        (update(r#""counters":{"n":true}"#), 400),
        (update(r#""counters":{"a b":1}"#), 400),
        (update(r#""counters":{"":1}"#), 400),
        (update(r#""counters":{"n":1},"gauges":{"n":1}"#), 400),
        (update(r#""static":[]"#), 400),
        (update(&format!(r#""static":{{"a":"{}"}}"#, long(9_000))), 400),
        (update(&format!(r#""static":{{"a":{}}}"#, deep(100))), 202),
        (update(&format!(r#""static":{{"a":{}}}"#, deep(100_000))), 400),
        (update(r#""static":{"a":"\u0000","b":{"\u0000":["\u0000"]}}"#), 202),
        (update(r#""static":{"a":"\ud800"}"#), 400),
        (update(r#""at":"yesterday""#), 202),
        (update(r#""at":"9999-12-31T23:59:59Z""#), 202),
        (update(r#""at":7"#), 202),
        (update(r#""text":{}"#), 202),
        (events(&format!(r#"[{{"type":"log","text":"{}\u0000"}}]"#, long(100_000))), 202),
        (events(&format!("[{}]", vec![r#"{"type":"log","text":"x"}"#; 1_001].join(","))), 413),
    ];
    let many: Vec<String> = (0..65).map(|n| format!(r#""c-{n}":1"#)).collect();
    bodies.push((update(&format!(r#""counters":{{{}}}"#, many.join(","))), 400));
    for text in ["", "{", "[]", "null", "7", "{}"] {
        bodies.push((text.to_owned(), 400));
    }
    bodies
}

/// A question, and the status of its answer.
fn questions() -> Vec<(String, u16)> {
    let trend = |rest: &str| format!("/v1/trends?source=push&metric=n&{rest}");
    let plain = |target: &str, status: u16| (target.to_owned(), status);
    let mut all = vec![
        plain("/v1/trends", 400),
        plain("/v1/trends?source=push", 400),
        plain("/v1/trends?source=a%20b&metric=n", 404),
        plain("/v1/trends?source=push&metric=%00", 400),
        plain("/v1/trends?source=push&metric=n&instance=%00", 400),
        plain("/v1/sources?after=a%20b", 400),
        plain("/v1/sources?limit=0", 400),
        plain("/v1/sources/%00", 404),
        plain("/v1/sources/nobody", 404),
        plain("/v1/sources/nobody/instances", 404),
        plain("/v1/sources/push/instances?after=%00", 200),
        plain("/v1/sources/push/instances?limit=x", 400),
        plain("/v1/instances/push/%00", 404),
        plain("/v1/instances/nobody/i", 404),
        plain("/v1/dashboard?source=nobody", 200),
        plain("/v1/dashboard?source=%00", 404),
        plain("/v1/dashboard?colour=red", 400),
        plain("/v1/logs", 400),
        plain("/v1/logs?source=push&before=0", 400),
        plain("/v1/logs?source=push&before=-1", 400),
        plain("/v1/logs?source=push&before=9223372036854775808", 400),
        plain("/v1/logs?source=push&before=9223372036854775807", 200),
        plain("/v1/logs?source=push&instance=%00", 400),
    ];
    for (rest, status) in [
        ("step=1s", 400),
        ("step=", 400),
        ("tz=Mars/Olympus", 400),
        ("tz=../../etc/passwd", 400),
        ("tz=", 400),
        ("tz=%00", 400),
        ("tz=Pacific/Kiritimati&step=1d", 200),
        ("tz=Asia/Kathmandu&step=1h", 200),
        ("tz=Antarctica/Troll&step=1d", 200),
        ("tz=America/Sao_Paulo&step=1d&from=2018-11-01T00:00:00Z&to=2018-11-10T00:00:00Z", 200),
        ("tz=Pacific/Apia&step=1d&from=2011-12-20T00:00:00Z&to=2012-01-10T00:00:00Z", 200),
        ("from=NaN", 400),
        ("from=0", 400),
        ("from=1e400", 400),
        ("from=2026-02-30T00:00:00Z", 400),
        ("from=-009999-01-03T00:00:00Z&to=9999-12-30T00:00:00Z&step=1d", 422),
        ("from=-009999-01-02T01:59:59Z&to=-009999-01-03T00:00:00Z&step=1d", 422),
        ("from=0001-01-01T00:00:00Z&to=0001-01-02T00:00:00Z&step=1h", 200),
        ("from=9999-12-30T22:00:00Z&to=9999-12-30T22:00:00.999999999Z&step=1d", 422),
        ("from=9999-12-01T00:00:00Z&to=9999-12-02T00:00:00Z&step=1m", 200),
        ("to=-009999-01-02T01:59:59Z&step=1d", 422),
        ("to=0001-01-01T00:00:00Z&step=1m", 200),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 422),
        ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", 422),
        ("from=2020-01-01T00:00:00Z&step=1m", 422),
    ] {
        all.push((trend(rest), status));
    }
    all
}

async fn play(database_url: &str) {
    let settings =
        [("TIDINGS_TELEMETRY_HOSTS", "127.0.0.1:9"), ("TIDINGS_TELEMETRY_FLUSH_MS", "100")];
    let replica = replica(database_url, &settings).await;
    let http = reqwest::Client::new();
    let send = async |method: &str, path: &str, body: &str| {
        let method = method.parse().unwrap();
        let request = http.request(method, format!("{}{path}", replica.url)).body(body.to_owned());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let mut wrong = Vec::new();
    let mut check = |what: &str, (status, said): (u16, Value), expected: u16| {
        let shown: String = what.chars().take(120).collect();
        let worded = status < 400 || said["status"] == status;
        if status != expected || !worded {
            wrong.push(format!("{shown}: {status}, not {expected}: {said}"));
        }
    };
    for (body, expected) in sources() {
        check(&body, send("POST", "/v1/sources", &body).await, expected);
    }
    for (body, expected) in [
        ("", 400),
        ("[]", 400),
        ("{}", 200),
        (r#"{"name":"other"}"#, 400),
        (r#"{"revision":1}"#, 400),
        (r#"{"enabled":null}"#, 200),
        (r#"{"enabled":1}"#, 400),
        (r#"{"url":7}"#, 400),
        (r#"{"url":null}"#, 200),
        (r#"{"url":"http://elsewhere.test/"}"#, 422),
        (r#"{"headers":{"a":"b"}}"#, 422),
        (r#"{"format":"nodepass"}"#, 422),
        (r#"{"format":null}"#, 200),
    ] {
        check(body, send("PATCH", "/v1/sources/push", body).await, expected);
    }
    for target in ["/v1/sources/nobody", "/v1/sources/%00", "/v1/sources/a%20b"] {
        check(target, send("PATCH", target, "{}").await, 404);
        check(target, send("DELETE", target, "").await, 404);
        check(target, send("POST", &format!("{target}/test"), "").await, 404);
    }
    for (body, expected) in pushed() {
        check(&body, send("POST", "/v1/ingest", &body).await, expected);
    }
    // What was taken is taken in, whatever is in it.
    let last =
        json!({"source": "push", "events": [{"type": "create", "instance": "last"}]}).to_string();
    check(&last, send("POST", "/v1/ingest", &last).await, 202);
    until("it is all read", async || send("GET", "/v1/instances/push/last", "").await.0 == 200)
        .await;
    until("it is all kept", async || {
        let (_, shown) = send("GET", "/v1/dashboard?source=push", "").await;
        shown["instances"]["up"] == 3
    })
    .await;
    for (target, expected) in questions() {
        check(&target, send("GET", &target, "").await, expected);
    }
    // Sums beyond every number are none, and break nothing.
    let (_, trend) = send("GET", "/v1/trends?source=push&metric=a&step=1d", "").await;
    let points = trend["points"].as_array().unwrap();
    assert!(points.iter().any(|point| point["samples"].as_u64() > Some(0)), "{trend}");
    assert_eq!(wrong, Vec::<String>::new());
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_source_and_every_event_gets_its_answer_in_memory() {
    play("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_source_and_every_event_gets_its_answer_on_postgres() {
    play(&harness::database_url().await).await;
}
