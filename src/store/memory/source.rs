//! Telemetry in memory: what Postgres promises of it, but gone at exit.

mod past;
mod reading;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;

use self::past::Past;
use super::MemoryStore;
use crate::domain::telemetry::instance::Instance;
use crate::domain::telemetry::rollup::{Bucket, Level, MINUTE_MS};
use crate::domain::{SourceId, SourceStatus, Timestamp};
use crate::store::StoreError;
use crate::store::source::{
    Created, Dashboard, INBOX_BYTES_MAX, INBOX_MAX, Ingested, LogFilter, LogLine, Pushed, Source,
    SourceRules, SourceStore, TrendPoint, TrendQuery, whole,
};

type Place = (Level, Timestamp, Arc<str>);

#[derive(Default)]
pub struct Sources {
    entries: BTreeMap<SourceId, Entry>,
    /// Until when each reader holds its sources.
    readers: BTreeMap<Arc<str>, Timestamp>,
    /// Raw events.
    events: Past<Arc<str>>,
    /// Lines of logs, with their numbers.
    lines: Past<(i64, LogLine)>,
    /// Numbers lines and what was pushed.
    numbers: i64,
    terms: i64,
}

struct Entry {
    source: Source,
    holder: Option<Arc<str>>,
    term: i64,
    flushed: i64,
    last_event_id: Option<Arc<str>>,
    logged: (i64, u32),
    instances: BTreeMap<Arc<str>, Instance>,
    rollups: BTreeMap<Place, Bucket>,
    inbox: VecDeque<Pushed>,
}

impl Entry {
    fn is_due(&self) -> bool {
        self.source.rules.enabled && self.source.status != SourceStatus::Stopped
    }
}

#[async_trait]
impl SourceStore for MemoryStore {
    async fn create(
        &self,
        id: &SourceId,
        rules: &SourceRules,
        max: usize,
    ) -> Result<Created, StoreError> {
        let now = self.clock.now();
        let mut sources = self.sources.lock();
        if sources.entries.contains_key(id) {
            return Ok(Created::Known);
        }
        if sources.entries.len() >= max {
            return Ok(Created::Full);
        }
        let source = Source {
            id: id.clone(),
            rules: rules.clone(),
            revision: 1,
            status: begins(rules),
            detail: None,
            replica: None,
            created_at: now,
            updated_at: now,
            seen_at: None,
        };
        let entry = Entry {
            source,
            holder: None,
            term: 0,
            flushed: 0,
            last_event_id: None,
            logged: (0, 0),
            instances: BTreeMap::new(),
            rollups: BTreeMap::new(),
            inbox: VecDeque::new(),
        };
        sources.entries.insert(id.clone(), entry);
        drop(sources);
        self.bus.stir_source(id, false);
        Ok(Created::Done)
    }

    async fn get(&self, id: &SourceId) -> Result<Option<Source>, StoreError> {
        let sources = self.sources.lock();
        Ok(sources.entries.get(id).map(|entry| shown(entry, &sources, self.clock.now())))
    }

    async fn list(
        &self,
        after: Option<&SourceId>,
        limit: usize,
    ) -> Result<Vec<Source>, StoreError> {
        let sources = self.sources.lock();
        let later =
            sources.entries.values().filter(|one| after.is_none_or(|id| one.source.id > *id));
        Ok(later.take(limit).map(|entry| shown(entry, &sources, self.clock.now())).collect())
    }

    async fn change(
        &self,
        id: &SourceId,
        revision: i64,
        rules: &SourceRules,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let changed = {
            let mut sources = self.sources.lock();
            let entry = sources.entries.get_mut(id).filter(|one| one.source.revision == revision);
            entry.map(|entry| {
                if entry.source.rules.url != rules.url {
                    entry.last_event_id = None;
                }
                entry.source.rules = rules.clone();
                entry.source.revision += 1;
                entry.source.updated_at = now;
                entry.source.status = begins(rules);
                entry.source.detail = None;
            })
        };
        self.bus.stir_source(id, false);
        Ok(changed.is_some())
    }

    async fn delete(&self, id: &SourceId) -> Result<bool, StoreError> {
        let deleted = {
            let mut sources = self.sources.lock();
            sources.events.forget(id);
            sources.lines.forget(id);
            sources.entries.remove(id).is_some()
        };
        self.bus.stir_source(id, false);
        Ok(deleted)
    }

