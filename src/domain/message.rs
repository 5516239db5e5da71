//! What is published: a draft, and the message it becomes.

use std::sync::Arc;

use super::{Seq, Topic, Trace};

/// Milliseconds since 1970, by the clock of the database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// So many seconds later. A time may come from a notification that anybody sent, and there is
    /// none after the last one.
    pub const fn after_s(self, seconds: u32) -> Timestamp {
        Timestamp(self.0.saturating_add(seconds as i64 * 1000))
    }
}

/// How a message is kept and what may be left out when a session cannot keep up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Class {
    /// Kept, ordered, never dropped.
    #[default]
    Event,
    /// Kept; the newest per topic and key wins, older ones may never be sent.
    State,
    /// Not kept, at most once, newest per topic and key wins.
    Signal,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Event, Class::State, Class::Signal];

    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Event => "event",
            Class::State => "state",
            Class::Signal => "signal",
        }
    }

    /// The number under which the schema stores it.
    pub const fn to_db(self) -> i16 {
        match self {
            Class::Event => 0,
            Class::State => 1,
            Class::Signal => 2,
        }
    }

    pub fn from_db(number: i16) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.to_db() == number)
    }
}

/// In which order a session's waiting messages leave; within one priority always by seq.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }

    /// The number under which the schema stores it, and its place among a session's queues.
    pub const fn to_db(self) -> i16 {
        self as i16
    }

    pub fn from_db(number: i16) -> Option<Priority> {
        Priority::ALL.into_iter().find(|priority| priority.to_db() == number)
    }
}

/// A message before it has a number. Its parts were checked by whoever made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub topic: Topic,
    /// JSON, byte for byte as it was received.
    pub data: Arc<str>,
    pub kind: Option<Arc<str>>,
    pub class: Class,
    pub key: Option<Arc<str>>,
    pub priority: Priority,
    pub ttl_s: Option<u32>,
    /// Scoped to who published, so that nobody meets anybody else's keys.
    pub idempotency_key: Option<Arc<str>>,
    pub trace: Option<Trace>,
}

impl Draft {
    pub fn new(topic: Topic, data: impl Into<Arc<str>>) -> Draft {
        Draft {
            topic,
            data: data.into(),
            kind: None,
            class: Class::default(),
            key: None,
            priority: Priority::default(),
            ttl_s: None,
            idempotency_key: None,
            trace: None,
        }
    }

    /// What the draft weighs where buffers are bounded in bytes.
    pub fn weight_bytes(&self) -> usize {
        let text = |part: &Option<Arc<str>>| part.as_ref().map_or(0, |text| text.len());
        const FIELDS_BYTES: usize = 128;
        FIELDS_BYTES
            + self.topic.as_str().len()
            + self.data.len()
            + text(&self.kind)
            + text(&self.key)
            + text(&self.idempotency_key)
            + self.trace.as_ref().map_or(0, |trace| trace.as_str().len())
    }
}

/// A message of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// `None` for a signal, which is not kept.
    pub seq: Option<Seq>,
    pub topic: Topic,
    pub data: Arc<str>,
    pub kind: Option<Arc<str>>,
    pub class: Class,
    pub key: Option<Arc<str>>,
    pub priority: Priority,
    pub at: Timestamp,
    /// From here on it is not delivered to anybody who has not had it.
    pub expires_at: Option<Timestamp>,
    pub trace: Option<Trace>,
}

impl Message {
    pub fn from_draft(draft: &Draft, seq: Option<Seq>, at: Timestamp) -> Message {
        Message {
            seq,
            topic: draft.topic.clone(),
            data: draft.data.clone(),
            kind: draft.kind.clone(),
            class: draft.class,
            key: draft.key.clone(),
            priority: draft.priority,
            at,
            expires_at: draft.ttl_s.map(|ttl_s| at.after_s(ttl_s)),
            trace: draft.trace.clone(),
        }
    }

    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_priorities_read_back_from_the_database() {
        for class in Class::ALL {
            assert_eq!(Class::from_db(class.to_db()), Some(class));
        }
        for priority in Priority::ALL {
            assert_eq!(Priority::from_db(priority.to_db()), Some(priority));
        }
        assert_eq!(Class::from_db(3), None);
        assert_eq!(Priority::from_db(-1), None);
    }

    #[test]
    fn a_message_expires_its_ttl_after_it_was_committed() {
        let mut draft = Draft::new(Topic::parse("a").unwrap(), "1");
        draft.ttl_s = Some(2);
        let message = Message::from_draft(&draft, None, Timestamp(1_000));
        assert!(!message.expired(Timestamp(2_999)));
        assert!(message.expired(Timestamp(3_000)));
        let last = Message::from_draft(&draft, None, Timestamp(i64::MAX));
        assert_eq!(last.expires_at, Some(Timestamp(i64::MAX)));
    }
}
