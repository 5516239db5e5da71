//! What was published, and what publishers were told.

use std::collections::HashMap;

use tidings::domain::Seq;
use tidings::publish::{PublishError, Published};

use crate::operation::What;

#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Nobody has answered yet, or nobody who could has lived to do so.
    Nothing,
    Accepted(Vec<Option<Seq>>),
    /// It is in the log, or on its way there.
    Committed,
    /// Nothing of it was written, and nothing will be.
    Refused,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub what: What,
    /// The data of its messages, one word each, which no other request has unless it has its key.
    pub data: Vec<String>,
    pub told: Told,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub entries: Vec<Entry>,
    pub waiting: usize,
    next: u64,
    keyed: HashMap<u32, (usize, String)>,
}

impl Ledger {
    /// Notes a request. Returns its place, its topic and its data: under a known key those of the first.
    pub fn enter(&mut self, what: What, topic: usize, count: usize) -> (usize, usize, Vec<String>) {
        let mut fresh = || {
            self.next += 1;
            self.next.to_string()
        };
        let (topic, data) = match what {
            What::Keyed(key) => {
                let word = format!("\"key {key}\"");
                let (topic, word) = self.keyed.entry(key).or_insert((topic, word)).clone();
                (topic, vec![word])
            }
            _ => (topic, (0..count).map(|_| fresh()).collect()),
        };
        self.entries.push(Entry { what, data: data.clone(), told: Told::Nothing });
        self.waiting += 1;
        (self.entries.len() - 1, topic, data)
    }

    pub fn answered(&mut self, place: usize, answer: Result<Vec<Published>, PublishError>) {
        self.waiting -= 1;
        self.entries[place].told = match answer {
            Ok(published) => Told::Accepted(published.iter().map(|one| one.seq).collect()),
            Err(PublishError::Unknown) => Told::Nothing,
            Err(_) => Told::Refused,
        };
    }

    /// A transaction of an application has ended, if it is known how.
    pub fn committed(&mut self, place: usize, known: bool) {
        self.waiting -= 1;
        self.entries[place].told = if known { Told::Committed } else { Told::Nothing };
    }

    pub fn accepted(&self) -> usize {
        let accepted = |told: &Told| matches!(told, Told::Accepted(_) | Told::Committed);
        self.entries.iter().filter(|entry| accepted(&entry.told)).count()
    }
}
