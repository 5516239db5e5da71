//! Notices: what somebody is told, and how far it has come with each recipient.
//!
//! ```text
//!   pending ──▶ sent ──▶ received ──▶ read ──▶ confirmed
//!      │          │
//!      └──────────┴──▶ expired
//! ```
//! A receipt only grows: what comes late or twice changes nothing. `expired` is not written down
//! but follows from the time: a notice that nobody received in time.

use std::fmt;
use std::sync::Arc;

use super::{Priority, Timestamp, Topic, UserId};

/// The kinds of the messages that are published about notices.
pub const NOTICE: &str = "notice";
pub const RECALLED: &str = "notice.recalled";
pub const COUNTS: &str = "inbox.counts";

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NoticeId(Arc<str>);

impl NoticeId {
    /// 1 to 64 of `a-z 0-9 -`.
    pub fn parse(text: &str) -> Option<NoticeId> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        ((1..=64).contains(&text.len()) && text.bytes().all(known)).then(|| NoticeId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NoticeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much a notice matters to whoever reads it; its message has one priority less.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Urgency {
    Urgent,
    High,
    #[default]
    Normal,
    Low,
}

impl Urgency {
    pub const ALL: [Urgency; 4] = [Urgency::Urgent, Urgency::High, Urgency::Normal, Urgency::Low];

    pub const fn as_str(self) -> &'static str {
        match self {
            Urgency::Urgent => "urgent",
            Urgency::High => "high",
            Urgency::Normal => "normal",
            Urgency::Low => "low",
        }
    }

    pub fn parse(text: &str) -> Option<Urgency> {
        Urgency::ALL.into_iter().find(|urgency| urgency.as_str() == text)
    }

    /// In which order its message leaves a session's queue.
    pub const fn priority(self) -> Priority {
        match self {
            Urgency::Urgent | Urgency::High => Priority::High,
            Urgency::Normal => Priority::Normal,
            Urgency::Low => Priority::Low,
        }
    }
}

/// Whom a notice is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    All,
    Roles(Vec<Arc<str>>),
    /// Each once, and none of those who are left out.
    Users(Vec<UserId>),
}

impl Target {
    /// Where it is published. For roles and users, in their order.
    pub fn topics(&self) -> Vec<Topic> {
        match self {
            Target::All => vec![Topic::broadcast()],
            Target::Roles(roles) => roles.iter().filter_map(|role| role_topic(role)).collect(),
            Target::Users(users) => users.iter().map(UserId::topic).collect(),
        }
    }
}

/// The topic on which those with a role are reached.
pub fn role_topic(role: &str) -> Option<Topic> {
    Topic::parse(&format!("role:{role}")).ok()
}

/// How far a notice has come with one recipient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ReceiptState {
    Pending,
    /// Written to a socket.
    Sent,
    /// The client says that it has it.
    Received,
    Read,
    Confirmed,
    Expired,
}

impl ReceiptState {
    pub const ALL: [ReceiptState; 6] = [
        ReceiptState::Pending,
        ReceiptState::Sent,
        ReceiptState::Received,
        ReceiptState::Read,
        ReceiptState::Confirmed,
        ReceiptState::Expired,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ReceiptState::Pending => "pending",
            ReceiptState::Sent => "sent",
            ReceiptState::Received => "received",
            ReceiptState::Read => "read",
            ReceiptState::Confirmed => "confirmed",
            ReceiptState::Expired => "expired",
        }
    }

    pub fn parse(text: &str) -> Option<ReceiptState> {
        ReceiptState::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The number under which the schema stores it; `expired` is not stored, but asked for.
    pub const fn to_db(self) -> i16 {
        self as i16
    }

    pub fn from_db(number: i16) -> Option<ReceiptState> {
        ReceiptState::ALL.into_iter().find(|state| state.to_db() == number)
    }

    /// Where a receipt stands once it was told of `to`.
    #[must_use]
    pub fn grown(self, to: ReceiptState, confirm: bool) -> ReceiptState {
        // What asks for no confirmation can at most be read.
        let to = if confirm { to } else { to.min(ReceiptState::Read) };
        self.max(to)
    }

    /// How it is shown at a moment by which the notice has run out, or not.
    #[must_use]
    pub fn shown(self, ran_out: bool) -> ReceiptState {
        if ran_out && self < ReceiptState::Received { ReceiptState::Expired } else { self }
    }
}

/// A notice as it was sent.
#[derive(Clone, PartialEq, Debug)]
pub struct Notice {
    pub id: NoticeId,
    pub target: Target,
    pub except: Vec<UserId>,
    pub title: Arc<str>,
    pub content: Arc<str>,
    /// JSON, byte for byte as it was sent.
    pub data: Arc<str>,
    pub urgency: Urgency,
    /// Whether recipients are asked to confirm.
    pub confirm: bool,
    /// The user who sent it; `None` for a server.
    pub sender: Option<UserId>,
    /// How many were named; `None` where they are found as they come.
    pub recipients: Option<u32>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub recalled_at: Option<Timestamp>,
    /// 1, and one more with each time it was sent again.
    pub sending: u32,
}

/// How many recipients are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub by_state: [u64; 6],
    /// How many of all these have a session now.
    pub online: u64,
}

impl Tally {
    pub fn of(&self, state: ReceiptState) -> u64 {
        self.by_state[state as usize]
    }

    pub fn total(&self) -> u64 {
        self.by_state.iter().sum()
    }
}

/// What one recipient has done with a notice.
#[derive(Clone, PartialEq, Debug)]
pub struct Receipt {
    pub user: UserId,
    pub state: ReceiptState,
    pub sent_at: Option<Timestamp>,
    pub received_at: Option<Timestamp>,
    pub read_at: Option<Timestamp>,
    pub confirmed_at: Option<Timestamp>,
}

/// What of a user's inbox is still to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub unread: u64,
    pub unconfirmed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for state in ReceiptState::ALL {
            assert_eq!(ReceiptState::parse(state.as_str()), Some(state));
            assert_eq!(ReceiptState::from_db(state.to_db()), Some(state));
        }
        for urgency in Urgency::ALL {
            assert_eq!(Urgency::parse(urgency.as_str()), Some(urgency));
        }
        assert_eq!(NoticeId::parse("a-1").unwrap().as_str(), "a-1");
        for bad in ["", "A", "a b", &"x".repeat(65)] {
            assert_eq!(NoticeId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_receipt_only_grows_and_expires_only_before_it_was_received() {
        use ReceiptState::*;
        for from in ReceiptState::ALL {
            for to in [Pending, Sent, Received, Read, Confirmed] {
                for confirm in [false, true] {
                    let grown = from.grown(to, confirm);
                    assert!(grown >= from);
                    assert_eq!(grown.grown(to, confirm), grown, "twice is once");
                }
            }
        }
        assert_eq!(Sent.grown(Confirmed, false), Read);
        assert_eq!(Sent.grown(Confirmed, true), Confirmed);
        assert_eq!((Pending.shown(true), Sent.shown(true)), (Expired, Expired));
        assert_eq!((Received.shown(true), Sent.shown(false)), (Received, Sent));
    }
}
