//! The loop that holds the lease on sources, starts and stops their readers, and takes in what was pushed.
//!
//! Each look renews the lease and says which sources are this replica's; whoever has more than its share lets
//! some go, and whoever has less takes what is free. A replica that has just come back to the store
//! takes nothing at its first look, so that whoever was away too can renew what it holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::format::Format;
use super::owned::Owned;
use super::reader::read;
use crate::domain::{SourceId, SourceStatus};
use crate::store::StoreError;
use crate::store::source::{PUSHED_BYTES_MAX, PUSHED_MAX, Pushed, SourceClaim, SourceLease};
use crate::supervise::{LAST_WORD, Shutdown, finish};

/// How often it looks where there is nothing to read: a hint says when there is.
const IDLE_TICK: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// How long to leave a store alone that could not be asked.
const RETRY: Duration = Duration::from_millis(500);

/// How often lists that were told are looked at, whether they have ended.
const LIST_TICK: Duration = Duration::from_millis(500);

/// How often what is too old is swept up, and how often where there is nothing to read.
const SWEEP_TICK: Duration = Duration::from_secs(60);
const IDLE_SWEEP_TICK: Duration = Duration::from_secs(900);

pub struct Keeper {
    shared: Arc<Shared>,
    holder: Arc<str>,
    readers: HashMap<SourceId, Reading>,
    tasks: JoinSet<()>,
    /// The store could not be reached: the next look only renews.
    cut_off: bool,
    sources: usize,
}

struct Reading {
    revision: i64,
    term: i64,
    pushes: bool,
    task: Option<Id>,
    stop: CancellationToken,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Keeper {
        let life = uuid::Uuid::now_v7().simple();
        let holder = format!("{} {life}", shared.settings.replica).into();
        let (readers, tasks) = (HashMap::new(), JoinSet::new());
        Keeper { shared, holder, readers, tasks, cut_off: false, sources: 0 }
    }

