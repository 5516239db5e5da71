//! The log in memory: the same promises as Postgres gives, but gone at exit.
//!
//! Several replicas of one process may share one, which is how simulations run.
//! What is kept is bounded in count and bytes; the oldest go first, and `head` says so. Idempotency keys
//! are kept for as long as told, but never more of them than messages may be: the oldest are forgotten.

mod inbox;
mod notice;
mod presence;
mod source;
mod task;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Appended, FORGOTTEN_MAX, Found, Head, LogStore, LogWriter, Mark, Page, Placed, Relayed,
    StoreError, Turn, Upkeep,
};
use crate::bus::memory::MemoryBus;
use crate::clock::Clock;
use crate::domain::{Draft, Epoch, Message, Pattern, Seq, Timestamp};
use crate::notification::Announcement;

#[derive(Debug, Clone, Copy)]
pub struct MemorySettings {
    pub messages_max: usize,
    pub bytes_max: usize,
    /// Of all tasks together.
    pub items_max: usize,
    pub retention_s: u32,
    pub idempotency_s: u32,
}

#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    /// Taken before `notices` and `state`, never after them.
    tasks: Arc<Mutex<task::Books>>,
    /// Taken before `presence` and `state`, never after them.
    notices: Arc<Mutex<notice::Books>>,
    presence: Arc<Mutex<presence::Present>>,
    /// Taken before `state`, never after it.
    sources: Arc<Mutex<source::Sources>>,
    clock: Clock,
    bus: MemoryBus,
    settings: MemorySettings,
}

struct State {
    epoch: Epoch,
    head: Seq,
    /// Contiguous, the newest at the back; its length says where the log begins.
    messages: VecDeque<Message>,
    bytes: usize,
    /// The time of the newest message: the clock may step back, the log may not.
    newest: Timestamp,
    keys: HashMap<Arc<str>, (Seq, Timestamp)>,
    /// Keys by age, so that forgetting looks at the old ones only.
    keys_by_age: VecDeque<(Timestamp, Arc<str>)>,
}

impl State {
    fn oldest(&self) -> Seq {
        Seq::from_db(self.head.to_db() + 1 - i64::try_from(self.messages.len()).unwrap_or(0))
    }

    fn check_kept(&self, after: Seq) -> Result<(), StoreError> {
        let oldest = self.oldest();
        if after.next() < oldest { Err(StoreError::Expired { oldest }) } else { Ok(()) }
    }

    /// The messages after one place and up to another.
    fn between(&self, after: Seq, until: Seq) -> impl Iterator<Item = &Message> {
        let skip = after.next().distance_from(self.oldest());
        let take = until.min(self.head).distance_from(after);
        let to_usize = |number| usize::try_from(number).unwrap_or(usize::MAX);
        self.messages.iter().skip(to_usize(skip)).take(to_usize(take))
    }

    /// Whether there was one: a key that was used again since is found under its newer age.
    fn forget_oldest_key(&mut self) -> bool {
        let Some((at, key)) = self.keys_by_age.pop_front() else { return false };
        let known = self.keys.get(&key).is_some_and(|(_, newer)| *newer == at);
        known && self.keys.remove(&key).is_some()
    }

    fn drop_oldest(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.data.len();
        }
    }
}

impl MemoryStore {
    pub fn new(settings: MemorySettings, clock: Clock, bus: MemoryBus) -> MemoryStore {
        let state = State {
            epoch: fresh_epoch(),
            head: Seq::ZERO,
            messages: VecDeque::new(),
            bytes: 0,
            newest: Timestamp::default(),
            keys: HashMap::new(),
            keys_by_age: VecDeque::new(),
        };
        MemoryStore {
            state: Arc::new(Mutex::new(state)),
            tasks: Arc::default(),
            notices: Arc::default(),
            presence: Arc::default(),
            sources: Arc::default(),
            clock,
            bus,
            settings,
        }
    }

    /// Forgets everything after a place, as a server that crashed forgets what it had not flushed.
    /// For simulations: nobody else takes from a log.
    pub fn set_back(&self, to: Seq) {
        let mut state = self.state.lock();
        while state.messages.back().is_some_and(|message| message.seq > Some(to)) {
            if let Some(message) = state.messages.pop_back() {
                state.bytes -= message.data.len();
            }
        }
        state.head = state.head.min(to);
        state.keys.retain(|_, (seq, _)| *seq <= to);
    }

    fn append(&self, drafts: &[Draft]) -> Appended {
        let mut state = self.state.lock();
        let at = self.clock.now().max(state.newest);
        state.newest = at;
        let first = state.head.next();
        let placed = drafts.iter().map(|draft| self.place(&mut state, draft, at)).collect();
        while state.messages.len() > self.settings.messages_max
            || (state.bytes > self.settings.bytes_max && state.messages.len() > 1)
        {
            state.drop_oldest();
        }
        Appended { epoch: state.epoch.clone(), at, first, placed }
    }

