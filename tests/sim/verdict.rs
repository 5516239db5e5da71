//! What must be true in the end, of the log and of what every client saw.

use std::collections::{BTreeMap, HashMap};

use tidings::domain::{Class, Message, Pattern, Seq};

use crate::client::Client;
use crate::ledger::{Entry, Ledger, Told};
use crate::operation::What;

/// The log as it stands, by seq, and where what was promised is to be found.
pub struct Book {
    messages: BTreeMap<Seq, Message>,
}

impl Book {
    pub fn new(messages: Vec<Message>) -> Book {
        let messages = messages.into_iter().map(|message| (message.seq.unwrap(), message));
        Book { messages: messages.collect() }
    }

    pub fn head(&self) -> Seq {
        self.messages.last_key_value().map(|(seq, _)| *seq).unwrap_or_default()
    }

    /// Everything that was published and everything that was answered, against the log.
    pub fn check_log(&self, ledger: &Ledger) -> Vec<String> {
        let mut wrongs = Vec::new();
        for (expected, seq) in (1..).zip(self.messages.keys()) {
            if seq.get() != expected {
                wrongs.push(format!("the log has {seq} in the place of {expected}"));
                break;
            }
        }
        let mut places: HashMap<&str, Vec<Seq>> = HashMap::new();
        for (seq, message) in &self.messages {
            places.entry(&message.data).or_default().push(*seq);
        }
        for (word, seqs) in &places {
            if seqs.len() > 1 {
                wrongs.push(format!("{word} is in the log {} times: {seqs:?}", seqs.len()));
            }
        }
        for entry in &ledger.entries {
            let found: Vec<Option<Seq>> = entry
                .data
                .iter()
                .map(|word| places.get(word.as_str()).map(|seqs| seqs[0]))
                .collect();
            wrongs.extend(check_entry(entry, &found));
        }
        wrongs
    }

    /// What one client has not got and should have. Empty as soon as it has caught up.
    pub fn missing(&self, client: &Client) -> Vec<String> {
        let mut wrongs = client.wrongs.clone();
        for wanted in &client.wanted {
            let Some(due) = wanted.due else {
                wrongs.push(format!("client {}: {} never began", client.name, wanted.pattern));
                continue;
            };
            for message in self.due(&wanted.pattern, due, self.head()) {
                if !client.has(message.seq.unwrap()) {
                    wrongs.push(lacks(client, message, "in the end"));
                }
            }
        }
        wrongs
    }

    /// What a client got that was never in the log, and every cursor that it was given.
    pub fn check_client(&self, client: &Client) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut seen_at: HashMap<Seq, usize> = HashMap::new();
        for (place, seen) in client.seen.iter().enumerate() {
            seen_at.insert(seen.seq, place);
            let real = self.messages.get(&seen.seq).is_some_and(|message| {
                *message.data == *seen.data
                    && message.topic.as_str() == seen.topic
                    && message.class.as_str() == seen.class
                    && message.key.as_deref() == seen.key.as_deref()
            });
            if !real {
                wrongs.push(format!("client {} saw what the log has not: {seen:?}", client.name));
            }
        }
        for given in &client.given {
            for (pattern, due) in given.dues.iter() {
                for message in self.due(pattern, *due, given.seq) {
                    let seen = seen_at.get(&message.seq.unwrap());
                    if message.class == Class::Event && seen.is_none_or(|at| *at >= given.seen) {
                        let when = format!("when it was given the cursor {}", given.seq);
                        wrongs.push(lacks(client, message, &when));
                    }
                }
            }
        }
        wrongs
    }

    /// The events after a place and up to another, and of each state the newest of all.
    fn due(&self, pattern: &Pattern, after: Seq, until: Seq) -> impl Iterator<Item = &Message> {
        let range = if after < until { after.next()..until.next() } else { after..after };
        self.messages.range(range).map(|(_, message)| message).filter(move |message| {
            pattern.matches(&message.topic)
                && (message.class == Class::Event || self.is_newest(message))
        })
    }

    fn is_newest(&self, state: &Message) -> bool {
        let later = self.messages.range(state.seq.unwrap().next()..);
        !later.map(|(_, message)| message).any(|message| {
            message.class == Class::State
                && message.topic == state.topic
                && message.key == state.key
        })
    }
}

fn lacks(client: &Client, message: &Message, when: &str) -> String {
    let seq = message.seq.unwrap();
    format!("client {} lacks {seq} on {} {when}", client.name, message.topic)
}

fn check_entry(entry: &Entry, found: &[Option<Seq>]) -> Option<String> {
    let words = &entry.data;
    if entry.what == What::Signal {
        let written = found.iter().any(Option::is_some);
        return written.then(|| format!("the signals {words:?} are in the log"));
    }
    match &entry.told {
        Told::Accepted(seqs) if *seqs != *found => {
            Some(format!("{words:?} were answered with {seqs:?} and are at {found:?}"))
        }
        Told::Committed if !found.iter().all(Option::is_some) => {
            Some(format!("{words:?} were committed and are at {found:?}"))
        }
        // Under a key another try may have succeeded.
        Told::Refused
            if !matches!(entry.what, What::Keyed(_)) && found.iter().any(Option::is_some) =>
        {
            Some(format!("{words:?} were refused and are at {found:?}"))
        }
        Told::Nothing
            if found.iter().any(Option::is_some) && !found.iter().all(Option::is_some) =>
        {
            Some(format!("{words:?} were written in part: {found:?}"))
        }
        _ => None,
    }
}
