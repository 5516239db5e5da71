//! The loop that claims tasks which are due, no more than it has hands for, and runs each.
//!
//! It is woken by hints, by a task that ended, by the moment at which the next one is due, and by
//! its tick. `SKIP LOCKED` decides which replica gets what, and nobody waits for anybody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Tasks;
use super::hands::Hands;
use super::run::{Lease, work};
use crate::domain::TaskId;
use crate::store::StoreError;
use crate::store::task::Claim;
use crate::supervise::{LAST_WORD, Shutdown, finish};

/// How long to leave a store alone that could not be asked.
const RETRY: Duration = Duration::from_millis(500);

/// Between two looks: what is due may be locked by another replica that is just claiming it.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// How often it looks for tasks that ended long ago.
const EXPIRY_TICK: Duration = Duration::from_secs(60);

/// How soon after some were removed the next are.
const EXPIRY_PAUSE: Duration = Duration::from_millis(100);

/// How long runs may take to end when no time is left: for a report that is on its way, or the last.
pub const RUNS_END: Duration = Duration::from_secs(2);

pub struct Runner {
    tasks: Tasks,
    hands: Hands,
}

/// What runs now: whose it is, and how to make it look at its task.
type Running = HashMap<Id, (TaskId, Arc<Notify>)>;

impl Runner {
    pub(super) fn new(tasks: Tasks) -> Runner {
        let hands = Hands::new(tasks.shared.settings.items_at_once_max);
        Runner { tasks, hands }
    }

    /// Runs until told to leave; then items in hand are finished and leases handed back.
    pub async fn run(&mut self, shutdown: &Shutdown) {
        let shared = self.tasks.shared.clone();
        shared.begun.store(true, Ordering::Relaxed);
        let mut stirred = shared.log.tasks_stirred();
        let mut runs = JoinSet::new();
        let mut running = Running::new();
        let mut next_look = Instant::now();
        let mut next_expiry = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.draining.cancelled() => break,
                hint = stirred.recv() => {
                    stir(&running, &hint);
                    while let Ok(id) = stirred.try_recv() {
                        stir(&running, &Ok(id));
                    }
                    next_look = Instant::now();
                }
                Some(ended) = runs.join_next_with_id() => {
                    note_end(&mut running, ended);
                    next_look = Instant::now();
                }
                () = sleep_until(next_look) => {
                    let look = self.look(&mut runs, &mut running, shutdown);
                    next_look = match finish(&shutdown.draining, LAST_WORD, look).await {
                        Some(Ok(next)) => next,
                        Some(Err(error)) => {
                            tracing::debug!(%error, "no tasks could be claimed");
                            Instant::now() + RETRY
                        }
                        None => break,
                    };
                }
                () = sleep_until(next_expiry) => {
                    let expire = shared.store.expire(shared.settings.retention);
                    let pause = match finish(&shutdown.draining, LAST_WORD, expire).await {
                        Some(Ok(0)) | None => EXPIRY_TICK,
                        Some(Ok(_)) => EXPIRY_PAUSE,
                        Some(Err(error)) => {
                            tracing::warn!(%error, "old tasks could not be removed");
                            EXPIRY_TICK
                        }
                    };
                    next_expiry = Instant::now() + pause;
                }
            }
            shared.metrics.tasks.running.set(i64::try_from(runs.len()).unwrap_or(i64::MAX));
        }
        while let Some(ended) = runs.join_next_with_id().await {
            note_end(&mut running, ended);
        }
        shared.drained.cancel();
    }

    /// Claims what there are hands for. Returns when to look again.
    async fn look(
        &self,
        runs: &mut JoinSet<()>,
        running: &mut Running,
        shutdown: &Shutdown,
    ) -> Result<Instant, StoreError> {
        let shared = &self.tasks.shared;
        let settings = &shared.settings;
        // A jitter of a tenth keeps a fleet that started together from asking together.
        let tick = settings.tick.mul_f64(rand::random_range(0.9..1.0));
        let free = settings.tasks_max.saturating_sub(runs.len());
        let tasks_max = free.min(self.hands.free());
        if tasks_max == 0 {
            // One that ends wakes the loop.
            return Ok(Instant::now() + tick);
        }
        let claim = Claim {
            holder: settings.replica.clone(),
            lease: settings.lease,
            tasks_max,
            takeovers_max: settings.takeovers_max,
            external: None,
        };
        let asked_at = Instant::now();
        let claimed = shared.store.claim(&claim).await?;
        self.tasks.tell(claimed.told).await;
        let full = claimed.leases.len() == tasks_max;
        for (id, term) in claimed.leases {
            shared.metrics.tasks.claimed.inc();
            let nudge = Arc::new(Notify::new());
            let lease = Lease { id: id.clone(), term, asked_at };
            let (tasks, hands) = (self.tasks.clone(), self.hands.clone());
            let (nudged, leaving) = (nudge.clone(), shutdown.clone());
            let handle = runs.spawn(async move {
                let stopping = leaving.stopping.clone();
                // Whoever cannot hand its task back leaves it to the end of the lease.
                let run = work(tasks, lease, hands, nudged, leaving);
                finish(&stopping, RUNS_END, run).await;
            });
            running.insert(handle.id(), (id, nudge));
        }
        let wait = match claimed.next_due {
            _ if full => Duration::ZERO,
            Some(due) => due.min(tick),
            None => tick,
        };
        Ok(Instant::now() + wait.max(LOOK_PAUSE))
    }
}

/// Makes whoever has the task look at it; whoever lost hints makes all of them look.
fn stir(running: &Running, hint: &Result<TaskId, broadcast::error::RecvError>) {
    for (id, nudge) in running.values() {
        if hint.as_ref().is_ok_and(|hint| hint != id) {
            continue;
        }
        nudge.notify_one();
    }
}

fn note_end(running: &mut Running, ended: Result<(Id, ()), tokio::task::JoinError>) {
    let id = match &ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    };
    let Some((task, _)) = running.remove(&id) else { return };
    if let Err(error) = ended {
        // Its lease runs out and somebody takes it over.
        tracing::error!(%task, %error, "the run of a task broke off");
    }
}
