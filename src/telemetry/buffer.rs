//! Raw events that wait to be written, bounded in number and bytes.
//!
//! When it is full it loses resolution: of the updates of an instance every other one goes, then all but
//! the last. What happened in an instance's life is never thinned; where nothing else is left, whoever
//! reads its source waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::domain::{SourceId, Timestamp};

/// What an event weighs beside its text.
const EVENT_BYTES: usize = 160;

/// What is thinned and still this full is thinned again only after something was written: each time costs a look
/// at all that waits.
const PACKED: f64 = 0.97;

/// Who had to be thinned is under pressure until less than this is used.
const RELIEVED: f64 = 0.5;

/// Lines of logs have one part in so many.
const LINES_PART: usize = 4;

#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub source: SourceId,
    pub instance: Option<Arc<str>>,
    /// An update, of which the next one tells more.
    pub thins: bool,
    pub at: Timestamp,
    pub text: Arc<str>,
}

impl Raw {
    fn weight_bytes(&self) -> usize {
        self.text.len() + EVENT_BYTES
    }
}

#[derive(Debug)]
pub struct Buffer {
    events_max: usize,
    bytes_max: usize,
    events: VecDeque<Raw>,
    bytes: usize,
    /// Lines of logs that wait elsewhere, and what they weigh.
    lines: (usize, usize),
    /// What messages about instances weigh that wait elsewhere.
    said_bytes: usize,
    /// What was taken out and is not written yet.
    flying: (usize, usize),
    pub thinned: u64,
    packed: bool,
    /// It was full, and is not relieved yet.
    pub strained: bool,
}

