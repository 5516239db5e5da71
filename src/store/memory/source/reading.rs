//! What readers do with sources in memory: they hold them, and write what they were told.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Entry, MemoryStore};
use crate::domain::telemetry::instance::Instance;
use crate::domain::telemetry::rollup::Level;
use crate::domain::{Draft, InstanceStatus, SourceId, SourceStatus, Timestamp};
use crate::notification::Announcement;
use crate::store::StoreError;
use crate::store::source::{
    Flushed, PUSHED_BYTES_MAX, Part, Pushed, ReaderStore, Said, SourceClaim, SourceClaimed,
    SourceLease, Swept,
};

/// For how long raw events, lines and instances that are gone are kept.
const KEPT_DAYS: i64 = 7;

impl Entry {
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

    fn write(&mut self, part: &Part, now: Timestamp) {
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
        if let Some(done) = part.inbox {
            self.inbox.retain(|pushed| pushed.number > done);
        }
        if part.release {
            self.holder = None;
        }
    }

    fn sweep(&mut self, now: Timestamp, old: Timestamp, swept: &mut Swept) {
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
        let is_gone = |one: &Instance| one.status == InstanceStatus::Deleted && one.at < old;
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
                sources.events.push_all(&part.id, part.events.iter().cloned());
                let numbers = &mut sources.numbers;
                let numbered = part.logs.iter().map(|line| {
                    *numbers += 1;
                    (line.at, (*numbers, line.clone()))
                });
                sources.lines.push_all(&part.id, numbered);
                entry.write(part, now);
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
        let mut before = 0;
        let mut fits = |pushed: &Pushed| {
            let fits = before < PUSHED_BYTES_MAX;
            before += pushed.events.len();
            fits
        };
        let all = pushed.iter().take(limit).take_while(|pushed| fits(pushed)).count();
        pushed.truncate(all);
        Ok(pushed)
    }

    async fn sweep(&self) -> Result<Swept, StoreError> {
        let now = self.clock.now();
        let mut sources = self.sources.lock();
        let old = Timestamp(now.0 - KEPT_DAYS * Level::Day.length_ms());
        let mut swept = Swept {
            events: sources.events.sweep(old),
            logs: sources.lines.sweep(old),
            ..Swept::default()
        };
        for entry in sources.entries.values_mut() {
            entry.sweep(now, old, &mut swept);
        }
        Ok(swept)
    }
}
