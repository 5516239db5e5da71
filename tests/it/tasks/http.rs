//! Items that are requests: what arrives, what is tried again, and where nobody gets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::harness;

/// What an item asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// A server that does to a request what the last piece of its path says.
pub struct Target {
    /// `127.0.0.1:port`
    pub host: String,
    book: Book,
    serving: JoinHandle<()>,
}

/// What was asked for each item, and how many answers were given.
#[derive(Clone, Default)]
struct Book {
    asked: Arc<Mutex<HashMap<String, Vec<Asked>>>>,
    answered: Arc<AtomicUsize>,
}

impl Target {
    pub async fn start() -> Target {
        let book = Book::default();
        let router = Router::new().fallback(answer).with_state(book.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        #[expect(clippy::disallowed_methods, reason = "a server of a test, ended with it")]
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Target { host, book, serving }
    }

    pub fn asked(&self, item: &str) -> Vec<Asked> {
        self.book.asked.lock().get(item).cloned().unwrap_or_default()
    }

    /// How often each item was asked for.
    pub fn counts(&self) -> HashMap<String, usize> {
        self.book.asked.lock().iter().map(|(item, asked)| (item.clone(), asked.len())).collect()
    }

    pub fn answered(&self) -> usize {
        self.book.answered.load(Ordering::Relaxed)
    }

    pub fn executor(&self) -> Value {
        json!({"type": "http", "url": format!("http://{}/{{item}}", self.host)})
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(book): State<Book>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let item = parts.uri.path().rsplit('/').next().unwrap().to_owned();
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let asked = Asked {
        method: parts.method.to_string(),
        headers: parts.headers.iter().map(header).collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let count = {
        let mut asked_before = book.asked.lock();
        let all = asked_before.entry(item.clone()).or_default();
        all.push(asked);
        all.len()
    };
    let (what, rest) = item.split_once('-').unwrap_or((&item, ""));
    match what {
        "slow" => tokio::time::sleep(std::time::Duration::from_millis(rest.parse().unwrap())).await,
        "hang" => std::future::pending().await,
        "status" => return status(rest),
        // The second try finds it well.
        "flaky" if count == 1 => return status(rest),
        "away" => {
            let place = [("location", "http://127.0.0.1:1/")];
            return (StatusCode::FOUND, place).into_response();
        }
        "big" => return "x".repeat(4 << 20).into_response(),
        _ => {}
    }
    book.answered.fetch_add(1, Ordering::Relaxed);
    "done".into_response()
}

fn status(text: &str) -> Response {
    StatusCode::from_bytes(text.as_bytes()).unwrap().into_response()
}

fn failures(task: &[Value]) -> HashMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    task.iter().map(|item| (text(&item["name"]), text(&item["error"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
pub async fn an_item_is_a_request_with_its_name_data_and_secrets() {
    let target = Target::start().await;
    let secret = format!("token@{}=s3cr3t", target.host);
    let settings =
        [("TIDINGS_TASK_HTTP_HOSTS", &*target.host), ("TIDINGS_TASK_HTTP_SECRETS", &*secret)];
    let url = harness::database_url().await;
    let fleet = fleet(&url, 1, &settings).await;
    let mut executor = target.executor();
    executor["method"] = json!("PUT");
    executor["headers"] = json!({"authorization": "Bearer {secret:token}", "x-why": "test"});
    executor["body"] = json!({"node": "{item}", "with": "{data}", "n": 7});
    let items = json!([{"name": "node-1", "data": {"pool": "a"}}, "node 2/é"]);
    let body = but(simulated(1, 0), json!({"items": items, "executor": executor}));
    let id = submit(&fleet[0].url, &body).await;
    let task = until_final(&fleet[0].url, &id).await;
    assert_eq!(task["status"], "completed", "{task}");
    assert!(!task.to_string().contains("s3cr3t"));
    let asked = target.asked("node-1");
    assert_eq!((asked.len(), &*asked[0].method), (1, "PUT"));
    assert_eq!(asked[0].headers["authorization"], "Bearer s3cr3t");
    assert_eq!(asked[0].headers["x-why"], "test");
    let sent: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(sent, json!({"node": "node-1", "with": {"pool": "a"}, "n": 7}));
    assert_eq!(target.asked("node%202%2F%C3%A9").len(), 1, "{:?}", target.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_an_item_that_takes_too_long_fails_alone() {
    let target = Target::start().await;
    let url = harness::database_url().await;
    let fleet = fleet(&url, 1, &[("TIDINGS_TASK_HTTP_HOSTS", &target.host)]).await;
    let items = [
        "node-1",
        "flaky-503",
        "flaky-429",
        "flaky-408",
        "status-404",
        "status-500",
        "away-1",
        "big-1",
        "hang-1",
    ];
    let body = but(
        simulated(1, 0),
        json!({"items": items, "executor": target.executor(), "retries": 1, "item_timeout_s": 1}),
    );
    let id = submit(&fleet[0].url, &body).await;
    let task = until_final(&fleet[0].url, &id).await;
    assert_eq!((&task["status"], &task["succeeded"]), (&json!("partial"), &json!(5)), "{task}");
    let failed = failures(&super::items(&fleet[0].url, &id, "failed").await);
    assert_eq!(failed["status-404"], "answered 404 Not Found");
    assert_eq!(failed["status-500"], "answered 500 Internal Server Error");
    assert_eq!(failed["away-1"], "answered 302 Found");
    assert_eq!(failed["hang-1"], "it took longer than 1s");
    let counts = target.counts();
    for (item, count) in [("flaky-503", 2), ("status-404", 1), ("status-500", 2), ("hang-1", 2)] {
        assert_eq!(counts[item], count, "{item}");
    }
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
pub async fn nobody_reaches_inside_the_network() {
    let target = Target::start().await;
    let port = target.host.split(':').nth(1).unwrap();
    let url = harness::database_url().await;
    let body = |url: String| {
        let executor = json!({"type": "http", "url": url, "method": "GET"});
        but(simulated(1, 0), json!({"items": ["node-1"], "executor": executor, "retries": 0}))
    };
    // Nothing is listed: no host may be asked.
    let none = fleet(&url, 1, &[]).await;
    let (status, problem) =
        post(&none[0].url, "/v1/tasks", &body(format!("http://{}/a", target.host))).await;
    assert_eq!(status, 422);
    let detail = problem["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("task_http_hosts"), "{detail}");
    drop(none);
    // The name is listed, but not the address to which it leads: that is seen when connecting.
    let named = format!("localhost:{port}");
    let named = fleet(&url, 1, &[("TIDINGS_TASK_HTTP_HOSTS", &named)]).await;
    let address = format!("http://localhost:{port}/a");
    for other in [&format!("http://{}/a", target.host), "http://169.254.169.254/", "file:///etc"] {
        let (status, _) = post(&named[0].url, "/v1/tasks", &body(other.to_owned())).await;
        assert_eq!(status, 422, "{other}");
    }
    let id = submit(&named[0].url, &body(address.clone())).await;
    assert_eq!(until_final(&named[0].url, &id).await["status"], "failed");
    let failed = failures(&items(&named[0].url, &id, "failed").await);
    assert!(failed["node-1"].contains("no address that may be reached"), "{failed:?}");
    assert!(target.counts().is_empty(), "{:?}", target.counts());
    drop(named);
    // Both are listed.
    let both = format!("localhost:{port},127.0.0.0/8");
    let both = fleet(&url, 1, &[("TIDINGS_TASK_HTTP_HOSTS", &both)]).await;
    let id = submit(&both[0].url, &body(address)).await;
    assert_eq!(until_final(&both[0].url, &id).await["status"], "completed");
    assert_eq!(target.counts()["a"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_may_not_ask_fails_the_task_with_its_reason() {
    let target = Target::start().await;
    let url = harness::database_url().await;
    let listing = fleet(&url, 1, &[("TIDINGS_TASK_HTTP_HOSTS", &target.host)]).await;
    let slow = but(
        simulated(1, 0),
        json!({"items": ["hang-1"], "executor": target.executor(), "item_timeout_s": 60}),
    );
    let id = submit(&listing[0].url, &slow).await;
    until("it is asked", async || !target.asked("hang-1").is_empty()).await;
    drop(listing);
    // The one that takes over has other settings.
    let other = Replica::start("other", &url, QUICK).await;
    let task = until_final(&other.url, &id).await;
    assert_eq!(task["status"], "failed");
    assert!(task["error"].as_str().unwrap().contains("task_http_hosts"), "{task}");
}
