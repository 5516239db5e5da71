//! Notices in Postgres: each change is one call of one function, in one transaction with its messages.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::query::{self, Params};
use super::row::{self, get};
use super::task::{count, number};
use super::{PostgresStore, StoreError};
use crate::domain::notice::role_topic;
use crate::domain::{
    Notice, NoticeId, Priority, Receipt, ReceiptState, Tally, Target, Timestamp, Topic, Urgency,
    UserId,
};
use crate::store::LogStore;
use crate::store::notice::{
    NewNotice, NoticeStore, Recalled, RecipientFilter, Resent, Sent, drafts, recall_drafts,
};

/// How many notices one statement removes: with all their receipts.
const EXPIRE_NOTICES_MAX: i64 = 10;

#[async_trait]
impl NoticeStore for PostgresStore {
    async fn send(&self, notice: &NewNotice) -> Result<Sent, StoreError> {
        let (target, roles, users) = match &notice.target {
            Target::All => ("all", None, None),
            Target::Roles(roles) => ("roles", Some(texts(roles.iter().map(|role| &**role))), None),
            Target::Users(users) => ("users", None, Some(texts(users.iter().map(UserId::as_str)))),
        };
        let topics = notice.target.topics();
        if topics.is_empty() {
            return Err(StoreError::Refused("a notice for nobody".to_owned()));
        }
        let topic_names = texts(topics.iter().map(Topic::as_str));
        let except = texts(notice.except.iter().map(UserId::as_str));
        let params: Params = &[
            &notice.id.as_str(),
            &notice.idempotency_key.as_deref(),
            &target,
            &roles,
            &users,
            &except,
            &&*notice.title,
            &&*notice.content,
            &&*notice.data,
            &notice.urgency.as_str(),
            &notice.confirm,
            &notice.expires_in_s.map(number),
            &notice.sender.as_ref().map(UserId::as_str),
            &topic_names,
        ];
        let answer = self.database.row(&query::NOTICE_SEND, params).await?;
        let id = notice_id(get(&answer, 0)?)?;
        let duplicate = get(&answer, 1)?;
        let recipients = recipients(&answer, 2)?;
        if duplicate {
            // Its first send may still await its own.
            self.barrier().await?;
            return Ok(Sent { id, duplicate, recipients, told: None });
        }
        let (epoch, first) = (row::epoch(&answer, 3)?, row::seq(&answer, 5)?);
        let at = Timestamp(get(&answer, 4)?);
        let drafts = drafts(&id, topics, get(&answer, 6)?, notice.urgency, notice.expires_in_s);
        let told = Some(self.told(epoch, at, first, &drafts, &[]).await?);
        Ok(Sent { id, duplicate, recipients, told })
    }

    async fn get(&self, id: &NoticeId) -> Result<Option<Notice>, StoreError> {
        let rows = self.database.rows(&query::NOTICE_GET, &[&id.as_str()]).await?;
        rows.first().map(notice).transpose()
    }

    async fn tally(&self, id: &NoticeId) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        for found in self.database.rows(&query::NOTICE_TALLY, &[&id.as_str()]).await? {
            let state = state(&found, 0)?;
            tally.by_state[state as usize] += whole(&found, 1)?;
            tally.online += whole(&found, 2)?;
        }
        Ok(tally)
    }

    async fn list(
        &self,
        before: Option<&NoticeId>,
        limit: usize,
    ) -> Result<Vec<Notice>, StoreError> {
        let params: Params = &[&before.map(NoticeId::as_str), &count(limit)];
        self.database.rows(&query::NOTICE_LIST, params).await?.iter().map(notice).collect()
    }

    async fn recipients(
        &self,
        id: &NoticeId,
        filter: &RecipientFilter,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError> {
        let params: Params = &[
            &id.as_str(),
            &filter.state.map(ReceiptState::as_str),
            &filter.after.as_ref().map(UserId::as_str),
            &count(limit),
        ];
        self.database.rows(&query::NOTICE_RECIPIENTS, params).await?.iter().map(receipt).collect()
    }

    async fn resend(&self, id: &NoticeId) -> Result<Resent, StoreError> {
        let rows = self.database.rows(&query::NOTICE_RESEND, &[&id.as_str()]).await?;
        let Some(answer) = rows.first() else { return Ok(Resent::Absent) };
        if get::<&str>(answer, 0)? == "refused" {
            return Ok(Resent::Refused);
        }
        self.barrier().await?;
        Ok(Resent::Done(whole(answer, 1)?))
    }

    async fn recall(&self, id: &NoticeId) -> Result<Recalled, StoreError> {
        let rows = self.database.rows(&query::NOTICE_RECALL, &[&id.as_str()]).await?;
        let Some(answer) = rows.first() else { return Ok(Recalled::Absent) };
        if !get::<bool>(answer, 0)? {
            self.barrier().await?;
            return Ok(Recalled::Done(None));
        }
        let (epoch, first) = (row::epoch(answer, 1)?, row::seq(answer, 3)?);
        let topics = get::<Vec<&str>>(answer, 4)?;
        let topics: Result<Vec<Topic>, _> = topics.into_iter().map(Topic::parse).collect();
        let topics = topics.map_err(|_| row::corrupt("the topic of a notice"))?;
        let priority = Priority::from_db(get(answer, 5)?).unwrap_or_default();
        let drafts = recall_drafts(id, topics, priority);
        let at = Timestamp(get(answer, 2)?);
        Ok(Recalled::Done(Some(self.told(epoch, at, first, &drafts, &[]).await?)))
    }

    async fn expire(&self, after: Duration) -> Result<u64, StoreError> {
        let params: Params = &[&after.as_secs_f64(), &EXPIRE_NOTICES_MAX];
        Ok(self.database.rows(&query::NOTICE_EXPIRE, params).await?.len() as u64)
    }
}

fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    texts.collect()
}

pub(super) fn notice_id(text: &str) -> Result<NoticeId, StoreError> {
    NoticeId::parse(text).ok_or_else(|| row::corrupt("the id of a notice"))
}

pub(super) fn user(found: &Row, index: usize) -> Result<UserId, StoreError> {
    UserId::parse(get(found, index)?).map_err(|_| row::corrupt("the id of a user"))
}

pub(super) fn urgency(found: &Row, index: usize) -> Result<Urgency, StoreError> {
    Urgency::parse(get(found, index)?).ok_or_else(|| row::corrupt("the priority of a notice"))
}

pub(super) fn state(found: &Row, index: usize) -> Result<ReceiptState, StoreError> {
    ReceiptState::from_db(get(found, index)?).ok_or_else(|| row::corrupt("a receipt"))
}

pub(super) fn time(found: &Row, index: usize) -> Result<Option<Timestamp>, StoreError> {
    get::<Option<i64>>(found, index).map(|at| at.map(Timestamp))
}

/// A count of the database, which is never below zero.
pub(super) fn whole(found: &Row, index: usize) -> Result<u64, StoreError> {
    get::<i64>(found, index).map(|number| u64::try_from(number).unwrap_or(0))
}

fn recipients(found: &Row, index: usize) -> Result<Option<u32>, StoreError> {
    let recipients: Option<i32> = get(found, index)?;
    Ok(recipients.and_then(|number| u32::try_from(number).ok()))
}

/// The columns of `notice_get` and `notice_list`.
fn notice(found: &Row) -> Result<Notice, StoreError> {
    let text = |index| get::<&str>(found, index).map(Arc::<str>::from);
    let target = match get::<&str>(found, 1)? {
        "all" => Target::All,
        "users" => Target::Users(Vec::new()),
        _ => {
            let roles = get::<Option<Vec<&str>>>(found, 2)?.unwrap_or_default();
            Target::Roles(
                roles
                    .into_iter()
                    .filter(|role| role_topic(role).is_some())
                    .map(Arc::from)
                    .collect(),
            )
        }
    };
    let except = get::<Vec<&str>>(found, 3)?;
    let except: Result<Vec<UserId>, _> = except.into_iter().map(UserId::parse).collect();
    let sender = get::<Option<&str>>(found, 9)?.map(UserId::parse).transpose();
    Ok(Notice {
        id: notice_id(get(found, 0)?)?,
        target,
        except: except.map_err(|_| row::corrupt("who is left out of a notice"))?,
        title: text(4)?,
        content: text(5)?,
        data: text(6)?,
        urgency: urgency(found, 7)?,
        confirm: get(found, 8)?,
        sender: sender.map_err(|_| row::corrupt("the sender of a notice"))?,
        recipients: recipients(found, 10)?,
        created_at: Timestamp(get(found, 11)?),
        expires_at: time(found, 12)?,
        recalled_at: time(found, 13)?,
        sending: u32::try_from(get::<i32>(found, 14)?).unwrap_or(1),
    })
}

/// The columns of `notice_recipients`.
fn receipt(found: &Row) -> Result<Receipt, StoreError> {
    Ok(Receipt {
        user: user(found, 0)?,
        state: ReceiptState::parse(get(found, 1)?).ok_or_else(|| row::corrupt("a receipt"))?,
        sent_at: time(found, 2)?,
        received_at: time(found, 3)?,
        read_at: time(found, 4)?,
        confirmed_at: time(found, 5)?,
    })
}
