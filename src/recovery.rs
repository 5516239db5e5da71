//! What is found again after something went wrong, and what is too old to be kept.
//!
//! One loop on every replica, woken by a hint or by its tick. `SKIP LOCKED` decides who does what,
//! and nobody waits for anybody else.

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
    /// An expired partition, and when it may be dropped.
    expired: Option<(Seq, Instant)>,
}

impl Recovery {
    pub fn new(
        settings: RecoverySettings,
        upkeep: Arc<dyn Upkeep>,
        log: Log,
        metrics: Metrics,
    ) -> Recovery {
        Recovery { settings, upkeep, log, metrics, expired: None }
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
                    if let Some((_, due)) = self.expired {
                        next_retention = next_retention.min(due);
                    }
                }
                () = sleep_until(next_forget) => {
                    let more = self.forget().await;
                    let pause = if more { Duration::ZERO } else { self.settings.retention_tick };
                    next_forget = Instant::now() + pause;
                }
            }
        }
    }

    /// Whether something waits for which the hint may have been lost.
    async fn look(&self) -> bool {
        let Some(oldest) = passing("outbox_oldest", self.upkeep.outbox_oldest().await) else {
            return false;
        };
        let age_s = oldest.map_or(0, |oldest| oldest.as_secs());
        let gauge = &self.metrics.recovery.outbox_oldest_seconds;
        gauge.set(i64::try_from(age_s).unwrap_or(i64::MAX));
        oldest.is_some()
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
        let now = Instant::now();
        match self.expired.take() {
            Some((first, due)) if due <= now => {
                let dropped = done("partition_drop", self.upkeep.partition_drop(first).await);
                if let Some(dropped @ 1..) = dropped {
                    self.metrics.recovery.partitions_dropped.inc();
                    tracing::info!(%first, seqs = dropped, "a partition was too old and is dropped");
                }
            }
            waiting => self.expired = waiting,
        }
        if self.expired.is_none()
            && let Some(Some(first)) =
                done("partition_expire", self.upkeep.partition_expire().await)
        {
            self.expired = Some((first, now + self.settings.drop_after));
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
