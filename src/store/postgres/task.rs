//! Tasks in Postgres: each change is one call of one function, in one transaction with its messages.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::notice::notice_id;
use super::query::{self, Params, Query};
use super::row::{self, get};
use super::{PostgresStore, StoreError};
use crate::domain::{
    Counts, Draft, Epoch, ItemStatus, Message, Seq, Task, TaskId, TaskItem, TaskRules, TaskStatus,
    Timestamp, Topic, Urgency, UserId,
};
use crate::notification::{self, Announcement};
use crate::store::LogStore;
use crate::store::notice;
use crate::store::task::{
    Claim, Claimed, Ending, Granted, ItemFilter, NewTask, Report, Reported, Snapshot, Submitted,
    TaskFilter, TaskStore, Which, Wish, announcement, draft,
};

/// How many tasks one statement removes: with all their items.
const EXPIRE_ITEMS_MAX: i64 = 20_000;

#[async_trait]
impl TaskStore for PostgresStore {
    async fn submit(&self, task: &NewTask) -> Result<Submitted, StoreError> {
        let names: Vec<&str> = task.items.iter().map(|(name, _)| &**name).collect();
        let datas: Vec<Option<&str>> = task.items.iter().map(|(_, data)| data.as_deref()).collect();
        let timeout_ms = i32::try_from(task.rules.item_timeout.as_millis()).unwrap_or(i32::MAX);
        let params: Params = &[
            &task.id.as_str(),
            &task.idempotency_key.as_deref(),
            &&*task.action,
            &task.owner.as_ref().map(UserId::as_str),
            &task.external,
            &number(task.rules.concurrency),
            &number(task.rules.retries),
            &timeout_ms,
            &task.rules.at_most_once,
            &&*task.executor,
            &&*task.meta,
            &names,
            &datas,
            &task.rules.notice,
        ];
        let answer = self.database.row(&query::TASK_SUBMIT, params).await?;
        let id = task_id(get(&answer, TOLD)?)?;
        let duplicate = get(&answer, TOLD + 1)?;
        let told = self.settle(&answer, &[&id]).await?;
        Ok(Submitted { id, duplicate, told })
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        let rows = self.database.rows(&query::TASK_GET, &[&id.as_str()]).await?;
        rows.first().map(task).transpose()
    }

    async fn list(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
        let params: Params = &[
            &filter.owner.as_ref().map(UserId::as_str),
            &filter.status.map(TaskStatus::as_str),
            &filter.action.as_deref(),
            &filter.after.as_ref().map(TaskId::as_str),
            &count(limit),
        ];
        self.database.rows(&query::TASK_LIST, params).await?.iter().map(task).collect()
    }

    async fn items(
        &self,
        id: &TaskId,
        filter: &ItemFilter,
        limit: usize,
    ) -> Result<Vec<TaskItem>, StoreError> {
        let which = match filter.which {
            Which::All => None,
            Which::Only(status) => Some(status.as_str()),
            Which::Unfinished => Some("unfinished"),
        };
        let params: Params = &[&id.as_str(), &which, &filter.after.as_deref(), &count(limit)];
        self.database.rows(&query::TASK_ITEMS, params).await?.iter().map(item).collect()
    }

    async fn snapshot(&self, id: &TaskId) -> Result<Option<Snapshot>, StoreError> {
        let rows = self.database.rows(&query::TASK_SNAPSHOT, &[&id.as_str()]).await?;
        let Some(found) = rows.first() else { return Ok(None) };
        // What was read may not be durable yet, and what was shown must not be taken back.
        self.barrier().await?;
        let draft = draft(id, id.topic(), get(found, 4)?, get(found, 3)?);
        let at = Timestamp(get(found, 2)?);
        let message = Message::from_draft(&draft, Some(row::seq(found, 1)?), at);
        Ok(Some(Snapshot { epoch: row::epoch(found, 0)?, message, as_of: row::seq(found, 5)? }))
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let (actions, owner) = match &claim.external {
            None => (None, None),
            Some((actions, owner)) => {
                let actions: Vec<&str> = actions.iter().map(|action| &**action).collect();
                (Some(actions), owner.as_ref().map(UserId::as_str))
            }
        };
        let params: Params = &[
            &&*claim.holder,
            &millis(claim.lease),
            &i32::try_from(claim.tasks_max).unwrap_or(i32::MAX),
            &number(claim.takeovers_max),
            &actions,
            &owner,
        ];
        let answer = self.database.row(&query::TASK_CLAIM, params).await?;
        let ids: Vec<&str> = get(&answer, TOLD)?;
        let terms: Vec<i64> = get(&answer, TOLD + 1)?;
        let due_ms: Option<i64> = get(&answer, TOLD + 2)?;
        let lease = |(id, term): (&str, i64)| Ok((task_id(id)?, term));
        let leases: Result<_, StoreError> = ids.into_iter().zip(terms).map(lease).collect();
        let next_due = due_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        Ok(Claimed { leases: leases?, next_due, told: self.tell(&answer, &[]).await? })
    }

