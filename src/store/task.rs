//! The contract of what keeps tasks, and what is said of them in the log.
//!
//! Every change of a task and the messages about it are one transaction, with the messages last.
//! A store awaits their durability and announces them before it answers; what it appended comes
//! back as an announcement, so that the replica's own log need not read it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Appended, Placed, StoreError};
use crate::domain::{
    Class, Counts, Draft, Epoch, ItemResult, ItemStatus, Message, Priority, Seq, Task, TaskId,
    TaskItem, TaskRules, TaskStatus, Timestamp, UserId,
};
use crate::notification::Announcement;

/// How many failed items the last message about an attempt lists, in count and bytes.
pub const FAILED_LISTED_MAX: usize = 1_000;
pub const FAILED_LISTED_BYTES_MAX: usize = 128 << 10;

/// What the items listed in one message of progress may weigh.
pub const PROGRESS_LISTED_BYTES_MAX: usize = 64 << 10;

/// An owner's tasks are claimed while he has less than so many times what is free in the claimant's
/// hands: one alone leaves some to whoever comes. `task_claim` says the same.
pub const OWNED_TIMES_FREE: usize = 4;

/// How soon after the last message about a task a worker's report is booked: ten messages a second at
/// most, however many believe to hold the lease. A replica keeps to that by itself. `task_report` says
/// the same.
pub const WORD_PAUSE: Duration = Duration::from_millis(125);

