//! A TCP proxy that stands between two of us and misbehaves as networks do.
//!
//! ```text
//!  replica ──▶ proxy ──▶ Postgres        client ──▶ proxy ──▶ replica
//! ```
//! Towards Postgres it may also look into what the server says: each of its messages begins with a
//! letter and a length, so that single notifications can be lost or doubled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    Fair,
    /// Each piece waits this long.
    Slow(Duration),
    /// What is sent arrives, what is answered does not.
    AnswersLost,
    /// Nothing arrives in either direction, and nobody is told.
    Black,
    /// Of the server's notifications this share is lost, another one doubled.
    Notifications {
        lost: f64,
        doubled: f64,
    },
    /// As `Fair`, for all that connect from now on; older connections are black for good.
    HalfOpen,
}

pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What the server's end says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Postgres,
    Http,
}

struct Shared {
    speaks: Speaks,
    upstream: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Whoever sends this next is cut off when it is answered, and never hears the answer.
    unanswered: Mutex<Option<&'static [u8]>>,
    /// Connections of an older generation are cut.
    generation: watch::Sender<u64>,
    /// Those that were there when the weather became half open.
    half_open_before: AtomicU64,
    connections: AtomicU64,
    open: AtomicUsize,
    random: Mutex<StdRng>,
}

impl Proxy {
    async fn start(upstream: SocketAddr, speaks: Speaks) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            speaks,
            upstream,
            weather: watch::Sender::new(Weather::Fair),
            unanswered: Mutex::new(None),
            generation: watch::Sender::new(0),
            half_open_before: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            random: Mutex::new(StdRng::seed_from_u64(7)),
        });
        let own = shared.clone();
        #[expect(clippy::disallowed_methods, reason = "a part of a test, ended with it")]
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let shared = own.clone();
                #[expect(clippy::disallowed_methods, reason = "ends when its connection is cut")]
                tokio::spawn(carry(shared, stream));
            }
        });
        Proxy { address, shared, accepting }
    }

    /// In front of the server of a database URL; returns the URL that leads through the proxy.
    pub async fn to_database(url: &str) -> (Proxy, String) {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let (user, host) = authority.rsplit_once('@').unwrap();
        let upstream = tokio::net::lookup_host(host).await.unwrap().next().unwrap();
        let proxy = Proxy::start(upstream, Speaks::Postgres).await;
        let through = format!("{scheme}://{user}@{}/{path}", proxy.address);
        (proxy, through)
    }

    /// In front of a replica; returns the URL that leads through the proxy.
    pub async fn to_replica(url: &str) -> (Proxy, String) {
        let upstream = url.trim_start_matches("http://").parse().unwrap();
        let proxy = Proxy::start(upstream, Speaks::Http).await;
        let through = format!("http://{}", proxy.address);
        (proxy, through)
    }

    pub fn weather(&self, weather: Weather) {
        if weather == Weather::HalfOpen {
            let count = self.shared.connections.load(Ordering::SeqCst);
            self.shared.half_open_before.store(count, Ordering::SeqCst);
        }
        self.shared.weather.send_replace(weather);
    }

    /// What is sent next with these bytes in it arrives and is done; then its connection is cut, and the answer
    /// is lost.
    pub fn lose_answer_to(&self, bytes: &'static [u8]) {
        *self.shared.unanswered.lock() = Some(bytes);
    }

    /// Cuts every connection; new ones are taken. Returns how many there were.
    pub fn cut(&self) -> usize {
        let open = self.shared.open.load(Ordering::SeqCst);
        self.shared.generation.send_modify(|generation| *generation += 1);
        open
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Shared {
    fn is_unanswered(&self, bytes: &[u8]) -> bool {
        let mut wanted = self.unanswered.lock();
        let found =
            wanted.take_if(|wanted| bytes.windows(wanted.len()).any(|window| window == *wanted));
        found.is_some()
    }
}

/// One connection, until one of its ends is gone or it is cut.
async fn carry(shared: Arc<Shared>, client: TcpStream) {
    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
    let mut generation = shared.generation.subscribe();
    let Ok(server) = TcpStream::connect(shared.upstream).await else { return };
    // A connection that is cut ends as after a crash: with a reset, and with what was under way lost.
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    shared.open.fetch_add(1, Ordering::SeqCst);
    let doomed = AtomicBool::new(false);
    tokio::select! {
        _ = generation.changed() => {}
        () = pass(&shared, number, from_client, to_server, false, &doomed) => {}
        () = pass(&shared, number, from_server, to_client, true, &doomed) => {}
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

/// One direction.
async fn pass(
    shared: &Shared,
    number: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    answers: bool,
    doomed: &AtomicBool,
) {
    let mut weather = shared.weather.subscribe();
    let mut buffer = vec![0; 64 << 10];
    let mut messages = (answers && shared.speaks == Speaks::Postgres).then(Messages::default);
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let now = *weather.borrow_and_update();
        let bytes = &buffer[..count];
        if answers && doomed.load(Ordering::SeqCst) {
            return;
        }
        if !answers && shared.is_unanswered(bytes) {
            doomed.store(true, Ordering::SeqCst);
        }
        let changed = match (&mut messages, now) {
            (Some(messages), Weather::Notifications { lost, doubled }) => {
                messages.pass(bytes, || {
                    let luck = shared.random.lock().random::<f64>();
                    if luck < lost { 0 } else { 1 + usize::from(luck > 1.0 - doubled) }
                })
            }
            // The borders of messages are kept in fair weather too, for when it changes.
            (Some(messages), _) => messages.pass(bytes, || 1),
            (None, _) => bytes.to_vec(),
        };
        match now {
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::AnswersLost if answers => continue,
            Weather::Black => {
                // It is kept back until the weather is better, as a network would send it again.
                while *weather.borrow_and_update() == Weather::Black {
                    if weather.changed().await.is_err() {
                        return;
                    }
                }
            }
            Weather::HalfOpen if number < shared.half_open_before.load(Ordering::SeqCst) => {
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        if to.write_all(&changed).await.is_err() {
            return;
        }
    }
}

/// Cuts the server's stream at the borders of its messages.
#[derive(Default)]
struct Messages {
    rest: Vec<u8>,
    /// The answer to a request for TLS is a single letter.
    begun: bool,
}

impl Messages {
    /// Hands whole messages on, and each notification as often as is said.
    fn pass(&mut self, bytes: &[u8], mut times: impl FnMut() -> usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        self.rest.extend_from_slice(bytes);
        if !self.begun && self.rest.len() == 1 {
            self.begun = true;
            out.append(&mut self.rest);
            return out;
        }
        self.begun = true;
        let mut at = 0;
        while let Some(head) = self.rest.get(at..at + 5) {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize + 1;
            let Some(message) = self.rest.get(at..at + length) else { break };
            let times = if head[0] == b'A' { times() } else { 1 };
            (0..times).for_each(|_| out.extend_from_slice(message));
            at += length;
        }
        self.rest.drain(..at);
        out
    }
}
