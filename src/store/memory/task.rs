//! Tasks in memory: what Postgres promises of them, but gone at exit.

mod books;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::books::Books;
use self::books::{Entry, Listed, Rest, Size};
use super::MemoryStore;
use crate::domain::{
    Counts, Draft, ItemStatus, Message, Task, TaskEvent, TaskId, TaskItem, TaskStatus, Timestamp,
    UserId,
};
use crate::notification::Announcement;
use crate::store::StoreError;
use crate::store::notice::{self, NewNotice};
use crate::store::task::{
    Claim, Claimed, Ending, Granted, ItemFilter, NewTask, OWNED_TIMES_FREE, Report, Reported,
    Snapshot, Submitted, TaskFilter, TaskStore, WORD_PAUSE, Which, Wish, announcement, draft,
};

/// How many tasks are kept that have ended; the oldest go first.
const FINISHED_MAX: usize = 1_000;

impl MemoryStore {
    /// Appends what is to be said of tasks, whose books the caller holds.
    fn say(&self, said: &mut [(&mut Entry, Listed)]) -> Option<Announcement> {
        let mut notices = self.notices.lock();
        let mut state = self.state.lock();
        let at = self.clock.now().max(state.newest);
        let (first, epoch) = (state.head.next(), state.epoch.clone());
        let mut drafts: Vec<Draft> = Vec::new();
        let mut ended = Vec::new();
        for (entry, listed) in said {
            entry.task.seq = first.plus(drafts.len() as u64);
            entry.task.updated_at = at;
            let data = entry.data(listed);
            let is_final = entry.task.finished_at.is_some();
            let id = entry.task.id.clone();
            drafts.extend(entry.topics().into_iter().map(|t| draft(&id, t, &data, is_final)));
            if is_final && entry.task.rules.notice {
                ended.extend(NewNotice::about(&entry.task));
            }
        }
        for new in ended {
            let (data, seq) =
                (Arc::from(notice::document(&new, None)), first.plus(drafts.len() as u64));
            drafts.extend(notice::drafts(&new.id, new.target.topics(), &data, new.urgency, None));
            notices.keep(&new, data, at, seq);
        }
        if drafts.is_empty() {
            return None;
        }
        state.newest = at;
        for draft in &drafts {
            self.place(&mut state, draft, at);
        }
        drop(state);
        let told = announcement(epoch, at, first, &drafts);
        self.bus.announce(&told);
        Some(told)
    }
}

#[async_trait]
impl TaskStore for MemoryStore {
    async fn submit(&self, new: &NewTask) -> Result<Submitted, StoreError> {
        let now = self.clock.now();
        let mut books = self.tasks.lock();
        if let Some(id) = new.idempotency_key.as_ref().and_then(|key| books.keys.get(key)) {
            return Ok(Submitted { id: id.clone(), duplicate: true, told: None });
        }
        let size = Size::of(new);
        let max = Size { items: self.settings.items_max, bytes: self.settings.bytes_max };
        if !books.make_room(size, max) {
            let why = format!(
                "memory keeps {} items of {} bytes, and open tasks have most of them",
                max.items, max.bytes
            );
            return Err(StoreError::Full(why));
        }
        let item = |(name, data): &(Arc<str>, Option<Arc<str>>)| TaskItem {
            name: name.clone(),
            data: data.clone(),
            status: ItemStatus::Pending,
            error: None,
            attempt: None,
            finished_at: None,
        };
        let places = new.items.iter().enumerate().map(|(place, (name, _))| (name.clone(), place));
        let task = new.begun(now);
        let mut entry = Entry {
            task,
            key: new.idempotency_key.clone(),
            items: new.items.iter().map(item).collect(),
            places: places.collect(),
            external: new.external,
            cancelling: false,
            held: false,
            term: 0,
            due_at: Some(now),
            precedence: books.precedence(new.owner.as_ref(), !new.external),
            size,
            lease: Duration::ZERO,
            takeovers: 0,
        };
        let told = self.say(&mut [(&mut entry, Listed::default())]);
        books.insert(entry);
        drop(books);
        self.bus.stir(&new.id);
        Ok(Submitted { id: new.id.clone(), duplicate: false, told })
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        Ok(self.tasks.lock().entry(id).map(|entry| entry.task.clone()))
    }

