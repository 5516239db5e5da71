//! A session as `api/ws` runs it, with a channel for its socket.
//!
//! The channel is short, so that a client that does not read makes the session wait as TCP would;
//! what is in it when the client goes is lost, as in a kernel's buffers.

use std::time::Duration;

use tidings::domain::{Cursor, Pattern, Seq};
use tidings::feed::{Feed, FeedError, Item, Start};
use tidings::hub::Hub;
use tidings::log::Log;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::replica::PAGE;

/// How often a session tells its cursor.
const HEARTBEAT: Duration = Duration::from_millis(40);

/// How long a client waits that nobody lets in.
const COME_AGAIN: Duration = Duration::from_millis(20);

/// What goes down the socket.
#[derive(Debug)]
pub enum Sent {
    Welcome(Cursor),
    Item(Item),
    Cursor(Cursor),
    /// The answer to `subscribe`; without a cursor, what comes after `from` is due.
    Subscribed {
        pattern: Pattern,
        replay: Option<Cursor>,
        from: Seq,
    },
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub enum Ask {
    Subscribe { pattern: Pattern, replay: Option<Cursor> },
    Unsubscribe(Pattern),
}

/// What a client comes with.
pub struct Hello {
    pub cursor: Option<Cursor>,
    pub patterns: Vec<Pattern>,
    /// Topics whose replay was not finished, each with a cursor of its own.
    pub own: Vec<(Pattern, Cursor)>,
}

pub async fn session(
    log: Log,
    hub: Hub,
    hello: Hello,
    mut asks: mpsc::Receiver<Ask>,
    socket: mpsc::Sender<Sent>,
) {
    let Some(mut feed) = open(&log, &hub, hello, &socket).await else { return };
    let mut next_heartbeat = Instant::now() + HEARTBEAT;
    let mut items = Vec::new();
    loop {
        tokio::select! {
            ask = asks.recv() => {
                let Some(ask) = ask else { return };
                if !perform(ask, &mut feed, &log, &socket).await { return }
            }
            () = feed.next(&mut items) => {
                for item in items.drain(..) {
                    if socket.send(Sent::Item(item)).await.is_err() { return }
                }
            }
            () = sleep_until(next_heartbeat) => {
                next_heartbeat = Instant::now() + HEARTBEAT;
                if socket.send(Sent::Cursor(feed.cursor())).await.is_err() { return }
            }
        }
    }
}

async fn open(log: &Log, hub: &Hub, hello: Hello, socket: &mpsc::Sender<Sent>) -> Option<Feed> {
    let start = hello.cursor.map_or(Start::Now, Start::After);
    let mut feed = loop {
        let patterns = hello.patterns.iter().cloned().collect();
        match Feed::open(log.clone(), hub.clone(), PAGE, patterns, start.clone()).await {
            Ok(feed) => break feed,
            Err(FeedError::NotReady | FeedError::Busy) => sleep(COME_AGAIN).await,
        }
    };
    let mut subscribed = Vec::new();
    for (pattern, cursor) in hello.own {
        let replay = Some(cursor.clone());
        feed.subscribe(pattern.clone(), Start::After(cursor)).await.ok()?;
        subscribed.push(Sent::Subscribed { pattern, replay, from: Seq::ZERO });
    }
    socket.send(Sent::Welcome(feed.cursor())).await.ok()?;
    for one in subscribed {
        socket.send(one).await.ok()?;
    }
    Some(feed)
}

async fn perform(ask: Ask, feed: &mut Feed, log: &Log, socket: &mpsc::Sender<Sent>) -> bool {
    match ask {
        Ask::Unsubscribe(pattern) => {
            feed.unsubscribe(&pattern);
            true
        }
        Ask::Subscribe { pattern, replay } => {
            let start = replay.clone().map_or(Start::Now, Start::After);
            if feed.subscribe(pattern.clone(), start).await.is_err() {
                return false;
            }
            let from = log.position().map(|position| position.seq).unwrap_or_default();
            socket.send(Sent::Subscribed { pattern, replay, from }).await.is_ok()
        }
    }
}