    async fn report(&self, report: &Report) -> Result<Reported, StoreError> {
        let results = &report.results;
        let names: Vec<&str> = results.iter().map(|result| &*result.name).collect();
        let outcomes: Vec<&str> = results.iter().map(|result| result.status().as_str()).collect();
        let errors: Vec<Option<&str>> = results.iter().map(|r| r.error.as_deref()).collect();
        let flying: Option<Vec<&str>> =
            report.in_flight.as_ref().map(|names| names.iter().map(|name| &**name).collect());
        let (ending, why) = match &report.ending {
            Ending::GoesOn => (None, None),
            Ending::Release => (Some("release"), None),
            Ending::Finish(why) => (Some("finish"), why.as_deref()),
        };
        let params: Params = &[
            &report.id.as_str(),
            &report.term,
            &names,
            &outcomes,
            &errors,
            &flying,
            &ending,
            &why,
        ];
        let answer = self.database.row(&query::TASK_REPORT, params).await?;
        match get(&answer, TOLD)? {
            "done" => {}
            "fenced" => return Ok(Reported::Fenced),
            "absent" => return Ok(Reported::Absent),
            "early" => return Ok(Reported::Early),
            "unknown" => return Ok(Reported::Unknown(get(&answer, TOLD + 3)?)),
            _ => return Err(row::corrupt("the outcome of a report")),
        }
        let status = status(get(&answer, TOLD + 1)?)?;
        let stop = get(&answer, TOLD + 2)?;
        // What was let go is for others to take up.
        let stirred = matches!(report.ending, Ending::Release) && !status.is_final();
        let stirred: &[&TaskId] = if stirred { &[&report.id] } else { &[] };
        Ok(Reported::Done { status, stop, told: self.settle(&answer, stirred).await? })
    }

    async fn grant(&self, id: &TaskId, wish: Wish) -> Result<Granted, StoreError> {
        let query = match wish {
            Wish::Cancel => &query::TASK_CANCEL,
            Wish::Pause => &query::TASK_PAUSE,
            Wish::Resume => &query::TASK_RESUME,
            Wish::Retry => &query::TASK_RETRY,
        };
        let rows = self.database.rows(query, &[&id.as_str()]).await?;
        let Some(answer) = rows.first() else { return Ok(Granted::Absent) };
        if get::<&str>(answer, TOLD)? == "refused" {
            return Ok(Granted::Refused);
        }
        Ok(Granted::Done(self.settle(answer, &[id]).await?))
    }

    async fn expire(&self, after: Duration) -> Result<u64, StoreError> {
        let params: Params = &[&after.as_secs_f64(), &EXPIRE_ITEMS_MAX];
        Ok(self.database.rows(&query::TASK_EXPIRE, params).await?.len() as u64)
    }
}

/// How many columns of an answer say what was appended.
const TOLD: usize = 7;

impl PostgresStore {
    /// As `tell`; and where nothing had to be said, because it was done before, awaits that.
    async fn settle(
        &self,
        answer: &Row,
        stirred: &[&TaskId],
    ) -> Result<Option<Announcement>, StoreError> {
        let told = self.tell(answer, stirred).await?;
        if told.is_none() {
            self.barrier().await?;
        }
        Ok(told)
    }

    /// Awaits the durability of what was appended, and announces it. What somebody should look at
    /// goes the same way.
    async fn tell(
        &self,
        answer: &Row,
        stirred: &[&TaskId],
    ) -> Result<Option<Announcement>, StoreError> {
        let Some(at_ms) = get::<Option<i64>>(answer, 1)? else { return Ok(None) };
        let (epoch, first) = (row::epoch(answer, 0)?, row::seq(answer, 2)?);
        let drafts = drafts(answer)?;
        self.told(epoch, Timestamp(at_ms), first, &drafts, stirred).await.map(Some)
    }