/// A task to be kept, checked by whoever made it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    pub id: TaskId,
    pub action: Arc<str>,
    pub owner: Option<UserId>,
    /// Claimed by workers over HTTP, not by replicas.
    pub external: bool,
    pub executor: Arc<str>,
    pub meta: Arc<str>,
    pub rules: TaskRules,
    /// Scoped to who submitted.
    pub idempotency_key: Option<Arc<str>>,
    /// Names, each once, with data if there are.
    pub items: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl NewTask {
    /// The task as its first message says it.
    pub fn submitted(&self, first: &Message) -> Task {
        Task { seq: first.seq.unwrap_or(Seq::ZERO), ..self.begun(first.at) }
    }

    /// The task before its first message.
    pub fn begun(&self, at: Timestamp) -> Task {
        Task {
            id: self.id.clone(),
            action: self.action.clone(),
            owner: self.owner.clone(),
            status: TaskStatus::Pending,
            counts: Counts {
                total: u32::try_from(self.items.len()).unwrap_or(u32::MAX),
                ..Counts::default()
            },
            in_flight: Vec::new(),
            message: None,
            error: None,
            attempt: 1,
            replica: None,
            created_at: at,
            started_at: None,
            updated_at: at,
            finished_at: None,
            meta: self.meta.clone(),
            executor: self.executor.clone(),
            rules: self.rules,
            seq: Seq::ZERO,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    pub id: TaskId,
    /// Its idempotency key was known; the task is the one it brought.
    pub duplicate: bool,
    pub told: Option<Announcement>,
}

/// Which tasks; a page begins after one, the newest come first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskFilter {
    pub owner: Option<UserId>,
    pub status: Option<TaskStatus>,
    pub action: Option<Arc<str>>,
    pub after: Option<TaskId>,
}

/// Which items of a task; a page begins after one, in the order of submission.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ItemFilter {
    pub which: Which,
    pub after: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Which {
    #[default]
    All,
    Only(ItemStatus),
    /// Pending or in hand.
    Unfinished,
}

/// Who may be given which tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The replica or worker that asks.
    pub holder: Arc<str>,
    pub lease: Duration,
    pub tasks_max: usize,
    /// After how many leases in a row that ran out nobody takes a task over any more.
    pub takeovers_max: u32,
    /// For a worker: the actions it knows, and whose tasks it may have. `None` for a replica.
    pub external: Option<(Vec<Arc<str>>, Option<UserId>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub leases: Vec<(TaskId, i64)>,
    /// In how long the next task is due, if there is one.
    pub next_due: Option<Duration>,
    pub told: Option<Announcement>,
}

/// What the holder of a lease tells, which renews it for as long as it was claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub id: TaskId,
    pub term: i64,
    pub results: Vec<ItemResult>,
    /// What it has in hand now; `None` leaves what was told before.
    pub in_flight: Option<Vec<Arc<str>>>,
    pub ending: Ending,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    GoesOn,
    /// Lets go of what is left, for another holder.
    Release,
    /// Nothing is left; or, with a reason, the task cannot be run.
    Finish(Option<Arc<str>>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reported {
    Done {
        status: TaskStatus,
        /// It is paused or being cancelled: begin nothing new.
        stop: bool,
        told: Option<Announcement>,
    },
    /// The lease is somebody else's now. Nothing was changed.
    Fenced,
    /// There is no such task.
    Absent,
    /// These are no items of the task. Nothing was changed.
    Unknown(Vec<String>),
    /// A worker's word within `WORD_PAUSE` of the last message about the task. Nothing was changed.
    Early,
}

/// What somebody wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Cancel,
    Pause,
    Resume,
    Retry,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Granted {
    /// It is so now, or was before.
    Done(Option<Announcement>),
    /// The status does not allow it.
    Refused,
    Absent,
}

/// What the last message about a task said, and where in the log it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub epoch: Epoch,
    pub message: Message,
    /// The head of the log at that moment: whatever follows about the task comes after it.
    pub as_of: Seq,
}

#[async_trait]
pub trait TaskStore: Send + Sync {
    async fn submit(&self, task: &NewTask) -> Result<Submitted, StoreError>;

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError>;

    async fn list(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError>;

    async fn items(
        &self,
        id: &TaskId,
        filter: &ItemFilter,
        limit: usize,
    ) -> Result<Vec<TaskItem>, StoreError>;

    async fn snapshot(&self, id: &TaskId) -> Result<Option<Snapshot>, StoreError>;

    /// Leases on tasks that are due. Those that nobody may work on any more end by this.
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError>;

    /// After `Unavailable` it may be told again: what was booked is not booked twice.
    async fn report(&self, report: &Report) -> Result<Reported, StoreError>;

    async fn grant(&self, id: &TaskId, wish: Wish) -> Result<Granted, StoreError>;

    /// Removes tasks that ended longer ago than that, a few at a time. Returns how many.
    async fn expire(&self, after: Duration) -> Result<u64, StoreError>;
}

/// The message that is published about a task.
pub fn draft(id: &TaskId, topic: crate::domain::Topic, data: &str, is_final: bool) -> Draft {
    let kind = if is_final { "task.finished" } else { "task.progress" };
    Draft {
        kind: Some(kind.into()),
        class: if is_final { Class::Event } else { Class::State },
        key: Some(id.as_str().into()),
        // Both kinds leave a session's queue at one priority: a last word that overtook a state
        // would be followed by an older one.
        priority: Priority::High,
        ..Draft::new(topic, data)
    }
}

/// The announcement of drafts that were appended one after the other.
pub fn announcement(epoch: Epoch, at: Timestamp, first: Seq, drafts: &[Draft]) -> Announcement {
    let place = |place| Placed { seq: first.plus(place), duplicate: false };
    let placed = (0..drafts.len() as u64).map(place).collect();
    let appended = Appended { epoch: epoch.clone(), at, first, placed };
    let last = first.plus(appended.fresh().saturating_sub(1));
    Announcement { epoch, first, last, messages: Some(appended.messages(drafts)) }
}

/// A task as clients see it, without `executor` and `meta`; `tidings.task_data` writes the same.
pub fn document(task: &Task) -> Map<String, Value> {
    let counts = task.counts;
    let time = |at: Option<Timestamp>| at.map_or(Value::Null, |at| time_text(at).into());
    let document = json!({
        "id": task.id.as_str(),
        "action": &*task.action,
        "owner": task.owner.as_ref().map(UserId::as_str),
        "status": task.status.as_str(),
        "current": counts.current(),
        "total": counts.total,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "progress": percent(counts.progress_hundredths()),
        "in_flight": task.in_flight.iter().map(|name| &**name).collect::<Vec<&str>>(),
        "message": task.message.as_deref(),
        "error": task.error.as_deref(),
        "attempt": task.attempt,
        "replica": task.replica.as_deref(),
        "created_at": time(Some(task.created_at)),
        "started_at": time(task.started_at),
        "updated_at": time(Some(task.updated_at)),
        "finished_at": time(task.finished_at),
        "concurrency": task.rules.concurrency,
        "seq": task.seq.get(),
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

/// A whole number stays one: 100 and not 100.0.
fn percent(hundredths: u32) -> Value {
    if hundredths.is_multiple_of(100) {
        (hundredths / 100).into()
    } else {
        (f64::from(hundredths) / 100.0).into()
    }
}

pub fn time_text(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    format!("{at:.3}")
}
