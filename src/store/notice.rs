//! The contract of what keeps notices and inboxes, and what is said of them in the log.
//!
//! A notice, its named recipients and its messages are one transaction, with the messages last; so
//! are receipts that grow and the counts that follow from them. What is counted is counted from the
//! receipts, each time, so that no count can drift. A store awaits durability and announces before
//! it answers, as with tasks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use serde_json::value::RawValue;

use super::StoreError;
use super::task::time_text;
use crate::domain::notice::{COUNTS, Counts, NOTICE, RECALLED};
use crate::domain::{
    Class, Draft, Message, Notice, NoticeId, Priority, Receipt, ReceiptState, Seq, Tally, Target,
    Task, Timestamp, Topic, Urgency, UserId,
};
use crate::notification::Announcement;

/// A notice to be sent, checked by whoever made it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewNotice {
    pub id: NoticeId,
    pub target: Target,
    pub except: Vec<UserId>,
    pub title: Arc<str>,
    pub content: Arc<str>,
    pub data: Arc<str>,
    pub urgency: Urgency,
    pub confirm: bool,
    pub expires_in_s: Option<u32>,
    pub sender: Option<UserId>,
    /// Scoped to who sends.
    pub idempotency_key: Option<Arc<str>>,
}

impl NewNotice {
    /// How many are named; of everybody and of roles nobody knows.
    pub fn recipients(&self) -> Option<u32> {
        match &self.target {
            Target::Users(users) => u32::try_from(users.len()).ok(),
            _ => None,
        }
    }

    /// That an attempt of a task has ended, for its owner; `tidings.task_notice` writes the same.
    pub fn about(task: &Task) -> Option<NewNotice> {
        let counts = task.counts;
        let data = json!({
            "task": task.id.as_str(),
            "action": &*task.action,
            "status": task.status.as_str(),
            "attempt": task.attempt,
            "total": counts.total,
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
        });
        let content = format!(
            "{} of {} succeeded, {} failed, {} cancelled",
            counts.succeeded, counts.total, counts.failed, counts.cancelled
        );
        Some(NewNotice {
            id: NoticeId::parse(&format!("task-{}-{}", task.id, task.attempt))?,
            target: Target::Users(vec![task.owner.clone()?]),
            except: Vec::new(),
            title: format!("{}: {}", task.action, task.status.as_str()).into(),
            content: content.into(),
            data: data.to_string().into(),
            urgency: Urgency::default(),
            confirm: false,
            expires_in_s: None,
            sender: None,
            idempotency_key: None,
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub id: NoticeId,
    /// Its idempotency key was known; the notice is the one it brought.
    pub duplicate: bool,
    pub recipients: Option<u32>,
    pub told: Option<Announcement>,
}

/// Whose inbox: what is for everybody or for roles comes into it by these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    pub user: UserId,
    pub roles: Arc<[Arc<str>]>,
}

/// A notice on its way to one recipient.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub id: NoticeId,
    pub sending: u32,
    /// As it stands in the log, whether or not it is still kept there.
    pub message: Message,
}

/// How much of what was missed is shown to who comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Replays {
    pub max: usize,
    pub age: Duration,
}

/// An inbox as it is found by who comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    pub counts: Counts,
    /// The head of the log when it was counted: what is said later counts more.
    pub as_of: Seq,
    /// What was not received, the oldest first.
    pub missed: Vec<Delivery>,
    /// How much of that is too much or too old.
    pub left_out: u64,
}

/// What happened with notices and a reader. Only receipts of its own may grow by it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub reader: Reader,
    /// `None`: all of its inbox.
    pub id: Option<NoticeId>,
    /// Sent, received, read or confirmed.
    pub state: ReceiptState,
}

/// What is to be counted after marks.
#[derive(Debug, Clone, PartialEq)]
pub struct Marked {
    /// One a reader.
    pub counts: Vec<(UserId, Counts)>,
    pub as_of: Seq,
    /// The counts that were said in the log: of those who acted.
    pub told: Option<Announcement>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Recalled {
    /// It is so now, or was before.
    Done(Option<Announcement>),
    Absent,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Resent {
    /// How many are known not to have received it.
    Done(u64),
    /// It has run out, or was recalled.
    Refused,
    Absent,
}

/// A notice as its recipient sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub id: NoticeId,
    pub title: Arc<str>,
    pub content: Arc<str>,
    pub data: Arc<str>,
    pub urgency: Urgency,
    pub confirm: bool,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub state: ReceiptState,
    pub read_at: Option<Timestamp>,
    pub confirmed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct InboxFilter {
    pub unread: bool,
    /// A page begins before a notice; the newest come first.
    pub before: Option<NoticeId>,
}

/// Which recipients; a page begins after a user.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecipientFilter {
    pub state: Option<ReceiptState>,
    pub after: Option<UserId>,
}

/// Who redelivers, to whom, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Redelivery<'a> {
    pub replica: &'a str,
    /// Those who are connected to it.
    pub users: &'a [UserId],
    /// How long nobody acknowledged it; twice as long with each round.
    pub grace: Duration,
    pub tries_max: u32,
    pub rows_max: usize,
}

