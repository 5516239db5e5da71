//! Asks a replica once, over HTTP or a WebSocket, and tells what came.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// What takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Nothing,
    Header,
    Parameter,
    /// The first frame of a WebSocket.
    Hello,
}

/// A status, whatever it came by: a session that opens is 200, one that is closed with 4401 is 401,
/// and one that waits to be told who it is has none.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

pub async fn ask(
    url: &str,
    method: &str,
    target: &str,
    body: Option<&str>,
    carrier: Carrier,
    token: &str,
) -> Answer {
    let mut target = target.to_owned();
    if carrier == Carrier::Parameter {
        let mark = if target.contains('?') { '&' } else { '?' };
        let token: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
        target = format!("{target}{mark}access_token={token}");
    }
    let bearer = format!("Bearer {token}");
    let headers: &[(&str, &str)] =
        if carrier == Carrier::Header { &[("authorization", &bearer)] } else { &[] };
    if target.starts_with("/v1/ws") {
        let mut socket = connect(url, &target, headers).await.unwrap();
        match carrier {
            Carrier::Nothing => return Answer { status: 0, text: String::new() },
            Carrier::Hello => socket.send(&json!({"op": "hello", "token": token})).await,
            Carrier::Header | Carrier::Parameter => {}
        }
        return socket.opened().await;
    }
    let client = reqwest::Client::new();
    let mut request = client.request(method.parse().unwrap(), format!("{url}{target}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.body(body.to_owned());
    }
    let response = request.timeout(PATIENCE).send().await.unwrap();
    let status = response.status().as_u16();
    let endless = target.starts_with("/v1/sse") && status == 200;
    let text = if endless { String::new() } else { response.text().await.unwrap() };
    if status >= 400 {
        let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(problem["status"], status, "{text}");
        assert!(problem["type"].as_str().unwrap().starts_with("/problems/"), "{text}");
    }
    Answer { status, text }
}

pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

pub async fn connect(
    url: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Result<Socket, Box<Error>> {
    let url = format!("{}{target}", url.replace("http://", "ws://"));
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    connect_async(request).await.map(|(socket, _)| Socket(socket)).map_err(Box::new)
}

impl Socket {
    pub async fn send(&mut self, frame: &Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    /// The other side may be gone already; then what comes next says so.
    pub async fn send_message(&mut self, message: Message) {
        let _ = self.0.send(message).await;
    }

    /// The next frame that is no heartbeat, or the close code and its reason.
    pub async fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("something comes") {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] != "cursor" {
                        return Ok(frame);
                    }
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err((close.code.into(), close.reason.as_str().to_owned()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err((1006, error.to_string())),
                None => return Err((1006, String::new())),
            }
        }
    }

    /// The next frame, which must come.
    pub async fn frame(&mut self) -> Value {
        self.next().await.unwrap_or_else(|closed| panic!("closed: {closed:?}"))
    }

    /// The close code and its reason, after whatever comes before.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(closed) = self.next().await {
                return closed;
            }
        }
    }

    async fn opened(&mut self) -> Answer {
        match self.next().await {
            Ok(frame) => {
                assert_eq!(frame["type"], "welcome", "{frame}");
                Answer { status: 200, text: frame.to_string() }
            }
            Err((code, text)) => Answer { status: code.saturating_sub(4000), text },
        }
    }
}
