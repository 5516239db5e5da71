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

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Intake, PublishError, Request, Shared};
use crate::domain::Draft;
use crate::log::Log;
use crate::notification::Announcement;
use crate::store::{Appended, LogStore, LogWriter, StoreError, Turn};

/// How often an idle lane renews its slot; a tenth of the time after which it would be given away.
const RENEW: Duration = Duration::from_secs(60);

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

    /// Writes until told to stop; then writes what has queued, and hands its slot back.
    pub async fn run(&mut self, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut writer = self.store.writer().await?;
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
            let Some(first) = first else { break };
            let requests = self.take(first, &mut intake);
            self.write(&mut *writer, requests, Box::new(intake), stop).await;
        }
        writer.release().await;
        Ok(())
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
        let mut batches = VecDeque::from([requests]);
        while let Some(mut requests) = batches.pop_front() {
            if requests.is_empty() {
                continue;
            }
            let drafts: Vec<Draft> =
                requests.iter().flat_map(|request| request.drafts.iter().cloned()).collect();
            let turn = turn.take().unwrap_or_else(|| Box::new(()));
            match writer.write(&drafts, turn).await {
                Ok(appended) => self.done(requests, &drafts, &appended).await,
                // Nothing was written: the next call claims a slot of its own.
                Err(StoreError::Fenced) => batches.push_front(requests),
                Err(StoreError::Unavailable(reason)) => {
                    self.shared.metrics.publish.retried.inc();
                    tracing::warn!(reason, messages = drafts.len(), "a batch broke off");
                    let again = self.recover(writer, requests, &drafts, stop).await;
                    batches.push_front(again);
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
        stop: &CancellationToken,
    ) -> Vec<Request> {
        let mut troubled = None;
        let mut backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_secs(1))
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            match writer.recover(drafts).await {
                Ok(Some(appended)) => {
                    self.done(requests, drafts, &appended).await;
                    return Vec::new();
                }
                Ok(None) => {
                    // It was not committed and never will be, so whoever was told so is left out.
                    requests.retain(|request| !request.answer.is_closed());
                    return requests;
                }
                Err(StoreError::Unavailable(_)) => {
                    troubled.get_or_insert_with(|| Trouble::new(&self.shared));
                }
                Err(error) => {
                    tracing::error!(%error, "it cannot be known what became of a batch");
                    answer(requests, &PublishError::Unknown);
                    return Vec::new();
                }
            }
            tokio::select! {
                () = stop.cancelled() => {
                    answer(requests, &PublishError::Unknown);
                    return Vec::new();
                }
                () = tokio::time::sleep(backoff.next().unwrap_or(RENEW)) => {}
            }
        }
    }

    async fn done(&self, requests: Vec<Request>, drafts: &[Draft], appended: &Appended) {
        let fresh = appended.fresh();
        self.shared.metrics.publish.batch_messages.observe(fresh as f64);
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
