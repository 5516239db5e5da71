//! Keeps the log in order: the outbox, partitions, old idempotency keys.

use std::time::Duration;

use async_trait::async_trait;

use super::query::{self, Params};
use super::{PostgresStore, row};
use crate::domain::Seq;
use crate::notification;
use crate::store::{FORGOTTEN_MAX, LogStore, Relayed, StoreError, Upkeep};

/// How much one relay transaction moves: the log's lock is held for it.
const RELAY_ROWS_MAX: i32 = 500;
const RELAY_BYTES_MAX: i64 = 1 << 20;

#[async_trait]
impl Upkeep for PostgresStore {
    async fn outbox_relay(&self) -> Result<Option<Relayed>, StoreError> {
        let params: Params = &[&RELAY_ROWS_MAX, &RELAY_BYTES_MAX];
        let rows = self.database.rows(&query::OUTBOX_RELAY, params).await?;
        let Some(moved) = rows.first() else { return Ok(None) };
        let taken: i32 = row::get(moved, 0)?;
        let epoch = row::epoch(moved, 1)?;
        let first = row::seq(moved, 2)?;
        let fresh: i32 = row::get(moved, 3)?;
        let at_ms: i64 = row::get(moved, 4)?;
        let taken = u64::try_from(taken).unwrap_or(0);
        let Ok(fresh @ 1..) = u64::try_from(fresh) else {
            return Ok(Some(Relayed { taken, epoch, range: None }));
        };
        let last = first.plus(fresh - 1);
        self.barrier().await?;
        let text = notification::range(epoch.as_str(), first, last, at_ms);
        let params: Params = &[&text];
        self.database.rows(&query::OUTBOX_ANNOUNCE, params).await?;
        Ok(Some(Relayed { taken, epoch, range: Some((first, last)) }))
    }

    async fn outbox_oldest(&self) -> Result<Option<Duration>, StoreError> {
        let found = self.database.row(&query::OUTBOX_OLDEST, &[]).await?;
        let oldest_s: Option<f64> = row::get(&found, 0)?;
        // It is negative when the clock has stepped back.
        Ok(oldest_s.map(|age| Duration::try_from_secs_f64(age).unwrap_or_default()))
    }

    async fn partition_ahead(&self) -> Result<(), StoreError> {
        self.database.rows(&query::PARTITION_AHEAD, &[]).await.map(drop)
    }

    async fn partition_expire(&self) -> Result<Vec<Seq>, StoreError> {
        let retention_s = i32::try_from(self.settings.retention_s).unwrap_or(i32::MAX);
        let params: Params = &[&retention_s];
        let found = self.database.rows(&query::PARTITION_EXPIRE, params).await?;
        found.iter().map(|partition| row::seq(partition, 0)).collect()
    }

    async fn partition_drop(&self, first: Seq) -> Result<u64, StoreError> {
        let params: Params = &[&first.to_db()];
        let found = self.database.row(&query::PARTITION_DROP, params).await?;
        let dropped: i64 = row::get(&found, 0)?;
        Ok(u64::try_from(dropped).unwrap_or(0))
    }

    async fn idempotency_expire(&self) -> Result<u64, StoreError> {
        let params: Params = &[&i64::try_from(FORGOTTEN_MAX).unwrap_or(i64::MAX)];
        let forgotten = self.database.rows(&query::IDEMPOTENCY_EXPIRE, params).await?;
        Ok(forgotten.len() as u64)
    }
}
