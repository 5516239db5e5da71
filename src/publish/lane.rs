//! Writes batches, one after another; several lanes let the next append run while the last one's flush is awaited.
//!
//! ```text
//!                       committed                 answered, applied
//!   taken ──write──▶ ───────────────────────────▶ done
//!             │ connection broke                    ▲
//!             ▼                     it was          │
//!          unknown ──recover──▶ ────────────────────┤
//!                        │ it was not               │
//!                        └──▶ written again, for those who still wait
//! ```
//! A batch that the database refuses is halved until the one message that it cannot store stands
//! alone: nobody is refused for somebody else's message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Intake, PublishError, Request, Shared};
use crate::domain::Draft;
use crate::log::Log;
use crate::notification::Announcement;
use crate::store::{Appended, LogStore, LogWriter, StoreError, Turn};
use crate::supervise::{LAST_WORD, finish};

/// How often an idle lane renews its slot; far more often than slots that are not used are given away.
const RENEW: Duration = Duration::from_secs(60);

/// How long what has queued may take to be written when the replica stops: by then no connection is
/// left over which it could be answered.
const FLUSH: Duration = Duration::from_secs(3);

pub struct Lane {
    shared: Arc<Shared>,
    intake: Intake,
    store: Arc<dyn LogStore>,
    log: Log,
}

impl Lane {
    pub(super) fn new(
        shared: Arc<Shared>,
        intake: Intake,
        store: Arc<dyn LogStore>,
        log: Log,
    ) -> Lane {
        Lane { shared, intake, store, log }
    }

    /// Writes until told to stop; then writes what has queued, and hands its slot back. A store that
    /// hangs has its time, and what is not written by then nobody waits for any more.
    pub async fn run(&mut self, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut writer = self.store.writer().await?;
        finish(stop, FLUSH, self.write_all(&mut *writer, stop)).await;
        if tokio::time::timeout(LAST_WORD, writer.release()).await.is_err() {
            tracing::debug!("a writer slot was not handed back; it is free when it has been idle");
        }
        Ok(())
    }

    async fn write_all(&self, writer: &mut dyn LogWriter, stop: &CancellationToken) {
        loop {
            let mut intake = self.intake.clone().lock_owned().await;
            let first = tokio::select! {
                // What is queued comes first, so that nothing taken in is left behind.
                biased;
                request = intake.recv() => request,
                () = stop.cancelled() => {
                    intake.close();
                    intake.recv().await
                }
                () = tokio::time::sleep(RENEW) => {
                    drop(intake);
                    if let Err(error) = writer.renew().await {
                        tracing::debug!(%error, "a writer slot was not renewed");
                    }
                    continue;
                }
            };
            let Some(first) = first else { return };
            let requests = self.take(first, &mut intake);
            self.write(writer, requests, Box::new(intake), stop).await;
        }
    }