    async fn ingest(&self, id: &SourceId, events: &str) -> Result<Ingested, StoreError> {
        let at = self.clock.now();
        let mut sources = self.sources.lock();
        let number = sources.numbers + 1;
        let Some(entry) = sources.entries.get_mut(id) else { return Ok(Ingested::Absent) };
        let rules = &entry.source.rules;
        let waiting: usize = entry.inbox.iter().map(|pushed| pushed.events.len()).sum();
        let outcome = match (rules.url.is_none(), rules.enabled) {
            (false, _) => Ingested::Read,
            (_, false) => Ingested::Disabled,
            _ if entry.inbox.len() >= INBOX_MAX || waiting >= INBOX_BYTES_MAX => Ingested::Full,
            _ => Ingested::Done,
        };
        if outcome == Ingested::Done {
            entry.inbox.push_back(Pushed { id: id.clone(), number, events: events.into(), at });
            sources.numbers = number;
            drop(sources);
            self.bus.stir_source(id, true);
        }
        Ok(outcome)
    }

    async fn trend(&self, query: &TrendQuery) -> Result<Vec<TrendPoint>, StoreError> {
        let sources = self.sources.lock();
        let mut points = vec![TrendPoint::default(); query.buckets.len()];
        let Some(entry) = sources.entries.get(&query.source) else { return Ok(points) };
        let wanted = |name: &Arc<str>| query.instance.as_ref().is_none_or(|own| own == name);
        let kept = entry.rollups.iter().filter(|((level, _, _), _)| *level == query.level);
        let kept = kept.map(|((_, at, name), bucket)| (at, name, bucket));
        let waiting = entry.instances.iter().flat_map(|(name, instance)| {
            instance.pending.minutes.iter().map(move |(at, bucket)| (at, name, bucket))
        });
        for (at, name, bucket) in kept.chain(waiting) {
            let place = query.buckets.partition_point(|(_, next)| next <= at);
            let inside = query.buckets.get(place).is_some_and(|(first, _)| first <= at);
            if !inside || !wanted(name) {
                continue;
            }
            let point = &mut points[place];
            if let Some(growth) = bucket.counters.get(&query.metric) {
                match &mut point.growth {
                    Some(own) => own.merge(*growth),
                    none => *none = Some(*growth),
                }
            }
            if let Some(course) = bucket.gauges.get(&query.metric) {
                match &mut point.course {
                    Some(own) => own.merge(*course),
                    none => *none = Some(*course),
                }
            }
        }
        Ok(points)
    }

    async fn logs(
        &self,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Vec<(i64, LogLine)>, StoreError> {
        let sources = self.sources.lock();
        let wanted = |(number, line): &&(i64, LogLine)| {
            filter.before.is_none_or(|before| *number < before)
                && (filter.instance.is_none() || filter.instance == line.instance)
        };
        let newest = sources.lines.newest_of(&filter.source);
        Ok(newest.filter(wanted).take(limit).cloned().collect())
    }

    async fn dashboard(&self, of: Option<&[SourceId]>) -> Result<Dashboard, StoreError> {
        let hour_ago = Timestamp(self.clock.now().0 - 60 * MINUTE_MS);
        let sources = self.sources.lock();
        let mut dashboard = Dashboard::default();
        let mut counters: BTreeMap<String, (u128, u128)> = BTreeMap::new();
        for entry in sources.entries.values() {
            if of.is_some_and(|of| !of.contains(&entry.source.id)) {
                continue;
            }
            *dashboard.sources.entry(entry.source.status.as_str().to_owned()).or_default() += 1;
            for instance in entry.instances.values() {
                *dashboard.instances.entry(instance.status.as_str().to_owned()).or_default() += 1;
                for (name, counter) in &instance.counters {
                    counters.entry(name.to_string()).or_default().0 += counter.total;
                }
            }
            let kept = entry
                .rollups
                .iter()
                .filter(|((level, at, _), _)| *level == Level::Minute && *at > hour_ago);
            let waiting = entry.instances.values().flat_map(|one| one.pending.minutes.values());
            for bucket in kept.map(|(_, bucket)| bucket).chain(waiting) {
                for (name, growth) in bucket.counters.iter() {
                    counters.entry(name.to_string()).or_default().1 += growth.sum;
                }
            }
        }
        let shown = |(name, (total, hour))| (name, (whole(total), whole(hour)));
        dashboard.counters = counters.into_iter().map(shown).collect();
        Ok(dashboard)
    }
}

fn begins(rules: &SourceRules) -> SourceStatus {
    if rules.enabled { SourceStatus::Idle } else { SourceStatus::Disabled }
}

fn shown(entry: &Entry, sources: &Sources, now: Timestamp) -> Source {
    let holder = entry.holder.as_ref();
    let alive = holder.filter(|one| sources.readers.get(*one).is_some_and(|due| *due > now));
    let replica = alive.and_then(|holder| holder.split(' ').next().map(Arc::from));
    Source { replica, ..entry.source.clone() }
}
