//! What was published, against the log.
//!
//! A publisher says one batch after another and waits for each, so its numbers stand in the log in
//! order, each once. Only a batch that was given up on may come late or not at all; its numbers are
//! remembered one by one, all others by a count.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::finding::{Findings, Kind};
use crate::check::word::{Id, Met, Plan};
use crate::domain::Seq;

/// A message of the log that some client may still be due.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub id: Id,
    pub topic: usize,
    /// Of a state.
    pub key: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Publisher {
    /// How many it has said.
    said: u64,
    /// The number that comes next in the log.
    next: u64,
    /// Answered, and not met in the log so far.
    accepted: BTreeMap<u64, Seq>,
    /// Met in the log, and not answered so far.
    found: BTreeMap<u64, Seq>,
    /// Given up on, and not met in the log so far: may be there or not.
    undecided: BTreeSet<u64>,
    /// Passed over by the log.
    absent: BTreeSet<u64>,
    /// Met in the log after higher ones.
    late: BTreeSet<u64>,
}

impl Publisher {
    fn is_absent(&self, number: u64) -> bool {
        self.absent.contains(&number)
    }
}

#[derive(Debug)]
pub struct Book {
    plan: Plan,
    publishers: Vec<Publisher>,
    entries: BTreeMap<Seq, Entry>,
    read_to: Seq,
    newest: BTreeMap<(usize, u64), Seq>,
}

impl Book {
    pub fn new(plan: Plan, begin: Seq) -> Book {
        let publishers = (0..plan.publishers_all()).map(|_| Publisher::default()).collect();
        let (entries, newest) = Default::default();
        Book { plan, publishers, entries, read_to: begin, newest }
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The next numbers of a publisher: the first of them.
    pub fn say(&mut self, publisher: usize, count: u64) -> u64 {
        let said = &mut self.publishers[publisher].said;
        let first = *said;
        *said += count;
        first
    }

    pub fn said(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.said).sum()
    }

    pub fn was_said(&self, id: Id) -> bool {
        self.publishers.get(id.publisher).is_some_and(|publisher| id.number < publisher.said)
    }

    pub fn accepted(&mut self, id: Id, told: Seq, findings: &mut Findings) {
        let publisher = &mut self.publishers[id.publisher];
        match publisher.found.remove(&id.number) {
            Some(found) => compare(id, told, found, findings),
            None => {
                publisher.accepted.insert(id.number, told);
            }
        }
    }

    /// Nobody answered for it, or the last of several answers was no.
    pub fn undecided(&mut self, id: Id) {
        let publisher = &mut self.publishers[id.publisher];
        if publisher.found.remove(&id.number).is_none() {
            publisher.undecided.insert(id.number);
        }
    }

    /// A message of our topics in the log, in the order of seqs.
    pub fn row(&mut self, seq: Seq, met: &Met<'_>, findings: &mut Findings) {
        if seq <= self.read_to {
            let read_to = self.read_to;
            findings.add(Kind::Reordered, || {
                format!("the log was read up to {read_to} and then showed seq {seq}")
            });
            return;
        }
        self.read_to = seq;
        let Some((id, _)) = self.plan.read(met).filter(|(id, _)| self.was_said(*id)) else {
            findings.add(Kind::Phantom, || {
                format!("the log has what was never published so, at seq {seq} on {}", met.topic)
            });
            return;
        };
        let publisher = &mut self.publishers[id.publisher];
        let number = id.number;
        if number >= publisher.next {
            publisher.absent.extend(publisher.next..number);
            publisher.next = number + 1;
        } else if !publisher.absent.remove(&number) {
            findings.add(Kind::Doubled, || format!("the log has {id} again, at seq {seq}"));
            return;
        } else {
            publisher.late.insert(number);
            if !publisher.undecided.contains(&number) {
                findings.add(Kind::Reordered, || {
                    format!("the log has {id} at seq {seq}, after later ones of its publisher")
                });
            }
        }
        if !publisher.undecided.remove(&number) {
            match publisher.accepted.remove(&number) {
                Some(told) => compare(id, told, seq, findings),
                None => {
                    publisher.found.insert(number, seq);
                }
            }
        }
        let (topic, key) = (self.plan.topic(id), self.plan.key(id));
        if let Some(key) = key {
            self.newest.insert((topic, key), seq);
        }
        self.entries.insert(seq, Entry { id, topic, key });
    }