    fn place(&self, state: &mut State, draft: &Draft, at: Timestamp) -> Placed {
        let remembered = i64::from(self.settings.idempotency_s) * 1000;
        if let Some(key) = &draft.idempotency_key {
            if let Some((seq, first_at)) = state.keys.get(key)
                && first_at.0 > at.0 - remembered
            {
                return Placed { seq: *seq, duplicate: true };
            }
            state.keys.insert(key.clone(), (state.head.next(), at));
            state.keys_by_age.push_back((at, key.clone()));
            if state.keys_by_age.len() > self.settings.messages_max {
                state.forget_oldest_key();
            }
        }
        state.head = state.head.next();
        state.bytes += draft.data.len();
        state.messages.push_back(Message::from_draft(draft, Some(state.head), at));
        Placed { seq: state.head, duplicate: false }
    }
}

fn fresh_epoch() -> Epoch {
    let word = uuid::Uuid::now_v7().simple().to_string();
    Epoch::parse(&word[word.len() - 6..]).expect("a UUID is made of lower-case letters and digits")
}

/// Takes messages until the page is full.
fn page_of<'a>(
    messages: impl Iterator<Item = &'a Message>,
    until: Seq,
    page: Page,
    wanted: impl Fn(&Message) -> bool,
) -> Found {
    let mut found = Found { messages: Vec::new(), read_to: until };
    let mut bytes = 0;
    for message in messages.filter(|message| wanted(message)) {
        if found.messages.len() >= page.messages_max || bytes >= page.bytes_max {
            found.read_to = found.messages.last().and_then(|last| last.seq).unwrap_or(until);
            break;
        }
        bytes += message.data.len();
        found.messages.push(message.clone());
    }
    found
}

#[async_trait]
impl LogStore for MemoryStore {
    async fn head(&self) -> Result<Head, StoreError> {
        let now = self.clock.now();
        let state = self.state.lock();
        Ok(Head { epoch: state.epoch.clone(), seq: state.head, oldest: state.oldest(), now })
    }

    async fn barrier(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn range(&self, after: Seq, until: Seq, page: Page) -> Result<Found, StoreError> {
        let state = self.state.lock();
        state.check_kept(after)?;
        Ok(page_of(state.between(after, until), until.min(state.head), page, |_| true))
    }

    async fn matching(
        &self,
        patterns: &[Pattern],
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Found, StoreError> {
        let now = self.clock.now();
        let state = self.state.lock();
        state.check_kept(after)?;
        let wanted = |message: &Message| {
            !message.expired(now) && patterns.iter().any(|pattern| pattern.matches(&message.topic))
        };
        Ok(page_of(state.between(after, until), until.min(state.head), page, wanted))
    }

    async fn since(&self, moment: Timestamp) -> Result<Seq, StoreError> {
        let state = self.state.lock();
        let before = state.messages.partition_point(|message| message.at < moment);
        Ok(state.oldest().previous().plus(before as u64))
    }

    async fn mark(&self, seq: Seq) -> Result<Option<Mark>, StoreError> {
        let state = self.state.lock();
        let message = state.between(seq.previous(), seq).next();
        Ok(message.map(|message| Mark { at: message.at, topic: message.topic.clone() }))
    }

    async fn epoch_renew(&self, old: &Epoch) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.epoch == *old {
            state.epoch = fresh_epoch();
        }
        Ok(())
    }

    async fn writer(&self) -> Result<Box<dyn LogWriter>, StoreError> {
        Ok(Box::new(MemoryWriter { store: self.clone() }))
    }
}

struct MemoryWriter {
    store: MemoryStore,
}

#[async_trait]
impl LogWriter for MemoryWriter {
    async fn write(&mut self, drafts: &[Draft], turn: Turn) -> Result<Appended, StoreError> {
        let appended = self.store.append(drafts);
        drop(turn);
        if appended.fresh() > 0 {
            let last = appended.first.plus(appended.fresh() - 1);
            self.store.bus.announce(&Announcement {
                epoch: appended.epoch.clone(),
                first: appended.first,
                last,
                messages: Some(appended.messages(drafts)),
            });
        }
        Ok(appended)
    }

    async fn recover(&mut self, _drafts: &[Draft]) -> Result<Option<Appended>, StoreError> {
        Ok(None)
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn release(&mut self) {}
}

#[async_trait]
impl Upkeep for MemoryStore {
    async fn outbox_relay(&self) -> Result<Option<Relayed>, StoreError> {
        Ok(None)
    }

    async fn outbox_oldest(&self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    async fn partition_ahead(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn partition_expire(&self) -> Result<Vec<Seq>, StoreError> {
        let cutoff = Timestamp(self.clock.now().0 - i64::from(self.settings.retention_s) * 1000);
        let mut state = self.state.lock();
        while state.messages.front().is_some_and(|message| message.at < cutoff) {
            state.drop_oldest();
        }
        Ok(Vec::new())
    }

    async fn partition_drop(&self, _first: Seq) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn idempotency_expire(&self) -> Result<u64, StoreError> {
        let cutoff = Timestamp(self.clock.now().0 - i64::from(self.settings.idempotency_s) * 1000);
        let mut state = self.state.lock();
        let mut forgotten = 0;
        while forgotten < FORGOTTEN_MAX
            && state.keys_by_age.front().is_some_and(|(at, _)| *at <= cutoff)
        {
            forgotten += u64::from(state.forget_oldest_key());
        }
        Ok(forgotten)
    }
}
