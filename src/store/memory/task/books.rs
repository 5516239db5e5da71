//! What memory keeps of tasks, and how one changes; `task` says when.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::{
    ItemResult, ItemStatus, Task, TaskEvent, TaskId, TaskItem, TaskStatus, Timestamp, Topic, UserId,
};
use crate::store::task::{
    FAILED_LISTED_BYTES_MAX, FAILED_LISTED_MAX, NewTask, PROGRESS_LISTED_BYTES_MAX, document,
};

/// Every task, by the order of submission.
#[derive(Default)]
pub struct Books {
    pub tasks: BTreeMap<u64, Entry>,
    pub numbers: HashMap<TaskId, u64>,
    pub keys: HashMap<Arc<str>, TaskId>,
    pub last: u64,
    /// Of all tasks together.
    pub size: Size,
}

/// What tasks take: their items, and what was submitted with them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Size {
    pub items: usize,
    pub bytes: usize,
}

impl Size {
    pub fn of(new: &NewTask) -> Size {
        let data = |data: &Option<Arc<str>>| data.as_ref().map_or(0, |data| data.len());
        let items = new.items.iter().map(|(name, given)| name.len() + data(given));
        Size {
            items: new.items.len(),
            bytes: items.sum::<usize>() + new.meta.len() + new.executor.len(),
        }
    }

    fn plus(self, other: Size) -> Size {
        Size { items: self.items + other.items, bytes: self.bytes + other.bytes }
    }

    fn minus(self, other: Size) -> Size {
        Size { items: self.items - other.items, bytes: self.bytes - other.bytes }
    }

    fn fits(self, max: Size) -> bool {
        self.items <= max.items && self.bytes <= max.bytes
    }
}

pub struct Entry {
    pub task: Task,
    pub key: Option<Arc<str>>,
    pub items: Vec<TaskItem>,
    pub size: Size,
    pub places: HashMap<Arc<str>, usize>,
    pub external: bool,
    pub cancelling: bool,
    pub held: bool,
    pub term: i64,
    pub due_at: Option<Timestamp>,
    pub precedence: u64,
    pub lease: Duration,
    pub takeovers: u32,
}

/// What a report finished, as its message lists it.
#[derive(Default)]
pub struct Listed {
    pub succeeded: Vec<Arc<str>>,
    pub failed: Vec<Value>,
    pub truncated: bool,
}

impl Books {
    pub fn entry(&mut self, id: &TaskId) -> Option<&mut Entry> {
        self.tasks.get_mut(self.numbers.get(id)?)
    }

    pub fn insert(&mut self, entry: Entry) {
        self.last += 1;
        self.size = self.size.plus(entry.size);
        self.numbers.insert(entry.task.id.clone(), self.last);
        if let Some(key) = &entry.key {
            self.keys.insert(key.clone(), entry.task.id.clone());
        }
        self.tasks.insert(self.last, entry);
    }

    pub fn remove(&mut self, number: u64) {
        if let Some(entry) = self.tasks.remove(&number) {
            self.size = self.size.minus(entry.size);
            self.numbers.remove(&entry.task.id);
            if let Some(key) = entry.key {
                self.keys.remove(&key);
            }
        }
    }

    pub fn finished(&self) -> Vec<u64> {
        let over = |(number, entry): (&u64, &Entry)| entry.task.finished_at.map(|_| *number);
        self.tasks.iter().filter_map(over).collect()
    }

    /// Removes tasks that ended, the oldest first, until there is room. False, and nothing is
    /// removed, if that would not make enough.
    pub fn make_room(&mut self, wanted: Size, max: Size) -> bool {
        let mut after = self.size.plus(wanted);
        let mut gone = Vec::new();
        for number in self.finished() {
            if after.fits(max) {
                break;
            }
            after = after.minus(self.tasks[&number].size);
            gone.push(number);
        }
        if after.fits(max) {
            gone.into_iter().for_each(|number| self.remove(number));
        }
        after.fits(max)
    }

    /// Of what is due the lowest is claimed first. Owners take turns: a task comes one turn after
    /// the last that its owner has open, but no sooner than the one that is next now.
    pub fn precedence(&self, owner: Option<&UserId>, by_replica: bool) -> u64 {
        let open = || self.tasks.values().filter(|entry| entry.task.finished_at.is_none());
        let waits = |entry: &&Entry| entry.due_at.is_some() && !entry.held;
        let alike = open().filter(|entry| entry.by_replica() == by_replica);
        let next = alike.filter(waits).map(|entry| entry.precedence).min();
        let own = open().filter(|entry| entry.task.owner.as_ref() == owner);
        let last = own.map(|entry| entry.precedence).max();
        next.unwrap_or(0).max(last.unwrap_or(0) + 1)
    }
}

