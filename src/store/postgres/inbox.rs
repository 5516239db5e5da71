//! Inboxes in Postgres: many readers and many receipts a statement.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::notice::{notice_id, state, time, urgency, user, whole};
use super::query::{self, Params};
use super::row::{self, get};
use super::task::{count, millis, number};
use super::{PostgresStore, StoreError};
use crate::domain::notice::{Counts, NOTICE};
use crate::domain::{Class, Draft, Message, NoticeId, Priority, Seq, Timestamp, UserId};
use crate::store::LogStore;
use crate::store::notice::{
    Delivery, Entry, InboxFilter, InboxStore, Mark, Marked, Opened, Reader, Redelivery, Replays,
    counts_draft,
};

#[async_trait]
impl InboxStore for PostgresStore {
    async fn open(&self, readers: &[Reader], replays: Replays) -> Result<Vec<Opened>, StoreError> {
        if readers.is_empty() {
            return Ok(Vec::new());
        }
        let (users, roles) = columns(readers);
        let age_s = i32::try_from(replays.age.as_secs()).unwrap_or(i32::MAX);
        let max = i32::try_from(replays.max).unwrap_or(i32::MAX);
        let params: Params = &[&users, &roles, &max, &age_s];
        let rows = self.database.rows(&query::INBOX_OPEN, params).await?;
        // What was read may not be durable yet, and what was shown must not be taken back.
        self.barrier().await?;
        let mut opened: Vec<Opened> = Vec::with_capacity(readers.len());
        for found in &rows {
            if get::<i32>(found, 0)? > i32::try_from(opened.len()).unwrap_or(i32::MAX) {
                opened.push(Opened {
                    counts: counts(found, 1)?,
                    as_of: row::seq(found, 3)?,
                    missed: Vec::new(),
                    left_out: whole(found, 4)?,
                });
            }
            if get::<Option<&str>>(found, 5)?.is_some()
                && let Some(last) = opened.last_mut()
            {
                last.missed.push(delivery(found, 5)?);
            }
        }
        if opened.len() != readers.len() {
            return Err(row::corrupt("not every reader was answered"));
        }
        Ok(opened)
    }

    async fn mark(&self, marks: &[Mark]) -> Result<Marked, StoreError> {
        let readers: Vec<Reader> = marks.iter().map(|mark| mark.reader.clone()).collect();
        let (users, roles) = columns(&readers);
        let ids: Vec<Option<&str>> =
            marks.iter().map(|mark| mark.id.as_ref().map(NoticeId::as_str)).collect();
        let states: Vec<i16> = marks.iter().map(|mark| mark.state.to_db()).collect();
        let params: Params = &[&users, &roles, &ids, &states];
        let rows = self.database.rows(&query::INBOX_MARK, params).await?;
        let mut marked = Marked { counts: Vec::new(), as_of: Seq::ZERO, told: None };
        let mut drafts = Vec::new();
        for found in &rows {
            let (user, counts) = (user(found, 0)?, counts(found, 1)?);
            marked.as_of = row::seq(found, 3)?;
            if get(found, 4)? {
                drafts.push(counts_draft(&user, counts));
            }
            marked.counts.push((user, counts));
        }
        match rows.first() {
            Some(found) if !drafts.is_empty() => {
                let (epoch, first) = (row::epoch(found, 5)?, row::seq(found, 7)?);
                let at = Timestamp(get(found, 6)?);
                marked.told = Some(self.told(epoch, at, first, &drafts, &[]).await?);
            }
            // An acknowledgement that is answered is kept.
            _ => self.barrier().await?,
        }
        Ok(marked)
    }

    async fn inbox(
        &self,
        reader: &Reader,
        filter: &InboxFilter,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let (users, roles) = columns(std::slice::from_ref(reader));
        self.database.rows(&query::INBOX_FILL, &[&users, &roles]).await?;
        let params: Params = &[
            &reader.user.as_str(),
            &filter.unread,
            &filter.before.as_ref().map(NoticeId::as_str),
            &count(limit),
        ];
        self.database.rows(&query::INBOX_LIST, params).await?.iter().map(entry).collect()
    }

    async fn due(&self, of: &Redelivery<'_>) -> Result<Vec<(UserId, Delivery)>, StoreError> {
        let users: Vec<&str> = of.users.iter().map(UserId::as_str).collect();
        let rows_max = i32::try_from(of.rows_max).unwrap_or(i32::MAX);
        let params: Params =
            &[&of.replica, &users, &millis(of.grace), &number(of.tries_max), &rows_max];
        let rows = self.database.rows(&query::INBOX_DUE, params).await?;
        if !rows.is_empty() {
            self.barrier().await?;
        }
        rows.iter().map(|found| Ok((user(found, 0)?, delivery(found, 1)?))).collect()
    }

    async fn lapsed(&self, since: Timestamp) -> Result<(Timestamp, bool), StoreError> {
        let found = self.database.row(&query::NOTICE_LAPSED, &[&since.0]).await?;
        Ok((Timestamp(get(&found, 0)?), get(&found, 1)?))
    }
}

/// Users, and the roles of each in one text: none has a comma in it, since a topic has none.
fn columns(readers: &[Reader]) -> (Vec<&str>, Vec<String>) {
    let roles = |reader: &Reader| reader.roles.join(",");
    (
        readers.iter().map(|reader| reader.user.as_str()).collect(),
        readers.iter().map(roles).collect(),
    )
}

fn counts(found: &Row, index: usize) -> Result<Counts, StoreError> {
    Ok(Counts { unread: whole(found, index)?, unconfirmed: whole(found, index + 1)? })
}

/// The columns from the id of a notice to its data.
fn delivery(found: &Row, start: usize) -> Result<Delivery, StoreError> {
    let id = notice_id(get(found, start)?)?;
    let draft = Draft {
        kind: Some(NOTICE.into()),
        class: Class::Event,
        key: Some(id.as_str().into()),
        priority: Priority::from_db(get(found, start + 6)?).unwrap_or_default(),
        ..Draft::new(row::topic(found, start + 2)?, get::<&str>(found, start + 7)?)
    };
    let at = Timestamp(get(found, start + 4)?);
    let message = Message::from_draft(&draft, Some(row::seq(found, start + 3)?), at);
    let message = Message { expires_at: time(found, start + 5)?, ..message };
    let sending = u32::try_from(get::<i32>(found, start + 1)?).unwrap_or(1);
    Ok(Delivery { id, sending, message })
}

/// The columns of `inbox_list`.
fn entry(found: &Row) -> Result<Entry, StoreError> {
    let text = |index| get::<&str>(found, index).map(Arc::<str>::from);
    Ok(Entry {
        id: notice_id(get(found, 0)?)?,
        title: text(1)?,
        content: text(2)?,
        data: text(3)?,
        urgency: urgency(found, 4)?,
        confirm: get(found, 5)?,
        created_at: Timestamp(get(found, 6)?),
        expires_at: time(found, 7)?,
        state: state(found, 8)?,
        read_at: time(found, 9)?,
        confirmed_at: time(found, 10)?,
    })
}