    async fn list(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
        let books = self.tasks.lock();
        let end = match &filter.after {
            Some(id) => books.numbers.get(id).copied().unwrap_or(0),
            None => u64::MAX,
        };
        let wanted = |task: &&Task| {
            filter.owner.as_ref().is_none_or(|owner| task.owner.as_ref() == Some(owner))
                && filter.status.is_none_or(|status| task.status == status)
                && filter.action.as_ref().is_none_or(|action| task.action == *action)
        };
        let newest = books.tasks.range(..end).rev().map(|(_, entry)| &entry.task);
        Ok(newest.filter(wanted).take(limit).cloned().collect())
    }

    async fn items(
        &self,
        id: &TaskId,
        filter: &ItemFilter,
        limit: usize,
    ) -> Result<Vec<TaskItem>, StoreError> {
        let mut books = self.tasks.lock();
        let Some(entry) = books.entry(id) else { return Ok(Vec::new()) };
        let after = filter.after.as_ref().and_then(|name| entry.places.get(name));
        let skip = after.map_or(0, |place| place + 1);
        let shown = |item: &TaskItem| {
            let in_hand =
                item.status == ItemStatus::Pending && entry.task.in_flight.contains(&item.name);
            let status = if in_hand { ItemStatus::Running } else { item.status };
            TaskItem { status, ..item.clone() }
        };
        let unfinished = [ItemStatus::Pending, ItemStatus::Running];
        let wanted = |item: &TaskItem| match filter.which {
            Which::All => true,
            Which::Only(status) => item.status == status,
            Which::Unfinished => unfinished.contains(&item.status),
        };
        Ok(entry.items.iter().skip(skip).map(shown).filter(wanted).take(limit).collect())
    }

    async fn snapshot(&self, id: &TaskId) -> Result<Option<Snapshot>, StoreError> {
        let mut books = self.tasks.lock();
        let Some(entry) = books.entry(id) else { return Ok(None) };
        let task = &entry.task;
        let data = entry.data(&Listed::default());
        let draft = draft(id, id.topic(), &data, task.finished_at.is_some());
        let message = Message::from_draft(&draft, Some(task.seq), task.updated_at);
        let state = self.state.lock();
        Ok(Some(Snapshot { epoch: state.epoch.clone(), message, as_of: state.head }))
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let now = self.clock.now();
        let mut books = self.tasks.lock();
        let wanted = |entry: &Entry| match &claim.external {
            None => entry.by_replica(),
            Some((actions, owner)) => {
                !entry.by_replica()
                    && actions.contains(&entry.task.action)
                    && owner.as_ref().is_none_or(|owner| entry.task.owner.as_ref() == Some(owner))
            }
        };
        // How many tasks each owner has in this holder's hands.
        let mut held: HashMap<Option<UserId>, usize> = HashMap::new();
        for entry in books.tasks.values().filter(|entry| entry.is_live(now) && !entry.external) {
            if entry.task.replica.as_ref() == Some(&claim.holder) {
                *held.entry(entry.task.owner.clone()).or_default() += 1;
            }
        }
        let may_claim = |held: &HashMap<_, usize>, entry: &Entry, free: usize| {
            let own = held.get(&entry.task.owner).copied().unwrap_or(0);
            claim.external.is_some() || own < OWNED_TIMES_FREE * free
        };
        let capped = held.clone();
        let wanted = |entry: &Entry| wanted(entry) && may_claim(&capped, entry, claim.tasks_max);
        let mut due: Vec<(u64, u64)> = books
            .tasks
            .iter()
            .filter(|(_, entry)| wanted(entry))
            .filter(|(_, entry)| entry.due_at.is_some_and(|at| at <= now))
            .map(|(number, entry)| (entry.precedence, *number))
            .collect();
        due.sort_unstable();
        due.truncate(claim.tasks_max);
        let mut free = claim.tasks_max;
        due.retain(|(_, number)| {
            let entry = &books.tasks[number];
            let may = may_claim(&held, entry, free);
            if may {
                free -= 1;
                *held.entry(entry.task.owner.clone()).or_default() += 1;
            }
            may
        });
        let due: Vec<u64> = due.into_iter().map(|(_, number)| number).collect();
        let mut leases = Vec::new();
        let mut said = Vec::new();
        for (_, entry) in books.tasks.iter_mut().filter(|(number, _)| due.contains(number)) {
            entry.interrupt(now);
            entry.takeovers += u32::from(entry.held);
            if entry.cancelling {
                entry.end(Rest::Cancelled, None, now);
            } else if entry.task.status == TaskStatus::Paused {
                (entry.held, entry.due_at) = (false, None);
            } else if entry.takeovers > claim.takeovers_max {
                entry.task.error = Some("those who worked on it died one after the other".into());
                entry.end(Rest::Cancelled, Some(TaskStatus::Interrupted), now);
            } else {
                entry.goes(TaskEvent::Claim);
                entry.term += 1;
                entry.held = true;
                entry.task.replica = Some(claim.holder.clone());
                entry.task.started_at.get_or_insert(now);
                entry.lease = claim.lease;
                entry.due_at = Some(later(now, claim.lease));
                leases.push((entry.task.id.clone(), entry.term));
            }
            said.push((entry, Listed::default()));
        }
        let told = self.say(&mut said);
        let open = books.tasks.values().filter(|entry| wanted(entry));
        let next = open.filter_map(|entry| entry.due_at).min();
        let wait_ms = next.map(|at| u64::try_from(at.0 - now.0).unwrap_or(0));
        Ok(Claimed { leases, next_due: wait_ms.map(Duration::from_millis), told })
    }

