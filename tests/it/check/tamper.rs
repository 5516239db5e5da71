//! A way to a replica on which one frame of a WebSocket is doubled, swallowed or held back.
//!
//! The server's frames are unmasked, each with its length before it; requests of other kinds pass
//! as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    Doubles,
    Swallows,
    /// Until the next one of the same topic has passed.
    HoldsBack,
}

/// Which message that passes is the one.
const VICTIM: usize = 50;

/// Its URL.
pub async fn tampered(url: &str, tamper: Tamper) -> String {
    let server = url.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let messages = Arc::new(AtomicUsize::new(0));
    #[expect(clippy::disallowed_methods, reason = "stands between until the test ends")]
    tokio::spawn(async move {
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            let Ok(server) = TcpStream::connect(&server).await else { continue };
            #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
            tokio::spawn(carry(
                client,
                server,
                Line { tamper, messages: messages.clone(), ..Line::new() },
            ));
        }
    });
    format!("http://{address}")
}

async fn carry(client: TcpStream, server: TcpStream, mut line: Line) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if to_client.write_all(&line.pass(&buffer[..count])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = back => {}
    }
}

struct Line {
    tamper: Tamper,
    messages: Arc<AtomicUsize>,
    rest: Vec<u8>,
    /// Whether frames come; before it is known, and in other answers, bytes pass.
    frames: Option<bool>,
    held: Option<(String, Vec<u8>)>,
}

impl Line {
    fn new() -> Line {
        let (tamper, messages) = (Tamper::Doubles, Arc::default());
        Line { tamper, messages, rest: Vec::new(), frames: None, held: None }
    }

    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        if self.frames.is_none() && self.rest.len() >= 12 {
            self.frames = Some(self.rest.starts_with(b"HTTP/1.1 101"));
            if self.frames == Some(true) {
                // The head comes in one piece, being small.
                let end = self.rest.windows(4).position(|four| four == b"\r\n\r\n");
                return self.rest.drain(..end.expect("a whole head") + 4).collect();
            }
        }
        if self.frames != Some(true) {
            return std::mem::take(&mut self.rest);
        }
        let mut out = Vec::new();
        while let Some(end) = end(&self.rest) {
            let frame: Vec<u8> = self.rest.drain(..end).collect();
            self.frame(frame, &mut out);
        }
        out
    }

    fn frame(&mut self, frame: Vec<u8>, out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(&frame).into_owned();
        let topic = text.split("\"topic\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let event = text.contains("\"class\":\"event\"") && !text.contains(":mark\"");
        let Some(topic) = topic.filter(|_| event) else { return out.extend(frame) };
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        match self.tamper {
            Tamper::Doubles if number == VICTIM => out.extend([frame.clone(), frame].concat()),
            Tamper::Swallows if number == VICTIM => {}
            Tamper::HoldsBack if number == VICTIM => self.held = Some((topic.to_owned(), frame)),
            _ => {
                out.extend(frame);
                if let Some((_, held)) = self.held.take_if(|(held, _)| held == topic) {
                    out.extend(held);
                }
            }
        }
    }
}

/// Where the first frame ends, if all of it is there.
fn end(bytes: &[u8]) -> Option<usize> {
    let (head, length) = match bytes.get(1)? & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())),
        short => (2, u64::from(short)),
    };
    let end = head + usize::try_from(length).unwrap();
    (bytes.len() >= end).then_some(end)
}
