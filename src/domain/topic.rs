//! Topics, and the patterns by which sessions subscribe and rights are granted.

use std::fmt;
use std::sync::Arc;

/// The longest topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 200;

/// What begins so belongs to the replicas.
const REPLICAS: &str = "tidings:";

/// The name a message is published under: 1 to 200 bytes of `A-Z a-z 0-9 _ . : / @ -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    pub fn parse(text: &str) -> Result<Topic, TopicError> {
        check(text)?;
        Ok(Topic(text.into()))
    }

    /// Where everybody is reached.
    pub fn broadcast() -> Topic {
        Topic("broadcast".into())
    }

    /// Where replicas speak with one another: no client publishes there, and none hears it.
    pub fn of_replicas(what: &str) -> Topic {
        Topic(format!("{REPLICAS}{what}").into())
    }

    pub fn is_of_replicas(&self) -> bool {
        self.0.starts_with(REPLICAS)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a session subscribes to: one topic, or all that begin with a prefix (`order:*`; `*` is all).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    Exact(Topic),
    /// The part before the `*`; empty means every topic.
    Prefix(Arc<str>),
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, TopicError> {
        match text.strip_suffix('*') {
            Some("") => Ok(Pattern::Prefix("".into())),
            Some(prefix) => check(prefix).map(|()| Pattern::Prefix(prefix.into())),
            None => Topic::parse(text).map(Pattern::Exact),
        }
    }

    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Pattern::Exact(own) => own == topic,
            Pattern::Prefix(prefix) => topic.as_str().starts_with(&**prefix),
        }
    }

    /// Whether every topic that `other` matches is matched by this one too.
    pub fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (own, Pattern::Exact(topic)) => own.matches(topic),
            (Pattern::Prefix(own), Pattern::Prefix(other)) => other.starts_with(&**own),
            (Pattern::Exact(_), Pattern::Prefix(_)) => false,
        }
    }
}

impl From<Topic> for Pattern {
    fn from(topic: Topic) -> Pattern {
        Pattern::Exact(topic)
    }
}

macro_rules! written_as_text {
    ($name:ident, $self:ident, $f:ident => $write:expr) => {
        impl fmt::Display for $name {
            fn fmt(&$self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $write
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

written_as_text!(Topic, self, f => f.write_str(&self.0));
written_as_text!(Pattern, self, f => match self {
    Pattern::Exact(topic) => topic.fmt(f),
    Pattern::Prefix(prefix) => write!(f, "{prefix}*"),
});

/// Why a text is no topic; the sentence tells the client what to send instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicError {
    Empty,
    TooLong,
    Character,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopicError::Empty => "a topic has at least one character",
            TopicError::TooLong => "a topic has at most 200 bytes",
            TopicError::Character => "a topic is made of A-Z a-z 0-9 _ . : / @ -",
        })
    }
}

impl std::error::Error for TopicError {}

fn check(text: &str) -> Result<(), TopicError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:/@-".contains(&b);
    match text.len() {
        0 => Err(TopicError::Empty),
        1..=TOPIC_BYTES_MAX if text.bytes().all(allowed) => Ok(()),
        1..=TOPIC_BYTES_MAX => Err(TopicError::Character),
        _ => Err(TopicError::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_topic_is_made_of_few_characters() {
        for good in ["a", "order:7", "A-Z_a.z/0@9", &"x".repeat(200)] {
            assert_eq!(Topic::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Topic::parse(""), Err(TopicError::Empty));
        assert_eq!(Topic::parse(&"x".repeat(201)), Err(TopicError::TooLong));
        for bad in ["a b", "a*", "*", "é", "a\n", "a\0", "a,b", "a?b", "a%2f"] {
            assert_eq!(Topic::parse(bad), Err(TopicError::Character), "{bad:?}");
        }
    }

    #[test]
    fn a_star_is_a_prefix_only_at_the_end() {
        assert_eq!(pattern("order:*").to_string(), "order:*");
        assert_eq!(pattern("*").to_string(), "*");
        for bad in ["*a", "a*b", "a**", "a *"] {
            assert_eq!(Pattern::parse(bad), Err(TopicError::Character), "{bad:?}");
        }
    }

    #[test]
    fn covering_is_matching_of_everything_the_other_matches() {
        for (own, other, covers) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*", "ab*", true),
            ("ab*", "a*", false),
            ("*", "a*", true),
            ("*", "*", true),
            ("a", "a*", false),
            ("user:1", "user:12", false),
        ] {
            assert_eq!(pattern(own).covers(&pattern(other)), covers, "{own} covers {other}");
        }
    }
}
