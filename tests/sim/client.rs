//! A client that does what docs/protocol.md tells clients to do, and remembers everything.
//!
//! It drops a seq that it has seen, comes back with the last cursor that it was given, and names a
//! topic with a cursor of its own until that topic's replay is finished. It judges what it gets as
//! it comes, and keeps what can only be judged against the whole log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use tidings::domain::{Cursor, Pattern, Seq};
use tidings::feed::{Item, ResetReason};

use crate::session::{Hello, Sent};

/// A topic or prefix that the client wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub pattern: Pattern,
    /// Everything after this is due; `None` until a server has said from where.
    pub due: Option<Seq>,
    /// Where its replay begins, until it is finished.
    pub own: Option<Cursor>,
    /// The session has said that the replay of this begins.
    begun: bool,
    /// This connection's session knows of it.
    known: bool,
}

#[derive(Debug, Clone)]
pub struct Seen {
    pub seq: Seq,
    pub topic: String,
    pub class: String,
    pub key: Option<String>,
    pub data: String,
}

/// What must have come before a place: everything on this after that seq, up to it.
pub type Dues = Arc<Vec<(Pattern, Seq)>>;

/// A cursor that was given, and how much had been seen by then.
#[derive(Debug, Clone)]
pub struct Given {
    pub seq: Seq,
    pub seen: usize,
    pub dues: Dues,
}

/// What the client may know of the log to judge a reset.
#[derive(Debug, Clone, Copy)]
pub struct LogFacts {
    /// The lowest seq that is kept.
    pub oldest: Seq,
    /// Up to here everything is flushed; `None` where that cannot be seen.
    pub durable: Option<Seq>,
}

#[derive(Debug, Default)]
pub struct Client {
    pub name: usize,
    pub wanted: Vec<Wanted>,
    pub cursor: Option<Cursor>,
    pub seen: Vec<Seen>,
    pub given: Vec<Given>,
    pub resets: usize,
    pub wrongs: Vec<String>,
    had: HashSet<Seq>,
    /// Every cursor that was named over this connection.
    came_with: Vec<Cursor>,
    /// The highest event by topic and priority.
    highest: HashMap<(String, String), Seq>,
    /// Signals of this connection.
    signals: HashSet<String>,
    dues: Option<Dues>,
}

impl Client {
    pub fn new(name: usize) -> Client {
        Client { name, ..Client::default() }
    }

    pub fn has(&self, seq: Seq) -> bool {
        self.had.contains(&seq)
    }

    /// What it says when it connects.
    pub fn hello(&mut self) -> Hello {
        self.signals.clear();
        let mut hello = Hello { cursor: self.cursor.clone(), patterns: vec![], own: vec![] };
        for wanted in &mut self.wanted {
            (wanted.begun, wanted.known) = (false, true);
            match &wanted.own {
                Some(cursor) => hello.own.push((wanted.pattern.clone(), cursor.clone())),
                None => hello.patterns.push(wanted.pattern.clone()),
            }
        }
        // Without a cursor nothing is due before the welcome; with one, everything after it.
        if let Some(cursor) = &self.cursor {
            for wanted in &mut self.wanted {
                if wanted.own.is_none() {
                    wanted.due.get_or_insert(cursor.seq);
                }
            }
        }
        self.came_with = self.cursor.iter().cloned().collect();
        self.came_with.extend(hello.own.iter().map(|(_, cursor)| cursor.clone()));
        self.dues = None;
        hello
    }

    /// Wants one more. Returns the cursor from which it is to be replayed, if it is to be.
    pub fn want(&mut self, pattern: Pattern, replay: bool) -> Option<Cursor> {
        let own = self.cursor.clone().filter(|_| replay);
        self.came_with.extend(own.clone());
        match self.wanted.iter_mut().find(|wanted| wanted.pattern == pattern) {
            // A replay that is not finished reaches further back than a new one would.
            Some(wanted) => {
                if wanted.own.is_none() {
                    (wanted.own, wanted.begun) = (own.clone(), false);
                }
            }
            None => {
                let own = own.clone();
                self.wanted.push(Wanted { pattern, due: None, own, begun: false, known: false });
            }
        }
        self.dues = None;
        own
    }

    pub fn unwant(&mut self, pattern: &Pattern) {
        self.wanted.retain(|wanted| wanted.pattern != *pattern);
        // What comes again later may begin anywhere.
        self.highest.clear();
        self.dues = None;
    }

    pub fn receive(&mut self, sent: Sent, facts: LogFacts) {
        match sent {
            Sent::Welcome(cursor) => self.welcome(cursor),
            Sent::Cursor(cursor) => self.give(cursor),
            Sent::Subscribed { pattern, replay, from } => {
                self.subscribed(&pattern, replay.as_ref(), from);
            }
            Sent::Item(Item::Message { frame, cursor }) => {
                let text = match cursor {
                    true => frame.text(),
                    false => frame.bare_text(),
                };
                self.message(&text, facts);
            }
            Sent::Item(Item::Replayed { from, .. }) => self.replayed(&from),
            Sent::Item(Item::Reset { reason, cursor }) => self.reset(reason, cursor, facts),
            Sent::Item(Item::Gap { dropped, .. }) => {
                self.check(dropped > 0, || "a gap of nothing".to_owned());
            }
        }
    }