fn listed_item(name: &str, error: Option<&str>) -> Value {
    json!({ "name": name, "error": error })
}

impl Entry {
    pub fn by_replica(&self) -> bool {
        !self.external || self.cancelling
    }

    /// Whether somebody holds its lease, and that has not run out.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.held && self.due_at.is_some_and(|due_at| due_at > now)
    }

    /// Follows the machine; the caller has seen that the event has a place.
    pub fn goes(&mut self, event: TaskEvent) {
        self.task.status = self.task.status.after(event).unwrap_or(self.task.status);
    }

    /// Books what is still pending, and returns it as a message lists it.
    pub fn book(&mut self, results: &[ItemResult], now: Timestamp) -> Listed {
        let (mut listed, mut bytes) = (Listed::default(), 0);
        for result in results {
            let Some(item) = self.places.get(&result.name).map(|place| &mut self.items[*place])
            else {
                continue;
            };
            if item.status != ItemStatus::Pending {
                continue;
            }
            item.status = result.status();
            item.error = result.error.clone();
            item.attempt = Some(self.task.attempt);
            item.finished_at = Some(now);
            bytes += result.name.len() + result.error.as_ref().map_or(0, |error| error.len()) + 24;
            listed.truncated |= bytes > PROGRESS_LISTED_BYTES_MAX;
            let fits = bytes <= PROGRESS_LISTED_BYTES_MAX;
            match &result.error {
                None => {
                    self.task.counts.succeeded += 1;
                    if fits {
                        listed.succeeded.push(result.name.clone());
                    }
                }
                Some(error) => {
                    self.task.counts.failed += 1;
                    if fits {
                        listed.failed.push(listed_item(&result.name, Some(error)));
                    }
                }
            }
        }
        listed
    }

    /// The lease ran out: what was in hand may have been done.
    pub fn interrupt(&mut self, now: Timestamp) {
        if self.task.rules.at_most_once && self.held {
            let lost = |name: &Arc<str>| ItemResult::failed(name.clone(), "interrupted");
            let lost: Vec<ItemResult> = self.task.in_flight.iter().map(lost).collect();
            self.book(&lost, now);
        }
        self.task.in_flight.clear();
    }

    pub fn end(&mut self, rest: Rest<'_>, status: Option<TaskStatus>, now: Timestamp) {
        for item in self.items.iter_mut().filter(|item| item.status == ItemStatus::Pending) {
            item.attempt = Some(self.task.attempt);
            item.finished_at = Some(now);
            match rest {
                Rest::Cancelled => {
                    item.status = ItemStatus::Cancelled;
                    self.task.counts.cancelled += 1;
                }
                Rest::Failed(error) => {
                    item.status = ItemStatus::Failed;
                    item.error = Some(error.into());
                    self.task.counts.failed += 1;
                }
            }
        }
        let status = status.unwrap_or_else(|| self.task.counts.outcome());
        self.goes(TaskEvent::End(status));
        self.task.in_flight.clear();
        self.task.message = None;
        self.task.finished_at = Some(now);
        (self.held, self.cancelling, self.due_at) = (false, false, None);
    }

    /// The data of a message about it.
    pub fn data(&self, listed: &Listed) -> String {
        let mut document = document(&self.task);
        let (mut failed, mut truncated) = (listed.failed.clone(), listed.truncated);
        if self.task.finished_at.is_some() {
            let mut bytes = 0;
            let items = self.items.iter().filter(|item| item.status == ItemStatus::Failed);
            failed = items
                .take(FAILED_LISTED_MAX)
                .take_while(|item| {
                    bytes += item.name.len() + item.error.as_ref().map_or(0, |e| e.len()) + 24;
                    bytes <= FAILED_LISTED_BYTES_MAX
                })
                .map(|item| listed_item(&item.name, item.error.as_deref()))
                .collect();
            truncated |= failed.len() < self.task.counts.failed as usize;
        }
        let succeeded: Vec<&str> = listed.succeeded.iter().map(|name| &**name).collect();
        document.insert("succeeded_items".to_owned(), succeeded.into());
        document.insert("failed_items".to_owned(), failed.into());
        document.insert("truncated".to_owned(), truncated.into());
        Value::Object(document).to_string()
    }

    pub fn topics(&self) -> Vec<Topic> {
        let owner = self.task.owner.as_ref().map(UserId::topic);
        [self.task.id.topic()].into_iter().chain(owner).collect()
    }
}

#[derive(Clone, Copy)]
pub enum Rest<'a> {
    Cancelled,
    Failed(&'a str),
}