impl Buffer {
    pub fn new(events_max: usize, bytes_max: usize) -> Buffer {
        let events = VecDeque::new();
        Buffer {
            events_max,
            bytes_max,
            events,
            bytes: 0,
            lines: (0, 0),
            said_bytes: 0,
            flying: (0, 0),
            thinned: 0,
            packed: false,
            strained: false,
        }
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// With what is not written yet.
    pub fn size(&self) -> (usize, usize) {
        let (lines, bytes) = (self.lines.0 + self.flying.0, self.lines.1 + self.flying.1);
        (self.events.len() + lines, self.bytes + self.said_bytes + bytes)
    }

    /// From 0 to 1.
    pub fn usage(&self) -> f64 {
        let (events, bytes) = self.size();
        (events as f64 / self.events_max as f64).max(bytes as f64 / self.bytes_max as f64)
    }

    /// Whether another event may come, after thinning if need be.
    pub fn has_room(&mut self) -> bool {
        if self.fits() {
            return true;
        }
        self.strained = true;
        if self.packed {
            return false;
        }
        self.thin(|place| place % 2 == 1);
        if !self.fits() || self.usage() > 0.9 {
            self.thin(|place| place > 0);
            self.packed = self.usage() > PACKED;
        }
        self.fits()
    }

    fn fits(&self) -> bool {
        let (events, bytes) = self.size();
        events < self.events_max && bytes < self.bytes_max
    }

    /// Whether another line of a log may wait: of all room they have a quarter.
    pub fn takes_line(&mut self, text_bytes: usize) -> bool {
        let (lines, bytes) = (self.lines.0 + 1, self.lines.1 + text_bytes + EVENT_BYTES);
        let fits = lines <= self.events_max / LINES_PART && bytes <= self.bytes_max / LINES_PART;
        if fits {
            self.lines = (lines, bytes);
        }
        fits
    }

    /// So many lines, with this text in all, are being written, or are nobody's any more.
    pub fn lines_leave(&mut self, lines: usize, text_bytes: usize, flies: bool) {
        let bytes = text_bytes + lines * EVENT_BYTES;
        self.lines = (self.lines.0.saturating_sub(lines), self.lines.1.saturating_sub(bytes));
        if flies {
            self.flying = (self.flying.0 + lines, self.flying.1 + bytes);
        }
    }

    /// A message with this text waits to be written.
    pub fn says(&mut self, text_bytes: usize) -> usize {
        let bytes = text_bytes + EVENT_BYTES;
        self.said_bytes += bytes;
        bytes
    }

    /// Messages of this weight are being written, or are nobody's any more.
    pub fn said_leaves(&mut self, bytes: usize, flies: bool) {
        self.said_bytes = self.said_bytes.saturating_sub(bytes);
        if flies {
            self.flying.1 += bytes;
        }
    }

    pub fn push(&mut self, raw: Raw) {
        self.bytes += raw.weight_bytes();
        self.events.push_back(raw);
    }

    /// Takes out the oldest, to be written.
    pub fn take(&mut self, max: usize) -> Vec<Raw> {
        let taken: Vec<Raw> = self.events.drain(..max.min(self.events.len())).collect();
        let bytes = taken.iter().map(Raw::weight_bytes).sum::<usize>();
        self.bytes -= bytes;
        self.flying = (self.flying.0 + taken.len(), self.flying.1 + bytes);
        taken
    }

    /// Takes out all of one source, to be written.
    pub fn take_of(&mut self, source: &SourceId) -> Vec<Raw> {
        let all = std::mem::take(&mut self.events);
        let (own, others): (Vec<Raw>, VecDeque<Raw>) = {
            let (own, others): (Vec<Raw>, Vec<Raw>) =
                all.into_iter().partition(|raw| raw.source == *source);
            (own, others.into())
        };
        self.events = others;
        let bytes = own.iter().map(Raw::weight_bytes).sum::<usize>();
        self.bytes -= bytes;
        self.flying = (self.flying.0 + own.len(), self.flying.1 + bytes);
        own
    }

    /// What was taken out is written, or nobody's any more.
    pub fn landed(&mut self) {
        self.flying = (0, 0);
        self.packed = false;
        self.strained &= self.usage() > RELIEVED;
    }

    pub fn forget(&mut self, source: &SourceId) {
        self.events.retain(|raw| raw.source != *source);
        self.bytes = self.events.iter().map(Raw::weight_bytes).sum();
        self.packed = false;
    }

    /// Drops updates by their place counted from the newest of their instance.
    fn thin(&mut self, goes: impl Fn(usize) -> bool) {
        let mut places: HashMap<(SourceId, Option<Arc<str>>), usize> = HashMap::new();
        let before = self.events.len();
        let mut kept = VecDeque::with_capacity(before);
        for raw in std::mem::take(&mut self.events).into_iter().rev() {
            if raw.thins {
                let place = places.entry((raw.source.clone(), raw.instance.clone())).or_default();
                let own = *place;
                *place += 1;
                if goes(own) {
                    continue;
                }
            }
            kept.push_front(raw);
        }
        self.thinned += (before - kept.len()) as u64;
        self.bytes = kept.iter().map(Raw::weight_bytes).sum();
        self.events = kept;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(instance: usize, at: i64, thins: bool) -> Raw {
        Raw {
            source: SourceId::parse("a").unwrap(),
            instance: Some(instance.to_string().into()),
            thins,
            at: Timestamp(at),
            text: "{}".into(),
        }
    }

    #[test]
    fn where_nothing_can_be_thinned_there_is_no_room() {
        let mut buffer = Buffer::new(4, 1 << 20);
        for at in 0..4 {
            assert!(buffer.has_room());
            buffer.push(raw(0, at, false));
        }
        assert!(!buffer.has_room());
        assert_eq!(buffer.take(2).len(), 2);
        assert!(!buffer.has_room(), "what is not written yet still counts");
        assert!(buffer.strained);
        buffer.landed();
        assert!(buffer.has_room());
        assert!(!buffer.strained);
    }

    #[test]
    fn messages_count_until_they_are_written() {
        let mut buffer = Buffer::new(100, 1_000);
        let weight = buffer.says(840);
        assert!(!buffer.has_room());
        buffer.said_leaves(weight, true);
        assert!(!buffer.has_room(), "they are not written yet");
        buffer.landed();
        assert!(buffer.has_room());
        let weight = buffer.says(840);
        buffer.said_leaves(weight, false);
        assert!(buffer.has_room());
    }

    proptest! {
        #[test]
        fn the_last_update_and_what_happened_are_kept(
            events in proptest::collection::vec((0..5_usize, prop::bool::weighted(0.9)), 1..600),
            events_max in 80..120_usize,
        ) {
            let mut buffer = Buffer::new(events_max, 1 << 20);
            let mut last = HashMap::new();
            let mut happened = Vec::new();
            let mut pushed = 0;
            for (at, (instance, thins)) in (0..).zip(events) {
                if !buffer.has_room() {
                    // The last of each, and what came into the room that there was beyond them.
                    let updates = buffer.events.iter().filter(|raw| raw.thins).count();
                    prop_assert!(updates <= 5 + events_max.div_ceil(30), "{updates}");
                    continue;
                }
                pushed += 1;
                buffer.push(raw(instance, at, thins));
                prop_assert!(buffer.len() <= events_max);
                if thins { last.insert(instance, at); } else { happened.push(at); }
            }
            let kept: Vec<i64> = buffer.events.iter().map(|raw| raw.at.0).collect();
            prop_assert!(kept.is_sorted());
            prop_assert!(last.values().chain(&happened).all(|at| kept.contains(at)));
            prop_assert_eq!(buffer.thinned + kept.len() as u64, pushed);
            let bytes: usize = buffer.events.iter().map(Raw::weight_bytes).sum();
            prop_assert_eq!(buffer.bytes, bytes);
        }
    }
}
