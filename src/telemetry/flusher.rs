//! The loop that writes what has been gathered: one flush at a time, and the same one again until it is known
//! what became of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::books::Scope;
use crate::domain::SourceId;
use crate::store::StoreError;
use crate::store::source::{Flushed, Part};
use crate::supervise::Shutdown;

/// Between two flushes of what is written at once: what comes meanwhile goes together.
const URGENT_PAUSE: Duration = Duration::from_millis(100);

pub struct Flusher {
    shared: Arc<Shared>,
    /// What is being written; kept if the loop has to begin anew.
    flight: Vec<Part>,
}

impl Flusher {
    pub(super) fn new(shared: Arc<Shared>) -> Flusher {
        Flusher { shared, flight: Vec::new() }
    }

    /// Runs until told to leave; then everything is written and every source let go.
    pub async fn run(&mut self, shutdown: &Shutdown) {
        let shared = self.shared.clone();
        let mut next_tick = Instant::now() + shared.settings.flush;
        self.land(shutdown).await;
        loop {
            let batch_at = shared.books.lock().batch_at();
            let batch = async {
                match batch_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let scope = tokio::select! {
                () = shared.unread.cancelled() => break,
                () = shutdown.stopping.cancelled() => return,
                () = shared.flush.notified() => Scope::Urgent,
                () = batch => Scope::States,
                () = sleep_until(next_tick) => {
                    next_tick = Instant::now() + shared.settings.flush;
                    Scope::States
                }
            };
            self.flush(scope, shutdown).await;
            if scope == Scope::Urgent {
                tokio::select! {
                    () = shared.unread.cancelled() => {}
                    () = sleep(URGENT_PAUSE) => {}
                }
            }
        }
        // What the readers left behind, in as many pieces as it takes.
        loop {
            self.flush(Scope::All, shutdown).await;
            let empty = shared.books.lock().buffer.len() == 0;
            if shutdown.stopping.is_cancelled() || empty {
                break;
            }
        }
        shared.drained.cancel();
    }

    async fn flush(&mut self, scope: Scope, shutdown: &Shutdown) {
        let shared = self.shared.clone();
        let now = shared.log.now();
        loop {
            let (parts, reason) = {
                let mut books = shared.books.lock();
                let due = books.batch_due(now);
                let (scope, reason) = match (scope, due) {
                    (Scope::All, _) => (Scope::All, "shutdown"),
                    (_, Some(reason)) => (Scope::Batch, reason),
                    (Scope::Urgent, None) => (Scope::Urgent, "facts"),
                    (_, None) => (Scope::States, "interval"),
                };
                (books.parts(now, scope), reason)
            };
            if parts.is_empty() {
                break;
            }
            shared.metrics.telemetry.flushes.get_or_create(&reason.into()).inc();
            self.flight = parts;
            if !self.land(shutdown).await {
                break;
            }
            let more = shared.books.lock().batch_due(now).is_some();
            if scope == Scope::All || !more {
                break;
            }
        }
    }

    /// Writes what is in hand, however long it takes; false if it was told to stop meanwhile.
    async fn land(&mut self, shutdown: &Shutdown) -> bool {
        if self.flight.is_empty() {
            return true;
        }
        let shared = self.shared.clone();
        let metrics = &shared.metrics.telemetry;
        let backoffs = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(3))
            .with_jitter()
            .without_max_times();
        let mut backoff = backoffs.build();
        loop {
            let begun = Instant::now();
            match shared.readers.flush(&self.flight).await {
                Ok(outcomes) => {
                    metrics.flush_seconds.observe(begun.elapsed().as_secs_f64());
                    metrics.flushed.inc();
                    self.landed(&outcomes.into_iter().collect());
                    return true;
                }
                Err(StoreError::Unavailable(error)) => {
                    metrics.flush_errors.inc();
                    tracing::debug!(error, "telemetry is kept in memory until it can be written");
                }
                Err(error) => {
                    // Trying again does not help; one bad part costs the others nothing.
                    metrics.flush_errors.inc();
                    if self.land_apart(&error).await {
                        return true;
                    }
                }
            }
            self.warn();
            tokio::select! {
                () = shutdown.stopping.cancelled() => return false,
                () = sleep(backoff.next().unwrap_or(Duration::from_secs(3))) => {}
            }
        }
    }

    /// False if the store went away meanwhile: what is written already is known by its number then.
    async fn land_apart(&mut self, error: &StoreError) -> bool {
        tracing::error!(%error, "a flush of telemetry was refused; its sources are written one by one");
        let mut outcomes = HashMap::new();
        for part in &self.flight {
            match self.shared.readers.flush(std::slice::from_ref(part)).await {
                Ok(known) => outcomes.extend(known),
                Err(StoreError::Unavailable(_)) => return false,
                Err(error) => {
                    // Its reader begins anew from what was written last.
                    tracing::error!(source = %part.id, %error, "what was gathered of a source cannot be written and is dropped");
                    outcomes.insert(part.id.clone(), Flushed::Lost);
                }
            }
        }
        self.landed(&outcomes);
        true
    }

    fn landed(&mut self, outcomes: &HashMap<SourceId, Flushed>) {
        let shared = &self.shared;
        let rows = self.flight.iter().map(|part| {
            let events = usize::from(!part.events.is_empty());
            1 + part.instances.len()
                + part.rollups.len() * 3
                + part.logs.len()
                + part.messages.len()
                + events
        });
        shared.metrics.telemetry.rows.inc_by(rows.sum::<usize>() as u64);
        let now = shared.log.now();
        {
            let mut books = shared.books.lock();
            books.written(&self.flight, outcomes, now);
            books.press();
        }
        self.flight.clear();
        shared.room.notify_waiters();
        self.warn();
    }

    /// Says once that the buffer is nearly full.
    fn warn(&self) {
        let metrics = &self.shared.metrics.telemetry;
        let mut books = self.shared.books.lock();
        let (events, bytes) = books.buffer.size();
        metrics.buffer_events.set(i64::try_from(events).unwrap_or(i64::MAX));
        metrics.buffer_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let thinned = std::mem::take(&mut books.buffer.thinned);
        metrics.thinned.inc_by(thinned);
        let warning = books.warning();
        metrics.pressed.set(i64::from(warning.is_some()));
        if let Some(warning) = warning.filter(|_| !books.warned) {
            books.warned = true;
            tracing::warn!("{warning}");
        }
    }
}

impl Shared {
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }
}
