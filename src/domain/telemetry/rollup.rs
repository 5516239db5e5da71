//! Sums over a minute, which hours and days are made of.
//!
//! What was added to a bucket is an increment: adding increments in any order and any grouping gives
//! the same bucket, so that what is written may be cut anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::few::Few;
use crate::domain::Timestamp;

pub const MINUTE_MS: i64 = 60_000;

/// How fine the buckets are that are kept, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Level {
    Minute,
    Hour,
    Day,
}

impl Level {
    pub const ALL: [Level; 3] = [Level::Minute, Level::Hour, Level::Day];

    pub const fn length_ms(self) -> i64 {
        match self {
            Level::Minute => MINUTE_MS,
            Level::Hour => 60 * MINUTE_MS,
            Level::Day => 24 * 60 * MINUTE_MS,
        }
    }

    pub const fn kept_ms(self) -> i64 {
        const DAY_MS: i64 = Level::Day.length_ms();
        match self {
            Level::Minute => 7 * DAY_MS,
            Level::Hour => 30 * DAY_MS,
            Level::Day => 400 * DAY_MS,
        }
    }

    pub const fn to_db(self) -> i16 {
        match self {
            Level::Minute => 0,
            Level::Hour => 1,
            Level::Day => 2,
        }
    }

    /// The bucket, in universal time, that a moment falls into.
    pub fn bucket(self, at: Timestamp) -> Timestamp {
        Timestamp(at.0 - at.0.rem_euclid(self.length_ms()))
    }
}

/// By how much a counter grew.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Growth {
    pub sum: u128,
    pub min: u64,
    pub max: u64,
    pub samples: u64,
}

impl Growth {
    pub fn of(delta: u64) -> Growth {
        Growth { sum: delta.into(), min: delta, max: delta, samples: 1 }
    }

    pub fn merge(&mut self, other: Growth) {
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.samples += other.samples;
    }
}

/// What a gauge showed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Course {
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub samples: u64,
}

impl Course {
    pub fn of(value: f64) -> Course {
        Course { sum: value, min: value, max: value, samples: 1 }
    }

    /// Beyond all measure the sum stays at the most that there is: what is no number could not be kept.
    pub fn merge(&mut self, other: Course) {
        self.sum = (self.sum + other.sum).clamp(f64::MIN, f64::MAX);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.samples += other.samples;
    }
}

/// What one instance did in one stretch of time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Bucket {
    pub counters: Few<Growth>,
    pub gauges: Few<Course>,
}

impl Bucket {
    pub fn grow(&mut self, name: &Arc<str>, growth: Growth) {
        self.counters.put(name, growth, Growth::merge);
    }

    pub fn show(&mut self, name: &Arc<str>, course: Course) {
        self.gauges.put(name, course, Course::merge);
    }

    pub fn merge(&mut self, other: &Bucket) {
        for (name, growth) in other.counters.iter() {
            self.grow(name, *growth);
        }
        for (name, course) in other.gauges.iter() {
            self.show(name, *course);
        }
    }
}

/// Increments that are not in the roll-ups yet, by their minute.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pending {
    pub minutes: BTreeMap<Timestamp, Bucket>,
}

impl Pending {
    pub fn at(&mut self, at: Timestamp) -> &mut Bucket {
        self.minutes.entry(Level::Minute.bucket(at)).or_default()
    }

    /// Takes out the minutes that were over at a moment, or all of them.
    pub fn drain(&mut self, over_at: Option<Timestamp>) -> BTreeMap<Timestamp, Bucket> {
        let all = std::mem::take(&mut self.minutes);
        let Some(now) = over_at else { return all };
        let open = Level::Minute.bucket(now);
        let (over, open) = all.into_iter().partition(|(at, _)| *at < open);
        self.minutes = open;
        over
    }

    /// Loses resolution, never totals: the two oldest minutes become one until so many are left.
    pub fn thin(&mut self, minutes_max: usize) -> u64 {
        let mut thinned = 0;
        while self.minutes.len() > minutes_max.max(1) {
            let Some((_, oldest)) = self.minutes.pop_first() else { break };
            if let Some(mut next) = self.minutes.first_entry() {
                next.get_mut().merge(&oldest);
            }
            thinned += 1;
        }
        thinned
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_falls_into_its_bucket() {
        for (level, at, bucket) in [
            (Level::Minute, 59_999, 0),
            (Level::Minute, 60_000, 60_000),
            (Level::Minute, -1, -60_000),
            (Level::Hour, 3_600_000 * 5 + 17, 3_600_000 * 5),
            (Level::Day, 86_400_000 * 3 - 1, 86_400_000 * 2),
        ] {
            assert_eq!(level.bucket(Timestamp(at)), Timestamp(bucket));
        }
    }

    proptest! {
        #[test]
        fn increments_may_be_cut_anywhere(
            samples in proptest::collection::vec((0..600_000_i64, 0..u64::MAX / 256), 1..200),
            cuts in proptest::collection::vec(any::<bool>(), 200),
            minutes_max in 1..8_usize,
        ) {
            let name: Arc<str> = "tcp_rx".into();
            let (mut whole, mut pending) = (Bucket::default(), Pending::default());
            let mut hours: BTreeMap<Timestamp, Bucket> = BTreeMap::new();
            let write = |minutes: BTreeMap<Timestamp, Bucket>, hours: &mut BTreeMap<Timestamp, Bucket>| {
                for (at, bucket) in minutes {
                    hours.entry(Level::Hour.bucket(at)).or_default().merge(&bucket);
                }
            };
            for ((at, delta), cut) in samples.iter().zip(cuts) {
                whole.grow(&name, Growth::of(*delta));
                pending.at(Timestamp(*at)).grow(&name, Growth::of(*delta));
                pending.thin(minutes_max);
                prop_assert!(pending.minutes.len() <= minutes_max);
                if cut {
                    write(pending.drain(Some(Timestamp(*at))), &mut hours);
                }
            }
            write(pending.drain(None), &mut hours);
            prop_assert!(pending.minutes.is_empty());
            let mut written = Bucket::default();
            hours.values().for_each(|bucket| written.merge(bucket));
            prop_assert_eq!(written, whole);
        }
    }
}
