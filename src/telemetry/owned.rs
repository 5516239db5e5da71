//! A source on the replica that reads it: its instances, and what of them is to be written or shown.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::buffer::{Buffer, Raw};
use super::format::document;
use crate::domain::telemetry::instance::{Change, Instance};
use crate::domain::telemetry::inventory::{Ignored, Inventory};
use crate::domain::telemetry::rollup::Level;
use crate::domain::{Event, EventKind, SourceId, SourceStatus, Timestamp};
use crate::store::source::{LogLine, Part, Said, SourceLease, instance_shown};

/// How many lines of logs may wait to be written for one source.
const LOGS_WAITING_MAX: usize = 2_000;

/// How many lines of a source are kept of one day.
pub const LOGS_PER_DAY: u32 = 10_000;

/// How many lines wait to be shown to sessions; of more the newest are.
const LINES_SHOWN_MAX: usize = 100;

const STATUS_KIND: &str = "source.status";

pub struct Owned {
    pub lease: SourceLease,
    pub inventory: Inventory,
    number: i64,
    /// Instances to be written, and whether one of them or the source itself at once.
    dirty: HashSet<Arc<str>>,
    urgent: bool,
    /// Instances and lines to be shown.
    live: HashSet<Arc<str>>,
    lines: Vec<LogLine>,
    shown: u64,
    pub status: SourceStatus,
    pub detail: Option<Arc<str>>,
    status_changed: bool,
    /// Up to where its stream was read, and whether that is to be written.
    place: Option<Arc<str>>,
    place_changed: bool,
    logs: Vec<LogLine>,
    logged: (i64, u32),
    /// What was pushed up to here is in memory.
    pub inbox: i64,
    inbox_changed: bool,
    messages: Vec<Said>,
    /// What messages about instances weigh in the buffer.
    pub said_bytes: usize,
    /// It is let go with the next flush.
    pub release: bool,
    /// Everything is written with the next flush, and then it is forgotten.
    pub leaving: bool,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub urgent: bool,
    pub ignored: Option<Ignored>,
    pub thinned_minutes: u64,
    /// A line of a log was shown, and is not kept.
    pub line_dropped: bool,
}

impl Owned {
    pub fn new(lease: SourceLease, instances: Vec<(Arc<str>, Instance)>) -> Owned {
        Owned {
            number: lease.flushed,
            logged: lease.logged,
            lease,
            inventory: Inventory::new(instances),
            dirty: HashSet::new(),
            urgent: false,
            live: HashSet::new(),
            lines: Vec::new(),
            shown: 0,
            status: SourceStatus::Idle,
            detail: None,
            status_changed: false,
            place: None,
            place_changed: false,
            logs: Vec::new(),
            inbox: 0,
            inbox_changed: false,
            messages: Vec::new(),
            said_bytes: 0,
            release: false,
            leaving: false,
        }
    }

    pub fn id(&self) -> &SourceId {
        &self.lease.id
    }

    pub fn apply(
        &mut self,
        event: &Event,
        now: Timestamp,
        room: usize,
        buffer: &mut Buffer,
    ) -> Taken {
        let at = Inventory::moment(event, now);
        let changed = match self.inventory.apply(event, now, room) {
            Ok(changed) => changed,
            Err(ignored) => {
                return Taken { ignored: Some(ignored), ..Taken::default() };
            }
        };
        let mut line_dropped = false;
        if event.kind == EventKind::Log {
            line_dropped = !self.log(event, at, buffer);
        } else {
            let happened = changed.iter().any(|(_, change)| change.created || change.deleted);
            // The name as it is known already: thousands of events wait under few names.
            let known = |name: &Arc<str>| match self.inventory.instances.get_key_value(name) {
                Some((known, _)) => known.clone(),
                None => name.clone(),
            };
            buffer.push(Raw {
                source: self.lease.id.clone(),
                instance: event.instance.as_ref().map(known),
                thins: event.kind == EventKind::Update && !happened,
                at,
                text: document(event, at).into(),
            });
        }
        let thinned_minutes = changed.iter().map(|(_, change)| change.thinned).sum();
        Taken { urgent: self.note(changed, buffer), ignored: None, thinned_minutes, line_dropped }
    }

