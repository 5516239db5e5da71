//! Telemetry in Postgres.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio_postgres::Row;

use super::query::Params;
use super::row::{self, get};
use super::{PostgresStore, query};
use crate::domain::telemetry::instance::Instance;
use crate::domain::telemetry::rollup::{Course, Growth};
use crate::domain::{SourceId, SourceStatus, Timestamp};
use crate::notification;
use crate::store::StoreError;
use crate::store::source::{
    Created, Dashboard, Flushed, INBOX_BYTES_MAX, INBOX_MAX, Ingested, LogFilter, LogLine,
    PUSHED_BYTES_MAX, Part, Pushed, ReaderStore, SWEPT_MAX, Said, Source, SourceClaim,
    SourceClaimed, SourceLease, SourceRules, SourceStore, Swept, TrendPoint, TrendQuery,
    bucket_value, instance_parts, instance_read, whole,
};

impl PostgresStore {
    /// Tells the readers to look. A hint: without it they look at their tick.
    async fn source_stir(&self, id: &SourceId, pushed: bool) {
        let texts = vec![notification::source_stirred(id, pushed)];
        if let Err(error) = self.database.rows(&query::SIGNAL_NOTIFY, &[&texts]).await {
            tracing::debug!(%error, "the readers of sources find the change by their tick");
        }
    }
}

#[async_trait]
impl SourceStore for PostgresStore {
    async fn create(
        &self,
        id: &SourceId,
        rules: &SourceRules,
        max: usize,
    ) -> Result<Created, StoreError> {
        let SourceRules { format, url, sealed, headers, enabled } = rules;
        let headers: Vec<&str> = headers.iter().map(|name| &**name).collect();
        let max = count(max);
        let (url, sealed) = (url.as_deref(), sealed.as_deref());
        let params: Params = &[&id.as_str(), &&**format, &url, &sealed, &headers, enabled, &max];
        let answer = self.database.row(&query::SOURCE_CREATE, params).await?;
        if get(&answer, 0)? {
            self.source_stir(id, false).await;
            return Ok(Created::Done);
        }
        Ok(if get(&answer, 1)? { Created::Known } else { Created::Full })
    }

    async fn get(&self, id: &SourceId) -> Result<Option<Source>, StoreError> {
        let params: Params = &[&id.as_str(), &None::<&str>, &1_i64];
        let rows = self.database.rows(&query::SOURCE_GET, params).await?;
        rows.first().map(source).transpose()
    }

    async fn list(
        &self,
        after: Option<&SourceId>,
        limit: usize,
    ) -> Result<Vec<Source>, StoreError> {
        let params: Params = &[&None::<&str>, &after.map(SourceId::as_str), &count(limit)];
        self.database.rows(&query::SOURCE_GET, params).await?.iter().map(source).collect()
    }

    async fn change(
        &self,
        id: &SourceId,
        revision: i64,
        rules: &SourceRules,
    ) -> Result<bool, StoreError> {
        let SourceRules { format, url, sealed, headers, enabled } = rules;
        let headers: Vec<&str> = headers.iter().map(|name| &**name).collect();
        let (url, sealed) = (url.as_deref(), sealed.as_deref());
        let params: Params =
            &[&id.as_str(), &revision, &&**format, &url, &sealed, &headers, enabled];
        let changed = !self.database.rows(&query::SOURCE_CHANGE, params).await?.is_empty();
        self.source_stir(id, false).await;
        Ok(changed)
    }

    async fn delete(&self, id: &SourceId) -> Result<bool, StoreError> {
        let deleted = !self.database.rows(&query::SOURCE_DELETE, &[&id.as_str()]).await?.is_empty();
        self.source_stir(id, false).await;
        Ok(deleted)
    }

