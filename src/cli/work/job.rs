//! One task in the hands of this worker: its items, the commands that run, and the reports.
//!
//! ```text
//!   pages of items ──▶ queue ──▶ in hand (bounded) ──▶ results (bounded) ──▶ report
//! ```
//! A report goes when there is something to tell, eight times a second at most, and often enough to
//! keep the lease. While one is on its way the commands go on. Once the lease cannot be trusted
//! nothing new is begun, and when the server says that it is somebody else's the commands that
//! still run are killed, since another worker runs their items.
//!
//! With `at_most_once` a command is started only after a report that names its item was answered.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::command::{self, Template};
use super::{BACK_WITHIN, say};
use crate::client::{Client, ClientError, Item, ItemResult, Items, Lease, Report, Task};
use crate::domain::TaskId;

/// The server answers what comes sooner that much later.
const REPORT_EVERY: Duration = Duration::from_millis(125);

/// What one report carries. With more than that waiting nothing new is begun.
const REPORT_RESULTS_MAX: usize = 1_000;

/// How many items are asked for at once.
const PAGE_ITEMS: usize = 1_000;

/// What a worker that has the task no more did with it.
pub enum Ended {
    Finished(Box<Task>),
    /// Left for another worker; its status.
    LetGo(String),
    /// It is somebody else's, or gone.
    Lost(String),
}

/// A report that was answered: the task, and whether to begin nothing new.
type Answered = Result<(Task, bool), ClientError>;

pub struct Job<'a> {
    client: &'a Client,
    template: &'a Template,
    id: TaskId,
    task: Arc<Task>,
    term: i64,
    lease: Duration,
    concurrency: usize,
    /// Not begun.
    queue: VecDeque<Item>,
    /// Whether there is more to ask for, and after which item.
    more: bool,
    after: Option<String>,
    /// In hand, and begun when a report that named them was answered.
    announced: Vec<Item>,
    /// How many of these the report on its way names.
    named: usize,
    /// Dropped with the job, and the commands with them.
    running: FuturesUnordered<LocalBoxFuture<'a, (String, Result<(), String>)>>,
    names: BTreeSet<String>,
    results: Vec<ItemResult>,
    /// On its way, since when.
    reporting: Option<(LocalBoxFuture<'a, Answered>, Instant)>,
    last_report: Instant,
    in_flight_changed: bool,
    trusted_until: Instant,
    /// It is paused or being cancelled, or we leave: nothing new is begun.
    stop: bool,
}

