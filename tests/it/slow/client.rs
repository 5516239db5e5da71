//! Clients that take from their sockets what they please, when they please.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::fleet::{PATIENCE, Replica};
use crate::follower::Way;

/// So little that a server soon finds no room for more.
const RECEIVE_BUFFER_BYTES: u32 = 4 << 10;

/// The first byte of a WebSocket's frame, if it is a close, a text.
const CLOSE: u8 = 0x88;
const TEXT: u8 = 0x81;

/// One session from which nothing is taken unless somebody asks for it.
pub struct Client {
    way: Way,
    stream: TcpStream,
    taken: Vec<u8>,
    pub ended: bool,
}

/// What was taken: the frames, and the code with which a WebSocket was closed.
pub struct Taken {
    pub frames: Vec<Value>,
    pub closed: Option<u16>,
}

/// What opens a session.
pub fn request(way: Way, query: &str) -> String {
    match way {
        Way::WebSocket => format!(
            "GET /v1/ws?{query} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
        _ => format!("GET /v1/sse?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    }
}

impl Client {
    /// Opens one and takes its welcome.
    pub async fn open(replica: &Replica, way: Way, query: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
        let address = replica.url.strip_prefix("http://").unwrap();
        let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
        stream.write_all(request(way, query).as_bytes()).await.unwrap();
        let mut client = Client { way, stream, taken: Vec::new(), ended: false };
        client.until("\"type\":\"welcome\"").await;
        client
    }

    /// Takes so many bytes at most. False when the other side has ended it.
    pub async fn take(&mut self, bytes: usize) -> bool {
        self.take_before(Instant::now() + PATIENCE, bytes).await
    }

    async fn take_before(&mut self, deadline: Instant, bytes: usize) -> bool {
        let mut buffer = vec![0; bytes];
        let read = timeout_at(deadline, self.stream.read(&mut buffer)).await;
        let count = read.expect("something comes").unwrap_or(0);
        self.taken.extend_from_slice(&buffer[..count]);
        self.ended |= count == 0;
        count > 0
    }

    /// Takes all there is until some text has come.
    pub async fn until(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut looked_at: usize = 0;
        loop {
            let new = &self.taken[looked_at.saturating_sub(text.len())..];
            if new.windows(text.len()).any(|window| window == text.as_bytes()) {
                return;
            }
            looked_at = self.taken.len();
            let more = self.take_before(deadline, 256 << 10).await;
            assert!(more, "{:?} ended before {text} came", self.way);
        }
    }

    /// Takes all there is until the other side ends it.
    pub async fn rest(&mut self) -> Taken {
        let deadline = Instant::now() + PATIENCE;
        while !self.ended {
            self.take_before(deadline, 256 << 10).await;
        }
        self.taken()
    }

    /// All that was taken so far, without what is not whole.
    pub fn taken(&self) -> Taken {
        let head = self.taken.windows(4).position(|four| four == b"\r\n\r\n");
        let body = head.map_or(&[][..], |end| &self.taken[end + 4..]);
        match self.way {
            Way::WebSocket => frames_of_websocket(body),
            _ => frames_of_events(body),
        }
    }
}

fn frames_of_websocket(mut left: &[u8]) -> Taken {
    let mut taken = Taken { frames: Vec::new(), closed: None };
    while let [first, short, after @ ..] = left {
        let width = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if after.len() < width {
            break;
        }
        let (long, after) = after.split_at(width);
        let length = long.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let length = if width == 0 { usize::from(*short) } else { length };
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        match *first {
            TEXT => taken.frames.push(serde_json::from_slice(payload).unwrap()),
            CLOSE => taken.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
            _ => {}
        }
        left = after;
    }
    taken
}

fn frames_of_events(mut left: &[u8]) -> Taken {
    let mut body = Vec::new();
    while let Some(end) = left.windows(2).position(|two| two == b"\r\n") {
        let length = std::str::from_utf8(&left[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let Some(chunk) = left.get(end + 2..end + 2 + length) else { break };
        body.extend_from_slice(chunk);
        left = left.get(end + 2 + length + 2..).unwrap_or_default();
    }
    let whole = body.windows(2).rposition(|two| two == b"\n\n").map_or(0, |end| end + 2);
    let text = std::str::from_utf8(&body[..whole]).unwrap();
    let frames = text.lines().filter_map(|line| line.strip_prefix("data: "));
    Taken {
        frames: frames.map(|frame| serde_json::from_str(frame).unwrap()).collect(),
        closed: None,
    }
}

impl Taken {
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.frames.iter().filter(move |frame| frame["type"] == kind)
    }

    /// The messages of a class.
    pub fn class<'a>(&'a self, class: &'a str) -> impl Iterator<Item = &'a Value> {
        self.of("message").filter(move |frame| frame["class"] == class)
    }

    /// The last cursor that it was given.
    pub fn cursor(&self) -> Option<String> {
        self.frames.iter().rev().find_map(|frame| Some(frame["cursor"].as_str()?.to_owned()))
    }
}