    /// Ends a list that was told; whether there is something to be written at once.
    pub fn reconcile(&mut self, now: Timestamp, buffer: &mut Buffer) -> bool {
        let gone = self.inventory.reconcile(now);
        self.note(gone, buffer)
    }

    fn note(&mut self, changed: Vec<(Arc<str>, Change)>, buffer: &mut Buffer) -> bool {
        let before = self.urgent;
        for (name, change) in changed {
            if change.is_none() {
                continue;
            }
            self.urgent |= change.facts;
            let kind = match change {
                Change { created: true, .. } => Some("instance.created"),
                Change { deleted: true, .. } => Some("instance.deleted"),
                _ => None,
            };
            if let Some(kind) = kind
                && let Some(instance) = self.inventory.instances.get(&name)
            {
                let shown = instance_shown(&self.lease.id, &name, instance);
                let data: Arc<str> = Value::Object(shown).to_string().into();
                self.said_bytes += buffer.says(data.len());
                self.messages.push(Said { kind, key: Some(name.clone()), data });
            }
            self.dirty.insert(name.clone());
            self.live.insert(name);
        }
        self.urgent && !before
    }

    /// Whether the line will be kept.
    fn log(&mut self, event: &Event, at: Timestamp, buffer: &mut Buffer) -> bool {
        let Some(text) = event.text.clone() else { return true };
        let day = at.0.div_euclid(Level::Day.length_ms());
        if day > self.logged.0 {
            self.logged = (day, 0);
        }
        let line = LogLine { instance: event.instance.clone(), at, text };
        if self.lines.len() < LINES_SHOWN_MAX {
            self.lines.push(line.clone());
        }
        let many = self.logged.1 >= LOGS_PER_DAY || self.logs.len() >= LOGS_WAITING_MAX;
        if many || !buffer.takes_line(line.text.len()) {
            return false;
        }
        self.logged.1 += 1;
        self.logs.push(line);
        true
    }

    /// Whether there is something to be written at once.
    pub fn stand(&mut self, status: SourceStatus, detail: Option<String>) -> bool {
        let detail: Option<Arc<str>> = detail.map(Arc::from);
        if self.status == status && self.detail == detail {
            return false;
        }
        // Sessions are told of a turn, not of each reason why it still does not work.
        if self.status != status {
            let data = json!({
                "source": self.lease.id.as_str(), "status": status.as_str(), "detail": detail.as_deref(),
            });
            // While nothing can be written a source may turn often; what counts is how it stands then.
            self.messages.retain(|said| said.kind != STATUS_KIND);
            let data = data.to_string().into();
            self.messages.push(Said { kind: STATUS_KIND, key: None, data });
            self.urgent = true;
        }
        (self.status, self.detail, self.status_changed) = (status, detail, true);
        self.urgent
    }

    pub fn note_place(&mut self, last_event_id: Option<Arc<str>>) {
        if last_event_id.is_some() && last_event_id != self.place {
            self.place = last_event_id;
            self.place_changed = true;
        }
    }

    /// Goes on under what a user has changed. From where it was, unless that was elsewhere.
    pub fn renew(&mut self, lease: &SourceLease) -> SourceLease {
        if self.lease.url != lease.url {
            self.place = None;
            self.place_changed = false;
        }
        let last_event_id = self.place.clone().or(lease.last_event_id.clone());
        self.lease = SourceLease { flushed: self.lease.flushed, last_event_id, ..lease.clone() };
        self.lease.clone()
    }

    pub fn note_inbox(&mut self, number: i64) {
        self.inbox = number;
        self.inbox_changed = true;
    }

