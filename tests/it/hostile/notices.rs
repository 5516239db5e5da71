//! Notices that are none, acknowledgements of what nobody has, and many of them at once.

use serde_json::json;

use super::{goes_on, replica};
use crate::client;
use crate::harness;

/// A body for `/v1/notices`, and the status that it gets.
fn notices() -> Vec<(String, u16)> {
    let with = |field: &str| format!(r#"{{"target":"all","title":"T",{field}}}"#);
    let to = |target: &str| format!(r#"{{"target":{target},"title":"T"}}"#);
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let long = |bytes: usize| "x".repeat(bytes);
    let mut bodies = vec![
        (with(r#""expires_in_s":1e400"#), 400),
        (with(r#""expires_in_s":-1"#), 400),
        (with(r#""expires_in_s":0"#), 422),
        (with(r#""expires_in_s":4294967295"#), 422),
        (with(r#""confirm":"yes""#), 400),
        (with(r#""priority":7"#), 400),
        (with(r#""except":"1""#), 400),
        (with(r#""except":["*"]"#), 422),
        (with(r#""content":"\u0000""#), 422),
        (with(&format!(r#""content":"{}""#, long(70_000))), 413),
        (with(r#""content":"é<script>'; drop table tidings.notice; --""#), 202),
        (with(r#""data":{"a":"\u0000"}"#), 202),
        (with(r#""data":1e400,"except":["9"]"#), 202),
        (with(&format!(r#""data":{}"#, deep(100))), 202),
        (with(&format!(r#""data":{}"#, deep(100_000))), 422),
        (with(&format!(r#""data":"{}""#, long(300_000))), 413),
        (with(r#""idempotency_key":"a\u0000""#), 422),
        (with(r#""title":"U""#), 202),
        (with(r#""sending":7"#), 400),
        (to("null"), 400),
        (to("7"), 400),
        (to("[]"), 400),
        (to(r#""everybody""#), 400),
        (to(r#"{"users":[7]}"#), 400),
        (to(r#"{"users":["a,b"]}"#), 422),
        (to(r#"{"users":["\ud800"]}"#), 400),
        (to(r#"{"roles":["a,b"]}"#), 422),
        (to(r#"{"roles":["*"]}"#), 422),
        (to(&format!(r#"{{"users":["{}"]}}"#, long(300))), 422),
    ];
    for text in ["", "{", "[]", "null", "7", "\"x\"", "{}", "{\"target\":\"all\"}"] {
        bodies.push((text.to_owned(), 400));
    }
    bodies
}

async fn play(database_url: &str) {
    let replica = replica(database_url, &[]).await;
    let http = reqwest::Client::new();
    let send = async |method: &str, target: &str, body: &str| {
        let method: reqwest::Method = method.parse().unwrap();
        let request = http.request(method, format!("{}{target}", replica.url));
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    for (body, expected) in notices() {
        let shown: String = body.chars().take(120).collect();
        assert_eq!(send("POST", "/v1/notices", &body).await, expected, "{shown}");
    }
    let long = "n".repeat(65);
    for id in ["none", "N", "%00", "..%2f", "'", &long] {
        let path = format!("/v1/notices/{id}");
        assert_eq!(send("GET", &path, "").await, 404, "{id}");
        assert_eq!(send("DELETE", &path, "").await, 404, "{id}");
        assert_eq!(send("POST", &format!("{path}/resend"), "").await, 404, "{id}");
        assert_eq!(send("GET", &format!("{path}/recipients"), "").await, 404, "{id}");
    }
    let many: Vec<String> = (0..1_001).map(|number| format!("n{number}")).collect();
    for (body, expected) in [
        (json!({"ids": many}).to_string(), 413),
        (json!({"ids": many[1..]}).to_string(), 200),
        (r#"{"ids":["N"]}"#.to_owned(), 422),
        (r#"{"ids":null}"#.to_owned(), 400),
        (r#"{"all":false}"#.to_owned(), 400),
        (r#"{"all":true,"user":"1"}"#.to_owned(), 400),
        (String::new(), 400),
    ] {
        let shown: String = body.chars().take(80).collect();
        assert_eq!(send("POST", "/v1/inbox/read?user=1", &body).await, expected, "{shown}");
    }
    for target in [
        "/v1/inbox?user=1&state=read",
        "/v1/inbox?user=1&before=N",
        "/v1/inbox?user=1&limit=0",
        "/v1/notices?before=N",
        "/v1/presence",
        "/v1/presence?topic=a*",
        "/v1/users/online?after=*",
        "/v1/users/online?user=1&who=2",
    ] {
        assert_eq!(send("GET", target, "").await, 400, "{target}");
    }
    let mut socket = client::connect(&replica.url, "/v1/ws?user=9", &[]).await.unwrap();
    for (number, (frame, code)) in [
        (json!({"op": "read"}), "malformed"),
        (json!({"op": "read", "ids": "n"}), "malformed"),
        (json!({"op": "confirmed", "ids": ["N"]}), "invalid"),
        (json!({"op": "received", "ids": many}), "too-large"),
        (json!({"op": "sent", "ids": ["n"]}), "malformed"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut frame = frame;
        frame["ref"] = number.into();
        socket.send(&frame).await;
        loop {
            let came = socket.frame().await;
            if came["ref"] == number {
                assert_eq!(came["code"], code, "{came}");
                break;
            }
        }
    }
    drop(socket);
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_no_notice_is_taken_in_memory() {
    play("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_no_notice_is_taken_on_postgres() {
    play(&harness::database_url().await).await;
}
