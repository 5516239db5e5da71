//! What this replica knows of the sources that it reads, and what of it waits to be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::TelemetrySettings;
use super::buffer::Buffer;
use super::mirror::Named;
use super::owned::{Minutes, Owned, Taken, lines_size};
use crate::domain::telemetry::rollup::Level;
use crate::domain::{Event, InstanceStatus, SourceId, Timestamp};
use crate::store::source::{Flushed, Part, instance_shown};

/// How many raw events one flush takes, and how many instances it begins sources for.
const FLUSH_EVENTS_MAX: usize = 5_000;
const FLUSH_INSTANCES_MAX: usize = 10_000;

/// For how long a minute stays open after its end: what was told late is still added in memory.
const MINUTE_GRACE_MS: i64 = 5_000;

/// From what usage on, and after how long, the buffer is said to be nearly full; thinned, it still is.
const USAGE_WARNING: f64 = 0.8;
const USAGE_WARNING_AFTER: Duration = Duration::from_secs(10);

pub struct Books {
    owned: BTreeMap<SourceId, Owned>,
    pub buffer: Buffer,
    instances_max: usize,
    batch_events: usize,
    batch_age: Duration,
    /// When the oldest raw event that waits came, and when the last batch was made of them.
    oldest: Option<Instant>,
    hour: Timestamp,
    minute: Timestamp,
    pub last_flush: Option<Timestamp>,
    /// Somebody waits for room.
    awaited: bool,
    /// Since when the buffer is nearly full.
    pressed: Option<Instant>,
    pub warned: bool,
}

/// What an event came to.
pub enum Outcome {
    Taken(Taken),
    /// There is no room: come again with it.
    Wait,
    /// The source is not held under this term any more.
    NotOurs,
}

impl Books {
    pub fn new(settings: &TelemetrySettings) -> Books {
        Books {
            owned: BTreeMap::new(),
            buffer: Buffer::new(settings.buffer_events_max, settings.buffer_bytes_max),
            instances_max: settings.instances_max,
            batch_events: settings.batch_events,
            batch_age: settings.batch_age,
            oldest: None,
            hour: Timestamp(i64::MIN),
            minute: Timestamp(i64::MIN),
            last_flush: None,
            awaited: false,
            pressed: None,
            warned: false,
        }
    }

    pub fn own(&mut self, id: &SourceId) -> Option<&mut Owned> {
        self.owned.get_mut(id)
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Owned> {
        self.owned.values_mut()
    }

    pub fn insert(&mut self, owned: Owned) {
        self.owned.insert(owned.id().clone(), owned);
    }

    pub fn sources(&self) -> usize {
        self.owned.len()
    }

    pub fn instances(&self) -> usize {
        self.owned.values().map(|own| own.inventory.present()).sum()
    }

    pub fn apply(&mut self, id: &SourceId, term: i64, event: &Event, now: Timestamp) -> Outcome {
        let fits = self.buffer.has_room();
        self.press();
        if !fits {
            self.awaited = true;
            return Outcome::Wait;
        }
        let room = self.instances_max.saturating_sub(self.instances());
        let own = self.owned.get_mut(id).filter(|own| own.lease.term == term && !own.leaving);
        let Some(own) = own else { return Outcome::NotOurs };
        let taken = own.apply(event, now, room, &mut self.buffer);
        if self.buffer.len() > 0 {
            self.oldest.get_or_insert_with(Instant::now);
        }
        Outcome::Taken(taken)
    }

    /// Ends lists that were told; whether there is something to be written at once.
    pub fn reconcile(&mut self, now: Timestamp) -> bool {
        let listing = self.owned.values_mut().filter(|own| own.inventory.listing());
        listing.fold(false, |urgent, own| own.reconcile(now, &mut self.buffer) | urgent)
    }

    /// Why raw events are to be written now, if they are.
    pub fn batch_due(&self, now: Timestamp) -> Option<&'static str> {
        if self.buffer.len() == 0 {
            None
        } else if self.awaited {
            Some("full")
        } else if self.buffer.len() >= self.batch_events {
            Some("events")
        } else if self.oldest.is_some_and(|oldest| oldest.elapsed() >= self.batch_age) {
            Some("age")
        } else if self.hour < Level::Hour.bucket(now) && self.hour.0 != i64::MIN {
            Some("hour")
        } else {
            None
        }
    }

    /// When the oldest raw event will have waited for long enough.
    pub fn batch_at(&self) -> Option<Instant> {
        self.oldest.map(|oldest| oldest + self.batch_age)
    }

