//! What is found again after something went wrong, and what is too old to be kept.
//!
//! One loop on every replica, woken by a hint or by its tick. `SKIP LOCKED` decides who does what,
//! and nobody waits for anybody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::domain::Seq;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::notification::Announcement;
use crate::store::{FORGOTTEN_MAX, StoreError, Upkeep};

#[derive(Debug, Clone, Copy)]
pub struct RecoverySettings {
    /// How often the outbox is looked at when no hint came: hints may be lost.
    pub tick: Duration,
    /// How often retention looks for what is too old.
    pub retention_tick: Duration,
    /// How long an expired partition stays, so that every replica learns of it by its own tick.
    pub drop_after: Duration,
}

impl Default for RecoverySettings {
    fn default() -> RecoverySettings {
        RecoverySettings {
            tick: Duration::from_secs(5),
            retention_tick: Duration::from_secs(60),
            drop_after: Duration::from_secs(10),
        }
    }
}

pub struct Recovery {
    settings: RecoverySettings,
    upkeep: Arc<dyn Upkeep>,
    log: Log,
    metrics: Metrics,
    /// Expired partitions, oldest first, and when the first of them may be dropped.
    expired: VecDeque<Seq>,
    drop_at: Instant,
    /// What the last look found: for how long the oldest row of the outbox had waited, and when.
    oldest: Option<(Duration, Instant)>,
}

impl Recovery {
    pub fn new(
        settings: RecoverySettings,
        upkeep: Arc<dyn Upkeep>,
        log: Log,
        metrics: Metrics,
    ) -> Recovery {
        let (expired, drop_at) = (VecDeque::new(), Instant::now());
        Recovery { settings, upkeep, log, metrics, expired, drop_at, oldest: None }
    }

    /// One step a turn, and whatever is due has its turn: a step that always has more to do, as an
    /// outbox that fills as fast as it is emptied, comes again and keeps no other one waiting.
    pub async fn run(&mut self, stop: &CancellationToken) {
        let now = Instant::now();
        let (mut next_tick, mut next_retention, mut next_forget) = (now, now, now);
        let mut next_relay = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.log.outbox_filled() => next_relay = Some(Instant::now()),
                () = wait(next_relay) => {
                    next_relay = self.relay().await.then(Instant::now);
                }
                () = sleep_until(next_tick) => {
                    next_tick = Instant::now() + self.settings.tick;
                    if self.look().await {
                        next_relay = Some(Instant::now());
                    }
                }
                () = sleep_until(next_retention) => {
                    self.retain().await;
                    next_retention = Instant::now() + self.settings.retention_tick;
                }
                () = sleep_until(self.drop_at), if !self.expired.is_empty() => self.drop_one().await,
                () = sleep_until(next_forget) => {
                    let more = self.forget().await;
                    let pause = if more { Duration::ZERO } else { self.settings.retention_tick };
                    next_forget = Instant::now() + pause;
                }
            }
        }
    }

    /// Whether something waits for which the hint may have been lost.
    async fn look(&mut self) -> bool {
        let found = passing("outbox_oldest", self.upkeep.outbox_oldest().await);
        if let Some(oldest) = found {
            self.oldest = oldest.map(|age| (age, Instant::now()));
        }
        // While the store is away what waited there grows older.
        let age_s = self.oldest.map_or(0, |(age, seen)| (age + seen.elapsed()).as_secs());
        let gauge = &self.metrics.recovery.outbox_oldest_seconds;
        gauge.set(i64::try_from(age_s).unwrap_or(i64::MAX));
        let waits = matches!(found, Some(Some(_)));
        if waits {
            self.metrics.recovery.outbox_found.inc();
        }
        waits
    }

    /// Moves some of what transactions of the application published. Whether there may be more.
    async fn relay(&self) -> bool {
        let relayed = passing("outbox_relay", self.upkeep.outbox_relay().await);
        let Some(Some(relayed)) = relayed else { return false };
        self.metrics.recovery.outbox_relayed.inc_by(relayed.taken);
        if let Some((first, last)) = relayed.range {
            let epoch = relayed.epoch;
            self.log.announce_own(Announcement { epoch, first, last, messages: None }).await;
        }
        true
    }

    /// Each step on its own: one that fails for ever must not end the others.
    async fn retain(&mut self) {
        done("partition_ahead", self.upkeep.partition_ahead().await);
        if !self.expired.is_empty() {
            return;
        }
        let expired = done("partition_expire", self.upkeep.partition_expire().await);
        self.expired = expired.unwrap_or_default().into();
        let found = u64::try_from(self.expired.len()).unwrap_or(u64::MAX);
        self.metrics.recovery.partitions_expired.inc_by(found);
        self.drop_at = Instant::now() + self.settings.drop_after;
    }

    /// One a turn: whoever reads or writes waits for it a little. One that is in use, or that another
    /// replica is at, is found again by the next look.
    async fn drop_one(&mut self) {
        let Some(first) = self.expired.pop_front() else { return };
        let dropped = done("partition_drop", self.upkeep.partition_drop(first).await);
        if let Some(dropped @ 1..) = dropped {
            self.metrics.recovery.partitions_dropped.inc();
            self.metrics.recovery.messages_dropped.inc_by(dropped);
            tracing::info!(%first, seqs = dropped, "a partition was too old and is dropped");
        }
    }

    /// Forgets some idempotency keys. Whether there are more: then it goes on at once, and between
    /// two steps the outbox has its turn.
    async fn forget(&self) -> bool {
        let forgotten = done("idempotency_expire", self.upkeep.idempotency_expire().await);
        let forgotten = forgotten.unwrap_or(0);
        self.metrics.recovery.keys_forgotten.inc_by(forgotten);
        forgotten >= FORGOTTEN_MAX
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// A step that comes again within seconds. That the store is away is said by the log.
fn passing<T>(step: &'static str, result: Result<T, StoreError>) -> Option<T> {
    if let Err(error @ StoreError::Unavailable(_)) = &result {
        tracing::debug!(step, %error, "recovery tries again at its next tick");
        return None;
    }
    done(step, result)
}

/// A step without which the database grows for ever.
fn done<T>(step: &'static str, result: Result<T, StoreError>) -> Option<T> {
    match result {
        Ok(done) => return Some(done),
        Err(error @ StoreError::Unavailable(_)) => {
            tracing::warn!(step, %error, "a step of recovery was not done; it is tried again");
        }
        Err(error) => tracing::error!(step, %error, "a step of recovery was refused"),
    }
    None
}
