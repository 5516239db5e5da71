//! Batch operations: submitted once, worked on under a lease by whichever replica has hands for it.
//!
//! ```text
//!   api ──▶ Tasks ──▶ store (one transaction: rows, then messages) ──▶ log ──▶ hub
//!              ▲
//!   runner ────┘   claims what is due ──▶ run (one a task) ──▶ item (one a try at once)
//! ```
//! A replica owns nothing here but leases: what it has in hand when it dies is run again by another
//! one, or failed if the task is to be run at most once. A lease has a term, and a report with an
//! older term changes nothing, so that a replica that was frozen and wakes up does no harm.
//! Leases run out by the clock of the database; local time only shortens trust in one.

mod executor;
mod hands;
mod item;
mod run;
mod runner;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::executor::acts_as_server;
pub use self::executor::kubernetes::access::{Access, SERVICE_ACCOUNT};
use self::executor::{Executors, Plan};
pub use self::runner::{RUNS_END, Runner};
use crate::domain::{Task, TaskId, TaskItem};
use crate::hosts::{Hosts, Secret};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::notification::Announcement;
use crate::store::StoreError;
use crate::store::task::{
    Claim, Granted, ItemFilter, NewTask, Report, Reported, Snapshot, Submitted, TaskFilter,
    TaskStore, Wish,
};

/// How long a worker that waits for a task trusts in being told of one.
const WORKER_TICK: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct TaskSettings {
    pub replica: Arc<str>,
    /// How many tasks this replica holds at once.
    pub tasks_max: usize,
    /// How many items of all its tasks it has in hand at once.
    pub items_at_once_max: usize,
    pub lease: Duration,
    /// How often it looks for tasks that are due when nothing was heard.
    pub tick: Duration,
    pub takeovers_max: u32,
    pub retention: Duration,
    pub hosts: Hosts,
    pub secrets: Vec<Secret>,
    /// The cluster that the executor kubernetes works in.
    pub kubernetes: Option<Access>,
}

/// A cheap handle for everybody who has to do with tasks.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    settings: TaskSettings,
    store: Arc<dyn TaskStore>,
    log: Log,
    executors: Executors,
    metrics: Metrics,
    /// Set by the runner when it has let go of everything.
    drained: CancellationToken,
    /// Set by the runner when it begins: without it there is nothing to let go of.
    begun: AtomicBool,
}

impl Tasks {
    /// A handle, and the loop that must be run for it; or what is wrong with `kubernetes`.
    pub fn new(
        settings: TaskSettings,
        store: Arc<dyn TaskStore>,
        log: Log,
        metrics: Metrics,
    ) -> Result<(Tasks, Runner), String> {
        let (hosts, secrets) = (settings.hosts.clone(), settings.secrets.clone());
        let executors = Executors::new(hosts, secrets, settings.kubernetes.as_ref())?;
        let drained = CancellationToken::new();
        let begun = AtomicBool::new(false);
        let shared = Shared { settings, store, log, executors, metrics, drained, begun };
        let tasks = Tasks { shared: Arc::new(shared) };
        Ok((tasks.clone(), Runner::new(tasks)))
    }

    /// Whether workers run items so, and not replicas; or why nobody can: the reason says what to change.
    pub fn is_external(&self, executor: &str) -> Result<bool, String> {
        Ok(matches!(self.shared.executors.plan(executor)?, Plan::External))
    }

    /// The task as it is now, and whether its idempotency key was known.
    pub async fn submit(&self, new: &NewTask) -> Result<(Task, bool), StoreError> {
        let Submitted { id, duplicate, told } = self.shared.store.submit(new).await?;
        let first = told.as_ref().and_then(|told| told.messages.as_ref()?.first()?.clone().into());
        self.tell(told).await;
        match (self.get(&id).await, first) {
            (Ok(Some(task)), _) => Ok((task, duplicate)),
            // What is stored is answered so, even if the store cannot be asked again.
            (_, Some(first)) => Ok((new.submitted(&first), duplicate)),
            (Ok(None), None) => Err(StoreError::Refused("the task is no longer kept".to_owned())),
            (Err(error), None) => Err(error),
        }
    }

    pub async fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        self.shared.store.get(id).await
    }

    pub async fn list(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
        self.shared.store.list(filter, limit).await
    }

    pub async fn items(
        &self,
        id: &TaskId,
        filter: &ItemFilter,
        limit: usize,
    ) -> Result<Vec<TaskItem>, StoreError> {
        self.shared.store.items(id, filter, limit).await
    }

    pub async fn snapshot(&self, id: &TaskId) -> Result<Option<Snapshot>, StoreError> {
        self.shared.store.snapshot(id).await
    }

    pub async fn grant(&self, id: &TaskId, wish: Wish) -> Result<Granted, StoreError> {
        let mut granted = self.shared.store.grant(id, wish).await?;
        if let Granted::Done(told) = &mut granted {
            self.tell(told.take()).await;
        }
        Ok(granted)
    }

    pub async fn report(&self, report: &Report) -> Result<Reported, StoreError> {
        let mut reported = self.shared.store.report(report).await?;
        if let Reported::Done { told, .. } = &mut reported {
            self.tell(told.take()).await;
        }
        Ok(reported)
    }

    /// A lease for a worker, waited for until the deadline or until somebody hangs up.
    pub async fn claim(
        &self,
        claim: &Claim,
        deadline: Instant,
        closing: &CancellationToken,
    ) -> Result<Option<(TaskId, i64)>, StoreError> {
        // Registered first, so that no task slips by between the look and the wait.
        let mut stirred = self.shared.log.tasks_stirred();
        loop {
            let mut claimed = self.shared.store.claim(claim).await?;
            self.tell(claimed.told.take()).await;
            if let Some(lease) = claimed.leases.pop() {
                return Ok(Some(lease));
            }
            let wait = claimed.next_due.unwrap_or(WORKER_TICK);
            let wait = wait.clamp(Duration::from_millis(50), WORKER_TICK);
            let next = Instant::now() + wait;
            tokio::select! {
                () = sleep_until(deadline) => return Ok(None),
                () = closing.cancelled() => return Ok(None),
                () = sleep_until(next.min(deadline)) => {}
                _ = stirred.recv() => while stirred.try_recv().is_ok() {},
            }
        }
    }

    pub fn takeovers_max(&self) -> u32 {
        self.shared.settings.takeovers_max
    }

    /// Resolves when this replica, having been told to leave, has let go of its tasks.
    pub async fn drained(&self) {
        if self.shared.begun.load(Ordering::Relaxed) {
            self.shared.drained.cancelled().await;
        }
    }

    async fn tell(&self, told: Option<Announcement>) {
        if let Some(announcement) = told {
            self.shared.log.announce_own(announcement).await;
        }
    }
}
