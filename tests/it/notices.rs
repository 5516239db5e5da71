//! Notices through the real binary, on several replicas over one Postgres.

mod command;
mod counts;
mod faults;
mod presence;
mod scenarios;
mod tab;

use reqwest::Method;
use serde_json::{Value, json};
use tidings::auth::{TokenRequest, sign};

use crate::fleet::{Replica, until};

const API_KEY: &str = "an-api-key-of-a-server";
const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";

/// Ticks that are not waited for for long.
const QUICK: &[(&str, &str)] = &[
    ("TIDINGS_DEV", "false"),
    ("TIDINGS_API_KEYS", API_KEY),
    ("TIDINGS_JWT_SECRET", SECRET),
    ("TIDINGS_NOTICE_TICK_MS", "200"),
    ("TIDINGS_TICK_MS", "200"),
    ("TIDINGS_DRAIN_S", "1"),
];

async fn fleet(database_url: &str, count: usize, settings: &[(&str, &str)]) -> Vec<Replica> {
    let settings: Vec<_> = QUICK.iter().chain(settings).copied().collect();
    let start = |number: usize| {
        let (name, settings) = (format!("replica-{number}"), settings.clone());
        async move { Replica::start(&name, database_url, &settings).await }
    };
    let fleet = futures_util::future::join_all((1..=count).map(start)).await;
    crate::fleet::until_live(&fleet).await;
    fleet
}

/// A user's token, with the role `ops` for those whose name is even.
fn token(user: &str) -> String {
    let ops = user.parse::<u32>().is_ok_and(|number| number.is_multiple_of(2));
    let request = TokenRequest {
        user: user.to_owned(),
        roles: if ops { vec!["ops".to_owned()] } else { Vec::new() },
        subscribe: vec!["room:*".to_owned()],
        publish: Vec::new(),
        expires_at_s: jiff::Timestamp::now().as_second() + 3600,
        issuer: None,
        audience: None,
    };
    sign(&request, SECRET).unwrap()
}

async fn ask(
    url: &str,
    method: Method,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{url}{path}"));
    request = request.bearer_auth(token);
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn get(url: &str, path: &str, token: &str) -> Value {
    let (status, answer) = ask(url, Method::GET, path, token, None).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Sends a notice and returns its id.
async fn send(url: &str, target: Value, changes: Value) -> String {
    let mut body = json!({"target": target, "title": "T", "content": "C", "confirm": true});
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let (status, answer) = ask(url, Method::POST, "/v1/notices", API_KEY, Some(&body)).await;
    assert_eq!(status, 202, "{answer}");
    answer["notice"]["id"].as_str().unwrap().to_owned()
}

async fn tally(url: &str, id: &str) -> Value {
    get(url, &format!("/v1/notices/{id}"), API_KEY).await
}

async fn until_tally(url: &str, id: &str, state: &str, count: u64) {
    until(&format!("{count} {state}"), async || tally(url, id).await[state] == count).await;
}

async fn counts(url: &str, user: &str) -> (u64, u64) {
    let counts = get(url, "/v1/inbox/counts", &token(user)).await;
    (counts["unread"].as_u64().unwrap(), counts["unconfirmed"].as_u64().unwrap())
}
