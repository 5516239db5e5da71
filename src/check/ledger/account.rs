//! What one client was given, over all its connections.
//!
//! A frame that carries no cursor may come again after a resume, so a message counts as doubled
//! only if it comes twice on one connection, or although the cursor that was resumed from said
//! that it had been had. What a cursor has passed is settled against the log and forgotten.

use std::collections::{BTreeMap, BTreeSet};

use super::book::Book;
use super::finding::{Findings, Kind};
use crate::check::word::Id;
use crate::domain::Seq;

/// How many messages of one client are watched for that a cursor has passed and that may still
/// come; with more, the lowest are given up as lost at once.
const MISSING_MAX: usize = 10_000;

/// How many resets are told apart before the log has been read up to them.
const SKIPS_MAX: usize = 64;

/// What a message was to the client that it came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    New,
    /// It came again, as it may after a resume.
    Repeated,
    /// It ought not to have come; the findings say why.
    Wrong,
}

#[derive(Debug)]
pub struct Account {
    name: usize,
    /// By topic.
    follows: Vec<bool>,
    open: bool,
    /// Whether it has caught up on this connection.
    live: bool,
    cursor: Seq,
    /// The cursor that this connection goes on from.
    from: Seq,
    /// By topic: the highest seq on this connection, and of those that came for the first time.
    on_connection: Vec<Seq>,
    highest: Vec<Seq>,
    /// What came for the first time and is not settled.
    had: BTreeMap<Seq, Id>,
    settled: Seq,
    /// Settled, due, and not had.
    missing: BTreeSet<Seq>,
    /// By topic and key.
    newest: BTreeMap<(usize, u64), Seq>,
    /// After the first up to the second: what resets told it to do without.
    skips: Vec<(Seq, Seq)>,
}

impl Account {
    pub fn new(name: usize, follows: Vec<bool>, begin: Seq) -> Account {
        let topics = follows.len();
        Account {
            name,
            follows,
            open: false,
            live: false,
            cursor: begin,
            from: begin,
            on_connection: vec![Seq::ZERO; topics],
            highest: vec![Seq::ZERO; topics],
            had: BTreeMap::new(),
            settled: begin,
            missing: BTreeSet::new(),
            newest: BTreeMap::new(),
            skips: Vec::new(),
        }
    }

    pub fn opened(&mut self) {
        self.open = true;
        self.begin(self.cursor);
    }

    fn begin(&mut self, from: Seq) {
        self.live = false;
        self.from = from;
        self.on_connection.fill(Seq::ZERO);
    }

