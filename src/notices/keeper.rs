//! The loop: opens inboxes, writes receipts down, redelivers, and looks for what ran out.
//!
//! It takes all that waits and makes one statement of each kind of it. Whatever fails comes again:
//! inboxes that were not opened by the tick, receipts that were not written down with the next
//! session of their user, and whoever waits for an answer is told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::mailbox::{AGAIN, Letter, Mailbox, REPLAY};
use super::{Notices, Shared};
use crate::domain::notice::Counts;
use crate::domain::{Seq, Timestamp, UserId};
use crate::frame::Frame;
use crate::store::StoreError;
use crate::store::notice::{Delivery, Mark, Opened, Reader, Redelivery, Replays};

/// How many inboxes one statement opens, and how many receipts one lets grow.
const OPENS_MAX: usize = 256;
const MARKS_MAX: usize = 512;

/// For how many users one statement looks for what is due, and how much it takes at most.
const DUE_USERS_MAX: usize = 1_000;
const DUE_ROWS_MAX: usize = 500;

/// How soon after a failure inboxes that were not opened are tried again.
const RETRY: Duration = Duration::from_millis(500);

/// At every how many ticks it looks for notices that ran out.
const LAPSED_TICKS: u32 = 3;

/// How often it looks for notices that are too old.
const EXPIRY_TICK: Duration = Duration::from_secs(60);

/// What sessions and handlers want of the loop.
pub enum Job {
    Open(Arc<Mailbox>),
    Sent(Mark),
    Count(Reader),
    Acknowledge { marks: Vec<Mark>, answer: oneshot::Sender<Result<Counts, StoreError>> },
}

pub struct Keeper {
    notices: Notices,
    jobs: mpsc::Receiver<Job>,
    /// Up to here it was looked for notices that ran out, by the clock of the store.
    lapsed_to: Option<Timestamp>,
}

/// What was taken at once.
#[derive(Default)]
struct Batch {
    opens: Vec<Arc<Mailbox>>,
    readers: Vec<Reader>,
    marks: Vec<Mark>,
    answers: Vec<(UserId, oneshot::Sender<Result<Counts, StoreError>>)>,
}