    async fn report(&self, report: &Report) -> Result<Reported, StoreError> {
        let now = self.clock.now();
        let mut books = self.tasks.lock();
        let Some(entry) = books.entry(&report.id) else { return Ok(Reported::Absent) };
        if entry.term != report.term || !entry.held {
            // The answer to the last word may have been lost.
            let again = entry.term == report.term && report.ending != Ending::GoesOn;
            let status = entry.task.status;
            return Ok(match again && !entry.held {
                true => Reported::Done { status, stop: true, told: None },
                false => Reported::Fenced,
            });
        }
        let named = report.results.iter().map(|result| &result.name);
        let named = named.chain(report.in_flight.iter().flatten());
        let unknown: Vec<String> = named
            .filter(|name| !entry.places.contains_key(*name))
            .map(ToString::to_string)
            .collect();
        if entry.external && !unknown.is_empty() {
            return Ok(Reported::Unknown(unknown));
        }
        let said_at = entry.task.updated_at;
        if entry.external && report.ending == Ending::GoesOn && later(said_at, WORD_PAUSE) > now {
            return Ok(Reported::Early);
        }
        let before = (entry.task.status, entry.task.in_flight.clone());
        let listed = entry.book(&report.results, now);
        let booked = entry.task.counts.current();
        let changed = !listed.succeeded.is_empty() || !listed.failed.is_empty() || listed.truncated;
        if changed {
            entry.takeovers = 0;
        }
        let stop = entry.task.status == TaskStatus::Paused || entry.cancelling;
        match &report.ending {
            Ending::GoesOn => {
                if entry.task.status == TaskStatus::Pending {
                    entry.goes(TaskEvent::Claim);
                }
                if let Some(names) = &report.in_flight {
                    entry.task.in_flight = names.clone();
                }
                entry.due_at = Some(later(now, entry.lease));
            }
            Ending::Release if entry.cancelling => entry.end(Rest::Cancelled, None, now),
            Ending::Release => {
                if let Some(names) = &report.in_flight {
                    entry.task.in_flight = names.clone();
                }
                entry.interrupt(now);
                entry.goes(TaskEvent::Release);
                entry.held = false;
                entry.due_at = (entry.task.status != TaskStatus::Paused).then_some(now);
            }
            Ending::Finish(why) if entry.cancelling => {
                entry.task.error = why.clone();
                entry.end(Rest::Cancelled, None, now);
            }
            Ending::Finish(why) => {
                entry.task.error = why.clone();
                entry.end(Rest::Failed(why.as_deref().unwrap_or("not reported")), None, now);
            }
        }
        debug_assert!(entry.task.counts.current() >= booked);
        let status = entry.task.status;
        let silent = !changed
            && before == (status, entry.task.in_flight.clone())
            && report.ending == Ending::GoesOn;
        let told = if silent { None } else { self.say(&mut [(entry, listed)]) };
        drop(books);
        if report.ending == Ending::Release {
            self.bus.stir(&report.id);
        }
        Ok(Reported::Done { status, stop, told })
    }

