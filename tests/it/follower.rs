//! Clients that follow topics over WebSocket, server-sent events or long poll, and come back by themselves.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::fleet::{PATIENCE, until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    WebSocket,
    Sse,
    LongPoll,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::WebSocket, Way::Sse, Way::LongPoll];
}

/// What one client has seen, over all its connections.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Every message, in the order in which it came.
    pub messages: Vec<(String, u64)>,
    /// The text of each message, signals too, as it came; kept where a test asks for it.
    pub texts: Vec<Arc<str>>,
    keeps_texts: bool,
    pub connects: usize,
    /// How many messages each replay said it had.
    pub replayed: Vec<u64>,
    pub resets: usize,
    /// What it was told of its replica's sight of the log.
    pub statuses: Vec<String>,
    /// From the end of a connection to the next `welcome`.
    pub longest_absence: Duration,
    left: Option<Instant>,
    cursor: Option<String>,
}

/// Heartbeats come every 15 s unless a replica is told otherwise.
const SILENCE: Duration = Duration::from_secs(40);

pub struct Follower {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
    pub way: Way,
}

impl Follower {
    /// Follows on the first replica that takes it, beginning now or after a cursor.
    pub fn start(way: Way, urls: Vec<String>, topics: &str, cursor: Option<String>) -> Follower {
        Follower::impatient(way, urls, topics, cursor, SILENCE)
    }

    /// One that leaves a replica which has said nothing for that long.
    pub fn impatient(
        way: Way,
        urls: Vec<String>,
        topics: &str,
        cursor: Option<String>,
        silence: Duration,
    ) -> Follower {
        Follower::spawn(way, urls, topics, Seen { cursor, ..Seen::default() }, silence)
    }

    /// One that keeps the text of every message.
    pub fn keeping(way: Way, urls: Vec<String>, topics: &str, cursor: Option<String>) -> Follower {
        let seen = Seen { cursor, keeps_texts: true, ..Seen::default() };
        Follower::spawn(way, urls, topics, seen, SILENCE)
    }

    fn spawn(way: Way, urls: Vec<String>, topics: &str, seen: Seen, silence: Duration) -> Follower {
        let seen = Arc::new(Mutex::new(seen));
        let (own, topics) = (seen.clone(), topics.to_owned());
        #[expect(clippy::disallowed_methods, reason = "a client of a test, ended with it")]
        let task = tokio::spawn(async move {
            let mut pause = tokio::time::interval(Duration::from_millis(10));
            for url in urls.iter().cycle() {
                match way {
                    Way::WebSocket => websocket(url, &topics, &own, silence).await,
                    Way::Sse => sse(url, &topics, &own, silence).await,
                    Way::LongPoll => long_poll(url, &topics, &own, silence).await,
                };
                own.lock().left.get_or_insert_with(Instant::now);
                pause.tick().await;
            }
        });
        Follower { seen, task, way }
    }

    pub async fn connected(&self) {
        until("the client is connected", async || self.seen.lock().connects > 0).await;
    }

    /// Whether it has had a message on that topic.
    pub fn had_on(&self, topic: &str) -> bool {
        self.seen.lock().messages.iter().rev().any(|(own, _)| own == topic)
    }

    pub fn count(&self) -> usize {
        self.seen.lock().messages.len()
    }

