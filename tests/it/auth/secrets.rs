//! Nothing that lets somebody in is ever written down, however much is logged.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::tokens::{API_KEY, Issuer, SECRET, but, claims};
use crate::client::{self, Carrier};
use crate::commands::kill;
use crate::fleet::{PATIENCE, until};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_logged() {
    let issuer = Issuer::hs256();
    let token = issuer.sign(&claims());
    let expired = issuer.sign(&but(json!({"exp": 1})));
    let wrong = "wrong-but-still-a-secret-of-somebody";
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.arg("serve").env_clear().kill_on_drop(true);
    command.envs([
        ("DATABASE_URL", harness::database_url().await.as_str()),
        ("TIDINGS_LISTEN", "127.0.0.1:0"),
        ("TIDINGS_API_KEYS", API_KEY),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_DRAIN_S", "1"),
        ("TIDINGS_LOG", "trace"),
        ("TIDINGS_LOG_FORMAT", "json"),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    let url = loop {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        said.push_str(&line);
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "listening" {
            break format!("http://{}", line["address"].as_str().unwrap());
        }
    };
    // At trace it says more than a pipe holds.
    #[expect(clippy::disallowed_methods, reason = "ends with the process that it reads")]
    let reader = tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            said.push_str(&line);
            said.push('\n');
        }
        said
    });
    until("the replica is ready", async || {
        reqwest::get(format!("{url}/readyz")).await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    for token in [API_KEY, &token, &expired, wrong] {
        for carrier in [Carrier::Header, Carrier::Parameter, Carrier::Hello] {
            for target in ["/v1/ws?topics=order:7", "/v1/sse", "/v1/stats", "/v1/nothing"] {
                let is_ws = target.starts_with("/v1/ws");
                if carrier == Carrier::Hello && !is_ws {
                    continue;
                }
                client::ask(&url, "GET", target, None, carrier, token).await;
            }
        }
        // Malformed in every way that might make somebody write it down.
        let refused = format!("/v1/ws?nonsense=1&access_token={token}");
        assert!(client::connect(&url, &refused, &[]).await.is_err());
        let mut socket = client::connect(&url, "/v1/ws", &[]).await.unwrap();
        socket.send(&json!({"op": "hello", "token": [token]})).await;
        assert_eq!(socket.closed().await.0, 4400);
        let target = format!("/v1/ws?access_token={API_KEY}");
        let mut socket = client::connect(&url, &target, &[]).await.unwrap();
        socket.send(&json!({"op": "auth", "token": token})).await;
        socket.send(&json!({"op": "auth", "tokens": token})).await;
        for _ in 0..3 {
            socket.frame().await;
        }
    }
    assert!(kill("-TERM", child.id().unwrap()));
    let said = timeout(PATIENCE, reader).await.unwrap().unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(said.lines().count() > 50, "it was to say a lot");
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for (what, secret) in [
        ("the API key", API_KEY.to_owned()),
        ("the secret of tokens", SECRET.to_owned()),
        ("a token", signature(&token)),
        ("an expired token", signature(&expired)),
        ("a wrong token", wrong.to_owned()),
    ] {
        let line = said.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "{what} is logged: {}", line.unwrap_or_default());
    }
}
