//! Telemetry in memory: what Postgres promises of it, but gone at exit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::MemoryStore;
use crate::domain::telemetry::inventory::Instance;
use crate::domain::telemetry::rollup::{Bucket, Level, MINUTE_MS};
use crate::domain::{Draft, InstanceStatus, SourceId, SourceStatus, Timestamp};
use crate::notification::Announcement;
use crate::store::StoreError;
use crate::store::source::{
    Created, Dashboard, Flushed, INBOX_MAX, Ingested, LogFilter, LogLine, Part, Pushed,
    ReaderStore, Said, Source, SourceClaim, SourceClaimed, SourceLease, SourceRules, SourceStore,
    Swept, TrendPoint, TrendQuery,
};

/// Raw events, and lines of logs, that are kept of all sources; the oldest go first.
const EVENTS_MAX: usize = 20_000;

const DAY_MS: i64 = Level::Day.length_ms();

type Place = (Level, Timestamp, Arc<str>);

#[derive(Default)]
pub struct Sources {
    entries: BTreeMap<SourceId, Entry>,
    /// Until when each reader holds its sources.
    readers: BTreeMap<Arc<str>, Timestamp>,
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
    events: VecDeque<(Timestamp, Arc<str>)>,
    logs: VecDeque<(i64, LogLine)>,
    inbox: VecDeque<Pushed>,
}

impl Entry {
    fn is_due(&self) -> bool {
        self.source.rules.enabled && self.source.status != SourceStatus::Stopped
    }

    fn lease(&self) -> SourceLease {
        let rules = self.source.rules.clone();
        SourceLease {
            id: self.source.id.clone(),
            term: self.term,
            flushed: self.flushed,
            revision: self.source.revision,
            format: rules.format,
            url: rules.url,
            sealed: rules.sealed,
            last_event_id: self.last_event_id.clone(),
            logged: self.logged,
        }
    }

    fn write(&mut self, part: &Part, numbers: &mut i64, now: Timestamp) {
        self.flushed = part.number;
        if let Some((status, detail)) = &part.status {
            self.source.detail.clone_from(detail);
            self.source.status =
                if self.source.rules.enabled { *status } else { SourceStatus::Disabled };
        }
        if part.last_event_id.is_some() {
            self.last_event_id.clone_from(&part.last_event_id);
        }
        self.logged = part.logged.unwrap_or(self.logged);
        if !part.instances.is_empty() || !part.events.is_empty() {
            self.source.seen_at = Some(now);
        }
        self.instances.extend(part.instances.iter().cloned());
        for (name, at, bucket) in &part.rollups {
            for level in Level::ALL {
                let place = (level, level.bucket(*at), name.clone());
                self.rollups.entry(place).or_default().merge(bucket);
            }
        }
        self.events.extend(part.events.iter().cloned());
        for line in &part.logs {
            *numbers += 1;
            self.logs.push_back((*numbers, line.clone()));
        }
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        while self.logs.len() > EVENTS_MAX {
            self.logs.pop_front();
        }
        if let Some(done) = part.inbox {
            self.inbox.retain(|pushed| pushed.number > done);
        }
        if part.release {
            self.holder = None;
        }
    }

    fn sweep(&mut self, now: Timestamp, swept: &mut Swept) {
        let old = |days: i64| Timestamp(now.0 - days * DAY_MS);
        let before = self.events.len();
        self.events.retain(|(at, _)| *at >= old(7));
        swept.events += (before - self.events.len()) as u64;
        let before = self.logs.len();
        self.logs.retain(|(_, line)| line.at >= old(7));
        swept.logs += (before - self.logs.len()) as u64;
        self.rollups.retain(|(level, at, _), _| {
            let kept = at.0 >= now.0 - level.kept_ms();
            let count = match level {
                Level::Minute => &mut swept.minutes,
                Level::Hour => &mut swept.hours,
                Level::Day => &mut swept.days,
            };
            *count += u64::from(!kept);
            kept
        });
        let before = self.instances.len();
        let is_gone = |one: &Instance| one.status == InstanceStatus::Deleted && one.at < old(7);
        self.instances.retain(|_, one| !is_gone(one));
        swept.instances += (before - self.instances.len()) as u64;
    }
}

impl MemoryStore {
    /// Appends what a flush publishes.
    fn publish_own(&self, drafts: &[Draft]) {
        if drafts.is_empty() {
            return;
        }
        let appended = self.append(drafts);
        let last = appended.first.plus(appended.fresh().saturating_sub(1));
        self.bus.announce(&Announcement {
            epoch: appended.epoch.clone(),
            first: appended.first,
            last,
            messages: Some(appended.messages(drafts)),
        });
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
            events: VecDeque::new(),
            logs: VecDeque::new(),
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
        let deleted = self.sources.lock().entries.remove(id).is_some();
        self.bus.stir_source(id, false);
        Ok(deleted)
    }

