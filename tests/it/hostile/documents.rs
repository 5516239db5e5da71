//! Documents that are none, or say what they may not.

use serde_json::{Value, json};

use super::{goes_on, replica};
use crate::client;
use crate::harness;

fn batch(count: usize) -> Vec<u8> {
    let messages = vec![json!({"topic": "a", "data": 1}); count];
    json!({ "messages": messages }).to_string().into_bytes()
}

fn with_data(data: &str) -> Vec<u8> {
    format!(r#"{{"topic":"a","data":{data}}}"#).into_bytes()
}

fn with_field(field: &str) -> Vec<u8> {
    format!(r#"{{"topic":"a","data":1,{field}}}"#).into_bytes()
}

/// A body, and the word of the problem that it is; nothing if it is none.
fn bodies() -> Vec<(Vec<u8>, &'static str)> {
    let text = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let mut bodies: Vec<(Vec<u8>, &str)> = vec![
        (with_data(&text(256 << 10)), ""),
        (with_data(&text((256 << 10) + 1)), "too-large"),
        (with_data(&text(9 << 20)), "too-large"),
        (with_data("1e400"), ""),
        (with_data("-0"), ""),
        (with_data(&"9".repeat(1000)), ""),
        (with_data(r#""\u0000""#), ""),
        (with_data(r#"{"a":1,"a":2}"#), ""),
        (with_data(&deep(100)), ""),
        (with_data(&deep(128)), ""),
        (with_data(&deep(129)), "invalid"),
        (with_data(&deep(100_000)), "invalid"),
        (with_data(&"[".repeat(100_000)), "malformed"),
        (with_data("NaN"), "malformed"),
        (with_data("'a'"), "malformed"),
        (with_data("01"), "malformed"),
        (with_data("1,"), "malformed"),
        (with_data("\"\u{1}\""), "malformed"),
        (batch(1000), ""),
        (batch(1001), "too-large"),
        (b"\xef\xbb\xbf{\"topic\":\"a\",\"data\":1}".to_vec(), "malformed"),
        (b"{\"topic\":\"a\",\"data\":\"\xff\"}".to_vec(), "malformed"),
        (b"{\"topic\":\"a\",\"data\":\"\xed\xa0\x80\"}".to_vec(), "malformed"),
        (b"\0\0\0\0".to_vec(), "malformed"),
        (vec![0xff; 4096], "malformed"),
        (br#"{"topic":"a","data":1}{"topic":"a","data":1}"#.to_vec(), "malformed"),
        (br#"{"messages":{}}"#.to_vec(), "malformed"),
        (br#"{"messages":[[]]}"#.to_vec(), "malformed"),
        (br#"{"messages":[{"topic":"a","data":1}],"colour":1}"#.to_vec(), "malformed"),
    ];
    for text in ["", " ", "{", "[]", "null", "7", "\"x\"", "true", "{}", "{\"topic\":\"a\"}", "{]"]
    {
        bodies.push((text.as_bytes().to_vec(), "malformed"));
    }
    for (field, problem) in [
        ("\"ttl_s\":1e400", "malformed"),
        ("\"ttl_s\":99999999999999999999", "malformed"),
        ("\"ttl_s\":1.5", "malformed"),
        ("\"ttl_s\":-1", "malformed"),
        ("\"ttl_s\":0", "invalid"),
        ("\"ttl_s\":4294967295", "invalid"),
        ("\"ttl_s\":null", ""),
        ("\"priority\":\"urgent\"", "malformed"),
        ("\"priority\":1", "malformed"),
        ("\"class\":\"Event\"", "malformed"),
        ("\"class\":[]", "malformed"),
        ("\"kind\":\"\"", "invalid"),
        ("\"kind\":\"a\\nb\"", "invalid"),
        ("\"key\":{}", "malformed"),
        ("\"idempotency_key\":7", "malformed"),
        ("\"idempotency_key\":\"\\u0000\"", "invalid"),
        ("\"kind\":\"\\ud800\"", "malformed"),
        ("\"seq\":1", "malformed"),
        ("\"\":1", "malformed"),
        ("\"topic\":\"b\"", ""),
    ] {
        bodies.push((with_field(field), problem));
    }
    for size in [200, 201] {
        let problem = if size > 200 { "invalid" } else { "" };
        bodies.push((with_field(&format!("\"key\":{}", text(size + 2))), problem));
        bodies.push((with_field(&format!("\"idempotency_key\":{}", text(size + 2))), problem));
        let topic = "t".repeat(size);
        bodies.push((format!(r#"{{"topic":"{topic}","data":1}}"#).into_bytes(), problem));
    }
    for size in [7000, 7001] {
        let problem = if size > 7000 { "too-large" } else { "" };
        let body = format!(r#"{{"topic":"a","class":"signal","data":{}}}"#, text(size));
        bodies.push((body.into_bytes(), problem));
    }
    for topic in ["", " ", "a b", "*", "a*", "é", "a\\u0000", "a,b", "a?b", "<script>"] {
        bodies.push((format!(r#"{{"topic":"{topic}","data":1}}"#).into_bytes(), "invalid"));
    }
    bodies
}

async fn play(database_url: &str) {
    let replica = replica(database_url, &[]).await;
    let http = reqwest::Client::new();
    for (body, problem) in bodies() {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let request = http.post(format!("{}/v1/messages", replica.url)).body(body);
        let answer = request.send().await.unwrap_or_else(|error| panic!("{shown}: {error}"));
        let status = answer.status().as_u16();
        let said: Value = answer.json().await.unwrap();
        let expected = match problem {
            "" => 201,
            "malformed" => 400,
            "too-large" => 413,
            _ => 422,
        };
        assert_eq!(status, expected, "{shown}: {said}");
        if !problem.is_empty() {
            assert_eq!(said["type"], format!("/problems/{problem}"), "{shown}: {said}");
        }
    }
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_gets_its_answer_in_memory() {
    play("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_gets_its_answer_on_postgres() {
    play(&harness::database_url().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_with_one_fault_nothing_is_published() {
    let replica = replica("", &[]).await;
    let http = reqwest::Client::new();
    let before: Value = get(&replica.url, "/v1/messages?topic=*").await;
    for bad in [json!({"topic": "a b", "data": 1}), json!({"topic": "a"}), json!(7)] {
        let body = json!({"messages": [{"topic": "a", "data": 1}, bad]});
        let answer = http.post(format!("{}/v1/messages", replica.url)).json(&body);
        assert!(answer.send().await.unwrap().status().is_client_error());
    }
    assert_eq!(get(&replica.url, "/v1/messages?topic=*").await, before);
    goes_on(replica).await;
}

async fn get(url: &str, target: &str) -> Value {
    reqwest::get(format!("{url}{target}")).await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_gets_its_answer() {
    let replica = replica("", &[]).await;
    let many = "topic=a&".repeat(900);
    for (target, expected) in [
        ("/v1/messages", 400),
        ("/v1/messages?topic=a", 200),
        ("/v1/messages?topic=", 400),
        ("/v1/messages?topic=a%20b", 400),
        ("/v1/messages?topic=%ff%fe", 400),
        ("/v1/messages?topic=%", 400),
        ("/v1/messages?topics=a,,b,", 200),
        ("/v1/messages?topics=,", 400),
        ("/v1/messages?topic=a&limit=0", 400),
        ("/v1/messages?topic=a&limit=-1", 400),
        ("/v1/messages?topic=a&limit=1e3", 400),
        ("/v1/messages?topic=a&limit=99999999999999999999", 400),
        ("/v1/messages?topic=a&limit=18446744073709551615", 200),
        ("/v1/messages?topic=a&wait_s=-1", 400),
        ("/v1/messages?topic=a&wait_s=now", 400),
        ("/v1/messages?topic=a&since=yesterday", 400),
        ("/v1/messages?topic=a&since=9999-12-31T23:59:59Z", 400),
        ("/v1/messages?topic=a&since=9999-12-01T00:00:00Z", 200),
        ("/v1/messages?topic=a&since=0001-01-01T00:00:00Z", 200),
        ("/v1/messages?topic=a&since=2026-01-01T00:00:00Z&after=e-1", 400),
        ("/v1/messages?topic=a&after=", 400),
        ("/v1/messages?topic=a&colour=red", 400),
        ("/v1/messages?topic=a&%00=1", 400),
        (&format!("/v1/messages?{many}"), 200),
        ("/v1/sse?topics=a%20b", 400),
        ("/v1/sse?limit=1", 400),
        ("/v1/sse?last_event_id=x", 400),
        ("/v1/sse?user=a%20b", 401),
        ("/v1/stats?colour=red", 400),
        ("/v1/ws", 400),
        ("/v1//messages", 404),
        ("/v1/messages/", 404),
        ("/../etc/passwd", 404),
        ("/%2e%2e/%00", 404),
        ("/problems/gone", 404),
    ] {
        let answer = reqwest::get(format!("{}{target}", replica.url)).await.unwrap();
        let status = answer.status().as_u16();
        let shown = &target[..target.len().min(80)];
        assert_eq!(status, expected, "{shown}");
        if status >= 400 {
            let said: Value = answer.json().await.unwrap();
            assert_eq!(said["status"], expected, "{shown}: {said}");
        }
    }
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_cannot_be_done_is_answered_and_the_session_goes_on() {
    let replica = replica("", &[]).await;
    let mut socket = client::connect(&replica.url, "/v1/ws", &[]).await.unwrap();
    assert_eq!(socket.frame().await["type"], "welcome");
    for (frame, code) in [
        ("{}", "malformed"),
        (r#"{"op":null}"#, "malformed"),
        (r#"{"op":"Ping"}"#, "malformed"),
        (r#"{"op":["ping"]}"#, "malformed"),
        (r#"{"op":"ping","ref":{}}"#, "malformed"),
        (r#"{"op":"ping","ref":true}"#, "malformed"),
        (r#"{"op":"ping","cursor":"e-1"}"#, "malformed"),
        (r#"{"op":"hello"}"#, "malformed"),
        (r#"{"op":"subscribe","topics":"a"}"#, "malformed"),
        (r#"{"op":"subscribe","topics":[null]}"#, "malformed"),
        (r#"{"op":"subscribe","topics":[[]]}"#, "malformed"),
        (r#"{"op":"subscribe","topics":[{}]}"#, "malformed"),
        (r#"{"op":"subscribe","topics":[{"topic":"a","colour":1}]}"#, "malformed"),
        (r#"{"op":"subscribe","topics":[{"topic":"a","cursor":7}]}"#, "malformed"),
        (r#"{"op":"subscribe","topics":[{"topic":"a","cursor":"x"}]}"#, "malformed"),
        (r#"{"op":"subscribe","topics":["a b"]}"#, "invalid"),
        (r#"{"op":"subscribe","topics":["a","*b"]}"#, "invalid"),
        (r#"{"op":"unsubscribe"}"#, "malformed"),
        (r#"{"op":"unsubscribe","topics":[""]}"#, "invalid"),
        (r#"{"op":"publish"}"#, "malformed"),
        (r#"{"op":"publish","message":7}"#, "malformed"),
        (r#"{"op":"publish","message":{"topic":"a","data":1,"ttl_s":1e99}}"#, "malformed"),
        (r#"{"op":"publish","message":{"topic":"a","data":1,"ttl_s":0}}"#, "invalid"),
        (r#"{"op":"auth"}"#, "malformed"),
        (r#"{"op":"auth","token":{}}"#, "malformed"),
        (r#"{"op":"received","ids":["1"]}"#, "forbidden"),
    ] {
        socket.send_message(frame.into()).await;
        let answer = socket.frame().await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{frame}");
    }
    let reference = |bytes: usize| format!("\"{}\"", "r".repeat(bytes - 2));
    for (reference, expected) in [
        (reference(100).as_str(), "pong"),
        (reference(101).as_str(), "error"),
        ("1".repeat(101).as_str(), "error"),
        (r#""\u0000\ud83d\ude00""#, "pong"),
        ("-1.5e300", "pong"),
        ("null", "pong"),
    ] {
        socket.send_message(format!(r#"{{"op":"ping","ref":{reference}}}"#).into()).await;
        assert_eq!(socket.frame().await["type"], expected, "{reference}");
    }
    for text in [
        "",
        " ",
        "7",
        "[]",
        "null",
        "{",
        "{\"op\":\"ping\"}x",
        "\u{feff}{}",
        "{\"op\":\"\\ud800\"}{",
    ] {
        let mut socket = client::connect(&replica.url, "/v1/ws", &[]).await.unwrap();
        socket.send_message(text.into()).await;
        assert_eq!(socket.closed().await.0, 4400, "{text:?}");
    }
    goes_on(replica).await;
}