impl<'a> Job<'a> {
    /// `asked_at`: when the lease was asked for, before which it cannot have begun.
    pub fn new(
        client: &'a Client,
        template: &'a Template,
        lease: Lease,
        concurrency_max: u32,
        asked_at: Instant,
        lease_for: Duration,
    ) -> Option<Job<'a>> {
        let concurrency = lease.task.concurrency.min(concurrency_max).max(1);
        Some(Job {
            client,
            template,
            id: TaskId::parse(&lease.task.id)?,
            task: Arc::new(lease.task),
            term: lease.term,
            lease: lease_for,
            concurrency: usize::try_from(concurrency).unwrap_or(1),
            after: lease.items.last().map(|item| item.name.clone()),
            queue: lease.items.into(),
            more: lease.more,
            announced: Vec::new(),
            named: 0,
            running: FuturesUnordered::new(),
            names: BTreeSet::new(),
            results: Vec::new(),
            reporting: None,
            last_report: asked_at,
            in_flight_changed: false,
            trusted_until: asked_at + trust(lease_for),
            stop: false,
        })
    }

    pub async fn run(mut self, leaving: &CancellationToken) -> Ended {
        loop {
            match self.step(leaving).await {
                Ok(None) => {}
                Ok(Some(ended)) => return ended,
                Err(error) => return Ended::Lost(error.to_string()),
            }
        }
    }

    async fn step(&mut self, leaving: &CancellationToken) -> Result<Option<Ended>, ClientError> {
        self.begin().await?;
        let idle = self.running.is_empty() && self.announced.is_empty();
        if idle && self.reporting.is_none() && self.results.len() <= REPORT_RESULTS_MAX {
            if self.queue.is_empty() && !self.more {
                let results = std::mem::take(&mut self.results);
                let finished = self.client.task_finish(&self.id, self.term, results, BACK_WITHIN);
                return Ok(Some(Ended::Finished(Box::new(finished.await?))));
            }
            if self.stop {
                let report = Report { release: true, ..self.next_report() };
                let (task, _) = self.client.task_report(&self.id, &report, BACK_WITHIN).await?;
                return Ok(Some(Ended::LetGo(task.status)));
            }
        }
        let (due, on_its_way) = (self.report_due(), self.reporting.is_some());
        let answer = match &mut self.reporting {
            Some((answer, _)) => answer.left_future(),
            None => future::pending().right_future(),
        };
        tokio::select! {
            Some((name, result)) = self.running.next() => self.booked(name, result),
            answered = answer => self.answered(answered)?,
            () = sleep_until(due), if !on_its_way => self.report(),
            () = leaving.cancelled(), if !self.stop => self.begin_nothing_more(),
        }
        Ok(None)
    }

    /// Begins what there are hands for.
    async fn begin(&mut self) -> Result<(), ClientError> {
        while self.may_begin() {
            if self.queue.is_empty() && self.more {
                self.read_on().await?;
            }
            let Some(item) = self.queue.pop_front() else { break };
            self.in_flight_changed = true;
            if self.task.at_most_once {
                self.announced.push(item);
            } else {
                self.start(item);
            }
        }
        Ok(())
    }

    fn may_begin(&self) -> bool {
        let in_hand = self.running.len() + self.announced.len();
        let trusted = Instant::now() < self.trusted_until;
        let room = self.results.len() < REPORT_RESULTS_MAX;
        !self.stop && trusted && room && in_hand < self.concurrency
    }

    async fn read_on(&mut self) -> Result<(), ClientError> {
        let unfinished = Some("unfinished".to_owned());
        let which = Items { status: unfinished, after: self.after.clone() };
        // No longer than the lease can wait.
        let page = self.client.task_items(&self.id, &which, PAGE_ITEMS, self.lease / 3).await;
        match page {
            Ok((items, more)) => {
                self.after = items.last().map(|item| item.name.clone()).or(self.after.take());
                self.more = more;
                self.queue.extend(items);
                Ok(())
            }
            // It is asked for again; what is in hand is reported first.
            Err(ClientError::GaveUp { reason, .. }) => {
                say(format!("task {}: {reason}", self.id));
                self.trusted_until = Instant::now();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn start(&mut self, item: Item) {
        self.names.insert(item.name.clone());
        let (template, task) = (self.template, self.task.clone());
        let within = Duration::from_secs(self.task.item_timeout_s.max(1));
        self.running.push(Box::pin(async move {
            let done = command::run(template, &task, &item, within).await;
            (item.name, done)
        }));
    }

    fn booked(&mut self, name: String, result: Result<(), String>) {
        self.names.remove(&name);
        self.in_flight_changed = true;
        self.results.push(match result {
            Ok(()) => ItemResult { item: name, status: "succeeded", error: None },
            Err(error) => ItemResult { item: name, status: "failed", error: Some(error) },
        });
    }

    fn report_due(&self) -> Instant {
        let news = self.in_flight_changed || !self.results.is_empty();
        self.last_report + if news { REPORT_EVERY } else { self.lease / 3 }
    }

    fn next_report(&mut self) -> Report {
        let most = self.results.len().min(REPORT_RESULTS_MAX);
        let announced = self.announced.iter().map(|item| item.name.clone());
        let in_flight = self.names.iter().cloned().chain(announced).collect();
        let results = self.results.drain(..most).collect();
        Report { term: self.term, results, in_flight, release: false }
    }

    fn report(&mut self) {
        let report = self.next_report();
        let (client, id) = (self.client, self.id.clone());
        self.named = self.announced.len();
        (self.last_report, self.in_flight_changed) = (Instant::now(), false);
        let answer = async move { client.task_report(&id, &report, BACK_WITHIN).await };
        self.reporting = Some((Box::pin(answer), self.last_report));
    }

    fn answered(&mut self, answered: Answered) -> Result<(), ClientError> {
        let Some((_, asked_at)) = self.reporting.take() else { return Ok(()) };
        let (_, stop) = answered?;
        self.trusted_until = asked_at + trust(self.lease);
        let named = self.announced.drain(..self.named.min(self.announced.len()));
        let named: Vec<Item> = named.collect();
        if stop || self.stop {
            // What was only named is not in hand.
            named.into_iter().rev().for_each(|item| self.queue.push_front(item));
            self.begin_nothing_more();
        } else {
            named.into_iter().for_each(|item| self.start(item));
        }
        Ok(())
    }

    fn begin_nothing_more(&mut self) {
        self.stop = true;
        self.named = 0;
        self.in_flight_changed |= !self.announced.is_empty();
        self.announced.drain(..).rev().for_each(|item| self.queue.push_front(item));
    }
}

/// For how long a lease is trusted. A report renews it when a third of it is gone, so two thirds are
/// sure; the rest is a margin for clocks that run at different speeds and for being slow.
fn trust(lease: Duration) -> Duration {
    lease / 2
}