    async fn ingest(&self, id: &SourceId, events: &str) -> Result<Ingested, StoreError> {
        let at = self.clock.now();
        let mut sources = self.sources.lock();
        let number = sources.numbers + 1;
        let Some(entry) = sources.entries.get_mut(id) else { return Ok(Ingested::Absent) };
        let rules = &entry.source.rules;
        let outcome = match (rules.url.is_none(), rules.enabled) {
            (false, _) => Ingested::Read,
            (_, false) => Ingested::Disabled,
            _ if entry.inbox.len() >= INBOX_MAX => Ingested::Full,
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
        let Some(entry) = sources.entries.get(&filter.source) else { return Ok(Vec::new()) };
        let wanted = |(number, line): &&(i64, LogLine)| {
            filter.before.is_none_or(|before| *number < before)
                && (filter.instance.is_none() || filter.instance == line.instance)
        };
        Ok(entry.logs.iter().rev().filter(wanted).take(limit).cloned().collect())
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
        let number = |sum: u128| json!(u64::try_from(sum).unwrap_or(u64::MAX));
        let counters =
            counters.into_iter().map(|(name, (total, hour))| (name, (number(total), number(hour))));
        dashboard.counters = counters.collect();
        Ok(dashboard)
    }
}

#[async_trait]
impl ReaderStore for MemoryStore {
    async fn claim(&self, claim: &SourceClaim) -> Result<SourceClaimed, StoreError> {
        let now = self.clock.now();
        let mut sources = self.sources.lock();
        let sources = &mut *sources;
        let total = sources.entries.values().filter(|entry| entry.is_due()).count();
        if total == 0 && !claim.holds {
            return Ok(SourceClaimed { total, share: 0, leases: Vec::new() });
        }
        let due = now.0 + i64::try_from(claim.lease.as_millis()).unwrap_or(i64::MAX / 2);
        sources.readers.insert(claim.holder.clone(), Timestamp(due));
        let alive = |holder: &Arc<str>| sources.readers.get(holder).is_some_and(|due| *due > now);
        let readers = sources.readers.values().filter(|due| **due > now).count();
        let share = total.div_ceil(readers.max(1)).min(claim.sources_max);
        let own = |entry: &Entry| entry.holder.as_ref() == Some(&claim.holder) && entry.is_due();
        let mut held = sources.entries.values().filter(|entry| own(entry)).count();
        for entry in sources.entries.values_mut().filter(|entry| entry.is_due()) {
            let free = entry.holder.as_ref().is_none_or(|holder| !alive(holder));
            if claim.takes && held < share && free {
                sources.terms += 1;
                entry.holder = Some(claim.holder.clone());
                (entry.term, entry.flushed) = (sources.terms, 0);
                held += 1;
            }
        }
        let leases =
            sources.entries.values().filter(|entry| own(entry)).map(Entry::lease).collect();
        Ok(SourceClaimed { total, share, leases })
    }

    async fn release(&self, holder: &str) -> Result<(), StoreError> {
        self.sources.lock().readers.remove(holder);
        Ok(())
    }

    async fn instances(&self, id: &SourceId) -> Result<Vec<(Arc<str>, Instance)>, StoreError> {
        let sources = self.sources.lock();
        let instances = sources.entries.get(id).map(|entry| entry.instances.clone());
        Ok(instances.unwrap_or_default().into_iter().collect())
    }

    async fn flush(&self, parts: &[Part]) -> Result<Vec<(SourceId, Flushed)>, StoreError> {
        let now = self.clock.now();
        let (mut outcomes, mut drafts) = (Vec::new(), Vec::new());
        let mut sources = self.sources.lock();
        let sources = &mut *sources;
        for part in parts {
            let entry = sources.entries.get_mut(&part.id).filter(|entry| entry.term == part.term);
            let Some(entry) = entry else {
                outcomes.push((part.id.clone(), Flushed::Lost));
                continue;
            };
            outcomes.push((part.id.clone(), Flushed::Done));
            if entry.flushed < part.number {
                entry.write(part, &mut sources.numbers, now);
                let draft = |said: &Said| Draft {
                    kind: Some(said.kind.into()),
                    key: said.key.clone(),
                    ..Draft::new(part.id.topic(), said.data.clone())
                };
                drafts.extend(part.messages.iter().map(draft));
            }
        }
        self.publish_own(&drafts);
        if let Some(released) = parts.iter().find(|part| part.release) {
            self.bus.stir_source(&released.id, false);
        }
        Ok(outcomes)
    }

    async fn inbox(
        &self,
        after: &[(SourceId, i64)],
        limit: usize,
    ) -> Result<Vec<Pushed>, StoreError> {
        let sources = self.sources.lock();
        let waiting = after.iter().filter_map(|(id, number)| {
            let inbox = &sources.entries.get(id)?.inbox;
            Some(inbox.iter().filter(move |pushed| pushed.number > *number))
        });
        let mut pushed: Vec<Pushed> = waiting.flatten().cloned().collect();
        pushed.sort_by_key(|pushed| pushed.number);
        pushed.truncate(limit);
        Ok(pushed)
    }

    async fn sweep(&self) -> Result<Swept, StoreError> {
        let now = self.clock.now();
        let mut swept = Swept::default();
        for entry in self.sources.lock().entries.values_mut() {
            entry.sweep(now, &mut swept);
        }
        Ok(swept)
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