    /// Waits until it has had everything, and says what is wrong with what it had.
    pub async fn verdict(&self, published: &[u64]) -> Verdict {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while self.count() < published.len() && Instant::now() < deadline {
            pause.tick().await;
        }
        let seen = self.seen();
        let had: HashSet<u64> = seen.messages.iter().map(|(_, seq)| *seq).collect();
        let mut last: HashMap<&str, u64> = HashMap::new();
        let mut reordered = 0;
        for (topic, seq) in &seen.messages {
            let highest = last.entry(topic).or_default();
            reordered += usize::from(*seq < *highest);
            *highest = (*highest).max(*seq);
        }
        Verdict {
            received: seen.messages.len(),
            lost: published.iter().filter(|seq| !had.contains(seq)).count(),
            doubled: seen.messages.len() - had.len(),
            reordered,
            resets: seen.resets,
            connects: seen.connects,
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Waits until it has as many messages, and checks that none came twice or out of order.
    pub async fn has(&self, count: usize) -> Seen {
        let what = format!("{:?} has {count} messages", self.way);
        until(&what, async || self.seen.lock().messages.len() >= count).await;
        let seen = self.seen();
        let mut last: HashMap<&str, u64> = HashMap::new();
        for (topic, seq) in &seen.messages {
            if let Some(before) = last.insert(topic, *seq) {
                assert!(before < *seq, "{:?}: {seq} after {before} on {topic}", self.way);
            }
        }
        assert_eq!(seen.messages.len(), count, "{:?} has more than was published", self.way);
        seen
    }
}

/// What one client had of what was published.
pub struct Verdict {
    pub received: usize,
    pub lost: usize,
    pub doubled: usize,
    pub reordered: usize,
    pub resets: usize,
    /// Shown only: how often it had to come back.
    pub connects: usize,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { received, lost, doubled, reordered, resets, connects } = self;
        write!(
            f,
            "{received} received over {connects} connections; {lost} lost, {doubled} doubled, \
             {reordered} reordered, {resets} resets"
        )
    }
}

impl Verdict {
    pub fn is_bad(&self) -> bool {
        [self.lost, self.doubled, self.reordered, self.resets].iter().any(|count| *count > 0)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    /// Where it would resume.
    pub fn cursor(&self) -> Option<String> {
        self.cursor.clone()
    }

    pub fn seqs(&self) -> Vec<u64> {
        self.messages.iter().map(|(_, seq)| *seq).collect()
    }
}

fn note(seen: &Mutex<Seen>, text: &str) {
    let frame: Value = serde_json::from_str(text).unwrap();
    let mut seen = seen.lock();
    match frame["type"].as_str() {
        Some("welcome") => {
            seen.connects += 1;
            let away = seen.left.take().map_or(Duration::ZERO, |left| left.elapsed());
            seen.longest_absence = seen.longest_absence.max(away);
            if seen.cursor.is_none() {
                seen.cursor = frame["cursor"].as_str().map(str::to_owned);
            }
            return;
        }
        Some("message") => {
            if seen.keeps_texts {
                seen.texts.push(text.into());
            }
            if let Some(seq) = frame["seq"].as_u64() {
                seen.messages.push((frame["topic"].as_str().unwrap().to_owned(), seq));
            }
        }
        Some("replayed") => seen.replayed.push(frame["count"].as_u64().unwrap()),
        Some("reset") => seen.resets += 1,
        Some("status") => seen.statuses.push(frame["status"].as_str().unwrap().to_owned()),
        _ => {}
    }
    if let Some(cursor) = frame["cursor"].as_str() {
        seen.cursor = Some(cursor.to_owned());
    }
}

/// An answer to a long poll.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    cursor: String,
}

fn address(url: &str, path: &str, topics: &str, name: &str, seen: &Mutex<Seen>) -> String {
    let cursor = seen.lock().cursor.clone();
    let cursor = cursor.map(|cursor| format!("&{name}={cursor}")).unwrap_or_default();
    format!("{url}{path}?topics={topics}{cursor}")
}

/// Each of these returns when the connection has ended, or said nothing for too long.
async fn websocket(
    url: &str,
    topics: &str,
    seen: &Mutex<Seen>,
    silence: Duration,
) -> Option<Infallible> {
    let url = url.replace("http://", "ws://");
    let address = address(&url, "/v1/ws", topics, "cursor", seen);
    let connecting = tokio_tungstenite::connect_async(address);
    let (mut socket, _) = timeout(silence, connecting).await.ok()?.ok()?;
    loop {
        if let Message::Text(text) = timeout(silence, socket.next()).await.ok()??.ok()? {
            note(seen, &text);
        }
    }
}

async fn sse(url: &str, topics: &str, seen: &Mutex<Seen>, silence: Duration) -> Option<Infallible> {
    let address = address(url, "/v1/sse", topics, "last_event_id", seen);
    let answer = timeout(silence, reqwest::get(address)).await.ok()?.ok()?;
    let mut body = answer.bytes_stream();
    let mut buffer = Vec::new();
    // An event may have several lines of data, which are one text with line breaks.
    let mut data: Vec<String> = Vec::new();
    loop {
        let searched = buffer.len();
        buffer.extend_from_slice(&timeout(silence, body.next()).await.ok()??.ok()?);
        let mut end = buffer[searched..].iter().position(|byte| *byte == b'\n');
        end = end.map(|end| searched + end);
        while let Some(at) = end {
            let line: Vec<u8> = buffer.drain(..=at).collect();
            let line = std::str::from_utf8(&line[..at]).unwrap();
            if let Some(line) = line.strip_prefix("data: ") {
                data.push(line.to_owned());
            } else if line.is_empty() && !data.is_empty() {
                note(seen, &std::mem::take(&mut data).join("\n"));
            }
            end = buffer.iter().position(|byte| *byte == b'\n');
        }
    }
}

async fn long_poll(
    url: &str,
    topics: &str,
    seen: &Mutex<Seen>,
    silence: Duration,
) -> Option<Infallible> {
    loop {
        let address = address(url, "/v1/messages", topics, "after", seen) + "&limit=50&wait_s=2";
        let asked = timeout(silence, reqwest::get(address));
        let answer = asked.await.ok()?.ok()?;
        if answer.status() == 410 {
            // What a `reset` is elsewhere.
            let problem: Value = timeout(silence, answer.json()).await.ok()?.ok()?;
            let mut seen = seen.lock();
            seen.resets += 1;
            seen.cursor = problem["cursor"].as_str().map(str::to_owned);
            continue;
        }
        let answer = answer.error_for_status().ok()?;
        let text = timeout(silence, answer.text()).await.ok()?.ok()?;
        let page: Page = serde_json::from_str(&text).unwrap();
        for frame in page.messages {
            note(seen, frame.get());
        }
        let mut seen = seen.lock();
        seen.cursor = Some(page.cursor);
        seen.connects += 1;
    }
}
