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
use crate::store::{KEYS_FORGOTTEN_MAX, StoreError, Upkeep};

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

/// How soon retention looks again where a look did not see the end of what is too old.
const AGAIN: Duration = Duration::from_millis(200);

/// What a look of retention may have left.
enum Rest {
    Nothing,
    /// It forgets a bounded number at a time, so that the outbox need not wait for it.
    More,
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

    pub async fn run(&mut self, stop: &CancellationToken) {
        let mut next_tick = Instant::now();
        let mut next_retention = Instant::now();
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                () = self.log.outbox_filled() => self.relay().await,
                () = sleep_until(next_tick) => {
                    next_tick = Instant::now() + self.settings.tick;
                    self.relay().await
                }
                () = sleep_until(next_retention) => {
                    let retained = self.retain().await;
                    next_retention = Instant::now() + self.settings.retention_tick;
                    if let Some((_, due)) = self.expired {
                        next_retention = next_retention.min(due);
                    }
                    if matches!(retained, Ok(Rest::More)) {
                        next_retention = next_retention.min(Instant::now() + AGAIN);
                    }
                    retained.map(drop)
                }
            };
            if let Err(error) = result {
                // The store is away; the log says so, and everything is found at a later tick.
                tracing::debug!(%error, "recovery could not do its work");
            }
        }
    }

    /// Moves what transactions of the application published, until nothing is left.
    async fn relay(&self) -> Result<(), StoreError> {
        while let Some(relayed) = self.upkeep.outbox_relay().await? {
            self.metrics.recovery.outbox_relayed.inc_by(relayed.taken);
            if let Some((first, last)) = relayed.range {
                let epoch = relayed.epoch;
                self.log.announce_own(Announcement { epoch, first, last, messages: None }).await;
            }
        }
        Ok(())
    }

    async fn retain(&mut self) -> Result<Rest, StoreError> {
        let waiting = self.upkeep.outbox_state().await?;
        #[expect(clippy::cast_possible_truncation, reason = "an age in seconds")]
        self.metrics.recovery.outbox_oldest_seconds.set(waiting.oldest_s as i64);
        self.upkeep.partition_ahead().await?;
        let forgotten = self.upkeep.idempotency_expire().await?;
        let now = Instant::now();
        match self.expired.take() {
            Some((first, due)) if due <= now => {
                let dropped = self.upkeep.partition_drop(first).await?;
                if dropped > 0 {
                    self.metrics.recovery.partitions_dropped.inc();
                    tracing::info!(%first, seqs = dropped, "a partition was too old and is dropped");
                }
            }
            waiting => self.expired = waiting,
        }
        if self.expired.is_none()
            && let Some(first) = self.upkeep.partition_expire().await?
        {
            self.expired = Some((first, now + self.settings.drop_after));
        }
        let more = forgotten >= u64::from(KEYS_FORGOTTEN_MAX);
        Ok(if more { Rest::More } else { Rest::Nothing })
    }
}