    /// The same for drafts of whatever part, whose place in the log is known.
    pub(super) async fn told(
        &self,
        epoch: Epoch,
        at: Timestamp,
        first: Seq,
        drafts: &[Draft],
        stirred: &[&TaskId],
    ) -> Result<Announcement, StoreError> {
        self.barrier().await?;
        let mut texts = notification::announcements(&epoch, first, at, drafts);
        texts.extend(stirred.iter().map(|id| notification::stirred(id)));
        if let Err(error) = self.announce(&query::TASK_ANNOUNCE, &texts).await {
            tracing::warn!(%error, "messages were not announced; the other replicas find them by their tick");
        }
        Ok(announcement(epoch, at, first, drafts))
    }

    async fn announce(&self, query: &Query, texts: &[String]) -> Result<(), StoreError> {
        let params: Params = &[&texts];
        self.database.rows(query, params).await.map(drop)
    }
}

fn drafts(answer: &Row) -> Result<Vec<Draft>, StoreError> {
    let topics: Vec<&str> = get(answer, 3)?;
    let datas: Vec<&str> = get(answer, 4)?;
    // Neither final nor not: a notice.
    let finals: Vec<Option<bool>> = get(answer, 5)?;
    let ids: Vec<&str> = get(answer, 6)?;
    let parts = topics.into_iter().zip(datas).zip(finals).zip(ids);
    let one = |(((topic, data), is_final), id)| {
        let topic = Topic::parse(topic).map_err(|_| row::corrupt("the topic of a task"))?;
        match is_final {
            Some(is_final) => Ok(draft(&task_id(id)?, topic, data, is_final)),
            None => {
                Ok(notice::draft(&notice_id(id)?, topic, data.into(), Urgency::default(), None))
            }
        }
    };
    parts.map(one).collect()
}

fn task_id(text: &str) -> Result<TaskId, StoreError> {
    TaskId::parse(text).ok_or_else(|| row::corrupt("the id of a task"))
}

fn status(text: &str) -> Result<TaskStatus, StoreError> {
    TaskStatus::parse(text).ok_or_else(|| row::corrupt("the status of a task"))
}

/// The columns of `task_get` and `task_list`.
fn task(found: &Row) -> Result<Task, StoreError> {
    let count = |index| get::<i32>(found, index).map(|n| u32::try_from(n).unwrap_or(0));
    let text = |index| get::<Option<&str>>(found, index).map(|text| text.map(Arc::from));
    let time = |index| get::<Option<i64>>(found, index).map(|at| at.map(Timestamp));
    let owner = get::<Option<&str>>(found, 2)?.map(UserId::parse).transpose();
    let timeout_ms = u64::from(count(21)?);
    Ok(Task {
        id: task_id(get(found, 0)?)?,
        action: get::<&str>(found, 1)?.into(),
        owner: owner.map_err(|_| row::corrupt("the owner of a task"))?,
        status: status(get(found, 3)?)?,
        counts: Counts {
            total: count(4)?,
            succeeded: count(5)?,
            failed: count(6)?,
            cancelled: count(7)?,
        },
        in_flight: get::<Vec<&str>>(found, 8)?.into_iter().map(Arc::from).collect(),
        message: text(9)?,
        error: text(10)?,
        attempt: count(11)?,
        replica: text(12)?,
        created_at: Timestamp(get(found, 13)?),
        started_at: time(14)?,
        updated_at: Timestamp(get(found, 15)?),
        finished_at: time(16)?,
        meta: get::<&str>(found, 17)?.into(),
        executor: get::<&str>(found, 18)?.into(),
        rules: TaskRules {
            concurrency: count(19)?,
            retries: count(20)?,
            item_timeout: Duration::from_millis(timeout_ms),
            at_most_once: get(found, 22)?,
            notice: get(found, 24)?,
        },
        seq: Seq::from_db(get(found, 23)?),
    })
}

/// The columns of `task_items`.
fn item(found: &Row) -> Result<TaskItem, StoreError> {
    let attempt: Option<i32> = get(found, 4)?;
    Ok(TaskItem {
        name: get::<&str>(found, 0)?.into(),
        data: get::<Option<&str>>(found, 1)?.map(Arc::from),
        status: ItemStatus::parse(get(found, 2)?)
            .ok_or_else(|| row::corrupt("the status of an item"))?,
        error: get::<Option<&str>>(found, 3)?.map(Arc::from),
        attempt: attempt.and_then(|attempt| u32::try_from(attempt).ok()),
        finished_at: get::<Option<i64>>(found, 5)?.map(Timestamp),
    })
}

pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
