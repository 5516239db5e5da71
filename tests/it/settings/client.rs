//! Clients that see codes: of answers, of closes, and of sockets from which nothing is taken.

use futures_util::{SinkExt, StreamExt};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::fleet::{PATIENCE, Replica, until};

/// So little that a server soon finds no room for more.
const RECEIVE_BUFFER_BYTES: u32 = 4 << 10;

pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> Answer {
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// Refused with this status, in the form that the protocol gives refusals.
    pub fn is_problem(&self, status: u16) -> &Answer {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json()["status"], status, "{}", self.text);
        self
    }

    pub fn says_when_to_come_back(&self) {
        assert!(self.headers.contains_key("retry-after"), "{:?}", self.headers);
    }
}

pub async fn get(replica: &Replica, path: &str) -> Answer {
    Answer::of(reqwest::get(format!("{}{path}", replica.url)).await.unwrap()).await
}

/// One try to publish, whatever comes of it.
pub async fn post(replica: &Replica, body: &Value) -> Answer {
    post_as(replica, None, body).await
}

pub async fn post_as(replica: &Replica, token: Option<&str>, body: &Value) -> Answer {
    let mut request = reqwest::Client::new().post(format!("{}/v1/messages", replica.url));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Answer::of(request.json(body).send().await.unwrap()).await
}

/// Publishes so many messages of so many bytes in one batch, and waits until the replica has applied
/// them; returns the cursor before the first.
pub async fn publish(replica: &Replica, topic: &str, count: usize, bytes: usize) -> String {
    let message = json!({"topic": topic, "data": "x".repeat(bytes)});
    let messages = vec![message; count];
    let answer = replica.publish(&json!({ "messages": messages })).await;
    let cursor = answer["messages"][0]["cursor"].as_str().unwrap();
    let (epoch, seq) = cursor.split_once('-').unwrap();
    let before = seq.parse::<u64>().unwrap() - 1;
    until("the messages are applied", async || {
        replica.metric("tidings_log_applied_seq").await >= before + count as u64
    })
    .await;
    format!("{epoch}-{before}")
}

pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens one from which nothing is taken until somebody asks for a frame.
    pub async fn open(replica: &Replica, query: &str) -> Socket {
        Socket::try_open(replica, query).await.unwrap()
    }

    pub async fn try_open(
        replica: &Replica,
        query: &str,
    ) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let stream = narrow(replica).await;
        let url = format!("{}/v1/ws?{query}", replica.url.replace("http://", "ws://"));
        Ok(Socket(tokio_tungstenite::client_async(url, stream).await?.0))
    }

    /// Opens one and waits until it is welcome.
    pub async fn welcome(replica: &Replica, query: &str) -> Socket {
        let mut socket = Socket::open(replica, query).await;
        socket.frame("welcome").await;
        socket
    }

    pub async fn send(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame of a type; those of others are passed over.
    pub async fn frame(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Some(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] == kind {
                        return frame;
                    }
                }
                Some(Message::Close(close)) => panic!("closed while waiting for {kind}: {close:?}"),
                Some(_) => {}
                None => panic!("gone while waiting for {kind}"),
            }
        }
    }

    /// The next frame, of whatever type.
    pub async fn any(&mut self) -> Value {
        loop {
            match self.next().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Message::Close(close)) => panic!("closed: {close:?}"),
                Some(_) => {}
                None => panic!("it is gone"),
            }
        }
    }

    /// The code with which it is closed.
    pub async fn close_code(&mut self) -> u16 {
        let closed = async {
            loop {
                match self.next().await {
                    Some(Message::Close(Some(close))) => return close.code.into(),
                    Some(_) => {}
                    None => panic!("it was not closed but went away"),
                }
            }
        };
        timeout(PATIENCE, closed).await.expect("it is closed")
    }

    async fn next(&mut self) -> Option<Message> {
        let next = timeout(PATIENCE, self.0.next()).await.expect("something comes");
        next.and_then(Result::ok)
    }
}

/// A request of which only the beginning of the answer is taken, if any.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn send(replica: &Replica, request: &str) -> Raw {
        let mut stream = narrow(replica).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        Raw(stream)
    }

    pub async fn get(replica: &Replica, path: &str) -> Raw {
        Raw::send(replica, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await
    }

    /// The other side may be gone already; then what comes next says so.
    pub async fn say(&mut self, text: &str) {
        let _ = self.0.write_all(text.as_bytes()).await;
    }

    /// Reads up to and with a piece of text.
    pub async fn until(&mut self, text: &str) -> String {
        let mut taken = Vec::new();
        while !String::from_utf8_lossy(&taken).contains(text) {
            let byte = timeout(PATIENCE, self.0.read_u8()).await.expect("something comes");
            taken.push(byte.unwrap_or_else(|_| panic!("no {text} in {taken:?}")));
        }
        String::from_utf8(taken).unwrap()
    }

    /// Everything that is still to come, until the server ends the connection.
    pub async fn rest(mut self) -> String {
        let mut taken = Vec::new();
        let end = timeout(PATIENCE, self.0.read_to_end(&mut taken)).await.expect("it is closed");
        // A server that closes over unread bytes resets the connection: that too is an end.
        let _ = end;
        String::from_utf8_lossy(&taken).into_owned()
    }
}

/// A stream of events, from which nothing is taken until somebody asks for one.
pub struct Events(BufReader<TcpStream>);

impl Events {
    /// In the older HTTP, whose bodies come as they are.
    pub async fn open(replica: &Replica, query: &str) -> Events {
        let mut stream = narrow(replica).await;
        let request = format!("GET /v1/sse?{query} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Events(BufReader::new(stream));
        while !events.line().await.trim_end().is_empty() {}
        events
    }

    /// The next event; comments may come before it, but not for ever.
    pub async fn next(&mut self) -> Value {
        let event = async {
            let mut data = String::new();
            loop {
                let line = self.line().await;
                if let Some(line) = line.strip_prefix("data: ") {
                    data.push_str(line);
                } else if line == "\n" && !data.is_empty() {
                    return serde_json::from_str(&data).unwrap();
                }
            }
        };
        timeout(PATIENCE, event).await.expect("an event comes")
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("something comes");
        assert!(read.unwrap() > 0, "it ended");
        line
    }
}

async fn narrow(replica: &Replica) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
    let address = replica.url.strip_prefix("http://").unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}
