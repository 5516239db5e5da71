//! Reads the log.

use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::query::{self, Params};
use super::writer::PostgresWriter;
use super::{PostgresStore, row};
use crate::domain::{Epoch, Pattern, Seq, Timestamp};
use crate::store::{Found, Head, LogStore, LogWriter, Mark, Page, StoreError};

/// How many seqs one read for prefixes looks at: no index leads to them, so a window bounds the work.
const PREFIX_WINDOW: u64 = 20_000;

#[async_trait]
impl LogStore for PostgresStore {
    async fn head(&self) -> Result<Head, StoreError> {
        let found = self.database.row(&query::LOG_HEAD, &[]).await?;
        Ok(Head {
            epoch: row::epoch(&found, 0)?,
            seq: row::seq(&found, 1)?,
            oldest: row::seq(&found, 2)?,
            now: Timestamp(row::get(&found, 3)?),
        })
    }

    async fn barrier(&self) -> Result<(), StoreError> {
        self.database.rows(&query::LOG_BARRIER, &[]).await.map(drop)
    }

    async fn range(&self, after: Seq, until: Seq, page: Page) -> Result<Found, StoreError> {
        let (limit, bytes) = limits(page);
        let params: Params = &[&after.to_db(), &until.to_db(), &limit, &bytes];
        let rows = self.database.rows(&query::MESSAGE_RANGE, params).await?;
        found(&rows, after, until, page)
    }

    async fn matching(
        &self,
        patterns: &[Pattern],
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Found, StoreError> {
        // A topic named twice would be found twice.
        let (mut topics, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for pattern in patterns {
            match pattern {
                Pattern::Exact(topic) => topics.insert(topic.as_str()),
                Pattern::Prefix(prefix) => prefixes.insert(&**prefix),
            };
        }
        let topics: Vec<&str> = topics.into_iter().collect();
        let prefixes: Vec<&str> = prefixes.into_iter().collect();
        let (limit, bytes) = limits(page);
        if prefixes.is_empty() {
            let params: Params = &[&after.to_db(), &until.to_db(), &limit, &bytes, &topics];
            let rows = self.database.rows(&query::MESSAGE_TOPICS, params).await?;
            return found(&rows, after, until, page);
        }
        let until = until.min(after.plus(PREFIX_WINDOW));
        let params: Params = &[&after.to_db(), &until.to_db(), &limit, &bytes, &topics, &prefixes];
        let rows = self.database.rows(&query::MESSAGE_PREFIXES, params).await?;
        found(&rows, after, until, page)
    }

    async fn since(&self, moment: Timestamp) -> Result<Seq, StoreError> {
        let params: Params = &[&moment.0];
        row::seq(&self.database.row(&query::MESSAGE_SINCE, params).await?, 0)
    }

    async fn mark(&self, seq: Seq) -> Result<Option<Mark>, StoreError> {
        let params: Params = &[&seq.to_db()];
        let rows = self.database.rows(&query::MESSAGE_MARK, params).await?;
        let mark = |found: &Row| {
            Ok(Mark { at: Timestamp(row::get(found, 0)?), topic: row::topic(found, 1)? })
        };
        rows.first().map(mark).transpose()
    }

    async fn epoch_renew(&self, old: &Epoch) -> Result<(), StoreError> {
        let params: Params = &[&old.as_str()];
        self.database.rows(&query::EPOCH_RENEW, params).await.map(drop)
    }

    async fn writer(&self) -> Result<Box<dyn LogWriter>, StoreError> {
        Ok(Box::new(PostgresWriter::new(self.database.clone(), &self.settings.replica)))
    }
}

fn limits(page: Page) -> (i64, i64) {
    let number = |size: usize| i64::try_from(size.max(1)).unwrap_or(i64::MAX);
    (number(page.messages_max), number(page.bytes_max))
}

/// What a page holds, and how far it reaches: it was cut short if it is full in count or bytes.
fn found(rows: &[Row], after: Seq, until: Seq, page: Page) -> Result<Found, StoreError> {
    let first = rows.first().ok_or_else(|| row::corrupt("the log has no row"))?;
    let oldest = row::seq(first, 0)?;
    if after.next() < oldest {
        return Err(StoreError::Expired { oldest });
    }
    let mut messages = Vec::with_capacity(rows.len());
    for found in rows {
        messages.extend(row::message(found)?);
    }
    let bytes: usize = messages.iter().map(|message| message.data.len()).sum();
    let cut_short = messages.len() >= page.messages_max || bytes >= page.bytes_max;
    let last = messages.last().and_then(|message| message.seq);
    let read_to = if cut_short { last.unwrap_or(until) } else { until };
    Ok(Found { messages, read_to })
}