#[async_trait]
pub trait NoticeStore: Send + Sync {
    async fn send(&self, notice: &NewNotice) -> Result<Sent, StoreError>;

    /// Of named users it knows how many, not who: `recipients` does.
    async fn get(&self, id: &NoticeId) -> Result<Option<Notice>, StoreError>;

    async fn tally(&self, id: &NoticeId) -> Result<Tally, StoreError>;

    async fn list(
        &self,
        before: Option<&NoticeId>,
        limit: usize,
    ) -> Result<Vec<Notice>, StoreError>;

    async fn recipients(
        &self,
        id: &NoticeId,
        filter: &RecipientFilter,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError>;

    async fn resend(&self, id: &NoticeId) -> Result<Resent, StoreError>;

    async fn recall(&self, id: &NoticeId) -> Result<Recalled, StoreError>;

    /// Removes notices that are older than that, a few at a time. Returns how many.
    async fn expire(&self, after: Duration) -> Result<u64, StoreError>;
}

#[async_trait]
pub trait InboxStore: Send + Sync {
    /// One answer a reader, in their order. Nothing is changed by it that anybody could see.
    async fn open(&self, readers: &[Reader], replays: Replays) -> Result<Vec<Opened>, StoreError>;

    /// Told twice it changes nothing more.
    async fn mark(&self, marks: &[Mark]) -> Result<Marked, StoreError>;

    async fn inbox(
        &self,
        reader: &Reader,
        filter: &InboxFilter,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Claims what was not acknowledged for a while, of users who are connected here.
    async fn due(&self, of: &Redelivery<'_>) -> Result<Vec<(UserId, Delivery)>, StoreError>;

    /// Whether notices have run out since a moment, and what the time is now.
    async fn lapsed(&self, since: Timestamp) -> Result<(Timestamp, bool), StoreError>;
}

/// The messages by which a notice is told; `data` is what `document` or the database wrote.
pub fn drafts(
    id: &NoticeId,
    topics: Vec<Topic>,
    data: &str,
    urgency: Urgency,
    ttl_s: Option<u32>,
) -> Vec<Draft> {
    let data: Arc<str> = data.into();
    topics.into_iter().map(|topic| draft(id, topic, data.clone(), urgency, ttl_s)).collect()
}

/// One of them.
pub fn draft(
    id: &NoticeId,
    topic: Topic,
    data: Arc<str>,
    urgency: Urgency,
    ttl_s: Option<u32>,
) -> Draft {
    Draft { ttl_s, ..of_notice(topic, data, NOTICE, id.as_str(), urgency.priority()) }
}

pub fn recall_drafts(id: &NoticeId, topics: Vec<Topic>, priority: Priority) -> Vec<Draft> {
    // A space after the colon, as Postgres writes it.
    let data: Arc<str> = format!("{{\"id\" : \"{id}\"}}").into();
    let draft = |topic| of_notice(topic, data.clone(), RECALLED, id.as_str(), priority);
    topics.into_iter().map(draft).collect()
}

fn of_notice(topic: Topic, data: Arc<str>, kind: &str, key: &str, priority: Priority) -> Draft {
    Draft { kind: Some(kind.into()), key: Some(key.into()), priority, ..Draft::new(topic, data) }
}

pub fn counts_text(counts: Counts) -> String {
    format!("{{\"unread\":{},\"unconfirmed\":{}}}", counts.unread, counts.unconfirmed)
}

pub fn counts_draft(user: &UserId, counts: Counts) -> Draft {
    Draft {
        class: Class::State,
        ..of_notice(user.topic(), counts_text(counts).into(), COUNTS, "inbox", Priority::default())
    }
}

/// What a message says of a notice; `tidings.notice_data` writes the same.
pub fn document(new: &NewNotice, expires_at: Option<Timestamp>) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let expires_at = json!(expires_at.map(time_text));
    let data = serde_json::from_str::<&RawValue>(&new.data).map_or("null", RawValue::get);
    format!(
        "{{\"id\":\"{}\",\"title\":{},\"content\":{},\"data\":{data},\"priority\":\"{}\",\"confirm\":{},\"expires_at\":{expires_at}}}",
        new.id,
        text(&new.title),
        text(&new.content),
        new.urgency.as_str(),
        new.confirm,
    )
}