    async fn ingest(&self, id: &SourceId, events: &str) -> Result<Ingested, StoreError> {
        let params: Params = &[&id.as_str(), &events, &count(INBOX_MAX), &count(INBOX_BYTES_MAX)];
        let rows = self.database.rows(&query::SOURCE_INGEST, params).await?;
        let Some(answer) = rows.first() else { return Ok(Ingested::Absent) };
        let (pushes, enabled, kept): (bool, bool, bool) =
            (get(answer, 0)?, get(answer, 1)?, get(answer, 2)?);
        if kept {
            self.source_stir(id, true).await;
        }
        Ok(match (kept, pushes, enabled) {
            (true, ..) => Ingested::Done,
            (_, false, _) => Ingested::Read,
            (_, _, false) => Ingested::Disabled,
            _ => Ingested::Full,
        })
    }

    async fn trend(&self, wanted: &TrendQuery) -> Result<Vec<TrendPoint>, StoreError> {
        let (first, next): (Vec<i64>, Vec<i64>) =
            wanted.buckets.iter().map(|(first, next)| (first.0, next.0)).unzip();
        let params: Params = &[
            &wanted.source.as_str(),
            &wanted.instance.as_deref(),
            &&*wanted.metric,
            &wanted.level.to_db(),
            &first,
            &next,
        ];
        let mut points = vec![TrendPoint::default(); wanted.buckets.len()];
        for found in self.database.rows(&query::SOURCE_TREND, params).await? {
            let place: i64 = get(&found, 0)?;
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let Some(point) = points.get_mut(place) {
                *point = TrendPoint { growth: growth(&found)?, course: course(&found)? };
            }
        }
        Ok(points)
    }

    async fn logs(
        &self,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Vec<(i64, LogLine)>, StoreError> {
        let LogFilter { source, instance, before } = filter;
        let params: Params = &[&source.as_str(), &instance.as_deref(), before, &count(limit)];
        let line = |found: &Row| {
            let instance = get::<Option<&str>>(found, 2)?.map(Arc::from);
            let at = Timestamp(get(found, 3)?);
            Ok((get(found, 0)?, LogLine { instance, at, text: get::<&str>(found, 4)?.into() }))
        };
        self.database.rows(&query::SOURCE_LOGS, params).await?.iter().map(line).collect()
    }

    async fn dashboard(&self, of: Option<&[SourceId]>) -> Result<Dashboard, StoreError> {
        let of: Option<Vec<&str>> = of.map(|of| of.iter().map(SourceId::as_str).collect());
        let answer = self.database.row(&query::SOURCE_DASHBOARD, &[&of]).await?;
        let document: Value = json(get(&answer, 0)?)?;
        let counts = |name: &str| -> BTreeMap<String, u64> {
            let all = document[name].as_object().into_iter().flatten();
            all.filter_map(|(key, value)| Some((key.clone(), value.as_u64()?))).collect()
        };
        let sum = |value: &Value| value.as_str()?.parse().ok().map(whole);
        let counter = |(name, value): (&String, &Value)| {
            let sums = (sum(&value["total"])?, sum(&value["last_hour"])?);
            Some((name.clone(), sums))
        };
        let counters = document["counters"].as_object().into_iter().flatten().map(counter);
        let counters: Option<BTreeMap<_, _>> = counters.collect();
        Ok(Dashboard {
            sources: counts("sources"),
            instances: counts("instances"),
            counters: counters.ok_or_else(|| row::corrupt("the sum of a counter"))?,
        })
    }
}

#[async_trait]
impl ReaderStore for PostgresStore {
    async fn claim(&self, claim: &SourceClaim) -> Result<SourceClaimed, StoreError> {
        let lease_ms = i64::try_from(claim.lease.as_millis()).unwrap_or(i64::MAX);
        let room = i32::try_from(claim.sources_max).unwrap_or(i32::MAX);
        let params: Params = &[&&*claim.holder, &lease_ms, &room, &claim.takes, &claim.holds];
        let answer = self.database.row(&query::SOURCE_CLAIM, params).await?;
        let number = |at| get::<i32>(&answer, at).map(|n| usize::try_from(n).unwrap_or(0));
        let sources: Vec<Value> = json(get(&answer, 2)?)?;
        let leases: Option<Vec<SourceLease>> = sources.iter().map(lease).collect();
        let leases = leases.ok_or_else(|| row::corrupt("a source that was claimed"))?;
        Ok(SourceClaimed { total: number(0)?, share: number(1)?, leases })
    }