    /// All that is queued, up to the size of a batch. Whoever has given up is left out.
    fn take(&self, first: Request, intake: &mut mpsc::Receiver<Request>) -> Vec<Request> {
        let settings = &self.shared.settings;
        let (mut messages, mut bytes) = (0, 0);
        let mut requests = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            messages += request.drafts.len();
            bytes += request.weight_bytes;
            requests.push(request);
            if messages >= settings.batch_messages_max || bytes >= settings.batch_bytes_max {
                break;
            }
            next = intake.try_recv().ok();
        }
        requests.retain(|request| !request.answer.is_closed());
        requests
    }

    async fn write(
        &self,
        writer: &mut dyn LogWriter,
        requests: Vec<Request>,
        turn: Turn,
        stop: &CancellationToken,
    ) {
        let mut turn = Some(turn);
        let mut outage: Option<Outage> = None;
        let mut batches = VecDeque::from([requests]);
        while let Some(mut requests) = batches.pop_front() {
            if requests.is_empty() {
                continue;
            }
            let drafts: Vec<Draft> =
                requests.iter().flat_map(|request| request.drafts.iter().cloned()).collect();
            let turn = turn.take().unwrap_or_else(|| Box::new(()));
            #[cfg(feature = "otel")]
            let spans = crate::spans::commit(&drafts);
            let written = writer.write(&drafts, turn).await;
            #[cfg(feature = "otel")]
            spans.end(&written);
            match written {
                Ok(appended) => {
                    outage = None;
                    self.done(requests, &drafts, &appended).await;
                }
                // Nothing was written: the next call claims a slot of its own.
                Err(StoreError::Fenced) => batches.push_front(requests),
                Err(StoreError::Unavailable(reason)) => {
                    tracing::warn!(reason, messages = drafts.len(), "a batch broke off");
                    let outage = outage.get_or_insert_with(|| Outage::new(&self.shared));
                    let again = self.recover(writer, requests, &drafts, outage, stop).await;
                    if !again.is_empty() {
                        self.shared.metrics.publish.retried.inc();
                        batches.push_front(again);
                    }
                }
                Err(error) if requests.len() == 1 => {
                    tracing::error!(%error, "the store refused a message");
                    answer(requests, &PublishError::Refused(error.to_string()));
                }
                Err(_) => {
                    let second = requests.split_off(requests.len() / 2);
                    batches.push_front(second);
                    batches.push_front(requests);
                }
            }
        }
    }

    /// Finds out what became of a batch, however long that takes. Returns what is to be written again.
    async fn recover(
        &self,
        writer: &mut dyn LogWriter,
        mut requests: Vec<Request>,
        drafts: &[Draft],
        outage: &mut Outage<'_>,
        stop: &CancellationToken,
    ) -> Vec<Request> {
        while outage.try_again(stop).await {
            match writer.recover(drafts).await {
                Ok(Some(appended)) => {
                    self.shared.metrics.publish.recovered.inc();
                    self.done(requests, drafts, &appended).await;
                    return Vec::new();
                }
                Ok(None) => {
                    // It was not committed and never will be, so whoever was told so is left out.
                    requests.retain(|request| !request.answer.is_closed());
                    return requests;
                }
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => {
                    tracing::error!(%error, "it cannot be known what became of a batch");
                    answer(requests, &PublishError::Unknown);
                    return Vec::new();
                }
            }
        }
        answer(requests, &PublishError::Unknown);
        Vec::new()
    }

    async fn done(&self, requests: Vec<Request>, drafts: &[Draft], appended: &Appended) {
        self.shared.metrics.publish.batch_messages.observe(drafts.len() as f64);
        self.shared.metrics.publish.batches.inc();
        self.shared.last_commit.store(appended.at.0, Ordering::Relaxed);
        let fresh = appended.fresh();
        let mut placed = appended.placed.iter().copied();
        for request in requests {
            let own = placed.by_ref().take(request.drafts.len()).collect();
            // Whoever has gone away in the meantime does not want to know.
            let _ = request.answer.send(Ok((appended.epoch.clone(), own)));
        }
        // After the answers: the log may be busy, and nobody waits for it.
        if fresh > 0 {
            let announcement = Announcement {
                epoch: appended.epoch.clone(),
                first: appended.first,
                last: appended.first.plus(fresh - 1),
                messages: Some(appended.messages(drafts)),
            };
            self.log.announce_own(announcement).await;
        }
    }
}

fn answer(requests: Vec<Request>, error: &PublishError) {
    for request in requests {
        let _ = request.answer.send(Err(error.clone()));
    }
}

/// From the first call that failed to the first write that did not. It is one outage however often
/// the store can be reached in between and then takes nothing, as one does whose disk is full.
struct Outage<'a> {
    shared: &'a Shared,
    backoff: ExponentialBackoff,
    tried: bool,
    troubled: Option<Trouble<'a>>,
}

impl<'a> Outage<'a> {
    fn new(shared: &'a Shared) -> Outage<'a> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_secs(1))
            .with_jitter()
            .without_max_times()
            .build();
        Outage { shared, backoff, tried: false, troubled: None }
    }

    /// Returns when it is time; `false` when the replica leaves. The first time is now: mostly it
    /// was only the connection.
    async fn try_again(&mut self, stop: &CancellationToken) -> bool {
        if !std::mem::replace(&mut self.tried, true) {
            return true;
        }
        self.troubled.get_or_insert_with(|| Trouble::new(self.shared));
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = tokio::time::sleep(self.backoff.next().unwrap_or(RENEW)) => true,
        }
    }
}

/// Counts a lane as troubled for as long as it lives.
struct Trouble<'a>(&'a Shared);

impl Trouble<'_> {
    fn new(shared: &Shared) -> Trouble<'_> {
        shared.troubled.fetch_add(1, Ordering::Relaxed);
        Trouble(shared)
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        self.0.troubled.fetch_sub(1, Ordering::Relaxed);
    }
}