    /// What is to be written, one part a source.
    pub fn parts(&mut self, now: Timestamp, scope: Scope) -> Vec<Part> {
        let settled = Timestamp(now.0 - MINUTE_GRACE_MS);
        let minute = Level::Minute.bucket(settled);
        let minutes = match scope {
            Scope::All => Minutes::All,
            Scope::Urgent => Minutes::Stay,
            _ if self.minute < minute => Minutes::Over(settled),
            _ => Minutes::Stay,
        };
        let mut parts: BTreeMap<SourceId, Part> = BTreeMap::new();
        let mut instances = 0;
        let mut whole = true;
        for (id, own) in &mut self.owned {
            if instances > FLUSH_INSTANCES_MAX {
                whole = false;
                break;
            }
            let said_bytes = own.said_bytes;
            if let Some(part) = own.part(minutes, scope == Scope::Urgent) {
                self.buffer.said_leaves(said_bytes, true);
                instances += part.instances.len() + part.rollups.len();
                let mut part = part;
                let (lines, bytes) = lines_size(&part.logs);
                self.buffer.lines_leave(lines, bytes, true);
                if part.release {
                    // It is forgotten once this is written, and its raw events with it.
                    let own = self.buffer.take_of(id);
                    part.events = own.into_iter().map(|raw| (raw.at, raw.text)).collect();
                }
                parts.insert(id.clone(), part);
            }
        }
        if whole && matches!(minutes, Minutes::Over(_)) {
            self.minute = minute;
        }
        if matches!(scope, Scope::Batch | Scope::All) {
            self.awaited = false;
            for raw in self.buffer.take(FLUSH_EVENTS_MAX) {
                let Some(own) = self.owned.get_mut(&raw.source) else { continue };
                let part = parts.entry(raw.source).or_insert_with(|| own.bare_part());
                part.events.push((raw.at, raw.text));
            }
            self.hour = Level::Hour.bucket(now);
            self.oldest = (self.buffer.len() > 0).then(Instant::now);
        }
        if self.hour.0 == i64::MIN {
            self.hour = Level::Hour.bucket(now);
        }
        parts.into_values().collect()
    }

    /// Sources of which a part was written for the last time are forgotten.
    pub fn written(
        &mut self,
        parts: &[Part],
        outcomes: &HashMap<SourceId, Flushed>,
        now: Timestamp,
    ) {
        self.buffer.landed();
        self.last_flush = Some(now);
        for part in parts {
            let lost = outcomes.get(&part.id) == Some(&Flushed::Lost);
            let own = self.owned.get(&part.id).filter(|own| own.lease.term == part.term);
            if own.is_some_and(|own| lost || part.release && own.release) {
                self.forget(&part.id);
            }
        }
    }

    pub fn forget(&mut self, id: &SourceId) {
        if let Some(own) = self.owned.remove(id) {
            let (lines, bytes) = own.lines();
            self.buffer.lines_leave(lines, bytes, false);
            self.buffer.said_leaves(own.said_bytes, false);
        }
        self.buffer.forget(id);
        self.press();
    }

    /// The instances of a source that is read here.
    pub fn shown(&self, id: &SourceId, wanted: &impl Fn(&str) -> bool) -> Option<Named> {
        let own = self.owned.get(id).filter(|own| !own.leaving)?;
        let here =
            own.inventory.instances.iter().filter(|(name, instance)| {
                instance.status != InstanceStatus::Deleted && wanted(name)
            });
        let shown =
            |(name, instance): (&Arc<str>, _)| (name.clone(), instance_shown(id, name, instance));
        Some(here.map(shown).collect())
    }

    pub fn press(&mut self) {
        let pressed = self.buffer.usage() > USAGE_WARNING || self.buffer.strained;
        self.pressed = pressed.then(|| self.pressed.unwrap_or_else(Instant::now));
        self.warned &= pressed;
    }

    pub fn warning(&self) -> Option<String> {
        let long = self.pressed.is_some_and(|since| since.elapsed() >= USAGE_WARNING_AFTER);
        long.then(|| {
            format!(
                "the buffer of raw events is {:.0} % full; updates in it are thinned",
                self.buffer.usage() * 100.0
            )
        })
    }
}

/// How much a flush takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Sources of which something is to be written at once.
    Urgent,
    /// What all instances show.
    States,
    /// That, and raw events.
    Batch,
    /// That, and the minute that has begun.
    All,
}
