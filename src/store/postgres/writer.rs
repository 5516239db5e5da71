//! Appends batches: order is decided under the log's lock, durability is awaited outside it.
//!
//! ```text
//!   one connection ──append──▶ commits at once, synchronous_commit = off     ─▶ the turn passes on
//!                  ──barrier─▶ returns when the append is flushed            ─▶ publishers are answered
//!                  ──announce▶ NOTIFY, takes its numbers from the writer row ─▶ other replicas hear
//! ```
//! All three are sent without waiting for one another's answers. If the append fails, the
//! announcement finds another batch number in the slot and says nothing.
//!
//! When the connection breaks nobody knows whether the batch was committed. `recover` raises the
//! slot's fence, which shuts out a transaction that may still be running on the old connection,
//! and then reads which batch the slot has seen last:
//!
//! | the slot has seen | |
//! |---|---|
//! | the batch in flight | it was committed: barrier, answer, announcement |
//! | the last one that was answered | it was not, and never will be |
//! | an older one, or the row is gone | the log was set back by a failover or a restored backup: it was not, and the epoch is renewed |
//! | nothing of ours: a newer fence | another replica has taken the slot, and nobody can know |
//!
//! `batch` moves last, when nothing is awaited any more: whoever gives up on a call halfway leaves
//! the batch in flight.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, maybe_done};
use futures_util::poll;
use tokio::time::Instant;
use tokio_postgres::{Client, Row, Statement};

use super::connect::{classify, give_up};
use super::database::{Database, forgot_prepared, query_unnamed};
use super::query::{self, Params, Query};
use super::row;
use crate::domain::{Draft, Epoch, Trace};
use crate::notification;
use crate::store::{Appended, LogWriter, StoreError, Turn};

/// After how long an unused slot is given to another replica. Lanes renew theirs far more often.
const SLOT_IDLE_S: i32 = 600;

pub struct PostgresWriter {
    database: Database,
    /// Unique to this lane of this process.
    holder: String,
    link: Option<Link>,
    slot: Option<Slot>,
    /// A slot that turned out not to be ours any more; why is looked up before the next one is claimed.
    lost: Option<Slot>,
    /// The number of the last batch of this slot that was answered: committed, and durable.
    batch: i64,
    /// Whether the batch after it was sent and nobody knows what became of it.
    in_flight: bool,
    /// The life of the log in which the last batch was answered.
    epoch: Option<Epoch>,
    /// An epoch that must not go on: renewed until an answer shows another one, for a renewal can be
    /// lost by the next failover.
    broken: Option<Epoch>,
    /// The last announcement, not answered yet.
    announcing: Option<Announcing>,
}

type Announcing = BoxFuture<'static, Result<Vec<Row>, tokio_postgres::Error>>;

#[derive(Clone, Copy)]
struct Slot {
    number: i32,
    fence: i64,
}

/// A connection and what was prepared on it.
#[derive(Clone)]
struct Link {
    client: Arc<Client>,
    prepared: Option<Prepared>,
}

#[derive(Clone)]
struct Prepared {
    append: Statement,
    barrier: Statement,
    announce: Statement,
}

impl Link {
    async fn run(
        &self,
        query: &Query,
        pick: impl Fn(&Prepared) -> &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        match &self.prepared {
            Some(prepared) => self.client.query(pick(prepared), params).await,
            None => query_unnamed(&self.client, query, params).await,
        }
    }

    /// A statement between batches. Whatever its error, nothing was written by it.
    async fn ask(
        &self,
        database: &Database,
        query: &'static Query,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let asked = Instant::now();
        let rows = query_unnamed(&self.client, query, params).await;
        database.answered(query, asked.elapsed(), rows.is_ok());
        rows.map_err(|error| unavailable(classify(&error)))
    }

    async fn barrier(&self) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.run(&query::LOG_BARRIER, |prepared| &prepared.barrier, &[]).await
    }

    async fn announce(
        self,
        slot: Slot,
        number: i64,
        drafts: Vec<notification::Part>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let counts: Vec<i32> = drafts.iter().map(|part| part.count).collect();
        let bodies: Vec<&str> = drafts.iter().map(|part| part.body.as_str()).collect();
        let params: Params = &[&slot.number, &slot.fence, &number, &counts, &bodies];
        self.run(&query::LOG_ANNOUNCE, |prepared| &prepared.announce, params).await
    }
}