    /// What is to be written now. `minutes` says which of them are over; `urgent` takes only what is.
    pub fn part(&mut self, minutes: Minutes, only_urgent: bool) -> Option<Part> {
        if only_urgent && !self.urgent && !self.release && !self.leaving {
            return None;
        }
        let mut part = Part::new(self.lease.id.clone(), self.lease.term, self.number + 1);
        let over = match minutes {
            _ if self.leaving || self.release => Some(None),
            Minutes::Stay => None,
            Minutes::Over(now) => Some(Some(now)),
            Minutes::All => Some(None),
        };
        if let Some(over) = over {
            for (name, instance) in &mut self.inventory.instances {
                for (at, bucket) in instance.pending.drain(over) {
                    part.rollups.push((name.clone(), at, bucket));
                    self.dirty.insert(name.clone());
                }
            }
        }
        for name in self.dirty.drain() {
            if let Some(instance) = self.inventory.instances.get(&name) {
                part.instances.push((name, instance.clone()));
            }
        }
        if std::mem::take(&mut self.status_changed) {
            part.status = Some((self.status, self.detail.clone()));
        }
        if !self.logs.is_empty() {
            part.logs = std::mem::take(&mut self.logs);
            part.logged = Some(self.logged);
        }
        if std::mem::take(&mut self.inbox_changed) {
            part.inbox = Some(self.inbox);
        }
        part.messages = std::mem::take(&mut self.messages);
        self.said_bytes = 0;
        if std::mem::take(&mut self.place_changed) {
            part.last_event_id.clone_from(&self.place);
        }
        part.release = self.release;
        self.urgent = false;
        (!part.is_empty()).then(|| {
            self.number += 1;
            part
        })
    }

    /// The part that raw events go with, if there is no other one.
    pub fn bare_part(&mut self) -> Part {
        self.number += 1;
        Part::new(self.lease.id.clone(), self.lease.term, self.number)
    }

    /// What is to be shown: instances with what they show, and lines.
    pub fn shown(&mut self) -> (Vec<(Arc<str>, String)>, Vec<String>) {
        let mut states = Vec::new();
        for name in std::mem::take(&mut self.live) {
            let Some(instance) = self.inventory.instances.get(&name) else { continue };
            self.shown += 1;
            let mut shown = instance_shown(&self.lease.id, &name, instance);
            shown.insert("version".to_owned(), json!([self.lease.term, self.shown]));
            states.push((name, Value::Object(shown).to_string()));
        }
        let line = |line: LogLine| line_shown(&self.lease.id, &line).to_string();
        (states, std::mem::take(&mut self.lines).into_iter().map(line).collect())
    }

    /// How many lines of logs wait to be written, and the bytes of their text.
    pub fn lines(&self) -> (usize, usize) {
        lines_size(&self.logs)
    }

    pub fn has_to_show(&self) -> bool {
        !self.live.is_empty() || !self.lines.is_empty()
    }
}

pub fn lines_size(lines: &[LogLine]) -> (usize, usize) {
    (lines.len(), lines.iter().map(|line| line.text.len()).sum())
}

pub fn line_shown(id: &SourceId, line: &LogLine) -> Value {
    json!({
        "source": id.as_str(), "instance": line.instance.as_deref(),
        "at": crate::store::task::time_text(line.at), "text": &*line.text,
    })
}

