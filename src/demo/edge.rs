//! Telemetry of a town that does not exist: what its edges say of their tunnels, and the one edge that is not
//! pushed but read, at an address of its own.
//!
//! What an edge says follows from the tick alone, so that it is the same to whoever connects, and however often.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, interval, sleep, timeout};

use super::DemoError;

/// How often an edge speaks.
pub const EVERY: Duration = Duration::from_secs(2);

/// Counters begin as if the edge had spoken for this long.
pub const TICKS_BEFORE: u32 = 55 * TICKS_A_MINUTE;
pub const TICKS_A_MINUTE: u32 = 30;

const TUNNELS: u32 = 6;
/// The edge that is read; the others have the numbers before it.
const NUMBER: u32 = 3;

/// Replicas, those who try a source, and those who look with curl.
const CONNECTIONS_MAX: usize = 32;
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

const PATH: &str = "/events";
const ABSENT: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\nconnection: close\r\n\r\n";

/// A small server of one stream of events, and nothing else.
pub struct Edge {
    listener: TcpListener,
    port: u16,
    since: Instant,
}

impl Edge {
    pub async fn bind() -> Result<Edge, DemoError> {
        let none = |_| DemoError::NoPort("the edge".to_owned());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(none)?;
        let port = listener.local_addr().map_err(none)?.port();
        Ok(Edge { listener, port, since: Instant::now() })
    }

    /// What replicas must be allowed to read.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.host())
    }

    /// Runs until it is dropped, and its connections with it.
    pub async fn run(&self) {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                    Ok((socket, _)) => open.push(self.tell(socket)),
                    Err(_) => sleep(PAUSE).await,
                },
                Some(_) = open.next() => {}
            }
        }
    }

    /// First what there is, then what changes.
    async fn tell(&self, mut socket: TcpStream) -> std::io::Result<()> {
        let Ok(Ok(Some(target))) = timeout(HEAD_WITHIN, asked(&mut socket)).await else {
            return Ok(());
        };
        if target != PATH {
            return socket.write_all(ABSENT.as_bytes()).await;
        }
        socket.write_all(ANSWER.as_bytes()).await?;
        let mut kind = "initial";
        let mut pause = interval(EVERY);
        loop {
            pause.tick().await;
            let past = self.since.elapsed().as_secs() / EVERY.as_secs();
            let tick = TICKS_BEFORE + u32::try_from(past).unwrap_or(u32::MAX - TICKS_BEFORE);
            let told: String = events(NUMBER, kind, tick).iter().map(framed).collect();
            socket.write_all(told.as_bytes()).await?;
            kind = "update";
        }
    }
}

/// What somebody has asked for, if that was anything.
async fn asked(socket: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES_MAX && socket.read_buf(&mut head).await? > 0 {
        if head.windows(4).any(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head);
            return Ok(text.split_whitespace().nth(1).map(str::to_owned));
        }
    }
    Ok(None)
}

fn framed(event: &Value) -> String {
    format!("data: {event}\n\n")
}

pub fn tunnels(edge: u32, kind: &str, tick: u32) -> impl Iterator<Item = Value> {
    (1..=TUNNELS).map(move |n| tunnel(edge * 10 + n, kind, tick))
}

/// What an edge says at a tick: all of its tunnels, and now and then a line of a log.
pub fn events(edge: u32, kind: &str, tick: u32) -> Vec<Value> {
    let mut events: Vec<Value> = (1..=TUNNELS).map(|n| tunnel(edge * 10 + n, kind, tick)).collect();
    if kind == "update" && (tick + edge).is_multiple_of(4) {
        let number = edge * 10 + 1 + tick / 4 % TUNNELS;
        let line = match tick / 4 % 5 {
            0 => format!("renewed the certificate of tunnel {number}"),
            1 => "a peer came back after 3 s".to_owned(),
            2 => format!("pool of tunnel {number} grew by two"),
            3 => "slow answer of 10.0.4.7, 212 ms".to_owned(),
            _ => "configuration is up to date".to_owned(),
        };
        events.push(json!({"type": "log", "instance": format!("tunnel-{number}"), "text": line}));
    }
    events
}

/// Its counters only grow, now faster and now slower; its gauges go up and down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers that stand for nothing"
)]
fn tunnel(number: u32, kind: &str, tick: u32) -> Value {
    let (turn, begun) = (f64::from(tick) / 90.0 + f64::from(number), f64::from(number));
    let quick = (f64::from(tick) / 7.0 + f64::from(number) * 2.0).sin();
    let wave = (turn.sin() + 1.3) / 2.3;
    // The sum of the wave over all ticks so far.
    let grown = (1.3 * f64::from(tick) + 90.0 * (begun.cos() - turn.cos())) / 2.3;
    let rate = 30_000.0 * (1.0 + f64::from(number % 5));
    let count = |rate: f64| (grown * rate).round().max(0.0) as u64;
    let round = |value: f64| (value * 10.0).round() / 10.0;
    json!({
        "type": kind,
        "instance": format!("tunnel-{number}"),
        "static": {"name": format!("tunnel {number}"), "kind": if number.is_multiple_of(2) { "server" } else { "client" }},
        "gauges": {
            "ping_ms": round(4.0 + 9.0 * wave + f64::from(number % 4) + quick),
            "pool": (8.0 * wave + quick + 1.0).round().max(0.0),
        },
        "counters": {"tcp_rx": count(rate), "tcp_tx": count(rate * 0.62)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_only_grow() {
        for number in [11, 23, 36] {
            let counted = |tick| tunnel(number, "update", tick)["counters"]["tcp_tx"].as_u64();
            assert!((0..2_000).all(|tick| counted(tick) < counted(tick + 1)), "tunnel {number}");
        }
    }
}
