//! One instance, and what each event makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counter::Counter;
use super::rollup::{Course, Growth, Pending};
use super::{Event, EventKind, InstanceStatus, METRICS_MAX};
use crate::domain::Timestamp;

/// How many minutes of an instance may wait to be written before they are made coarser.
const PENDING_MINUTES_MAX: usize = 12;

/// One instance as it was last seen.
#[derive(Clone, PartialEq, Debug)]
pub struct Instance {
    pub status: InstanceStatus,
    pub facts: BTreeMap<Arc<str>, Arc<str>>,
    pub gauges: BTreeMap<Arc<str>, f64>,
    pub counters: BTreeMap<Arc<str>, Counter>,
    /// Of the last event that said something new.
    pub at: Timestamp,
    pub created_at: Timestamp,
    /// What is not in the roll-ups yet.
    pub pending: Pending,
}

/// What an event changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// It is there for the first time, or again.
    pub created: bool,
    pub deleted: bool,
    /// Facts or status: what is to be written at once.
    pub facts: bool,
    pub figures: bool,
    /// Minutes that were made coarser because they waited for too long.
    pub thinned: u64,
}

impl Change {
    pub fn is_none(self) -> bool {
        self == Change { thinned: self.thinned, ..Change::default() }
    }
}

impl Instance {
    pub(super) fn delete(&mut self, at: Timestamp) -> Change {
        self.status = InstanceStatus::Deleted;
        self.at = at;
        Change { deleted: true, facts: true, ..Change::default() }
    }

    pub(super) fn apply(&mut self, event: &Event, at: Timestamp) -> Change {
        let mut change = Change::default();
        match event.kind {
            EventKind::Delete => return self.delete(at.max(self.at)),
            EventKind::Log => return change,
            EventKind::Shutdown => {
                change.facts = self.status != InstanceStatus::Down;
                self.status = InstanceStatus::Down;
            }
            EventKind::Initial | EventKind::Create | EventKind::Update => {
                change.created = self.status == InstanceStatus::Deleted;
                if change.created {
                    self.created_at = at;
                }
                let newer = at >= self.at;
                if change.created || (newer && self.status == InstanceStatus::Down) {
                    self.status = InstanceStatus::Up;
                    change.facts = true;
                }
            }
        }
        self.count(event, at, &mut change);
        if at < self.at && !change.created {
            // Older than what is known: only counters tell late samples from new ones themselves.
            return change;
        }
        for (name, fact) in &event.facts {
            let has_room = self.facts.contains_key(name) || self.facts.len() < METRICS_MAX;
            if self.facts.get(name) != Some(fact) && has_room {
                self.facts.insert(name.clone(), fact.clone());
                change.facts = true;
            }
        }
        for (name, value) in &event.gauges {
            if self.has_room(name) {
                self.gauges.insert(name.clone(), *value);
                self.pending.at(at).show(name, Course::of(*value));
                change.figures = true;
            }
        }
        self.at = at;
        change.thinned = self.pending.thin(PENDING_MINUTES_MAX);
        change
    }

    fn count(&mut self, event: &Event, at: Timestamp, change: &mut Change) {
        for (name, value) in &event.counters {
            if let Some(counter) = self.counters.get_mut(name) {
                if let Some(delta) = counter.take(*value, at) {
                    self.pending.at(at).grow(name, Growth::of(delta));
                    change.figures = true;
                }
            } else if self.has_room(name) {
                self.counters.insert(name.clone(), Counter::first(*value, at));
                self.pending.at(at).grow(name, Growth::of(0));
                change.figures = true;
            }
        }
    }

    fn has_room(&self, name: &Arc<str>) -> bool {
        self.gauges.contains_key(name) || self.gauges.len() + self.counters.len() < METRICS_MAX
    }
}
