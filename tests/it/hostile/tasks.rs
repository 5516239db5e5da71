//! Tasks that are none, reports of what nobody has, and words that are none.

use serde_json::{Value, json};

use super::{goes_on, replica};
use crate::client;
use crate::fleet::until;
use crate::harness;

/// A body for `/v1/tasks`, and the status that it gets.
fn submissions() -> Vec<(String, u16)> {
    let with = |field: &str| {
        format!(r#"{{"action":"a","items":["x"],"executor":{{"type":"simulate"}},{field}}}"#)
    };
    let items = |items: &str| {
        format!(r#"{{"action":"a","executor":{{"type":"simulate"}},"items":{items}}}"#)
    };
    let executor =
        |executor: &str| format!(r#"{{"action":"a","items":["x"],"executor":{executor}}}"#);
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let long = |bytes: usize| "x".repeat(bytes);
    let mut bodies = vec![
        (with(r#""concurrency":1e400"#), 400),
        (with(r#""concurrency":0"#), 422),
        (with(r#""concurrency":-1"#), 400),
        (with(r#""concurrency":4294967296"#), 400),
        (with(r#""retries":1.5"#), 400),
        (with(r#""item_timeout_s":99999999"#), 422),
        (with(r#""at_most_once":"yes""#), 400),
        (with(r#""notice":"yes""#), 400),
        (with(r#""notice":true"#), 422),
        (with(r#""notice":true,"owner":"1""#), 202),
        (with(r#""owner":"*""#), 422),
        (with(r#""owner":7"#), 400),
        (with(r#""meta":[]"#), 400),
        (with(&format!(r#""meta":{{"a":{}}}"#, deep(100))), 202),
        (with(&format!(r#""meta":{{"a":"{}"}}"#, long(20_000))), 413),
        (with(r#""meta":{"a":"\u0000"}"#), 202),
        (with(r#""idempotency_key":"""#), 422),
        (with(r#""idempotency_key":"a\u0000""#), 422),
        (with(r#""status":"completed""#), 400),
        (with(r#""action":"b""#), 202),
        (items("{}"), 400),
        (items("[[]]"), 400),
        (items("[null]"), 400),
        (items(r#"["\ud800"]"#), 400),
        (items(r#"["a\u0000b"]"#), 422),
        (items(r#"["a\nb"]"#), 422),
        (items(r#"[{"name":"a","colour":1}]"#), 400),
        (items(r#"[{"name":"a","data":1e400}]"#), 202),
        (items(&format!(r#"[{{"name":"a","data":{}}}]"#, deep(100_000))), 202),
        (items(&format!(r#"["{}"]"#, long(200))), 202),
        (items(&format!(r#"["{}"]"#, long(201))), 422),
        (items(r#"["é","e\u0301","<script>","'; drop table tidings.task; --"]"#), 202),
        (executor("null"), 400),
        (executor("7"), 400),
        (executor(r#"{"type":7}"#), 422),
        (executor(r#"{"type":"simulate","type":"http"}"#), 422),
        (executor(r#"{"type":"simulate","delay_ms":[1,2,3]}"#), 422),
        (executor(r#"{"type":"simulate","delay_ms":18446744073709551615}"#), 422),
        (executor(r#"{"type":"simulate","fail_rate":1e308}"#), 422),
        (executor(r#"{"type":"simulate","fail_rate":"NaN"}"#), 422),
        (executor(r#"{"type":"http","url":"http://[::ffff:127.0.0.1]/"}"#), 422),
        (executor(r#"{"type":"http","url":"http://0x7f.1/"}"#), 422),
        (executor(r#"{"type":"http","url":"http://{item}/"}"#), 422),
        (executor(&format!(r#"{{"type":"{}"}}"#, long(70_000))), 413),
    ];
    for text in ["", "{", "[]", "null", "7", "\"x\"", "{}", "{\"action\":\"a\"}"] {
        bodies.push((text.to_owned(), 400));
    }
    bodies
}

async fn play(database_url: &str) {
    let replica = replica(database_url, &[]).await;
    let http = reqwest::Client::new();
    let send = async |path: &str, body: &str| {
        let request = http.post(format!("{}{path}", replica.url)).body(body.to_owned());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let mut taken = Vec::new();
    for (body, expected) in submissions() {
        let shown: String = body.chars().take(120).collect();
        let (status, said) = send("/v1/tasks", &body).await;
        assert_eq!(status, expected, "{shown}: {said}");
        if status == 202 {
            taken.push(said["id"].as_str().unwrap().to_owned());
        }
    }
    for id in &taken {
        until("it ends", async || {
            let task = reqwest::get(format!("{}/v1/tasks/{id}", replica.url)).await.unwrap();
            task.json::<Value>().await.unwrap()["status"] == "completed"
        })
        .await;
    }
    for (body, expected) in [
        ("", 400),
        ("{}", 400),
        (r#"{"actions":["a"],"worker":"w","lease_s":0}"#, 422),
        (r#"{"actions":["a"],"worker":"w","lease_s":99999999}"#, 422),
        (r#"{"actions":["a"],"worker":"w","wait_s":-1}"#, 400),
        (r#"{"actions":["a\u0000"],"worker":"w"}"#, 422),
        (r#"{"actions":["a"],"worker":"w\n"}"#, 422),
        (r#"{"actions":[7],"worker":"w"}"#, 400),
        (r#"{"actions":["a"],"worker":"w"}"#, 204),
    ] {
        assert_eq!(send("/v1/tasks/claim", body).await.0, expected, "{body}");
    }
    let external = r#"{"action":"a","items":["x"],"executor":{"type":"external"}}"#;
    let id = send("/v1/tasks", external).await.1["id"].as_str().unwrap().to_owned();
    let (_, claimed) = send("/v1/tasks/claim", r#"{"actions":["a"],"worker":"w"}"#).await;
    let term = claimed["term"].as_i64().unwrap();
    let many =
        json!({"term": term, "results": vec![json!({"item":"x","status":"failed"}); 10_001]});
    let twice = json!({"term": term, "results": [
        {"item": "x", "status": "failed", "error": "\u{0}é".repeat(10_000)},
        {"item": "x", "status": "succeeded"},
    ]});
    for (body, expected) in [
        (json!({}), 400),
        (json!({"term": "1"}), 400),
        (json!({"term": 9_223_372_036_854_775_807_i64}), 409),
        (json!({"term": -1}), 409),
        (json!({"term": term + 1}), 409),
        (json!({"term": term, "results": [{"item": "x", "status": "cancelled"}]}), 400),
        (json!({"term": term, "results": [{"item": "\u{0}", "status": "failed"}]}), 422),
        (json!({"term": term, "in_flight": ["\u{0}"]}), 422),
        (json!({"term": term, "in_flight": ["not one of its items"]}), 422),
        (json!({"term": term, "in_flight": vec!["x"; 1_001]}), 422),
        (many, 413),
        (twice, 200),
    ] {
        let shown: String = body.to_string().chars().take(120).collect();
        let (status, said) = send(&format!("/v1/tasks/{id}/report"), &body.to_string()).await;
        assert_eq!(status, expected, "{shown}: {said}");
    }
    let task = reqwest::get(format!("{}/v1/tasks/{id}", replica.url)).await.unwrap();
    let task: Value = task.json().await.unwrap();
    assert_eq!(task["current"], 1, "an item is finished once: {task}");
    for (target, expected) in [
        ("?status=done", 400),
        ("?owner=a%20b", 400),
        ("?after=%00", 400),
        ("?limit=0", 400),
        ("?limit=x", 400),
        ("?colour=red", 400),
        ("?action=%00", 400),
        ("?after=none", 200),
        ("/x%00/items", 404),
        (&format!("/{id}/items?status=x"), 400),
        (&format!("/{id}/items?after=%00"), 400),
        (&format!("/{id}/items?after=none"), 200),
    ] {
        let url = format!("{}/v1/tasks{target}", replica.url);
        assert_eq!(reqwest::get(url).await.unwrap().status(), expected, "{target}");
    }
    let mut socket = client::connect(&replica.url, "/v1/ws?topics=task:none,task:NONE", &[]).await;
    assert_eq!(socket.as_mut().unwrap().frame().await["type"], "welcome");
    drop(socket);
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_gets_its_answer_in_memory() {
    play("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_gets_its_answer_on_postgres() {
    play(&harness::database_url().await).await;
}