/// Which minutes are written to the roll-ups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Minutes {
    Stay,
    Over(Timestamp),
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noon of a day.
    const NOON: Timestamp = Timestamp(1_795_262_400_000);
    const DAY_MS: i64 = Level::Day.length_ms();

    fn lease(logged: (i64, u32)) -> SourceLease {
        SourceLease {
            id: SourceId::parse("a").unwrap(),
            term: 1,
            flushed: 0,
            revision: 1,
            format: "generic".into(),
            url: None,
            sealed: None,
            last_event_id: None,
            logged,
        }
    }

    /// Room for many lines, unless a test wants less.
    fn buffer() -> Buffer {
        Buffer::new(1_000_000, 1 << 30)
    }

    fn line(bytes: usize) -> Event {
        let text = Some("x".repeat(bytes).into());
        Event { text, ..Event::new(EventKind::Log, Some("i".into())) }
    }

    /// Tells so many lines, flushing when it is time to, and returns how many were written and dropped.
    fn tell(
        own: &mut Owned,
        buffer: &mut Buffer,
        lines: usize,
        now: Timestamp,
    ) -> (usize, usize, Option<(i64, u32)>) {
        let (mut written, mut dropped, mut logged) = (0, 0, None);
        for number in 1..=lines {
            let taken = own.apply(&line(10), now, 10, buffer);
            assert_eq!(taken.ignored, None);
            dropped += usize::from(taken.line_dropped);
            if number % 1_000 == 0 || number == lines {
                let Some(part) = own.part(Minutes::Stay, false) else { continue };
                written += part.logs.len();
                logged = part.logged.or(logged);
                let (lines, bytes) = lines_size(&part.logs);
                buffer.lines_leave(lines, bytes, true);
                buffer.landed();
            }
        }
        (written, dropped, logged)
    }

    #[test]
    fn of_one_day_so_many_lines_are_kept_whoever_reads_and_the_next_day_again() {
        let most = usize::try_from(LOGS_PER_DAY).unwrap();
        let today = NOON.0 / DAY_MS;
        let (mut own, mut buffer) = (Owned::new(lease((0, 0)), Vec::new()), buffer());
        let (written, dropped, logged) = tell(&mut own, &mut buffer, most - 100, NOON);
        assert_eq!((written, dropped, logged), (most - 100, 0, Some((today, LOGS_PER_DAY - 100))));
        // Another replica takes the source over, and knows how many there were.
        let mut own = Owned::new(lease(logged.unwrap()), Vec::new());
        let (written, dropped, logged) = tell(&mut own, &mut buffer, 1_000, NOON);
        assert_eq!((written, dropped, logged), (100, 900, Some((today, LOGS_PER_DAY))));
        let mut own = Owned::new(lease(logged.unwrap()), Vec::new());
        assert_eq!(tell(&mut own, &mut buffer, 500, NOON), (0, 500, None));
        // A line that is late by less than an hour is one of yesterday, and makes no room today.
        let midnight = Timestamp((today + 1) * DAY_MS);
        let (written, dropped, logged) = tell(&mut own, &mut buffer, most + 1, midnight);
        assert_eq!((written, dropped, logged), (most, 1, Some((today + 1, LOGS_PER_DAY))));
        let late = Event { at: Some(Timestamp(midnight.0 - 1)), ..line(10) };
        assert!(own.apply(&late, midnight, 10, &mut buffer).line_dropped);
        assert!(own.apply(&line(10), midnight, 10, &mut buffer).line_dropped);
        assert_eq!(own.lines(), (0, 0));
    }

    #[test]
    fn lines_that_wait_are_bounded_and_one_that_is_dropped_does_not_count() {
        let (mut own, mut buffer) = (Owned::new(lease((0, 0)), Vec::new()), buffer());
        for number in 0..LOGS_WAITING_MAX + 50 {
            let dropped = own.apply(&line(1), NOON, 10, &mut buffer).line_dropped;
            assert_eq!(dropped, number >= LOGS_WAITING_MAX, "{number}");
        }
        let part = own.part(Minutes::Stay, false).unwrap();
        assert_eq!(part.logs.len(), LOGS_WAITING_MAX);
        assert_eq!(part.logged.unwrap().1 as usize, LOGS_WAITING_MAX);
        // Sessions are shown some of them all the same.
        assert_eq!(own.shown().1.len(), LINES_SHOWN_MAX);
    }

    #[test]
    fn lines_have_a_quarter_of_all_bytes_until_they_are_written() {
        const BYTES: usize = 400_000;
        let mut buffer = Buffer::new(1_000_000, BYTES);
        let (mut own, mut other) =
            (Owned::new(lease((0, 0)), Vec::new()), Owned::new(lease((0, 0)), Vec::new()));
        let tell = |own: &mut Owned, buffer: &mut Buffer| {
            (0..100).filter(|_| !own.apply(&line(1_000), NOON, 10, buffer).line_dropped).count()
        };
        // Each weighs a little more than its text.
        let fit = tell(&mut own, &mut buffer);
        assert!((80..100).contains(&fit), "{fit}");
        assert!(buffer.size().1 <= BYTES / 4 && buffer.size().1 + 1_200 > BYTES / 4);
        assert_eq!(tell(&mut other, &mut buffer), 0, "all sources share the room");
        let part = own.part(Minutes::Stay, false).unwrap();
        let (lines, bytes) = lines_size(&part.logs);
        assert_eq!((lines, part.logged.unwrap().1 as usize), (fit, fit));
        buffer.lines_leave(lines, bytes, true);
        assert!(buffer.size().1 > 80_000, "what is on its way still counts");
        buffer.landed();
        assert_eq!(buffer.size(), (0, 0));
        assert_eq!(tell(&mut other, &mut buffer), fit);
        // Those of a source that was lost are nobody's.
        let (lines, bytes) = other.lines();
        buffer.lines_leave(lines, bytes, false);
        assert_eq!(buffer.size(), (0, 0));
    }
}
