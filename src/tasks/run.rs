//! One task in the hands of this replica: from the claim until it is finished, let go or lost.
//!
//! ```text
//!   pages of items ──▶ queue ──▶ in hand (bounded) ──▶ results (bounded) ──▶ report
//!                                   ▲                                          │
//!                                   └── begun only while the lease is trusted ◀┘ renews it
//! ```
//! A report goes at once if none went for 125 ms, so that there are at most ten messages a second
//! and the first and the newest are always sent. While nothing happens it goes often enough to keep
//! the lease. If the store is away, items in hand are finished, their results wait, and nothing new
//! is begun once the lease can no longer be trusted.
//!
//! With `at_most_once` an item is begun only after a report that names it in flight was durable.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::executor::{Executor, Plan};
use super::hands::{Hand, Hands};
use super::item::{self, Done};
use super::{Shared, Tasks};
use crate::domain::{ItemResult, Task, TaskId, TaskItem};
use crate::store::StoreError;
use crate::store::task::{Ending, ItemFilter, Report, Reported, Which};
use crate::supervise::Shutdown;

/// At most ten messages a second are promised for a task: eight of these, and a claim and its first.
const REPORT_EVERY: Duration = Duration::from_millis(125);

/// How many results one report carries.
const REPORT_RESULTS_MAX: usize = 1_000;

/// With so many results that could not be reported, nothing new is begun.
const RESULTS_MAX: usize = 4_096;

/// How many items are read at once.
const PAGE_ITEMS: usize = 1_000;

/// How long to leave a store alone that could not be reached.
const RETRY: Duration = Duration::from_millis(250);

struct Run {
    tasks: Tasks,
    task: Task,
    term: i64,
    hands: Hands,
    /// Told when somebody wants something of the task.
    nudge: Arc<Notify>,
    shutdown: Shutdown,
    /// Read, and not begun.
    queue: VecDeque<TaskItem>,
    /// Whether there may be more to read, and after which item.
    more: bool,
    after: Option<Arc<str>>,
    items: JoinSet<Done>,
    in_hand: HashMap<Id, Arc<str>>,
    results: Vec<ItemResult>,
    /// A hand that was waited for.
    spare: Option<Hand>,
    /// What is in hand was not told yet.
    in_flight_changed: bool,
    last_report: Option<Instant>,
    /// After a failure: not before this.
    not_before: Instant,
    trusted_until: Instant,
    /// It is paused, being cancelled, or the replica leaves: nothing new is begun.
    stop: Stop,
    /// Set with `stop`: no item in hand tries again.
    no_more_tries: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// By the task's status, which may change again.
    Asked,
    Leaving,
}

/// How a report went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Went {
    Told,
    /// The lease is somebody else's.
    Lost,
    /// It may be booked or not; it is told again.
    Failed,
}

/// Whether the run goes on.
type Next = std::ops::ControlFlow<()>;
const ON: Next = Next::Continue(());
const OVER: Next = Next::Break(());

/// A lease that was just given.
pub(super) struct Lease {
    pub id: TaskId,
    pub term: i64,
    /// When it was asked for, before which it cannot have begun.
    pub asked_at: Instant,
}

/// Works on a task until it is finished, let go or lost.
pub(super) async fn work(
    tasks: Tasks,
    lease: Lease,
    hands: Hands,
    nudge: Arc<Notify>,
    shutdown: Shutdown,
) {
    let trusted_until = lease.asked_at + trust(&tasks.shared);
    let task = loop {
        match tasks.get(&lease.id).await {
            Ok(Some(task)) => break task,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(task = %lease.id, %error, "a task that was claimed cannot be read");
            }
        }
        // Once the lease cannot be trusted it is left to run out.
        tokio::select! {
            () = shutdown.stopping.cancelled() => return,
            () = sleep_until(Instant::now() + RETRY) => {}
        }
        if Instant::now() > trusted_until {
            return;
        }
    };
    tracing::info!(task = %lease.id, lease.term, attempt = task.attempt, "claimed a task");
    Run::new(tasks, task, lease.term, trusted_until, hands, nudge, shutdown).run().await;
}

impl Run {
    fn new(
        tasks: Tasks,
        task: Task,
        term: i64,
        trusted_until: Instant,
        hands: Hands,
        nudge: Arc<Notify>,
        shutdown: Shutdown,
    ) -> Run {
        Run {
            tasks,
            task,
            term,
            hands,
            nudge,
            shutdown,
            queue: VecDeque::new(),
            more: true,
            after: None,
            items: JoinSet::new(),
            in_hand: HashMap::new(),
            results: Vec::new(),
            spare: None,
            in_flight_changed: false,
            last_report: None,
            not_before: Instant::now(),
            trusted_until,
            stop: Stop::No,
            no_more_tries: CancellationToken::new(),
        }
    }

