//! A connection on which anything may be written, byte by byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fleet::PATIENCE;

pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub async fn connect(url: &str) -> Raw {
        let address = url.strip_prefix("http://").unwrap();
        Raw { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    /// A WebSocket that has been welcomed.
    pub async fn websocket(url: &str) -> Raw {
        let mut raw = Raw::connect(url).await;
        raw.write(
            b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
        raw.until("\"heartbeat_s\":15}").await;
        raw
    }

    /// The other side may be gone already; then reading says so.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// One frame as clients send it, masked with zeros.
    pub async fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut bytes = header(first, payload.len(), 0x80);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        self.write(&bytes).await;
    }

    pub async fn until(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.more().await, "{text} did not come: {}", self.text());
        }
        self.read.clear();
    }

    /// Everything that comes until the other side ends it.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// The code with which a WebSocket ends, whatever comes before.
    pub async fn close_code(&mut self) -> u16 {
        let rest = self.rest().await;
        let mut left = rest.as_slice();
        loop {
            let [first, length, after @ ..] = left else { return 1006 };
            let (length, after) = match length {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                short => (usize::from(*short), after),
            };
            if *first == 0x88 {
                return u16::from_be_bytes([after[0], after[1]]);
            }
            left = &after[length..];
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("it ends");
        let count = read.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

/// The head of a frame; `mask` is 0x80 where its bytes are masked.
pub fn header(first: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(length) {
        Ok(short @ 0..=125) => bytes.push(short | mask),
        _ => match u16::try_from(length) {
            Ok(length) => {
                bytes.push(126 | mask);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                bytes.push(127 | mask);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        },
    }
    bytes
}
