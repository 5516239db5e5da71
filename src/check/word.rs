//! What is published, and how it is known again: every message says who said it, as which number
//! and when, and everything else about it follows from that. So a checker need not keep what it
//! published, and yet compares each message that it meets byte for byte.

use serde::Deserialize;

use crate::domain::{Class, Pattern, Priority};

/// How many things the states of one topic are states of.
const KEYS: u64 = 5;

/// Which message of which publisher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id {
    pub publisher: usize,
    pub number: u64,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {} of publisher {}", self.number, self.publisher)
    }
}

/// A message as it was met, in a frame or in the log.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    pub topic: &'a str,
    pub class: &'a str,
    pub key: Option<&'a str>,
    pub data: &'a str,
}

/// All that one run publishes.
///
/// The last publisher and the last topic are the marks: they begin and end the run, and every
/// client follows them. They leave after everything else that waits, so that who has the last mark
/// has had all.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A random word, so that runs do not meet.
    pub run: String,
    pub topics: usize,
    pub publishers: usize,
    pub bytes_max: usize,
}

impl Plan {
    /// Everything that is published, and nothing else.
    pub fn prefix(&self) -> String {
        format!("check:{}:", self.run)
    }

    pub fn pattern(&self) -> Pattern {
        Pattern::Prefix(self.prefix().into())
    }

    pub fn marks(&self) -> usize {
        self.publishers
    }

    /// How many publishers there are, and how many topics, with the marks.
    pub fn publishers_all(&self) -> usize {
        self.publishers + 1
    }

    pub fn topics_all(&self) -> usize {
        self.topics + 1
    }

    pub fn topic(&self, id: Id) -> usize {
        if id.publisher == self.marks() {
            return self.topics;
        }
        let topics = self.topics.max(1) as u64;
        let place = id.number.wrapping_add(id.publisher as u64) % topics;
        usize::try_from(place).unwrap_or_default()
    }

    pub fn topic_name(&self, topic: usize) -> String {
        match topic == self.topics {
            true => self.prefix() + "mark",
            false => format!("{}{topic}", self.prefix()),
        }
    }

    /// One priority a topic, since order is promised within one.
    pub fn priority(&self, topic: usize) -> Priority {
        match topic % 5 {
            _ if topic == self.topics => Priority::Low,
            0 => Priority::High,
            4 => Priority::Low,
            _ => Priority::Normal,
        }
    }

    pub fn class(&self, topic: usize) -> Class {
        match topic % 4 == 3 && topic != self.topics {
            true => Class::State,
            false => Class::Event,
        }
    }

    /// What a state is the state of.
    pub fn key(&self, id: Id) -> Option<u64> {
        let topics = self.topics.max(1) as u64;
        (self.class(self.topic(id)) == Class::State).then_some(id.number / topics % KEYS)
    }

    pub fn key_name(key: u64) -> String {
        format!("k{key}")
    }

    /// Most are small; the largest do not fit into a notification.
    fn pad_bytes(&self, id: Id) -> usize {
        if id.publisher == self.marks() {
            return 0;
        }
        let word = mixed(((id.publisher as u64) << 48) ^ id.number);
        // The sixth power of a number below one: half of them are below a sixtieth of the most.
        let mut share = word >> 48;
        for _ in 0..5 {
            share = (share * (word >> 48)) >> 16;
        }
        usize::try_from((self.bytes_max as u64).saturating_mul(share) >> 16).unwrap_or_default()
    }

    pub fn data(&self, id: Id, at_us: u64) -> String {
        let Id { publisher, number } = id;
        let letters = b'a'..=b'z';
        let letter = letters.cycle().nth(usize::try_from(number % 26).unwrap_or_default());
        let pad = char::from(letter.unwrap_or(b'a')).to_string().repeat(self.pad_bytes(id));
        format!("{{\"check\":[{publisher},{number}],\"at_us\":{at_us},\"pad\":\"{pad}\"}}")
    }

    /// Which message that is and when it was said, if it is one of ours as we made it.
    pub fn read(&self, met: &Met<'_>) -> Option<(Id, u64)> {
        #[derive(Deserialize)]
        struct Data {
            check: (usize, u64),
            at_us: u64,
        }
        let Data { check: (publisher, number), at_us } = serde_json::from_str(met.data).ok()?;
        let id = Id { publisher, number };
        let topic = self.topic(id);
        let ours = publisher < self.publishers_all()
            && met.topic == self.topic_name(topic)
            && met.class == self.class(topic).as_str()
            && met.key == self.key(id).map(Plan::key_name).as_deref()
            && met.data == self.data(id, at_us);
        ours.then_some((id, at_us))
    }
}

/// Spreads numbers that lie close together; the finalizer of SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan { run: "r".to_owned(), topics: 8, publishers: 3, bytes_max: 10_000 }
    }

    #[test]
    fn a_message_is_known_again_and_an_altered_one_is_not() {
        let plan = plan();
        for number in 0..200 {
            let id = Id { publisher: usize::try_from(number % 4).unwrap(), number };
            let topic = plan.topic_name(plan.topic(id));
            let class = plan.class(plan.topic(id)).as_str();
            let key = plan.key(id).map(Plan::key_name);
            let data = plan.data(id, 17);
            let met = Met { topic: &topic, class, key: key.as_deref(), data: &data };
            assert_eq!(plan.read(&met), Some((id, 17)));
            let spaced = data.replace(',', ", ");
            for wrong in [
                Met { topic: "check:r:x", ..met },
                Met { class: "signal", ..met },
                Met { key: Some("k9"), ..met },
                Met { data: &spaced, ..met },
                Met { data: "{}", ..met },
            ] {
                assert_eq!(plan.read(&wrong), None, "{wrong:?}");
            }
        }
    }

    #[test]
    fn there_are_events_and_states_of_every_priority_and_size() {
        let plan = plan();
        let ids = (0..20_000).map(|number| Id { publisher: 0, number });
        let sizes: Vec<usize> = ids.map(|id| plan.data(id, 0).len()).collect();
        assert!(sizes.iter().any(|size| *size > 8_000), "too large for a notification");
        assert!(sizes.iter().filter(|size| **size < 300).count() > sizes.len() / 2);
        let topics: Vec<usize> = (0..plan.topics_all()).collect();
        let classes = topics.iter().map(|topic| plan.class(*topic));
        assert_eq!(classes.filter(|class| *class == Class::State).count(), 2);
        for priority in Priority::ALL {
            assert!(topics.iter().any(|topic| plan.priority(*topic) == priority));
        }
    }
}