    async fn run(mut self) {
        let executor = match self.tasks.shared.executors.plan(&self.task.executor) {
            Ok(Plan::Run(executor)) => executor,
            // Cancelling made a task of workers ours: its holder is gone.
            Ok(Plan::External) => return self.give_up("its worker is gone".to_owned()).await,
            Err(reason) => return self.give_up(reason).await,
        };
        while self.step(&executor).await == ON {}
    }

    /// It cannot be run here or anywhere else with these settings.
    async fn give_up(mut self, reason: String) {
        self.more = false;
        while self.report(Ending::Finish(Some(reason.as_str().into()))).await == ON {
            tokio::select! {
                () = self.shutdown.stopping.cancelled() => return,
                () = sleep_until(self.not_before) => {}
            }
        }
    }

    async fn step(&mut self, executor: &Arc<dyn Executor>) -> Next {
        if self.begin(executor).await == OVER {
            return OVER;
        }
        let now = Instant::now();
        let idle = self.in_hand.is_empty() && now >= self.not_before;
        if idle && self.results.len() <= REPORT_RESULTS_MAX {
            if self.stop != Stop::No {
                // If it is being cancelled, the books make it the end.
                return self.report(Ending::Release).await;
            }
            if self.queue.is_empty() && !self.more {
                return self.report(Ending::Finish(None)).await;
            }
        }
        let report_due = self.report_due();
        let wants_hand = self.spare.is_none() && self.may_begin() && !self.queue.is_empty();
        let hands = self.hands.clone();
        let owner = self.task.owner.clone();
        tokio::select! {
            Some(joined) = self.items.join_next_with_id() => {
                self.booked(joined);
                while let Some(joined) = self.items.try_join_next_with_id() {
                    self.booked(joined);
                }
            }
            hand = hands.take(&owner), if wants_hand => self.spare = Some(hand),
            () = sleep_until(report_due) => return self.report(Ending::GoesOn).await,
            () = self.nudge.notified() => {
                // A report is also how the status is seen.
                let soonest = self.last_report.map_or(now, |last| last + REPORT_EVERY);
                sleep_until(soonest).await;
                return self.report(Ending::GoesOn).await;
            }
            () = self.shutdown.draining.cancelled(), if self.stop != Stop::Leaving => {
                self.stop = Stop::Leaving;
                self.no_more_tries.cancel();
            }
            () = self.shutdown.stopping.cancelled() => {
                // No time is left: what is in hand is run again by another replica.
                self.items.abort_all();
                self.give_back();
                let _ = self.report(Ending::Release).await;
                return OVER;
            }
        }
        ON
    }

    /// What was in hand is pending again, or failed if it may be run once only.
    fn give_back(&mut self) {
        let names = self.in_hand.drain().map(|(_, name)| name);
        if self.task.rules.at_most_once {
            let lost: Vec<_> = names.map(|name| ItemResult::failed(name, "interrupted")).collect();
            // First, since what does not fit into one report is left out.
            self.results.splice(0..0, lost);
        }
    }

    fn may_begin(&self) -> bool {
        let concurrency = usize::try_from(self.task.rules.concurrency).unwrap_or(1);
        self.stop == Stop::No
            && self.in_hand.len() < concurrency
            && self.results.len() < RESULTS_MAX
            && Instant::now() < self.trusted_until
            && !self.shutdown.draining.is_cancelled()
    }

    /// Takes items in hand, as many as may be.
    async fn begin(&mut self, executor: &Arc<dyn Executor>) -> Next {
        let concurrency = usize::try_from(self.task.rules.concurrency).unwrap_or(1);
        if self.stop == Stop::No && self.more && self.queue.len() < concurrency {
            self.read().await;
        }
        let mut chosen = Vec::new();
        while self.may_begin() && self.in_hand.len() + chosen.len() < concurrency {
            if self.queue.is_empty() {
                break;
            }
            let hand = self.spare.take().or_else(|| self.hands.try_take(&self.task.owner));
            let Some(hand) = hand else { break };
            let Some(item) = self.queue.pop_front() else { break };
            chosen.push((item, hand));
        }
        if chosen.is_empty() {
            return ON;
        }
        if self.task.rules.at_most_once {
            sleep_until(self.report_soonest()).await;
            let names: Vec<Arc<str>> = chosen.iter().map(|(item, _)| item.name.clone()).collect();
            let went = self.report_with(Ending::GoesOn, &names).await;
            if went != Went::Told || !self.may_begin() {
                for (item, _) in chosen.into_iter().rev() {
                    self.queue.push_front(item);
                }
                self.in_flight_changed = true;
                return if went == Went::Lost { OVER } else { ON };
            }
        }
        for (item, hand) in chosen {
            self.begin_one(executor.clone(), item, hand);
        }
        ON
    }

    fn begin_one(&mut self, executor: Arc<dyn Executor>, item: TaskItem, hand: Hand) {
        let (rules, attempt) = (self.task.rules, self.task.attempt);
        let (stop, name) = (self.no_more_tries.clone(), item.name.clone());
        let running = async move { item::run(&executor, &item, rules, attempt, &stop, hand).await };
        let handle = self.items.spawn(running);
        self.in_hand.insert(handle.id(), name);
        self.in_flight_changed |= !self.task.rules.at_most_once;
    }

