//! The least that a server of WebSockets has to do: nothing is read, kept, encoded or queued.
//!
//! One thread accepts and shakes hands; one thread a feed takes ready-made texts, puts the head of a
//! frame before each, and writes it to every socket of its topic, one system call each. A client that
//! takes nothing stops everybody, which a floor may.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tidings::bench::{BenchError, Contender, Installation, Letter, WayIn, WayOut};
use tidings::client::{Address, Client};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What a feed says first; everything else is a request for a WebSocket.
const FEED: &[u8] = b"FEED";

/// A client sends its request at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Far more than the request of a client here.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// As many messages as come in one read cost one.
const FEED_BUFFER_BYTES: usize = 64 << 10;

/// More than any message that is measured.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The sockets of each topic. A broken lock is one whose holder has panicked, and nothing follows.
type Sockets = Arc<RwLock<HashMap<String, Vec<TcpStream>>>>;

/// Serves until it is killed. Says its address.
pub fn run() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    tidings::bench::raise_descriptors();
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    out.flush()?;
    serve(&listener);
    Ok(())
}

pub fn serve(listener: &TcpListener) {
    let sockets = Sockets::default();
    for stream in listener.incoming() {
        // Who went away before it was greeted is of no concern.
        let _ = stream.and_then(|stream| admit(stream, &sockets));
    }
}

fn admit(mut stream: TcpStream, sockets: &Sockets) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HEAD_TIMEOUT))?;
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
    let mut some = [0; 1024];
    loop {
        let read = stream.read(&mut some)?;
        head.extend_from_slice(&some[..read]);
        if head.starts_with(FEED) {
            let sockets = sockets.clone();
            let first = head.split_off(FEED.len());
            stream.set_read_timeout(None)?;
            std::thread::spawn(move || feed(first.chain(stream), &sockets));
            return Ok(());
        }
        if head.ends_with(b"\r\n\r\n") {
            break;
        }
        if read == 0 || head.len() >= HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let topic = head.split_once("topics=").map(|(_, rest)| rest);
    let topic = topic.map(|rest| rest.split(['&', ' ']).next().unwrap_or_default());
    let (Some(key), Some(topic)) = (key, topic) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let accept = derive_accept_key(key.as_bytes());
    let welcome = frame(r#"{"type":"welcome","cursor":"floor-0"}"#);
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(&welcome);
    stream.write_all(&answer)?;
    // Colons come as the query has them.
    let topic = topic.replace("%3A", ":");
    let mut sockets = sockets.write().map_err(|_| io::ErrorKind::Other)?;
    sockets.entry(topic).or_default().push(stream);
    Ok(())
}

fn feed(stream: impl Read, sockets: &Sockets) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(FEED_BUFFER_BYTES, stream);
    let mut part = || {
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if size > TEXT_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut bytes = vec![0; size];
        stream.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    };
    loop {
        let (topic, text) = (part()?, part()?);
        let frame = frame(&text);
        let sockets = sockets.read().map_err(|_| io::ErrorKind::Other)?;
        for mut socket in sockets.get(&topic).into_iter().flatten() {
            // Who is gone takes nothing.
            let _ = socket.write_all(&frame);
        }
    }
}

/// A text as one unmasked frame.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        size @ ..=125 => frame.push(u8::try_from(size).unwrap_or(0)),
        size if size <= usize::from(u16::MAX) => {
            frame.push(126);
            frame.extend_from_slice(&u16::try_from(size).unwrap_or(0).to_be_bytes());
        }
        size => {
            frame.push(127);
            frame.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// The floor as its clients see it: sessions as everywhere, and one feed for all publishers.
pub struct WsFloor {
    address: SocketAddr,
    sessions: Installation,
    feed: Arc<Mutex<Option<tokio::net::TcpStream>>>,
}

impl WsFloor {
    pub fn new(address: SocketAddr) -> Result<WsFloor, crate::Failure> {
        let client = Client::new(vec![Address::parse(&format!("http://{address}"))?], Some("x"))?;
        let sessions = Installation::new(client);
        Ok(WsFloor { address, sessions, feed: Arc::default() })
    }
}

#[async_trait]
impl Contender for WsFloor {
    async fn way_in(&self, _place: usize) -> Result<Box<dyn WayIn>, BenchError> {
        let mut feed = self.feed.lock().await;
        if feed.is_none() {
            let opening = async {
                let mut stream = tokio::net::TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream.write_all(FEED).await?;
                Ok(stream)
            };
            *feed = Some(opening.await.map_err(|error| lost(&error))?);
        }
        Ok(Box::new(Feeds(self.feed.clone())))
    }

    async fn way_out(&self, place: usize, topic: &str) -> Result<Box<dyn WayOut>, BenchError> {
        self.sessions.way_out(place, topic).await
    }
}

struct Feeds(Arc<Mutex<Option<tokio::net::TcpStream>>>);

#[async_trait]
impl WayIn for Feeds {
    async fn publish(&mut self, letters: &[Letter]) -> Result<(), BenchError> {
        let mut bytes = Vec::new();
        for Letter { topic, data } in letters {
            // As long as what Tidings sends.
            let text = format!(
                "{{\"type\":\"message\",\"topic\":\"{topic}\",\"seq\":1000000,\
                 \"cursor\":\"abcdef-1000000\",\"kind\":null,\"class\":\"event\",\"key\":null,\
                 \"priority\":\"normal\",\"at\":\"2026-01-01T00:00:00.000Z\",\"data\":{data}}}"
            );
            for part in [topic.as_str(), &text] {
                let size = u32::try_from(part.len()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&size.to_be_bytes());
                bytes.extend_from_slice(part.as_bytes());
            }
        }
        let mut feed = self.0.lock().await;
        match feed.as_mut() {
            Some(stream) => stream.write_all(&bytes).await.map_err(|error| lost(&error)),
            None => Err(BenchError::Failed("the feed is closed".to_owned())),
        }
    }
}

fn lost(error: &io::Error) -> BenchError {
    BenchError::Failed(format!("ws-floor: {error}"))
}
