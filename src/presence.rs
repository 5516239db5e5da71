//! Presence: which users have sessions, on which replica, and on which topics.
//!
//! ```text
//!   session ──▶ Place (enters, changes, leaves) ──▶ books ──▶ loop ──▶ store
//!                                                              │  one lease for all, renewed
//!                                                              └──▶ publish (joined, left)
//! ```
//! What changes is gathered and written together, so that ten thousand clients that connect at once
//! are a few statements. All of it stands under one lease of the replica, which is renewed in one
//! statement an interval; whoever renews no more is removed by any other replica, with its sessions.
//! The books of the replica are the truth: what the store has lost is written again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::domain::{Class, Draft, Pattern, Timestamp, Topic, UserId};
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::store::StoreError;
use crate::store::presence::{
    Changes, Move, Own, PresenceStore, PresentReplica, PresentSession, PresentUser, Renewed,
};

/// How many sessions one statement writes.
const WRITES_MAX: usize = 1_000;

/// Between two statements: what comes meanwhile goes with the next.
const WRITE_PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked for sessions whose replica was removed while it wrote them.
const SWEEP: Duration = Duration::from_secs(60);

/// How many signals one publish carries.
const MOVES_MAX: usize = 500;

#[derive(Debug, Clone)]
pub struct PresenceSettings {
    pub own: Own,
    /// How long the sessions of a replica that renews no more still count.
    pub lease: Duration,
    /// Where joining and leaving is told.
    pub watched: Vec<Pattern>,
}

/// A cheap handle.
#[derive(Clone)]
pub struct Presence {
    shared: Arc<Shared>,
}

struct Shared {
    settings: PresenceSettings,
    store: Arc<dyn PresenceStore>,
    publisher: Publisher,
    metrics: Metrics,
    /// Written by sessions, read by the loop.
    books: Mutex<Books>,
    changed: Notify,
}

#[derive(Default)]
struct Books {
    sessions: HashMap<Arc<str>, PresentSession>,
    /// Sessions that are not in the store as they are here.
    dirty: HashSet<Arc<str>>,
    /// Who may have joined or left what is watched.
    moved: HashSet<(UserId, Topic)>,
}

/// A session's entry, until it is dropped.
pub struct Place {
    presence: Presence,
    id: Arc<str>,
}

impl Presence {
    /// A handle, and the loop that must be run for it.
    pub fn new(
        settings: PresenceSettings,
        store: Arc<dyn PresenceStore>,
        publisher: Publisher,
        metrics: Metrics,
    ) -> (Presence, PresenceLoop) {
        let books = Mutex::default();
        let changed = Notify::new();
        let shared = Shared { settings, store, publisher, metrics, books, changed };
        let presence = Presence { shared: Arc::new(shared) };
        (presence.clone(), PresenceLoop { shared: presence.shared.clone() })
    }

    pub fn enter(&self, id: &str, user: UserId, patterns: Vec<Pattern>, since: Timestamp) -> Place {
        let id: Arc<str> = id.into();
        let session = PresentSession { id: id.clone(), user, patterns, since };
        self.shared.change(&id, Some(&session));
        self.shared.metrics.presence.sessions.inc();
        Place { presence: self.clone(), id }
    }

    /// Users with sessions, everywhere or on one topic, by their names; a page begins after one.
    pub async fn users(
        &self,
        topic: Option<&Topic>,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<PresentUser>, StoreError> {
        self.shared.store.users(topic, after, limit).await
    }

    pub async fn replicas(&self) -> Result<Vec<PresentReplica>, StoreError> {
        self.shared.store.replicas().await
    }
}

impl Place {
    /// The session is subscribed to something else now.
    pub fn moved_to(&self, patterns: Vec<Pattern>) {
        let shared = &self.presence.shared;
        let known = shared.books.lock().sessions.get(&self.id).cloned();
        if let Some(session) = known.filter(|session| session.patterns != patterns) {
            shared.change(&self.id, Some(&PresentSession { patterns, ..session }));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.presence.shared.change(&self.id, None);
        self.presence.shared.metrics.presence.sessions.dec();
    }
}

impl Shared {
    fn change(&self, id: &Arc<str>, session: Option<&PresentSession>) {
        let mut books = self.books.lock();
        let before = match session {
            Some(session) => books.sessions.insert(id.clone(), session.clone()),
            None => books.sessions.remove(id),
        };
        books.dirty.insert(id.clone());
        for session in before.iter().chain(session) {
            books.moved.extend(self.watched(session));
        }
        drop(books);
        self.changed.notify_one();
    }

