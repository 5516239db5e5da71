//! Telemetry as a matter of words and arithmetic: what an event of a source says, what becomes of
//! counters, and which instances there are.

pub mod counter;
pub mod few;
pub mod instance;
pub mod inventory;
pub mod rollup;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Timestamp, Topic};

/// The longest name of a source, so that its topic has room.
const SOURCE_BYTES_MAX: usize = 100;

/// The longest name of an instance or a metric.
pub const INSTANCE_BYTES_MAX: usize = 200;
pub const METRIC_BYTES_MAX: usize = 64;

/// How many gauges and counters an instance may have.
pub const METRICS_MAX: usize = 64;

/// The largest gauge: so many of them add up to what is still a number.
pub const GAUGE_MAX: f64 = 1e290;

/// A source, by its name: 1 to 100 bytes of `A-Z a-z 0-9 _ . : @ -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SourceId(Arc<str>);

impl SourceId {
    pub fn parse(text: &str) -> Option<SourceId> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte);
        let good = (1..=SOURCE_BYTES_MAX).contains(&text.len()) && text.bytes().all(word);
        good.then(|| SourceId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where what happens to it is said.
    pub fn topic(&self) -> Topic {
        Topic::parse(&format!("source:{self}")).expect("a source's name is made for a topic")
    }

    /// The source whose topic it is.
    pub fn of_topic(topic: &Topic) -> Option<SourceId> {
        topic.as_str().strip_prefix("source:").and_then(SourceId::parse)
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of event it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// One of the instances that there are; without an instance, that such a list begins.
    Initial,
    Create,
    Update,
    Delete,
    /// The instance, or without one the whole source, goes down.
    Shutdown,
    Log,
}

impl EventKind {
    pub const ALL: [EventKind; 6] = [
        EventKind::Initial,
        EventKind::Create,
        EventKind::Update,
        EventKind::Delete,
        EventKind::Shutdown,
        EventKind::Log,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::Initial => "initial",
            EventKind::Create => "create",
            EventKind::Update => "update",
            EventKind::Delete => "delete",
            EventKind::Shutdown => "shutdown",
            EventKind::Log => "log",
        }
    }

    pub fn parse(text: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What a source said, whatever its format.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    pub kind: EventKind,
    pub instance: Option<Arc<str>>,
    pub at: Option<Timestamp>,
    /// What seldom changes, as JSON.
    pub facts: BTreeMap<Arc<str>, Arc<str>>,
    pub gauges: BTreeMap<Arc<str>, f64>,
    /// Cumulative; they may begin again at zero.
    pub counters: BTreeMap<Arc<str>, u64>,
    /// The line of a log.
    pub text: Option<Arc<str>>,
}

impl Event {
    pub fn new(kind: EventKind, instance: Option<Arc<str>>) -> Event {
        Event {
            kind,
            instance,
            at: None,
            facts: BTreeMap::new(),
            gauges: BTreeMap::new(),
            counters: BTreeMap::new(),
            text: None,
        }
    }
}

/// How a source stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum SourceStatus {
    /// No replica reads it yet.
    #[default]
    Idle,
    Connected,
    /// It cannot be read; it is tried again and again.
    Failing,
    /// It said that it has nothing more to say: it is read again once it is changed or tested.
    Stopped,
    Disabled,
}

impl SourceStatus {
    pub const ALL: [SourceStatus; 5] = [
        SourceStatus::Idle,
        SourceStatus::Connected,
        SourceStatus::Failing,
        SourceStatus::Stopped,
        SourceStatus::Disabled,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            SourceStatus::Idle => "idle",
            SourceStatus::Connected => "connected",
            SourceStatus::Failing => "failing",
            SourceStatus::Stopped => "stopped",
            SourceStatus::Disabled => "disabled",
        }
    }

    pub fn parse(text: &str) -> Option<SourceStatus> {
        SourceStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// How an instance stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InstanceStatus {
    #[default]
    Up,
    Down,
    Deleted,
}

impl InstanceStatus {
    pub const ALL: [InstanceStatus; 3] =
        [InstanceStatus::Up, InstanceStatus::Down, InstanceStatus::Deleted];

    pub const fn as_str(self) -> &'static str {
        match self {
            InstanceStatus::Up => "up",
            InstanceStatus::Down => "down",
            InstanceStatus::Deleted => "deleted",
        }
    }

    pub fn parse(text: &str) -> Option<InstanceStatus> {
        InstanceStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}
