//! Every bound that a client can reach, reached.

use serde_json::{Value, json};

use super::{goes_on, replica};
use crate::client::{self, Carrier};

fn topics(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t:{number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_as_many_topics_as_it_may() {
    let replica = replica("", &[("TIDINGS_TOPICS_PER_SESSION_MAX", "5")]).await;
    for (path, expected) in [("/v1/messages", [200, 422]), ("/v1/sse", [200, 422])] {
        for (count, expected) in [5, 6].into_iter().zip(expected) {
            let target = format!("{path}?topics={}", topics(count).join(","));
            let answer =
                client::ask(&replica.url, "GET", &target, None, Carrier::Nothing, "").await;
            assert_eq!(answer.status, expected, "{target}");
        }
    }
    let target = format!("/v1/ws?topics={}", topics(6).join(","));
    let mut socket = client::connect(&replica.url, &target, &[]).await.unwrap();
    assert_eq!(socket.closed().await.0, 4400);
    // The user's own two count.
    let mut socket = client::connect(&replica.url, "/v1/ws?user=7", &[]).await.unwrap();
    assert_eq!(socket.frame().await["topics"], json!(["broadcast", "user:7"]));
    for (topics, kind) in [
        (topics(3), "ok"),
        (vec!["more".to_owned()], "error"),
        (topics(3), "ok"),
        (vec!["user:7".to_owned(); 10], "ok"),
    ] {
        socket.send(&json!({"op": "subscribe", "topics": topics})).await;
        let answer = socket.frame().await;
        assert_eq!(answer["type"], kind, "{topics:?}: {answer}");
    }
    socket.send(&json!({"op": "unsubscribe", "topics": ["t:0", "user:7", "broadcast"]})).await;
    assert_eq!(socket.frame().await["type"], "ok");
    for (topic, kind) in [("t:3", "ok"), ("t:4", "error")] {
        socket.send(&json!({"op": "subscribe", "topics": [topic]})).await;
        assert_eq!(socket.frame().await["type"], kind, "{topic}");
    }
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_as_many_sessions_as_there_may_be_in_all_and_per_user() {
    let settings = [("TIDINGS_SESSIONS_MAX", "3"), ("TIDINGS_SESSIONS_PER_USER_MAX", "2")];
    let replica = replica("", &settings).await;
    let mut held = Vec::new();
    for (user, expected) in [("1", 0), ("1", 0), ("1", 4409), ("2", 0), ("3", 4409)] {
        let target = format!("/v1/ws?user={user}");
        let mut socket = client::connect(&replica.url, &target, &[]).await.unwrap();
        match socket.next().await {
            Ok(frame) => assert_eq!((frame["type"].as_str(), expected), (Some("welcome"), 0)),
            Err((code, reason)) => {
                assert_eq!(code, expected, "{user}");
                let reason: Value = serde_json::from_str(&reason).unwrap();
                assert!(reason["retry_after_ms"].as_u64().unwrap() >= 2_000);
            }
        }
        held.push(socket);
    }
    let url = format!("{}/v1/sse?user=3", replica.url);
    let answer = reqwest::get(&url).await.unwrap();
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    // A place that was given back is free.
    held.clear();
    crate::fleet::until("there is room again", async || {
        reqwest::get(&url).await.unwrap().status() == 200
    })
    .await;
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_sends_too_many_frames_is_closed() {
    let replica = replica("", &[("TIDINGS_FRAMES_PER_S_MAX", "5")]).await;
    let mut socket = client::connect(&replica.url, "/v1/ws", &[]).await.unwrap();
    assert_eq!(socket.frame().await["type"], "welcome");
    for number in 0..40 {
        // What cannot be done counts too.
        let op = if number % 2 == 0 { "ping" } else { "dance" };
        socket.send(&json!({"op": op})).await;
    }
    let mut answered = 0;
    let (code, reason) = loop {
        match socket.next().await {
            Ok(_) => answered += 1,
            Err(closed) => break closed,
        }
    };
    assert_eq!(code, 4429, "{reason}");
    assert!((10..20).contains(&answered), "{answered}");
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_rubbish_costs_others_nothing() {
    let replica = replica("", &[]).await;
    let mut quiet = client::connect(&replica.url, "/v1/ws?topics=quiet", &[]).await.unwrap();
    assert_eq!(quiet.frame().await["type"], "welcome");
    let rubbish = (0..200).map(|number| {
        let url = replica.url.clone();
        async move {
            let mut socket = client::connect(&url, "/v1/ws", &[]).await.unwrap();
            socket.send_message("x".repeat(number).into()).await;
            assert_eq!(socket.closed().await.0, 4400);
        }
    });
    futures_util::future::join_all(rubbish).await;
    replica.publish(&json!({"topic": "quiet", "data": 1})).await;
    assert_eq!(quiet.frame().await["topic"], "quiet");
    goes_on(replica).await;
}