/// A batch as the arrays that `append` takes.
struct Columns<'a> {
    topics: Vec<&'a str>,
    datas: Vec<&'a str>,
    kinds: Vec<Option<&'a str>>,
    classes: Vec<i16>,
    keys: Vec<Option<&'a str>>,
    priorities: Vec<i16>,
    ttls: Vec<Option<i32>>,
    /// `None` when no draft has one, which is the short way through the log's lock.
    idempotency_keys: Option<Vec<Option<&'a str>>>,
    /// `None` when no draft has one, which is the rule.
    traces: Option<Vec<Option<&'a str>>>,
}

impl<'a> Columns<'a> {
    fn new(drafts: &'a [Draft]) -> Columns<'a> {
        let keyed = drafts.iter().any(|draft| draft.idempotency_key.is_some());
        let idempotency_keys =
            keyed.then(|| drafts.iter().map(|draft| draft.idempotency_key.as_deref()).collect());
        let trace = |draft: &'a Draft| draft.trace.as_ref().map(Trace::as_str);
        let traced = drafts.iter().any(|draft| draft.trace.is_some());
        let ttl = |draft: &Draft| draft.ttl_s.map(|ttl_s| i32::try_from(ttl_s).unwrap_or(i32::MAX));
        Columns {
            topics: drafts.iter().map(|draft| draft.topic.as_str()).collect(),
            datas: drafts.iter().map(|draft| &*draft.data).collect(),
            kinds: drafts.iter().map(|draft| draft.kind.as_deref()).collect(),
            classes: drafts.iter().map(|draft| draft.class.to_db()).collect(),
            keys: drafts.iter().map(|draft| draft.key.as_deref()).collect(),
            priorities: drafts.iter().map(|draft| draft.priority.to_db()).collect(),
            ttls: drafts.iter().map(ttl).collect(),
            idempotency_keys,
            traces: traced.then(|| drafts.iter().map(trace).collect()),
        }
    }
}

impl PostgresWriter {
    pub fn new(database: Database, replica: &str) -> PostgresWriter {
        let holder = format!("{replica}/{}", uuid::Uuid::now_v7().simple());
        PostgresWriter {
            database,
            holder,
            link: None,
            slot: None,
            lost: None,
            batch: 0,
            in_flight: false,
            epoch: None,
            broken: None,
            announcing: None,
        }
    }

    async fn link(&mut self) -> Result<Link, StoreError> {
        if let Some(link) = &self.link {
            return Ok(link.clone());
        }
        let client = self.database.connector().connect().await.map_err(unavailable)?;
        let prepared = if self.database.prepares() { Some(prepare(&client).await?) } else { None };
        let link = Link { client: Arc::new(client), prepared };
        self.link = Some(link.clone());
        Ok(link)
    }

    async fn slot(&mut self, link: &Link) -> Result<Slot, StoreError> {
        if let Some(slot) = self.slot {
            return Ok(slot);
        }
        if let Some(lost) = self.lost {
            self.was_set_back(link, lost).await?;
            self.lost = None;
        }
        self.renew_broken(link).await?;
        let params: Params = &[&self.holder, &SLOT_IDLE_S];
        let rows = link.ask(&self.database, &query::WRITER_CLAIM, params).await?;
        let claimed = rows.first().ok_or_else(|| row::corrupt("no writer slot was given"))?;
        let slot = Slot { number: row::get(claimed, 0)?, fence: row::get(claimed, 1)? };
        (self.slot, self.batch) = (Some(slot), 0);
        Ok(slot)
    }

    /// Whether the log has forgotten what this slot has seen. A fence only grows and a row stays, so
    /// another answer means a log that was set back; if publishers were answered for what is gone,
    /// its cursors must not be honoured any more.
    async fn was_set_back(&mut self, link: &Link, slot: Slot) -> Result<bool, StoreError> {
        let rows = link.ask(&self.database, &query::WRITER_LOOK, &[&slot.number]).await?;
        if let Some(found) = rows.first() {
            let (fence, holder): (i64, &str) = (row::get(found, 0)?, row::get(found, 1)?);
            let batch: i64 = row::get(found, 2)?;
            let forgotten =
                if holder == self.holder { batch < self.batch } else { fence <= slot.fence };
            if !forgotten {
                return Ok(false);
            }
        }
        if self.batch > 0 {
            tracing::error!(
                slot = slot.number,
                "the log was set back and has lost committed messages; its epoch is renewed"
            );
            self.broken.clone_from(&self.epoch);
            self.renew_broken(link).await?;
        }
        Ok(true)
    }