    async fn release(&self, holder: &str) -> Result<(), StoreError> {
        self.database.rows(&query::SOURCE_RELEASE, &[&holder]).await.map(drop)
    }

    async fn instances(&self, id: &SourceId) -> Result<Vec<(Arc<str>, Instance)>, StoreError> {
        let one = |found: &Row| {
            let (at, created_at) = (Timestamp(get(found, 4)?), Timestamp(get(found, 5)?));
            let read =
                instance_read(get(found, 1)?, get(found, 2)?, get(found, 3)?, at, created_at);
            let instance = read.ok_or_else(|| row::corrupt("the state of an instance"))?;
            Ok((get::<&str>(found, 0)?.into(), instance))
        };
        let params: Params = &[&id.as_str()];
        self.database.rows(&query::SOURCE_INSTANCES, params).await?.iter().map(one).collect()
    }

    async fn flush(&self, parts: &[Part]) -> Result<Vec<(SourceId, Flushed)>, StoreError> {
        let batch = Value::Array(parts.iter().map(part).collect()).to_string();
        let rows = self.database.rows(&query::SOURCE_FLUSH, &[&batch]).await?;
        let outcome = |found: &Row| {
            let outcome = match get(found, 1)? {
                "done" => Flushed::Done,
                "lost" => Flushed::Lost,
                _ => return Err(row::corrupt("the outcome of a flush")),
            };
            Ok((source_id(get(found, 0)?)?, outcome))
        };
        let released = parts.iter().find(|part| part.release);
        if let Some(part) = released {
            self.source_stir(&part.id, false).await;
        }
        rows.iter().map(outcome).collect()
    }

    async fn inbox(
        &self,
        after: &[(SourceId, i64)],
        limit: usize,
    ) -> Result<Vec<Pushed>, StoreError> {
        let (ids, numbers): (Vec<&str>, Vec<i64>) =
            after.iter().map(|(id, number)| (id.as_str(), *number)).unzip();
        let params: Params = &[&ids, &numbers, &count(limit), &count(PUSHED_BYTES_MAX)];
        let one = |found: &Row| {
            let (id, at) = (source_id(get(found, 0)?)?, Timestamp(get(found, 3)?));
            Ok(Pushed { id, number: get(found, 1)?, events: get::<&str>(found, 2)?.into(), at })
        };
        self.database.rows(&query::SOURCE_INBOX, params).await?.iter().map(one).collect()
    }

    async fn sweep(&self) -> Result<Swept, StoreError> {
        let rows_max = i32::try_from(SWEPT_MAX).unwrap_or(i32::MAX);
        let answer = self.database.row(&query::SOURCE_SWEEP, &[&rows_max]).await?;
        let number = |at| get::<i64>(&answer, at).map(|n| u64::try_from(n).unwrap_or(0));
        Ok(Swept {
            events: number(0)?,
            minutes: number(1)?,
            hours: number(2)?,
            days: number(3)?,
            logs: number(4)?,
            instances: number(5)?,
            orphans: number(6)?,
        })
    }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| row::corrupt("a document of telemetry"))
}

fn source_id(text: &str) -> Result<SourceId, StoreError> {
    SourceId::parse(text).ok_or_else(|| row::corrupt("the name of a source"))
}

/// The columns of `source_get`.
fn source(found: &Row) -> Result<Source, StoreError> {
    let text = |at| get::<Option<&str>>(found, at).map(|text| text.map(Arc::from));
    let status = SourceStatus::parse(get(found, 7)?);
    Ok(Source {
        id: source_id(get(found, 0)?)?,
        rules: SourceRules {
            format: get::<&str>(found, 1)?.into(),
            url: text(2)?,
            sealed: text(3)?,
            headers: get::<Vec<&str>>(found, 4)?.into_iter().map(Arc::from).collect(),
            enabled: get(found, 5)?,
        },
        revision: get(found, 6)?,
        status: status.ok_or_else(|| row::corrupt("the status of a source"))?,
        detail: text(8)?,
        replica: text(9)?,
        created_at: Timestamp(get(found, 10)?),
        updated_at: Timestamp(get(found, 11)?),
        seen_at: get::<Option<i64>>(found, 12)?.map(Timestamp),
    })
}

