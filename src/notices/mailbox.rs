//! What the loop has for one session, and where it finds the sessions of a user.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::notice::Counts;
use crate::domain::{NoticeId, Seq, UserId};
use crate::frame::Frame;
use crate::store::notice::Reader;

/// How many redelivered notices may wait beside what was missed. Beyond it they wait for another
/// round, since nobody acknowledges what was not sent.
const AGAIN_MAX: usize = 128;

/// By which way a notice comes: as it was sent, as something missed, or as nobody acknowledged it.
pub const LIVE: &str = "live";
pub const REPLAY: &str = "replay";
pub const AGAIN: &str = "again";
pub const WAYS: [&str; 3] = [LIVE, REPLAY, AGAIN];

/// A notice out of its turn.
#[derive(Debug, Clone)]
pub struct Letter {
    pub id: NoticeId,
    pub sending: u32,
    pub frame: Arc<Frame>,
    pub way: &'static str,
}

/// One session's. Written by the loop, emptied by the session.
pub struct Mailbox {
    pub reader: Reader,
    /// Whether it was given what it had missed; read and written by the loop.
    opened: AtomicBool,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
pub struct State {
    pub letters: VecDeque<Letter>,
    /// Whether what was missed is among them, or would be if there were any.
    pub opened: bool,
    pub left_out: u64,
    /// The newest alone.
    pub counts: Option<(Counts, Seq)>,
}

impl Mailbox {
    pub fn is_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    pub fn set_opened(&self, opened: bool) {
        self.opened.store(opened, Ordering::Relaxed);
    }

    /// What was missed; it is bounded by whoever read it.
    pub fn open(&self, letters: Vec<Letter>, left_out: u64) {
        let mut state = self.state.lock();
        state.letters.extend(letters);
        state.left_out += left_out;
        state.opened = true;
        self.ready.notify_one();
    }

    /// Whether there was room.
    pub fn again(&self, letter: Letter) -> bool {
        let mut state = self.state.lock();
        let room = state.letters.len() < AGAIN_MAX;
        if room {
            state.letters.push_back(letter);
            self.ready.notify_one();
        }
        room
    }

    pub fn count(&self, counts: Counts, as_of: Seq) {
        let mut state = self.state.lock();
        if state.counts.is_none_or(|(_, before)| before <= as_of) {
            state.counts = Some((counts, as_of));
            self.ready.notify_one();
        }
    }

    pub fn take(&self) -> State {
        std::mem::take(&mut *self.state.lock())
    }

    /// Resolves when there may be something to take. Cancel-safe.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }
}

#[derive(Default)]
pub struct Mailboxes {
    by_user: Mutex<HashMap<UserId, Vec<Arc<Mailbox>>>>,
}

impl Mailboxes {
    pub fn enter(&self, reader: Reader) -> Arc<Mailbox> {
        let user = reader.user.clone();
        let mailbox = Arc::new(Mailbox {
            reader,
            opened: AtomicBool::new(false),
            state: Mutex::default(),
            ready: Notify::new(),
        });
        self.by_user.lock().entry(user).or_default().push(mailbox.clone());
        mailbox
    }

    pub fn leave(&self, mailbox: &Arc<Mailbox>) {
        let mut by_user = self.by_user.lock();
        if let Some(own) = by_user.get_mut(&mailbox.reader.user) {
            own.retain(|there| !Arc::ptr_eq(there, mailbox));
            if own.is_empty() {
                by_user.remove(&mailbox.reader.user);
            }
        }
    }

    pub fn of(&self, user: &UserId) -> Vec<Arc<Mailbox>> {
        self.by_user.lock().get(user).cloned().unwrap_or_default()
    }

    pub fn users(&self) -> Vec<UserId> {
        self.by_user.lock().keys().cloned().collect()
    }

    /// One reader a user: what one session counts, all of them do.
    pub fn readers(&self) -> Vec<Reader> {
        let by_user = self.by_user.lock();
        by_user.values().filter_map(|own| own.first()).map(|own| own.reader.clone()).collect()
    }

    pub fn unopened(&self) -> Vec<Arc<Mailbox>> {
        let by_user = self.by_user.lock();
        by_user.values().flatten().filter(|mailbox| !mailbox.is_opened()).cloned().collect()
    }
}