    fn welcome(&mut self, cursor: Cursor) {
        if self.cursor.is_none() {
            let begun = |wanted: &&mut Wanted| wanted.own.is_none() && wanted.known;
            for wanted in self.wanted.iter_mut().filter(begun) {
                wanted.due.get_or_insert(cursor.seq);
            }
            self.dues = None;
        }
        self.give(cursor);
    }

    fn subscribed(&mut self, pattern: &Pattern, replay: Option<&Cursor>, from: Seq) {
        let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.pattern == *pattern) else {
            return;
        };
        wanted.known = true;
        if replay.is_none() {
            wanted.due.get_or_insert(from);
            self.dues = None;
        } else if wanted.own.as_ref() == replay {
            wanted.begun = true;
        }
    }

    /// Replays are finished in the order in which they were asked for.
    fn replayed(&mut self, from: &Cursor) {
        let finished = |wanted: &&mut Wanted| wanted.begun && wanted.own.as_ref() == Some(from);
        if let Some(wanted) = self.wanted.iter_mut().find(finished) {
            (wanted.own, wanted.begun) = (None, false);
            wanted.due = Some(wanted.due.map_or(from.seq, |due| due.min(from.seq)));
            self.dues = None;
        }
    }

    fn reset(&mut self, reason: ResetReason, cursor: Cursor, facts: LogFacts) {
        let own = self.wanted.iter().filter_map(|wanted| wanted.own.clone());
        // One cursor of several that it came with is reason enough.
        let had = self.came_with.iter().chain(&self.cursor).cloned().chain(own);
        let had: Vec<Cursor> = had.collect();
        let just = match reason {
            ResetReason::Epoch => had.iter().any(|had| had.epoch != cursor.epoch),
            ResetReason::Expired | ResetReason::Overflow => {
                had.iter().any(|had| had.seq.next() < facts.oldest)
            }
        };
        self.check(just, || {
            format!("a reset ({}) to {cursor} without a reason: {had:?}", reason.as_str())
        });
        self.resets += 1;
        // What the session does not know of yet it cannot have meant.
        for wanted in self.wanted.iter_mut().filter(|wanted| wanted.known) {
            (wanted.due, wanted.own, wanted.begun) = (Some(cursor.seq), None, false);
        }
        self.highest.clear();
        self.dues = None;
        self.give(cursor);
    }

    fn give(&mut self, cursor: Cursor) {
        let dues = self.dues.get_or_insert_with(|| {
            let settled = self.wanted.iter().filter(|wanted| wanted.own.is_none());
            let due = settled.filter_map(|wanted| Some((wanted.pattern.clone(), wanted.due?)));
            Arc::new(due.collect())
        });
        let given = Given { seq: cursor.seq, seen: self.seen.len(), dues: dues.clone() };
        self.given.push(given);
        self.cursor = Some(cursor);
    }

    fn message(&mut self, text: &str, facts: LogFacts) {
        let frame: Value = serde_json::from_str(text).unwrap();
        let word = |name: &str| frame[name].as_str().map(str::to_owned);
        let data = frame["data"].to_string();
        let (topic, class) = (word("topic").unwrap(), word("class").unwrap());
        let Some(seq) = frame["seq"].as_u64() else {
            let fresh = self.signals.insert(data.clone());
            self.check(fresh, || format!("the signal {data} came twice"));
            return;
        };
        let seq = Seq::new(seq).unwrap();
        if let Some(durable) = facts.durable {
            self.check(seq <= durable, || format!("{seq} was sent when {durable} was durable"));
        }
        if self.had.insert(seq) {
            let due = |wanted: &Wanted| wanted.due.is_some_and(|due| due < seq);
            let matches = |wanted: &&Wanted| {
                let topic = tidings::domain::Topic::parse(&topic).unwrap();
                wanted.pattern.matches(&topic)
            };
            let ordered = class == "event" && self.wanted.iter().filter(matches).any(due);
            if ordered {
                let place = (topic.clone(), word("priority").unwrap());
                let before = self.highest.insert(place, seq).unwrap_or_default();
                self.check(before < seq, || format!("{seq} came after {before} on {topic}"));
            }
            self.seen.push(Seen { seq, topic, class, key: word("key"), data });
        }
        if let Some(cursor) = word("cursor") {
            self.give(Cursor::parse(&cursor).unwrap());
        }
    }

    fn check(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.wrongs.push(format!("client {}: {}", self.name, what()));
        }
    }
}