    /// There is nothing more of ours up to here.
    pub fn reach(&mut self, seq: Seq) {
        self.read_to = self.read_to.max(seq);
    }

    pub fn read_to(&self) -> Seq {
        self.read_to
    }

    pub fn newest(&self) -> impl Iterator<Item = (&(usize, u64), Seq)> {
        self.newest.iter().map(|(place, seq)| (place, *seq))
    }

    /// What the log has after one seq up to another, of what was not forgotten.
    pub fn entries(&self, after: Seq, upto: Seq) -> impl Iterator<Item = (Seq, &Entry)> {
        let upto = upto.max(after);
        let range = (Bound::Excluded(after), Bound::Excluded(upto.next()));
        self.entries.range(range).map(|(seq, entry)| (*seq, entry))
    }

    /// Everybody has settled up to here.
    pub fn forget(&mut self, upto: Seq) {
        self.entries = self.entries.split_off(&upto.next());
    }

    /// How much is remembered one by one.
    pub fn unsettled(&self) -> usize {
        let of = |one: &Publisher| one.accepted.len() + one.found.len() + one.undecided.len();
        self.entries.len() + self.publishers.iter().map(of).sum::<usize>()
    }

    /// The end: what was accepted and does not stand in the log up to where that was read is lost.
    pub fn finish(&mut self, findings: &mut Findings) {
        for (place, publisher) in self.publishers.iter_mut().enumerate() {
            for (number, told) in std::mem::take(&mut publisher.accepted) {
                let id = Id { publisher: place, number };
                if told <= self.read_to {
                    findings.add(Kind::Lost, || {
                        format!("{id} was accepted as seq {told} and the log does not have it")
                    });
                }
            }
        }
    }
}

fn compare(id: Id, told: Seq, found: Seq, findings: &mut Findings) {
    if told != found {
        findings.add(Kind::WrongSeq, || {
            format!("{id} was accepted as seq {told} and stands in the log at {found}")
        });
    }
}

/// The log read a second time, in the end: whether what stood in it stands in it still.
#[derive(Debug)]
pub struct Audit {
    next: Vec<Option<u64>>,
    rows: u64,
}

impl Audit {
    /// `whole` unless the log's beginning has gone with retention meanwhile.
    pub fn new(book: &Book, whole: bool) -> Audit {
        let next = book.publishers.iter().map(|_| whole.then_some(0)).collect();
        Audit { next, rows: 0 }
    }

    pub fn row(&mut self, book: &Book, seq: Seq, met: &Met<'_>, findings: &mut Findings) {
        // What is not ours was told of when it was read for the first time.
        let read = book.plan.read(met).filter(|(id, _)| book.was_said(*id));
        let Some((id, _)) = read else { return };
        let publisher = &book.publishers[id.publisher];
        self.rows += 1;
        let next = self.next[id.publisher].unwrap_or(id.number);
        if id.number < next {
            if !publisher.late.contains(&id.number) {
                findings.add(Kind::Doubled, || {
                    format!("the log, read again, has {id} again, at seq {seq}")
                });
            }
            return;
        }
        self.gone(id.publisher, next..id.number, publisher, findings);
        self.next[id.publisher] = Some(id.number + 1);
    }

    fn gone(
        &self,
        place: usize,
        numbers: std::ops::Range<u64>,
        publisher: &Publisher,
        findings: &mut Findings,
    ) {
        for number in numbers.filter(|number| !publisher.is_absent(*number)) {
            if publisher.late.contains(&number) {
                continue;
            }
            let id = Id { publisher: place, number };
            findings.add(Kind::Lost, || format!("{id} stood in the log and is gone from it"));
        }
    }

    /// How many rows of ours it has.
    pub fn finish(self, book: &Book, findings: &mut Findings) -> u64 {
        for (place, publisher) in book.publishers.iter().enumerate() {
            if let Some(next) = self.next[place] {
                self.gone(place, next..publisher.next, publisher, findings);
            }
        }
        self.rows
    }
}