    fn watched(&self, session: &PresentSession) -> Vec<(UserId, Topic)> {
        let watched = |pattern: &Pattern| match pattern {
            Pattern::Exact(topic) if self.settings.watched.iter().any(|one| one.matches(topic)) => {
                Some((session.user.clone(), topic.clone()))
            }
            _ => None,
        };
        session.patterns.iter().filter_map(watched).collect()
    }

    /// Writes some of what changed. Whether that was all.
    async fn write(&self) -> Result<bool, StoreError> {
        let (taken, changes) = {
            let mut books = self.books.lock();
            let taken: Vec<Arc<str>> = books.dirty.iter().take(WRITES_MAX).cloned().collect();
            let mut changes = Changes::default();
            for id in &taken {
                books.dirty.remove(id);
                match books.sessions.get(id) {
                    Some(session) => changes.there.push(session.clone()),
                    None => changes.gone.push(id.clone()),
                }
            }
            changes.watched = books.moved.drain().collect();
            (taken, changes)
        };
        if taken.is_empty() {
            return Ok(true);
        }
        match self.store.write(&self.settings.own, &changes).await {
            Ok(moves) => {
                self.metrics.presence.writes.inc();
                self.tell(moves).await;
                Ok(taken.len() < WRITES_MAX)
            }
            Err(error) => {
                let mut books = self.books.lock();
                books.dirty.extend(taken);
                books.moved.extend(changes.watched);
                Err(error)
            }
        }
    }

    /// The lease, and what the store has lost of it. Whether leases of others ran out.
    async fn renew(&self) -> Result<bool, StoreError> {
        let Renewed { known, lapsed } =
            self.store.renew(&self.settings.own, self.settings.lease).await?;
        let mut books = self.books.lock();
        if books.dirty.is_empty() && known != books.sessions.len() as u64 {
            let all: Vec<Arc<str>> = books.sessions.keys().cloned().collect();
            books.dirty.extend(all);
            self.changed.notify_one();
        }
        Ok(lapsed)
    }

    async fn reap(&self, leaving: Option<&Own>) -> Result<(), StoreError> {
        let moves = self.store.reap(leaving, &self.settings.watched).await?;
        self.metrics.presence.reaped.inc_by(moves.len() as u64);
        self.tell(moves).await;
        Ok(())
    }

    /// Signals: who is there can be asked for, so that they need not be kept.
    async fn tell(&self, moves: Vec<Move>) {
        for moves in moves.chunks(MOVES_MAX) {
            let draft = |moved: &Move| {
                let kind = if moved.joined { "presence.join" } else { "presence.leave" };
                let data = format!("{{\"user\":\"{}\"}}", moved.user);
                Draft {
                    kind: Some(kind.into()),
                    class: Class::Signal,
                    key: Some(moved.user.as_str().into()),
                    ..Draft::new(moved.topic.clone(), data)
                }
            };
            let told = self.publisher.publish(moves.iter().map(draft).collect()).await;
            if let Err(error) = told {
                tracing::debug!(%error, "who came and went was not told");
            }
        }
    }
}

pub struct PresenceLoop {
    shared: Arc<Shared>,
}

impl PresenceLoop {
    pub async fn run(&mut self, stop: &CancellationToken) {
        let shared = self.shared.clone();
        // Two may be lost before the lease is.
        let interval = shared.settings.lease / 3;
        let mut next_renewal = Instant::now();
        let mut next_write = Instant::now();
        let mut next_sweep = Instant::now();
        loop {
            let dirty = !shared.books.lock().dirty.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(next_renewal) => {
                    // A jitter of a tenth keeps a fleet that started together from asking together.
                    next_renewal = Instant::now() + interval.mul_f64(rand::random_range(0.9..1.0));
                    let lapsed = passing("presence_renew", shared.renew().await);
                    if lapsed == Some(true) || next_sweep <= Instant::now() {
                        passing("presence_reap", shared.reap(None).await);
                        next_sweep = Instant::now() + SWEEP;
                    }
                }
                () = sleep_until(next_write), if dirty => {
                    let all = passing("presence_write", shared.write().await);
                    let pause = if all == Some(false) { Duration::ZERO } else { WRITE_PAUSE };
                    next_write = Instant::now() + pause;
                }
                () = shared.changed.notified(), if !dirty => {}
            }
        }
        // Whoever leaves takes its sessions with it at once.
        passing("presence_reap", shared.reap(Some(&shared.settings.own)).await);
    }
}

/// What comes again by itself. That the store is away is said by the log.
fn passing<T>(step: &'static str, result: Result<T, StoreError>) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::debug!(step, %error, "presence tries again");
            None
        }
    }
}