    pub async fn run(&mut self, shutdown: &Shutdown) {
        let shared = self.shared.clone();
        shared.begin();
        let mut stirred = shared.log.sources_stirred();
        let now = Instant::now();
        let (mut next_look, mut next_list, mut next_sweep) = (now, now, now + SWEEP_TICK);
        let mut last_look = now;
        loop {
            tokio::select! {
                () = shutdown.draining.cancelled() => break,
                hint = stirred.recv() => {
                    let mut pushed = hint.as_ref().is_ok_and(|(_, pushed)| *pushed);
                    let mut changed = !pushed;
                    while let Ok((_, one)) = stirred.try_recv() {
                        (pushed, changed) = (pushed || one, changed || !one);
                    }
                    if changed {
                        next_look = next_look.min(last_look + LOOK_PAUSE);
                    }
                    if pushed {
                        self.take_pushed(shutdown).await;
                    }
                }
                Some(ended) = self.tasks.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "the reader of a source broke off; it begins anew");
                    self.readers.retain(|_, reading| reading.task != Some(error.id()));
                    next_look = Instant::now() + RETRY;
                },
                () = sleep_until(next_look) => {
                    last_look = Instant::now();
                    let Some(looked) = finish(&shutdown.draining, LAST_WORD, self.look()).await else {
                        break;
                    };
                    let wait = match looked {
                        Ok(()) if self.sources == 0 && self.readers.is_empty() => IDLE_TICK,
                        Ok(()) => shared.settings.lease / 3,
                        Err(error) => {
                            tracing::debug!(%error, "no sources could be claimed");
                            RETRY
                        }
                    };
                    // A jitter of a tenth keeps a fleet that started together from asking together.
                    next_look = Instant::now() + wait.mul_f64(rand::random_range(0.9..1.0));
                    self.take_pushed(shutdown).await;
                }
                () = sleep_until(next_list), if !self.readers.is_empty() => {
                    next_list = Instant::now() + LIST_TICK;
                    self.reconcile();
                }
                () = sleep_until(next_sweep) => {
                    let sweep = shared.readers.sweep();
                    let more = match finish(&shutdown.draining, LAST_WORD, sweep).await {
                        Some(Ok(swept)) => swept.is_full(),
                        Some(Err(error)) => {
                            tracing::debug!(%error, "old telemetry could not be removed");
                            false
                        }
                        None => break,
                    };
                    let idle = if self.sources == 0 { IDLE_SWEEP_TICK } else { SWEEP_TICK };
                    next_sweep = Instant::now() + if more { Duration::from_secs(1) } else { idle };
                }
            }
        }
        self.leave(shutdown).await;
    }

    /// Everything is written, let go, and then the lease.
    async fn leave(&mut self, shutdown: &Shutdown) {
        for reading in self.readers.values() {
            reading.stop.cancel();
        }
        self.readers.clear();
        while self.tasks.join_next().await.is_some() {}
        for own in self.shared.books.lock().all() {
            own.release = true;
        }
        self.shared.unread.cancel();
        tokio::select! {
            () = self.shared.drained.cancelled() => {}
            () = shutdown.stopping.cancelled() => {}
        }
        if self.sources > 0 {
            let release = self.shared.readers.release(&self.holder);
            match finish(&shutdown.draining, LAST_WORD, release).await {
                Some(Ok(())) => {}
                left => {
                    tracing::debug!(?left, "the lease on sources was not handed back; it runs out");
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let claim = SourceClaim {
            holder: self.holder.clone(),
            lease: shared.settings.lease,
            sources_max: shared.settings.sources_max,
            takes: !self.cut_off,
            holds: !self.readers.is_empty(),
        };
        let claimed = match shared.readers.claim(&claim).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.cut_off = true;
                return Err(error);
            }
        };
        self.cut_off = false;
        self.sources = claimed.total;
        let leases: HashMap<SourceId, SourceLease> =
            claimed.leases.into_iter().map(|lease| (lease.id.clone(), lease)).collect();
        let gone: Vec<SourceId> =
            self.readers.keys().filter(|id| !leases.contains_key(*id)).cloned().collect();
        for id in gone {
            self.stop(&id);
        }
        let mut held: Vec<&SourceLease> = leases.values().collect();
        held.sort_by(|a, b| a.id.cmp(&b.id));
        for surplus in held.split_off(claimed.share.min(held.len())) {
            self.stop(&surplus.id);
        }
        for lease in held {
            let known = self.readers.get(&lease.id);
            let known =
                known.is_some_and(|own| own.revision == lease.revision && own.term == lease.term);
            // What could not be written was forgotten with its source, which then begins anew.
            if known && shared.books.lock().own(&lease.id).is_some() {
                continue;
            }
            match self.begin(lease.clone()).await {
                // What is kept of one cannot be read: the others are read all the same.
                Err(StoreError::Refused(reason)) => {
                    tracing::error!(source = %lease.id, reason, "a source cannot go on from what is kept of it");
                }
                begun => begun?,
            }
        }
        let metrics = &shared.metrics.telemetry;
        metrics.sources.set(i64::try_from(self.readers.len()).unwrap_or(i64::MAX));
        let instances = shared.books.lock().instances();
        metrics.instances.set(i64::try_from(instances).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Starts reading, from what was flushed last.
    async fn begin(&mut self, mut lease: SourceLease) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        if let Some(old) = self.readers.remove(&lease.id) {
            old.stop.cancel();
        }
        let known = shared
            .books
            .lock()
            .own(&lease.id)
            .map(|own| (own.lease.term, own.leaving || own.release));
        match known {
            Some((term, false)) if term == lease.term => {
                if let Some(own) = shared.books.lock().own(&lease.id) {
                    lease = own.renew(&lease);
                }
            }
            // It is still being let go: the next look finds it done.
            Some((term, true)) if term == lease.term => return Ok(()),
            _ => {
                let instances = shared.readers.instances(&lease.id).await?;
                let mut books = shared.books.lock();
                books.forget(&lease.id);
                books.insert(Owned::new(lease.clone(), instances));
            }
        }
        let stop = CancellationToken::new();
        let pushes = lease.url.is_none();
        let (id, revision, term) = (lease.id.clone(), lease.revision, lease.term);
        let task = if pushes {
            shared.stand(&id, SourceStatus::Connected, None);
            None
        } else {
            Some(self.tasks.spawn(read(shared, lease, stop.clone())).id())
        };
        self.readers.insert(id, Reading { revision, term, pushes, task, stop });
        Ok(())
    }

    fn stop(&mut self, id: &SourceId) {
        if let Some(reading) = self.readers.remove(id) {
            reading.stop.cancel();
        }
        let mut books = self.shared.books.lock();
        if let Some(own) = books.own(id) {
            own.leaving = true;
            // Also when it was taken away: the last flush is refused then, and it is forgotten.
            own.release = true;
        }
        drop(books);
        self.shared.flush.notify_one();
    }

    fn reconcile(&self) {
        let now = self.shared.log.now();
        let urgent = self.shared.books.lock().reconcile(now);
        if urgent {
            self.shared.flush.notify_one();
            self.shared.show.notify_one();
        }
    }

    /// Takes in what was pushed to the sources that are held here.
    async fn take_pushed(&self, shutdown: &Shutdown) {
        let pushing = self.readers.iter().filter(|(_, reading)| reading.pushes);
        let pushing: Vec<(SourceId, i64)> =
            pushing.map(|(id, reading)| (id.clone(), reading.term)).collect();
        if pushing.is_empty() {
            return;
        }
        loop {
            // Of one that was given up meanwhile nothing is taken: it would be found again and again.
            let after: Vec<(SourceId, i64)> = {
                let mut books = self.shared.books.lock();
                let seen = |(id, term): &(SourceId, i64)| {
                    let own =
                        books.own(id).filter(|own| own.lease.term == *term && !own.leaving)?;
                    Some((id.clone(), own.inbox))
                };
                pushing.iter().filter_map(seen).collect()
            };
            if after.is_empty() {
                return;
            }
            let inbox = self.shared.readers.inbox(&after, PUSHED_MAX);
            let found = match finish(&shutdown.draining, LAST_WORD, inbox).await {
                Some(Ok(found)) => found,
                Some(Err(error)) => {
                    tracing::debug!(%error, "what was pushed could not be read; it is at the next look");
                    return;
                }
                None => return,
            };
            let bytes: usize = found.iter().map(|pushed| pushed.events.len()).sum();
            let full = found.len() == PUSHED_MAX || bytes >= PUSHED_BYTES_MAX;
            for pushed in found {
                let term =
                    pushing.iter().find(|(id, _)| *id == pushed.id).map_or(0, |(_, term)| *term);
                self.take(&pushed, term).await;
            }
            if !full {
                return;
            }
        }
    }

    async fn take(&self, pushed: &Pushed, term: i64) {
        let shared = &self.shared;
        let events: Vec<Value> = serde_json::from_str(&pushed.events).unwrap_or_default();
        for event in &events {
            match Format::Generic.event(event) {
                Ok(event) => {
                    if !shared.apply(&pushed.id, term, &event, pushed.at).await {
                        return;
                    }
                }
                Err(_) => shared.ignored("malformed"),
            }
        }
        if let Some(own) = shared.books.lock().own(&pushed.id) {
            own.note_inbox(pushed.number);
        }
    }
}