impl Batch {
    fn add(&mut self, job: Job) {
        match job {
            Job::Open(mailbox) => self.opens.push(mailbox),
            Job::Sent(mark) => self.marks.push(mark),
            Job::Count(reader) => self.readers.push(reader),
            Job::Acknowledge { marks, answer } => {
                if let Some(mark) = marks.first() {
                    self.answers.push((mark.reader.user.clone(), answer));
                }
                self.marks.extend(marks);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.opens.len() + self.readers.len() >= OPENS_MAX || self.marks.len() >= MARKS_MAX
    }
}

impl Keeper {
    pub(super) fn new(notices: Notices, jobs: mpsc::Receiver<Job>) -> Keeper {
        Keeper { notices, jobs, lapsed_to: None }
    }

    pub async fn run(&mut self, stop: &CancellationToken) {
        let shared = self.notices.shared.clone();
        let mut next_tick = Instant::now() + shared.settings.tick;
        let mut next_expiry = Instant::now();
        let mut next_retry = None;
        let mut ticks = 0_u32;
        loop {
            let retry = next_retry.unwrap_or(next_tick);
            tokio::select! {
                () = stop.cancelled() => return,
                Some(job) = self.jobs.recv() => {
                    let mut batch = Batch::default();
                    batch.add(job);
                    while !batch.is_full() && let Ok(job) = self.jobs.try_recv() {
                        batch.add(job);
                    }
                    if !shared.work(batch).await {
                        next_retry = Some(Instant::now() + RETRY);
                    }
                    let waiting = i64::try_from(self.jobs.len()).unwrap_or(i64::MAX);
                    shared.metrics.notices.waiting.set(waiting);
                }
                () = sleep_until(retry), if next_retry.is_some() => {
                    next_retry = (!shared.open_rest().await).then(|| Instant::now() + RETRY);
                }
                () = shared.stirred.notified() => shared.redeliver().await,
                () = sleep_until(next_tick) => {
                    // A jitter of a tenth keeps a fleet that started together from asking together.
                    next_tick = Instant::now() + shared.settings.tick.mul_f64(rand::random_range(0.9..1.0));
                    shared.open_rest().await;
                    shared.redeliver().await;
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(LAPSED_TICKS) {
                        self.look_for_lapsed(&shared).await;
                    }
                }
                () = sleep_until(next_expiry) => {
                    next_expiry = Instant::now() + EXPIRY_TICK;
                    if let Err(error) = shared.notices.expire(shared.settings.retention).await {
                        tracing::debug!(%error, "old notices could not be removed");
                    }
                }
            }
        }
    }

    /// Whoever is connected counts anew when something ran out.
    async fn look_for_lapsed(&mut self, shared: &Shared) {
        let readers = shared.mailboxes.readers();
        if readers.is_empty() {
            // Whoever comes is counted then.
            self.lapsed_to = None;
            return;
        }
        let since = self.lapsed_to.unwrap_or(shared.log.now());
        match shared.inboxes.lapsed(since).await {
            Ok((now, false)) => self.lapsed_to = Some(now),
            Ok((now, true)) => {
                let mut all_counted = true;
                for readers in readers.chunks(OPENS_MAX) {
                    all_counted &= shared.count(readers).await;
                }
                self.lapsed_to = Some(if all_counted { now } else { since });
            }
            Err(error) => tracing::debug!(%error, "it is not known which notices ran out"),
        }
    }
}

impl Shared {
    /// Whether all of it was done.
    async fn work(&self, batch: Batch) -> bool {
        self.mark(batch.marks, batch.answers).await;
        let counted = self.count(&batch.readers).await;
        self.open(&batch.opens).await && counted
    }

    async fn mark(
        &self,
        marks: Vec<Mark>,
        answers: Vec<(UserId, oneshot::Sender<Result<Counts, StoreError>>)>,
    ) {
        if marks.is_empty() {
            return;
        }
        let marked = self.inboxes.mark(&marks).await;
        let marked = match marked {
            Ok(marked) => marked,
            Err(error) => {
                tracing::debug!(%error, "receipts were not written down");
                for (_, answer) in answers {
                    let _ = answer.send(Err(error.clone()));
                }
                return;
            }
        };
        for mark in &marks {
            self.metrics.notices.marks.get_or_create(&mark.state.as_str().into()).inc();
        }
        let mut said = HashSet::new();
        if let Some(announcement) = marked.told {
            said.extend(announcement.messages.iter().flatten().map(|one| one.topic.clone()));
            self.log.announce_own(announcement).await;
        }
        let counts: HashMap<UserId, Counts> = marked.counts.into_iter().collect();
        for (user, answer) in answers {
            let _ = answer.send(Ok(counts.get(&user).copied().unwrap_or_default()));
        }
        // Those who acted hear it from the log, like all their sessions elsewhere.
        for (user, counts) in counts.into_iter().filter(|(user, _)| !said.contains(&user.topic())) {
            self.show(&user, counts, marked.as_of);
        }
    }

    fn show(&self, user: &UserId, counts: Counts, as_of: Seq) {
        for mailbox in self.mailboxes.of(user) {
            mailbox.count(counts, as_of);
        }
    }

    async fn count(&self, readers: &[Reader]) -> bool {
        if readers.is_empty() {
            return true;
        }
        let nothing = Replays { max: 0, age: Duration::ZERO };
        match self.inboxes.open(readers, nothing).await {
            Ok(opened) => {
                for (reader, opened) in readers.iter().zip(opened) {
                    self.show(&reader.user, opened.counts, opened.as_of);
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "inboxes were not counted");
                false
            }
        }
    }

    async fn open(&self, mailboxes: &[Arc<Mailbox>]) -> bool {
        if mailboxes.is_empty() {
            return true;
        }
        let readers: Vec<Reader> = mailboxes.iter().map(|one| one.reader.clone()).collect();
        let opened = match self.inboxes.open(&readers, self.settings.replays).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%error, "inboxes were not opened");
                return false;
            }
        };
        for (mailbox, Opened { counts, as_of, missed, left_out }) in mailboxes.iter().zip(opened) {
            let letters = missed.into_iter().map(|delivery| letter(delivery, REPLAY));
            mailbox.set_opened(true);
            mailbox.open(letters.collect(), left_out);
            mailbox.count(counts, as_of);
        }
        true
    }

    /// Inboxes that found no room or no store.
    async fn open_rest(&self) -> bool {
        for mailboxes in self.mailboxes.unopened().chunks(OPENS_MAX) {
            if !self.open(mailboxes).await {
                return false;
            }
        }
        true
    }

    /// What was not acknowledged, to those who are connected here and to nobody else.
    async fn redeliver(&self) {
        for users in self.mailboxes.users().chunks(DUE_USERS_MAX) {
            let of = Redelivery {
                replica: &self.settings.replica,
                users,
                grace: self.settings.grace,
                tries_max: self.settings.tries_max,
                rows_max: DUE_ROWS_MAX,
            };
            let due = match self.inboxes.due(&of).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::debug!(%error, "nothing could be redelivered");
                    return;
                }
            };
            for (user, delivery) in due {
                let letter = letter(delivery, AGAIN);
                for mailbox in self.mailboxes.of(&user) {
                    if !mailbox.again(letter.clone()) {
                        self.metrics.notices.refused.get_or_create(&AGAIN.into()).inc();
                    }
                }
            }
        }
    }
}

fn letter(delivery: Delivery, way: &'static str) -> Letter {
    let Delivery { id, sending, message } = delivery;
    Letter { id, sending, frame: Arc::new(Frame::replay(&message)), way }
}