    async fn renew_broken(&mut self, link: &Link) -> Result<(), StoreError> {
        let Some(epoch) = &self.broken else { return Ok(()) };
        link.ask(&self.database, &query::EPOCH_RENEW, &[&epoch.as_str()]).await.map(drop)
    }

    async fn append_and_announce(
        &mut self,
        drafts: &[Draft],
        turn: Turn,
    ) -> Result<Appended, StoreError> {
        if std::mem::take(&mut self.in_flight) {
            // Nobody asked what became of it. Its number must not be met again: it would be answered.
            self.slot = None;
        }
        self.announced().await;
        let link = self.link().await?;
        let slot = self.slot(&link).await?;
        let number = self.batch + 1;
        let columns = Columns::new(drafts);
        let params: Params = &[
            &slot.number,
            &slot.fence,
            &number,
            &columns.topics,
            &columns.datas,
            &columns.kinds,
            &columns.classes,
            &columns.keys,
            &columns.priorities,
            &columns.ttls,
            &columns.idempotency_keys,
            &columns.traces,
        ];
        let append = link.run(&query::LOG_APPEND, |prepared| &prepared.append, params);
        let mut append = pin!(maybe_done(append));
        let mut barrier = pin!(maybe_done(link.barrier()));
        let mut announce =
            Box::pin(maybe_done(link.clone().announce(slot, number, notification::parts(drafts))));
        let asked = Instant::now();
        self.in_flight = true;
        // Polled once, in this order, each is on its way; only then are answers awaited.
        let _ = poll!(append.as_mut());
        let _ = poll!(barrier.as_mut());
        let _ = poll!(announce.as_mut());

        append.as_mut().await;
        let rows = append.take_output().expect("it has just ended");
        self.database.answered(&query::LOG_APPEND, asked.elapsed(), rows.is_ok());
        let rows = rows.map_err(|error| {
            let error = self.failed(&error);
            self.in_flight = matches!(error, StoreError::Unavailable(_));
            error
        })?;
        let committed = Instant::now();
        drop(turn);
        // It is committed: from here on no error may say that nothing was written.
        let appended = rows.first().ok_or_else(|| row::corrupt("append returned nothing"));
        let appended = appended.and_then(|found| row::appended(found, 0, drafts.len()));
        let appended = appended.map_err(unavailable)?;
        barrier.as_mut().await;
        let passed = barrier.take_output().expect("it has just ended");
        self.database.answered(&query::LOG_BARRIER, committed.elapsed(), passed.is_ok());
        passed.map_err(|error| unavailable(self.failed(&error)))?;
        let announcing = Box::pin(async move {
            announce.as_mut().await;
            announce.as_mut().take_output().expect("it has just ended")
        });
        self.settled(number, &appended, announcing);
        Ok(appended)
    }

    /// The batch in flight is committed and durable; its announcement is on its way.
    fn settled(&mut self, number: i64, appended: &Appended, announcing: Announcing) {
        (self.batch, self.in_flight) = (number, false);
        self.epoch = Some(appended.epoch.clone());
        self.broken.take_if(|broken| *broken != appended.epoch);
        self.announcing = Some(announcing);
    }

    /// Waits for the answer to the last announcement. If it failed, the ticks of the others find
    /// what it would have told; the publishers have long been answered.
    async fn announced(&mut self) {
        let Some(announcing) = self.announcing.take() else { return };
        if let Err(error) = announcing.await {
            self.database.failed(&query::LOG_ANNOUNCE);
            let error = self.failed(&error);
            tracing::warn!(%error, "a batch was not announced; the other replicas find it by their tick");
            if matches!(error, StoreError::Unavailable(_)) {
                self.link = None;
            }
        }
    }

    fn failed(&self, error: &tokio_postgres::Error) -> StoreError {
        if forgot_prepared(error) {
            self.database.prepare_never_again();
            return StoreError::Unavailable("a pooler shares this connection".to_owned());
        }
        classify(error)
    }