    pub fn lost_connection(&mut self) {
        (self.open, self.live) = (false, false);
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    pub fn is_live(&self) -> bool {
        self.live
    }

    pub fn replayed(&mut self) {
        self.live = true;
    }

    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    pub fn settled(&self) -> Seq {
        self.settled
    }

    pub fn unsettled(&self) -> usize {
        self.had.len() + self.missing.len()
    }

    pub fn reach(&mut self, cursor: Seq) {
        self.cursor = self.cursor.max(cursor);
    }

    pub fn reset(&mut self, cursor: Seq) {
        if cursor > self.cursor {
            let full = self.skips.len() >= SKIPS_MAX;
            match self.skips.last_mut() {
                Some(last) if full => last.1 = cursor,
                _ => self.skips.push((self.cursor, cursor)),
            }
        }
        self.cursor = cursor;
        self.begin(cursor);
    }

    /// Takes a message.
    pub fn takes(
        &mut self,
        seq: Seq,
        topic: usize,
        id: Id,
        key: Option<u64>,
        findings: &mut Findings,
    ) -> Arrival {
        let name = self.name;
        if !self.follows[topic] {
            findings.add(Kind::Phantom, || {
                format!("client {name} was given seq {seq} of a topic that it does not follow")
            });
            return Arrival::Wrong;
        }
        let last = self.on_connection[topic];
        self.on_connection[topic] = last.max(seq);
        if let Some(before) = self.had.get(&seq).copied()
            && before != id
        {
            findings.add(Kind::Phantom, || {
                format!("client {name} was given seq {seq} as {before} and then as {id}")
            });
            return Arrival::Wrong;
        }
        // Of states it is not remembered which were coalesced away, only which was the newest.
        let stale = |key| self.newest.get(&(topic, key)).is_none_or(|newest| *newest < seq);
        let passed = seq <= self.settled && !self.missing.contains(&seq) && !key.is_some_and(stale);
        if passed || self.had.contains_key(&seq) {
            if seq <= last || seq <= self.from {
                let how = if seq <= last { "twice" } else { "again after resuming behind it" };
                findings.add(Kind::Doubled, || {
                    format!("client {name} was given seq {seq} ({id}) {how}")
                });
                return Arrival::Wrong;
            }
            return Arrival::Repeated;
        }
        // A state that was coalesced away may come after all, on another connection.
        let before = if key.is_some() { last } else { self.highest[topic] };
        if seq <= self.cursor {
            let cursor = self.cursor;
            findings.add(Kind::Overtaken, || {
                format!("client {name} was given the cursor {cursor} before seq {seq} ({id})")
            });
        } else if seq < before {
            findings.add(Kind::Reordered, || {
                format!("client {name} was given seq {seq} ({id}) after seq {before} of its topic")
            });
        }
        self.highest[topic] = self.highest[topic].max(seq);
        if let Some(key) = key {
            let newest = self.newest.entry((topic, key)).or_default();
            *newest = seq.max(*newest);
        }
        if !self.missing.remove(&seq) && seq > self.settled {
            self.had.insert(seq, id);
        }
        Arrival::New
    }

    /// Compares what the cursor has passed with the log, as far as that was read, and forgets it.
    pub fn settle(&mut self, book: &Book, findings: &mut Findings) {
        let upto = self.cursor.min(book.read_to());
        self.compare(book, upto, findings);
    }

    fn compare(&mut self, book: &Book, upto: Seq, findings: &mut Findings) {
        if upto <= self.settled {
            return;
        }
        let name = self.name;
        for (seq, entry) in book.entries(self.settled, upto) {
            if !self.follows[entry.topic] {
                continue;
            }
            match self.had.remove(&seq) {
                Some(id) if id == entry.id => {}
                Some(id) => findings.add(Kind::Phantom, || {
                    format!("client {name} was given {id} as seq {seq}, which is {}", entry.id)
                }),
                // A newer one is due in its place, and must be had in the end.
                None if entry.key.is_some() => {}
                None if self.skips.iter().any(|(after, to)| seq > *after && seq <= *to) => {
                    findings.add(Kind::Skipped, || {
                        format!("client {name} was reset past seq {seq} ({})", entry.id)
                    });
                }
                None => {
                    self.missing.insert(seq);
                }
            }
        }
        while self.missing.len() > MISSING_MAX
            && let Some(seq) = self.missing.pop_first()
        {
            self.lost(seq, findings);
        }
        let rest = self.had.split_off(&upto.next());
        for (seq, id) in std::mem::replace(&mut self.had, rest) {
            findings.add(Kind::Phantom, || {
                format!("client {name} was given {id} as seq {seq}, where the log does not have it")
            });
        }
        self.settled = upto;
        self.skips.retain(|(_, to)| *to > upto);
    }

    fn lost(&self, seq: Seq, findings: &mut Findings) {
        let name = self.name;
        findings.add(Kind::Lost, || format!("client {name} never had seq {seq}"));
    }

    /// The end: what is missing is lost, up to a seq that it was given the time to reach.
    pub fn finish(&mut self, end: Option<Seq>, book: &Book, findings: &mut Findings) {
        self.settle(book, findings);
        if let Some(end) = end {
            self.compare(book, end.min(book.read_to()), findings);
            for (place, newest) in book.newest() {
                let own = self.newest.get(place).copied().unwrap_or_default();
                if self.follows[place.0] && own < newest {
                    let (name, key) = (self.name, place.1);
                    findings.add(Kind::Stale, || {
                        format!(
                            "client {name} ended with seq {own} for state {key} of topic {}, whose newest is {newest}",
                            place.0
                        )
                    });
                }
            }
        }
        for seq in std::mem::take(&mut self.missing) {
            self.lost(seq, findings);
        }
    }
}
