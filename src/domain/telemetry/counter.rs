//! The one function that makes growth out of cumulative counters.
//!
//! A counter only grows, until whatever counts begins again: then it is lower than before, and all of
//! it is new. The first sample is worth nothing, since nobody knows when it grew. A sample that is
//! older than the last one says nothing, and neither does one that comes twice.

use crate::domain::Timestamp;

/// The last sample of a counter, and all that it grew by since the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    pub value: u64,
    pub at: Timestamp,
    pub total: u128,
}

impl Counter {
    pub fn first(value: u64, at: Timestamp) -> Counter {
        Counter { value, at, total: 0 }
    }

    /// Takes a sample and returns by how much it grew; `None` for one that is too late to count.
    pub fn take(&mut self, value: u64, at: Timestamp) -> Option<u64> {
        let lower = value < self.value;
        // Of two samples of one moment the lower one was overtaken.
        if at < self.at || (at == self.at && lower) {
            return None;
        }
        let delta = if lower { value } else { value - self.value };
        *self = Counter { value, at, total: self.total + u128::from(delta) };
        Some(delta)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deltas(samples: &[(i64, u64)]) -> Vec<Option<u64>> {
        let mut counter: Option<Counter> = None;
        let mut taken = Vec::new();
        for (at, value) in samples {
            taken.push(match &mut counter {
                None => {
                    counter = Some(Counter::first(*value, Timestamp(*at)));
                    Some(0)
                }
                Some(counter) => counter.take(*value, Timestamp(*at)),
            });
        }
        taken
    }

    #[test]
    fn growth_reset_late_and_doubled_samples() {
        let max = u64::MAX;
        for (samples, expected) in [
            (&[(1, 100)][..], &[Some(0)][..]),
            (&[(1, 100), (2, 150)], &[Some(0), Some(50)]),
            (&[(1, 100), (2, 30)], &[Some(0), Some(30)]),
            (&[(1, 100), (2, 0)], &[Some(0), Some(0)]),
            (&[(1, 100), (2, 100)], &[Some(0), Some(0)]),
            (&[(1, 100), (1, 100)], &[Some(0), Some(0)]),
            (&[(5, 100), (4, 150), (6, 160)], &[Some(0), None, Some(60)]),
            (&[(5, 100), (5, 90), (5, 110)], &[Some(0), None, Some(10)]),
            (&[(1, 0), (2, max), (3, 7)], &[Some(0), Some(max), Some(7)]),
        ] {
            assert_eq!(deltas(samples), expected, "{samples:?}");
        }
    }

    /// What a machine counts: growth, and now and then a new beginning.
    fn history() -> impl Strategy<Value = Vec<(u64, bool)>> {
        proptest::collection::vec((0..=u64::MAX / 64, prop::bool::weighted(0.1)), 1..60)
    }

    proptest! {
        #[test]
        fn the_sum_of_deltas_is_what_was_counted(history in history()) {
            let (mut value, mut counted) = (0_u64, 0_u128);
            let mut counter = Counter::first(0, Timestamp(0));
            for (at, (growth, begins_again)) in (1..).zip(history) {
                if begins_again && growth < value {
                    value = growth;
                } else {
                    value = value.saturating_add(growth);
                }
                let before = counter.value;
                let delta = counter.take(value, Timestamp(at)).unwrap();
                prop_assert_eq!(delta, if value < before { value } else { value - before });
                counted += u128::from(delta);
            }
            prop_assert_eq!(counter.total, counted);
        }

        #[test]
        fn doubled_and_late_samples_change_nothing(
            values in proptest::collection::vec(any::<u64>(), 2..40),
            again in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
        ) {
            let mut plain = Counter::first(values[0], Timestamp(0));
            let mut disturbed = plain;
            let moment = |at: usize| Timestamp(i64::try_from(at).unwrap());
            for (at, value) in values.iter().enumerate().skip(1) {
                plain.take(*value, moment(at));
                disturbed.take(*value, moment(at));
                for (which, when) in &again {
                    if when.index(values.len()) == at {
                        let old = which.index(at + 1);
                        let delta = disturbed.take(values[old], moment(old));
                        prop_assert!(delta.unwrap_or(0) == 0, "{old} at {at}: {delta:?}");
                    }
                }
                prop_assert_eq!(plain, disturbed);
            }
        }
    }
}