    /// The next page of what is not finished. What is in hand lies before it.
    async fn read(&mut self) {
        if Instant::now() < self.not_before {
            return;
        }
        let filter = ItemFilter { which: Which::Unfinished, after: self.after.clone() };
        match self.tasks.items(&self.task.id, &filter, PAGE_ITEMS).await {
            Ok(items) => {
                self.more = items.len() == PAGE_ITEMS;
                self.after = items.last().map(|item| item.name.clone()).or(self.after.take());
                // These are not finished in the books, and yet not to be begun again.
                let known: HashSet<&Arc<str>> =
                    self.in_hand.values().chain(self.results.iter().map(|r| &r.name)).collect();
                self.queue.extend(items.into_iter().filter(|item| !known.contains(&item.name)));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn booked(&mut self, joined: Result<(Id, Done), JoinError>) {
        let (id, done) = match joined {
            Ok((id, done)) => (id, done),
            Err(error) => (error.id(), Done::Failed("it broke off".to_owned())),
        };
        let Some(name) = self.in_hand.remove(&id) else { return };
        self.in_flight_changed = true;
        let metrics = &self.tasks.shared.metrics.tasks;
        match done {
            Done::Succeeded => {
                metrics.items.get_or_create(&"succeeded".into()).inc();
                self.results.push(ItemResult::succeeded(name));
            }
            Done::Failed(error) => {
                metrics.items.get_or_create(&"failed".into()).inc();
                self.results.push(ItemResult::failed(name, &error));
            }
            Done::Returned => {
                metrics.items.get_or_create(&"returned".into()).inc();
                // It is still pending in the books; if this run goes on it reads it again.
                (self.after, self.more) = (None, true);
                self.queue.clear();
            }
        }
    }

    fn report_soonest(&self) -> Instant {
        self.last_report.map_or(self.not_before, |last| self.not_before.max(last + REPORT_EVERY))
    }

    fn report_due(&self) -> Instant {
        let told = self.results.is_empty() && !self.in_flight_changed;
        match self.last_report {
            Some(last) if told => self.not_before.max(last + self.tasks.shared.settings.lease / 4),
            _ => self.report_soonest(),
        }
    }

    async fn report(&mut self, ending: Ending) -> Next {
        let ends = ending != Ending::GoesOn;
        match self.report_with(ending, &[]).await {
            Went::Told if ends => OVER,
            Went::Lost => OVER,
            Went::Told | Went::Failed => ON,
        }
    }

    async fn report_with(&mut self, ending: Ending, beginning: &[Arc<str>]) -> Went {
        let shared = self.tasks.shared.clone();
        let count = self.results.len().min(REPORT_RESULTS_MAX);
        let in_flight = self.in_hand.values().chain(beginning).cloned().collect();
        let report = Report {
            id: self.task.id.clone(),
            term: self.term,
            results: self.results[..count].to_vec(),
            in_flight: Some(in_flight),
            ending,
        };
        let asked_at = Instant::now();
        match self.tasks.report(&report).await {
            Ok(Reported::Done { status, stop, .. }) => {
                self.last_report = Some(asked_at);
                self.results.drain(..count);
                self.in_flight_changed = false;
                self.trusted_until = asked_at + trust(&shared);
                self.asked(stop);
                shared.metrics.tasks.reports.inc();
                if status.is_final() {
                    tracing::info!(task = %self.task.id, status = status.as_str(), "finished a task");
                    shared.metrics.tasks.finished.get_or_create(&status.as_str().into()).inc();
                }
                Went::Told
            }
            Ok(Reported::Fenced | Reported::Absent | Reported::Unknown(_) | Reported::Early) => {
                tracing::warn!(task = %self.task.id, term = self.term, "the lease of a task was lost");
                shared.metrics.tasks.lost.inc();
                Went::Lost
            }
            Err(error) => {
                self.failed(&error);
                Went::Failed
            }
        }
    }

    fn asked(&mut self, stop: bool) {
        match (stop, self.stop) {
            (true, Stop::No) => {
                self.stop = Stop::Asked;
                self.no_more_tries.cancel();
            }
            (false, Stop::Asked) => {
                self.stop = Stop::No;
                self.no_more_tries = CancellationToken::new();
            }
            _ => {}
        }
    }

    fn failed(&mut self, error: &StoreError) {
        tracing::debug!(task = %self.task.id, %error, "the books of a task cannot be reached");
        self.not_before = Instant::now() + RETRY;
    }
}

/// How long after asking a lease is trusted. The books renew it when a third is gone, so two thirds
/// are sure; the rest is a margin for clocks that run at different speeds and for being slow.
fn trust(shared: &Shared) -> Duration {
    shared.settings.lease / 2
}