fn lease(value: &Value) -> Option<SourceLease> {
    let text = |name: &str| value[name].as_str().map(Arc::from);
    let logs = u32::try_from(value["log_count"].as_u64()?).ok()?;
    Some(SourceLease {
        id: SourceId::parse(value["id"].as_str()?)?,
        term: value["term"].as_i64()?,
        flushed: value["flushed"].as_i64()?,
        revision: value["revision"].as_i64()?,
        format: text("format")?,
        url: text("url"),
        sealed: text("sealed"),
        last_event_id: text("last_event_id"),
        logged: (value["log_day"].as_i64().unwrap_or(0), logs),
    })
}

fn part(part: &Part) -> Value {
    let mut written = Map::new();
    let mut put = |name: &str, value: Value| drop(written.insert(name.to_owned(), value));
    put("id", part.id.as_str().into());
    put("term", part.term.into());
    put("number", part.number.into());
    put("release", part.release.into());
    if let Some((status, detail)) = &part.status {
        put("status", status.as_str().into());
        put("detail", detail.as_deref().into());
    }
    if let Some(id) = &part.last_event_id {
        put("last_event_id", (&**id).into());
    }
    if let Some((day, count)) = part.logged {
        put("log_day", day.into());
        put("log_count", count.into());
    }
    if let Some(number) = part.inbox {
        put("inbox", number.into());
    }
    if !part.instances.is_empty() {
        let one = |(name, instance): &(Arc<str>, Instance)| {
            let (state, pending) = instance_parts(instance);
            json!({
                "name": &**name, "status": instance.status.as_str(), "state": state,
                "pending": pending, "at": instance.at.0, "created_at": instance.created_at.0,
            })
        };
        put("instances", part.instances.iter().map(one).collect());
    }
    if !part.rollups.is_empty() {
        let one = |(name, at, bucket): &(Arc<str>, Timestamp, _)| {
            let (counters, gauges) = bucket_value(bucket);
            json!({"instance": &**name, "at": at.0, "counters": counters, "gauges": gauges})
        };
        put("rollups", part.rollups.iter().map(one).collect());
    }
    if !part.events.is_empty() {
        let texts: Vec<&str> = part.events.iter().map(|(_, text)| &**text).collect();
        let times = || part.events.iter().map(|(at, _)| at.0);
        put("events", format!("[{}]", texts.join(",")).into());
        put("count", texts.len().into());
        put("first_at", times().min().into());
        put("last_at", times().max().into());
    }
    if !part.logs.is_empty() {
        let one = |line: &LogLine| json!({"instance": line.instance.as_deref(), "at": line.at.0, "text": &*line.text});
        put("logs", part.logs.iter().map(one).collect());
    }
    if !part.messages.is_empty() {
        let one = |said: &Said| json!({"kind": said.kind, "key": said.key.as_deref(), "data": &*said.data});
        put("messages", part.messages.iter().map(one).collect());
    }
    Value::Object(written)
}

/// The columns of `source_trend`.
fn growth(found: &Row) -> Result<Option<Growth>, StoreError> {
    let digits = |at| get::<Option<&str>>(found, at);
    let (Some(sum), Some(min), Some(max)) = (digits(1)?, digits(2)?, digits(3)?) else {
        return Ok(None);
    };
    let corrupt = |_| row::corrupt("the sum of a counter");
    let samples = u64::try_from(get::<i64>(found, 4)?).unwrap_or(0);
    let (min, max) = (min.parse().map_err(corrupt)?, max.parse().map_err(corrupt)?);
    Ok(Some(Growth { sum: sum.parse().map_err(corrupt)?, min, max, samples }))
}

fn course(found: &Row) -> Result<Option<Course>, StoreError> {
    let number = |at| get::<Option<f64>>(found, at);
    let (Some(sum), Some(min), Some(max)) = (number(5)?, number(6)?, number(7)?) else {
        return Ok(None);
    };
    let samples = u64::try_from(get::<i64>(found, 8)?).unwrap_or(0);
    Ok(Some(Course { sum, min, max, samples }))
}