    async fn grant(&self, id: &TaskId, wish: Wish) -> Result<Granted, StoreError> {
        let now = self.clock.now();
        let mut books = self.tasks.lock();
        let Some(entry) = books.entry(id) else { return Ok(Granted::Absent) };
        let (owner, by_replica) = (entry.task.owner.clone(), !entry.external);
        let precedence = books.precedence(owner.as_ref(), by_replica);
        let Some(entry) = books.entry(id) else { return Ok(Granted::Absent) };
        let status = entry.task.status;
        let live = entry.is_live(now);
        match wish {
            Wish::Cancel if status == TaskStatus::Cancelled => return Ok(Granted::Done(None)),
            Wish::Cancel if status.is_final() => return Ok(Granted::Refused),
            Wish::Cancel if entry.cancelling => return Ok(Granted::Done(None)),
            Wish::Cancel if live => {
                entry.cancelling = true;
                entry.task.message = Some("being cancelled".into());
            }
            Wish::Cancel => {
                entry.interrupt(now);
                entry.end(Rest::Cancelled, None, now);
            }
            Wish::Pause | Wish::Resume if status.is_final() => return Ok(Granted::Refused),
            Wish::Pause if entry.cancelling => return Ok(Granted::Refused),
            Wish::Pause if status == TaskStatus::Paused => return Ok(Granted::Done(None)),
            Wish::Pause => {
                entry.goes(TaskEvent::Pause);
                entry.due_at = entry.due_at.filter(|_| entry.held);
            }
            Wish::Resume if status != TaskStatus::Paused => return Ok(Granted::Done(None)),
            Wish::Resume => {
                entry.goes(TaskEvent::Resume);
                entry.due_at = entry.due_at.filter(|_| entry.held).or(Some(now));
            }
            Wish::Retry => {
                let counts = entry.task.counts;
                if !status.is_final() || counts.failed + counts.cancelled == 0 {
                    return Ok(Granted::Refused);
                }
                for item in &mut entry.items {
                    if [ItemStatus::Failed, ItemStatus::Cancelled].contains(&item.status) {
                        item.status = ItemStatus::Pending;
                        (item.error, item.attempt, item.finished_at) = (None, None, None);
                    }
                }
                entry.goes(TaskEvent::Retry);
                entry.task.counts = Counts { failed: 0, cancelled: 0, ..counts };
                entry.task.attempt += 1;
                entry.takeovers = 0;
                (entry.task.error, entry.task.message) = (None, None);
                (entry.task.started_at, entry.task.finished_at) = (None, None);
                (entry.due_at, entry.precedence) = (Some(now), precedence);
            }
        }
        let told = self.say(&mut [(entry, Listed::default())]);
        drop(books);
        self.bus.stir(id);
        Ok(Granted::Done(told))
    }

    async fn expire(&self, after: Duration) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let mut books = self.tasks.lock();
        let finished = books.finished();
        let over = finished.len().saturating_sub(FINISHED_MAX);
        let mut gone = 0;
        for (place, number) in finished.into_iter().enumerate() {
            let ended = books.tasks.get(&number).and_then(|entry| entry.task.finished_at);
            if place < over || ended.is_some_and(|ended| later(ended, after) < now) {
                books.remove(number);
                gone += 1;
            }
        }
        Ok(gone)
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}
