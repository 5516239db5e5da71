//! Batch operations: what a task is, and what may follow from what.
//!
//! ```text
//!               claim                finish
//!   pending ───────────▶ running ──────────────▶ completed | partial | failed | cancelled
//!     ▲  ▲    release       │ pause                   │
//!     │  └──────────────────┤                         │ retry (attempt + 1)
//!     │ resume              ▼                         │
//!     └───────────────── paused                       │
//!     ▲                                               │
//!     └───────────────────────────────────────────────┘
//! ```
//! Cancelling ends a task at once if nobody has items of it in hand; else its holder ends it.
//! `interrupted` is the end of a task whose holders died one after the other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Timestamp, Topic, UserId};

/// The longest id, action or name of an item, in bytes.
pub const TASK_WORD_BYTES_MAX: usize = 200;

/// The longest error of an item that is kept; what is longer is cut.
pub const ITEM_ERROR_BYTES_MAX: usize = 500;

/// The id of a task: made of what a topic is made of, because `task:<id>` is one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// 1 to 64 of `a-z 0-9 -`.
    pub fn parse(text: &str) -> Option<TaskId> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        ((1..=64).contains(&text.len()) && text.bytes().all(known)).then(|| TaskId(text.into()))
    }

    /// The task whose topic this is.
    pub fn of_topic(topic: &Topic) -> Option<TaskId> {
        TaskId::parse(topic.as_str().strip_prefix("task:")?)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn topic(&self) -> Topic {
        Topic::parse(&format!("task:{self}")).expect("a task id was checked to make a topic")
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TaskStatus {
    Pending,
    Running,
    Paused,
    Completed,
    Partial,
    Failed,
    Cancelled,
    Interrupted,
}

/// What happens to a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskEvent {
    /// Somebody got its lease.
    Claim,
    /// Its holder lets go of what is left.
    Release,
    Pause,
    Resume,
    /// Nobody has items of it in hand any more.
    End(TaskStatus),
    Retry,
}

impl TaskStatus {
    pub const ALL: [TaskStatus; 8] = [
        TaskStatus::Pending,
        TaskStatus::Running,
        TaskStatus::Paused,
        TaskStatus::Completed,
        TaskStatus::Partial,
        TaskStatus::Failed,
        TaskStatus::Cancelled,
        TaskStatus::Interrupted,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            TaskStatus::Pending => "pending",
            TaskStatus::Running => "running",
            TaskStatus::Paused => "paused",
            TaskStatus::Completed => "completed",
            TaskStatus::Partial => "partial",
            TaskStatus::Failed => "failed",
            TaskStatus::Cancelled => "cancelled",
            TaskStatus::Interrupted => "interrupted",
        }
    }

    pub fn parse(text: &str) -> Option<TaskStatus> {
        TaskStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the attempt is over.
    pub const fn is_final(self) -> bool {
        !matches!(self, TaskStatus::Pending | TaskStatus::Running | TaskStatus::Paused)
    }

    /// The status that follows; `None` where the event has no place. What changes nothing is no error.
    pub fn after(self, event: TaskEvent) -> Option<TaskStatus> {
        use TaskStatus::{Paused, Pending, Running};
        match (self, event) {
            (Pending | Running, TaskEvent::Claim) => Some(Running),
            (Pending | Running, TaskEvent::Release) => Some(Pending),
            (Paused, TaskEvent::Release) => Some(Paused),
            (Pending | Running | Paused, TaskEvent::Pause) => Some(Paused),
            (Paused, TaskEvent::Resume) => Some(Pending),
            (Pending | Running, TaskEvent::Resume) => Some(self),
            (Pending | Running | Paused, TaskEvent::End(end)) if end.is_final() => Some(end),
            (_, TaskEvent::Retry) if self.is_final() && self != TaskStatus::Completed => {
                Some(Pending)
            }
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ItemStatus {
    Pending,
    /// Pending, and in the hands of whoever holds the task.
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl ItemStatus {
    pub const ALL: [ItemStatus; 5] = [
        ItemStatus::Pending,
        ItemStatus::Running,
        ItemStatus::Succeeded,
        ItemStatus::Failed,
        ItemStatus::Cancelled,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ItemStatus::Pending => "pending",
            ItemStatus::Running => "running",
            ItemStatus::Succeeded => "succeeded",
            ItemStatus::Failed => "failed",
            ItemStatus::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<ItemStatus> {
        ItemStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// How far a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub total: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub cancelled: u32,
}

impl Counts {
    /// The items that were run to an end.
    pub const fn current(self) -> u32 {
        self.succeeded + self.failed
    }

    /// Hundredths of a percent, cut and not rounded: 10,000 means all of them.
    pub fn progress_hundredths(self) -> u32 {
        let parts = u64::from(self.current()) * 10_000 / u64::from(self.total.max(1));
        u32::try_from(parts).unwrap_or(10_000)
    }

    /// How an attempt ends that has these counts.
    pub const fn outcome(self) -> TaskStatus {
        if self.cancelled > 0 {
            TaskStatus::Cancelled
        } else if self.succeeded == self.total {
            TaskStatus::Completed
        } else if self.failed == self.total {
            TaskStatus::Failed
        } else {
            TaskStatus::Partial
        }
    }
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub id: TaskId,
    pub action: Arc<str>,
    /// `None` when a server submitted it for nobody.
    pub owner: Option<UserId>,
    pub status: TaskStatus,
    pub counts: Counts,
    pub in_flight: Vec<Arc<str>>,
    pub message: Option<Arc<str>>,
    pub error: Option<Arc<str>>,
    pub attempt: u32,
    /// The replica or worker that holds it or held it last.
    pub replica: Option<Arc<str>>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// JSON, byte for byte as it was submitted.
    pub meta: Arc<str>,
    /// JSON: how an item is run.
    pub executor: Arc<str>,
    pub rules: TaskRules,
    /// The seq of the last message about it, which says what this says.
    pub seq: super::Seq,
}

/// How the items of a task are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskRules {
    /// How many items may be in hand at once.
    pub concurrency: u32,
    /// How often an item is tried again.
    pub retries: u32,
    /// How long one try may take.
    pub item_timeout: Duration,
    /// Items in hand when a lease runs out are failed, not run again.
    pub at_most_once: bool,
    /// Its owner finds a notice in the inbox when an attempt has ended.
    pub notice: bool,
}

/// One of the things that a task is about.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskItem {
    pub name: Arc<str>,
    /// JSON, byte for byte as it was submitted.
    pub data: Option<Arc<str>>,
    pub status: ItemStatus,
    pub error: Option<Arc<str>>,
    /// The attempt in which it was finished.
    pub attempt: Option<u32>,
    pub finished_at: Option<Timestamp>,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemResult {
    pub name: Arc<str>,
    /// Why it failed, if it did.
    pub error: Option<Arc<str>>,
}

impl ItemResult {
    pub fn succeeded(name: Arc<str>) -> ItemResult {
        ItemResult { name, error: None }
    }

    /// What is too long to be kept is cut.
    pub fn failed(name: Arc<str>, error: &str) -> ItemResult {
        let clean: String = error.chars().filter(|c| *c != '\0').collect();
        let mut end = clean.len().min(ITEM_ERROR_BYTES_MAX);
        while !clean.is_char_boundary(end) {
            end -= 1;
        }
        ItemResult { name, error: Some(clean[..end].into()) }
    }

    pub const fn status(&self) -> ItemStatus {
        if self.error.is_some() { ItemStatus::Failed } else { ItemStatus::Succeeded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_follow_is_what_the_drawing_says() {
        use TaskStatus::*;
        let end = TaskEvent::End;
        // In the order of `ALL`; `None` is a refusal.
        #[rustfmt::skip]
        let table: [(TaskEvent, [Option<TaskStatus>; 8]); 8] = [
            (TaskEvent::Claim, [Some(Running), Some(Running), None, None, None, None, None, None]),
            (TaskEvent::Release, [Some(Pending), Some(Pending), Some(Paused), None, None, None, None, None]),
            (TaskEvent::Pause, [Some(Paused), Some(Paused), Some(Paused), None, None, None, None, None]),
            (TaskEvent::Resume, [Some(Pending), Some(Running), Some(Pending), None, None, None, None, None]),
            (end(Cancelled), [Some(Cancelled), Some(Cancelled), Some(Cancelled), None, None, None, None, None]),
            (end(Interrupted), [Some(Interrupted), Some(Interrupted), Some(Interrupted), None, None, None, None, None]),
            (end(Running), [None; 8]),
            (TaskEvent::Retry, [None, None, None, None, Some(Pending), Some(Pending), Some(Pending), Some(Pending)]),
        ];
        for (event, expected) in table {
            for (status, expected) in TaskStatus::ALL.into_iter().zip(expected) {
                assert_eq!(status.after(event), expected, "{event:?} of {}", status.as_str());
            }
        }
    }

    #[test]
    fn statuses_read_back_from_their_words() {
        for status in TaskStatus::ALL {
            assert_eq!(TaskStatus::parse(status.as_str()), Some(status));
        }
        for status in ItemStatus::ALL {
            assert_eq!(ItemStatus::parse(status.as_str()), Some(status));
        }
        assert_eq!(TaskStatus::parse("Pending"), None);
        assert_eq!(ItemStatus::parse(""), None);
    }

    #[test]
    fn the_counts_say_how_an_attempt_ended() {
        for (succeeded, failed, cancelled, outcome) in [
            (4, 0, 0, TaskStatus::Completed),
            (0, 4, 0, TaskStatus::Failed),
            (3, 1, 0, TaskStatus::Partial),
            (3, 0, 1, TaskStatus::Cancelled),
            (0, 3, 1, TaskStatus::Cancelled),
            (0, 0, 4, TaskStatus::Cancelled),
        ] {
            let counts = Counts { total: 4, succeeded, failed, cancelled };
            assert_eq!(counts.outcome(), outcome, "{counts:?}");
        }
    }

    #[test]
    fn progress_is_complete_only_when_all_are_finished() {
        for (current, total, hundredths) in
            [(0, 3, 0), (1, 3, 3_333), (2, 3, 6_666), (3, 3, 10_000), (99_999, 100_000, 9_999)]
        {
            let counts = Counts { total, succeeded: current, ..Counts::default() };
            assert_eq!(counts.progress_hundredths(), hundredths);
        }
    }

    #[test]
    fn an_id_makes_a_topic_and_comes_out_of_it() {
        let id = TaskId::parse("0199-ab").unwrap();
        assert_eq!(id.topic().as_str(), "task:0199-ab");
        assert_eq!(TaskId::of_topic(&id.topic()), Some(id));
        for bad in ["", "A", "a b", "a*", &"a".repeat(65)] {
            assert_eq!(TaskId::parse(bad), None, "{bad:?}");
        }
        assert_eq!(TaskId::of_topic(&Topic::parse("order:7").unwrap()), None);
    }

    #[test]
    fn an_error_is_cut_between_characters() {
        let result = ItemResult::failed("a".into(), &"é".repeat(400));
        assert_eq!(result.error.unwrap().len(), 500);
        assert_eq!(&*ItemResult::failed("a".into(), "a\0b").error.unwrap(), "ab");
    }
}
