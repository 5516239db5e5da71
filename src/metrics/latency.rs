//! How long deliveries take: a histogram for machines, and for people what most of them stay below.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// 100 µs to 13 s: the barrier of a quiet disk is at 1 ms, the bound on a statement at 5 s.
const FIRST_S: f64 = 0.000_1;
const BOUNDS: u16 = 18;

/// How many observations lie in each bucket; the last holds what is beyond all bounds.
pub type Buckets = [u64; BOUNDS as usize + 1];

pub fn latency() -> Histogram {
    Histogram::new(exponential_buckets(FIRST_S, 2.0, BOUNDS))
}

/// A histogram that can be read here too.
#[derive(Clone)]
pub struct Latency {
    pub histogram: Histogram,
    counts: Arc<[AtomicU64; BOUNDS as usize + 1]>,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { histogram: latency(), counts: Arc::default() }
    }
}

impl Latency {
    pub fn observe(&self, within: Duration) {
        let seconds = within.as_secs_f64();
        self.histogram.observe(seconds);
        let bucket = bounds().position(|bound| seconds <= bound).unwrap_or(BOUNDS.into());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub fn buckets(&self) -> Buckets {
        std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed))
    }
}

fn bounds() -> impl Iterator<Item = f64> {
    (0..i32::from(BOUNDS)).map(|bucket| FIRST_S * 2.0_f64.powi(bucket))
}

/// The bound of the bucket that so large a share of what came since lies in or below. `None` if
/// nothing came.
pub fn below_ms(share: f64, now: &Buckets, before: &Buckets) -> Option<f64> {
    let grown: Vec<u64> =
        now.iter().zip(before).map(|(now, was)| now.saturating_sub(*was)).collect();
    let all: u64 = grown.iter().sum();
    if all == 0 {
        return None;
    }
    let wanted = share * all as f64;
    let mut sum = 0;
    let reached = grown.iter().position(|count| {
        sum += count;
        sum as f64 >= wanted
    });
    let bucket = reached.unwrap_or(0).min(usize::from(BOUNDS) - 1);
    bounds().nth(bucket).map(|bound| bound * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_lies_below_the_bound_of_its_bucket() {
        let latency = Latency::default();
        assert_eq!(below_ms(0.5, &latency.buckets(), &Buckets::default()), None);
        for _ in 0..98 {
            latency.observe(Duration::from_micros(300));
        }
        latency.observe(Duration::from_millis(9));
        latency.observe(Duration::from_secs(60));
        let (now, none) = (latency.buckets(), Buckets::default());
        let shown = |share| below_ms(share, &now, &none).map(|ms| (ms * 10.0).round() / 10.0);
        assert_eq!((shown(0.5), shown(0.98)), (Some(0.4), Some(0.4)));
        assert_eq!((shown(0.99), shown(1.0)), (Some(12.8), Some(13_107.2)));
        assert_eq!(below_ms(0.5, &now, &now), None, "nothing came since");
    }
}