    async fn settle(&mut self, drafts: &[Draft]) -> Result<Option<Appended>, StoreError> {
        let Some(slot) = self.slot else { return Ok(None) };
        let link = self.link().await?;
        let rows =
            link.ask(&self.database, &query::WRITER_RECOVER, &[&slot.number, &self.holder]).await?;
        let mut seen = None;
        if let Some(found) = rows.first() {
            self.slot = Some(Slot { fence: row::get(found, 0)?, ..slot });
            seen = Some((row::get::<i64>(found, 1)?, found));
        }
        let number = self.batch + 1;
        match seen {
            Some((batch, _)) if batch == self.batch => {
                self.in_flight = false;
                Ok(None)
            }
            Some((batch, found)) if batch == number && self.in_flight => {
                let appended = row::appended(found, 2, drafts.len())?;
                link.ask(&self.database, &query::LOG_BARRIER, &[]).await?;
                let slot = self.slot.unwrap_or(slot);
                let parts = notification::parts(drafts);
                let mut announcing: Announcing = Box::pin(link.announce(slot, number, parts));
                // Polled once it is on its way. Its answer is not awaited: the publishers' does not
                // depend on it, and whoever gave up here would not know that the batch was answered.
                if let Poll::Ready(ended) = poll!(announcing.as_mut()) {
                    announcing = Box::pin(std::future::ready(ended));
                }
                self.settled(number, &appended, announcing);
                Ok(Some(appended))
            }
            _ => {
                let set_back = self.was_set_back(&link, slot).await?;
                (self.slot, self.in_flight) = (None, false);
                if set_back { Ok(None) } else { Err(StoreError::Fenced) }
            }
        }
    }

    /// Tells the server of a step that was given up, and forgets what is of no use after an error.
    async fn concluded<T>(
        &mut self,
        result: Result<Result<T, StoreError>, tokio::time::error::Elapsed>,
    ) -> Result<T, StoreError> {
        let result = match result {
            Ok(result) => result,
            Err(_) => {
                if let Some(link) = &self.link {
                    give_up(link.client.cancel_token(), self.database.connector().tls()).await;
                }
                Err(StoreError::Unavailable("a batch took too long".to_owned()))
            }
        };
        match &result {
            Err(StoreError::Unavailable(_)) => (self.link, self.announcing) = (None, None),
            Err(StoreError::Fenced) => (self.lost, self.in_flight) = (self.slot.take(), false),
            _ => {}
        }
        result
    }
}

#[async_trait]
impl LogWriter for PostgresWriter {
    async fn write(&mut self, drafts: &[Draft], turn: Turn) -> Result<Appended, StoreError> {
        let bound = self.database.statement_timeout();
        let result = tokio::time::timeout(bound, self.append_and_announce(drafts, turn)).await;
        self.concluded(result).await
    }

    async fn recover(&mut self, drafts: &[Draft]) -> Result<Option<Appended>, StoreError> {
        (self.link, self.announcing) = (None, None);
        let bound = self.database.statement_timeout();
        let result = tokio::time::timeout(bound, self.settle(drafts)).await;
        self.concluded(result).await
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        let Some(slot) = self.slot else { return Ok(()) };
        let params: Params = &[&slot.number, &slot.fence];
        self.database.rows(&query::WRITER_RENEW, params).await.map(drop)
    }

    async fn release(&mut self) {
        if self.in_flight {
            // What became of it nobody asked: the slot is busy with it, and free when it has been idle.
            return;
        }
        let bound = self.database.statement_timeout();
        let _ = tokio::time::timeout(bound, self.announced()).await;
        if let Some(slot) = self.slot.take() {
            let params: Params = &[&slot.number, &slot.fence];
            if let Err(error) = self.database.rows(&query::WRITER_RELEASE, params).await {
                tracing::debug!(%error, "a writer slot was not handed back; it is free when it has been idle");
            }
        }
    }
}

/// Whoever gives up on a batch halfway gives it up on the server as well.
impl Drop for PostgresWriter {
    fn drop(&mut self) {
        if let Some(link) = self.link.take().filter(|_| self.in_flight) {
            self.database.give_up(link.client.cancel_token(), link);
        }
    }
}

async fn prepare(client: &Client) -> Result<Prepared, StoreError> {
    let one = async |query: &Query| {
        client
            .prepare_typed(query.text, query.types)
            .await
            .map_err(|error| unavailable(classify(&error)))
    };
    Ok(Prepared {
        append: one(&query::LOG_APPEND).await?,
        barrier: one(&query::LOG_BARRIER).await?,
        announce: one(&query::LOG_ANNOUNCE).await?,
    })
}

/// Where no batch was refused every error means the same: not now, or not known.
fn unavailable(error: StoreError) -> StoreError {
    match error {
        StoreError::Refused(text) | StoreError::Unavailable(text) => StoreError::Unavailable(text),
        error => StoreError::Unavailable(error.to_string()),
    }
}
