//! How long messages took, in a few hundred numbers however many there were.

/// Parts of each doubling: what is told is at most an eighth too high.
const PARTS: u64 = 8;

/// More than an hour; what took longer counts as that.
const LONGEST_US: u64 = u32::MAX as u64;

#[derive(Clone, Debug, Default)]
pub struct Latency {
    counts: Vec<u64>,
    count: u64,
}

impl Latency {
    pub fn add(&mut self, took_us: u64) {
        let place = place(took_us.min(LONGEST_US));
        if self.counts.len() <= place {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
        self.count += 1;
    }

    /// What so many of a hundred did not exceed, in milliseconds; `None` without any.
    pub fn percentile_ms(&self, percent: u64) -> Option<f64> {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut passed = 0;
        let place = self.counts.iter().position(|count| {
            passed += count;
            passed >= wanted
        })?;
        let us = u32::try_from(end_us(place)).unwrap_or(u32::MAX);
        Some(f64::from(us) / 1e3)
    }
}

/// Below `PARTS` a place each; then `PARTS` places for each doubling.
fn place(us: u64) -> usize {
    let doublings = u64::from((us / PARTS).checked_ilog2().map_or(0, |log| log + 1));
    let place = match doublings {
        0 => us,
        _ => doublings * PARTS + (us >> (doublings - 1)) - PARTS,
    };
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// The highest number with that place.
fn end_us(place: usize) -> u64 {
    let (doublings, part) = (place as u64 / PARTS, place as u64 % PARTS);
    match doublings {
        0 => part,
        _ => ((PARTS + part + 1) << (doublings - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_an_eighth_too_high_at_most() {
        for us in (0..10_000).chain([1 << 20, (1 << 31) - 1, 123_456_789]) {
            let end = end_us(place(us));
            assert!(us <= end && end <= us + us / 8, "{us}: {end}");
        }
    }

    #[test]
    fn percentiles_are_found() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile_ms(50), None);
        for ms in 1..=100 {
            latency.add(ms * 1_000);
        }
        let near = |percent, ms: f64| {
            let told = latency.percentile_ms(percent).unwrap();
            assert!(told >= ms && told <= ms * 1.126, "{percent}: {told}");
        };
        near(50, 50.0);
        near(99, 99.0);
        near(100, 100.0);
        for us in [0, u64::MAX] {
            latency.add(us);
        }
        assert!(latency.percentile_ms(100).is_some());
    }
}
