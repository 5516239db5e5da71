//! A client that watches tasks, as a page in a browser does: it comes back by itself, on whatever
//! replica answers, and goes by the highest seq it has seen on a topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::fleet::until;

/// After so long without a word it goes elsewhere: replicas that are frozen do not say so.
const SILENCE: Duration = Duration::from_secs(3);

#[derive(Default)]
pub struct Seen {
    /// The frames about tasks, on any topic, that were news.
    pub frames: Vec<Value>,
    pub connects: usize,
    /// What must never be.
    pub wrong: Vec<String>,
    cursor: Option<String>,
    highest: HashMap<String, u64>,
}

pub struct Watcher {
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Watches topics, as the user 42, whose own topic comes with it.
    pub fn start(urls: Vec<String>, topics: &str) -> Watcher {
        Watcher::resuming(urls, topics, None)
    }

    pub fn resuming(urls: Vec<String>, topics: &str, cursor: Option<String>) -> Watcher {
        let seen = Arc::new(Mutex::new(Seen { cursor, ..Seen::default() }));
        let (own, topics) = (seen.clone(), topics.to_owned());
        #[expect(clippy::disallowed_methods, reason = "a client of a test, ended with it")]
        let task = tokio::spawn(async move {
            let mut pause = tokio::time::interval(Duration::from_millis(20));
            for url in urls.iter().cycle() {
                watch(url, &topics, &own).await;
                pause.tick().await;
            }
        });
        Watcher { seen, task }
    }

    pub async fn connected(&self) {
        until("the watcher is connected", async || self.seen.lock().connects > 0).await;
    }

    pub fn cursor(&self) -> Option<String> {
        self.seen.lock().cursor.clone()
    }

    /// What was seen of one task on one topic.
    pub fn of(&self, topic: &str, id: &str) -> Vec<Value> {
        let seen = self.seen.lock();
        let own = |frame: &&Value| frame["topic"] == topic && frame["key"] == id;
        seen.frames.iter().filter(own).cloned().collect()
    }

    /// Waits for the last word of so many attempts; nothing that was seen was wrong. Returns the last one.
    pub async fn finished(&self, topic: &str, id: &str, attempts: usize) -> Value {
        let last_words = || {
            let frames = self.of(topic, id).into_iter();
            frames.filter(|frame| frame["kind"] == "task.finished").collect::<Vec<_>>()
        };
        until("the watcher sees the end", async || last_words().len() >= attempts).await;
        assert_eq!(last_words().len(), attempts, "one last word an attempt");
        let frames = self.of(topic, id);
        assert_eq!(frames.last().unwrap()["kind"], "task.finished", "after every progress");
        let place = |frame: &Value| {
            let data = &frame["data"];
            (data["attempt"].as_u64().unwrap(), data["current"].as_u64().unwrap())
        };
        for pair in frames.windows(2) {
            assert!(place(&pair[0]) <= place(&pair[1]), "current went back: {pair:?}");
        }
        assert_eq!(self.seen.lock().wrong, Vec::<String>::new());
        frames.last().unwrap()["data"].clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns when the connection has ended, or said nothing for too long.
async fn watch(url: &str, topics: &str, seen: &Mutex<Seen>) -> Option<()> {
    let cursor = seen.lock().cursor.clone();
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let url = url.replace("http://", "ws://");
    let address = format!("{url}/v1/ws?user=42&topics={topics}{cursor}");
    let connecting = tokio_tungstenite::connect_async(address);
    let (mut socket, _) = timeout(SILENCE, connecting).await.ok()?.ok()?;
    // Of this connection alone: within one nothing comes twice and nothing goes back.
    let mut last: HashMap<String, u64> = HashMap::new();
    loop {
        if let Message::Text(text) = timeout(SILENCE, socket.next()).await.ok()??.ok()? {
            note(&mut seen.lock(), &mut last, serde_json::from_str(&text).unwrap());
        }
    }
}

fn note(seen: &mut Seen, last: &mut HashMap<String, u64>, frame: Value) {
    if let Some(cursor) = frame["cursor"].as_str() {
        seen.cursor = Some(cursor.to_owned());
    }
    match frame["type"].as_str() {
        Some("welcome") => seen.connects += 1,
        Some("reset") => seen.wrong.push(frame.to_string()),
        Some("message") => {
            let (topic, seq) = (frame["topic"].as_str().unwrap(), frame["seq"].as_u64().unwrap());
            if last.insert(topic.to_owned(), seq).is_some_and(|before| before >= seq) {
                seen.wrong.push(format!("{seq} came after a higher one: {frame}"));
            }
            let highest = seen.highest.entry(topic.to_owned()).or_default();
            if *highest < seq {
                *highest = seq;
                seen.frames.push(frame);
            }
        }
        _ => {}
    }
}
