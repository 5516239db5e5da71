//! Tokens that expire while a session is open, and those that renew it.

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::tokens::{API_KEY, Issuer, SECRET, but, claims, now_s};
use crate::client::{self, Socket};
use crate::fleet::{PATIENCE, Replica, until};

async fn replica() -> Replica {
    let settings =
        [("TIDINGS_DEV", "false"), ("TIDINGS_API_KEYS", API_KEY), ("TIDINGS_JWT_SECRET", SECRET)];
    Replica::start("replica-1", "", &settings).await
}

fn token(changes: Value) -> String {
    Issuer::hs256().sign(&but(changes))
}

async fn open(replica: &Replica, token: &str) -> Socket {
    let target = format!("/v1/ws?topics=order:7&access_token={token}");
    let mut socket = client::connect(&replica.url, &target, &[]).await.unwrap();
    assert_eq!(socket.frame().await["type"], "welcome");
    socket
}

async fn renew(socket: &mut Socket, token: &str) -> Value {
    socket.send(&json!({"op": "auth", "token": token, "ref": "renew"})).await;
    loop {
        let frame = socket.frame().await;
        if frame["ref"] == "renew" {
            return frame;
        }
    }
}

async fn publish(replica: &Replica, topic: &str) {
    let body = json!({"topic": topic, "data": 1}).to_string();
    let carrier = client::Carrier::Header;
    let answer =
        client::ask(&replica.url, "POST", "/v1/messages", Some(&body), carrier, API_KEY).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_warned_and_then_ends_with_its_token() {
    let replica = replica().await;
    // The warning comes 30 s before, so not at once.
    let mut socket = open(&replica, &token(json!({"exp": now_s() + 32}))).await;
    socket.send(&json!({"op": "ping"})).await;
    assert_eq!(socket.frame().await["type"], "pong");
    assert_eq!(socket.frame().await["type"], "token_expired");
    let expires_at_s = now_s() + 2;
    let mut socket = open(&replica, &token(json!({"exp": expires_at_s}))).await;
    assert_eq!(socket.frame().await["type"], "token_expired");
    assert_eq!(socket.next().await, Err((4401, String::new())));
    assert!(now_s() >= expires_at_s);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_is_warned_and_then_ends_with_its_token() {
    let replica = replica().await;
    let token = token(json!({"exp": now_s() + 2}));
    let url = format!("{}/v1/sse?access_token={token}", replica.url);
    let mut body = reqwest::get(url).await.unwrap().bytes_stream();
    let mut text = String::new();
    let all = async {
        while let Some(Ok(chunk)) = body.next().await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    timeout(PATIENCE, all).await.expect("it ends");
    assert!(text.contains("event: token_expired\ndata: {\"type\":\"token_expired\"}"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_session_outlives_its_first_token() {
    let replica = replica().await;
    let expires_at_s = now_s() + 2;
    let mut socket = open(&replica, &token(json!({"exp": expires_at_s}))).await;
    assert_eq!(renew(&mut socket, &token(json!({}))).await["type"], "ok");
    until("the first token has expired", async || now_s() > expires_at_s + 1).await;
    publish(&replica, "order:7").await;
    assert_eq!(socket.frame().await["topic"], "order:7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_takes_a_shorter_token_ends_with_that_one() {
    let replica = replica().await;
    let mut socket = open(&replica, &token(json!({"exp": now_s() + 7200}))).await;
    assert_eq!(renew(&mut socket, &token(json!({"exp": now_s() + 2}))).await["type"], "ok");
    assert_eq!(socket.frame().await["type"], "token_expired");
    assert_eq!(socket.closed().await.0, 4401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cannot_be_renewed_by_whatever_comes() {
    let replica = replica().await;
    let mut socket = open(&replica, &Issuer::hs256().sign(&claims())).await;
    for (what, token, code) in [
        ("another user's", token(json!({"sub": "43"})), "forbidden"),
        ("an API key", API_KEY.to_owned(), "forbidden"),
        ("an expired one", token(json!({"exp": now_s() - 60})), "unauthenticated"),
        ("rubbish", "rubbish".to_owned(), "unauthenticated"),
        ("none", String::new(), "unauthenticated"),
    ] {
        let answer = renew(&mut socket, &token).await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{what}");
    }
    // The session is what it was.
    publish(&replica, "order:7").await;
    assert_eq!(socket.frame().await["topic"], "order:7");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_the_new_token_count() {
    let replica = replica().await;
    let mut socket = open(&replica, &Issuer::hs256().sign(&claims())).await;
    let other = json!({"roles": ["dev"], "tidings": {"subscribe": ["parcel:*"]}});
    assert_eq!(renew(&mut socket, &token(other)).await["type"], "ok");
    socket.send(&json!({"op": "publish", "message": {"topic": "order:7", "data": 1}})).await;
    assert_eq!(socket.frame().await["code"], "forbidden");
    socket.send(&json!({"op": "subscribe", "topics": ["order:8"]})).await;
    assert_eq!(socket.frame().await["code"], "forbidden");
    // Of these only the last two are its own now.
    for topic in ["order:7", "role:ops", "role:dev", "user:42"] {
        publish(&replica, topic).await;
    }
    assert_eq!(socket.frame().await["topic"], "role:dev");
    assert_eq!(socket.frame().await["topic"], "user:42");
}
