//! How fast it goes now, for the page that people read; machines take rates of the counters.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::latency::{Buckets, below_ms};

/// How often counters are noted down.
pub const EVERY: Duration = Duration::from_secs(5);

/// Rates are those of the last minute.
const SAMPLES_MAX: usize = 13;

/// The counters that a rate is shown of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub published: u64,
    pub delivered: u64,
    pub batches: u64,
    pub answered: u64,
    pub failed: u64,
    pub latency: Buckets,
}

/// What became of them in a second, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub window: Duration,
    pub published_per_s: f64,
    pub delivered_per_s: f64,
    pub messages_per_batch: f64,
    /// Requests over HTTP, and those of them that failed by our fault or the store's.
    pub answered_per_s: f64,
    pub failed_per_s: f64,
    /// What half of the deliveries, and 99 in a hundred, stayed below; none if there were none.
    pub delivery_p50_ms: Option<f64>,
    pub delivery_p99_ms: Option<f64>,
}

#[derive(Default)]
pub struct Rates {
    samples: Mutex<VecDeque<(Instant, Counts)>>,
}

impl Rates {
    pub fn note(&self, counts: Counts) {
        let mut samples = self.samples.lock();
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back((Instant::now(), counts));
    }

    /// From the oldest sample to now. `None` as long as there is none to compare with.
    pub fn now(&self, counts: Counts) -> Option<Rate> {
        let (at, before) = *self.samples.lock().front()?;
        let window = at.elapsed();
        let seconds = window.as_secs_f64();
        if seconds < 1.0 {
            return None;
        }
        let grown = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let published = grown(counts.published, before.published);
        Some(Rate {
            window,
            published_per_s: published / seconds,
            delivered_per_s: grown(counts.delivered, before.delivered) / seconds,
            messages_per_batch: published / grown(counts.batches, before.batches).max(1.0),
            answered_per_s: grown(counts.answered, before.answered) / seconds,
            failed_per_s: grown(counts.failed, before.failed) / seconds,
            delivery_p50_ms: below_ms(0.5, &counts.latency, &before.latency),
            delivery_p99_ms: below_ms(0.99, &counts.latency, &before.latency),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_that_of_the_last_minute() {
        let rates = Rates::default();
        assert_eq!(rates.now(Counts::default()), None);
        let mut counts = Counts::default();
        // A hundred a second for two minutes, then nothing for half of one.
        for step in 0..30 {
            rates.note(counts);
            tokio::time::advance(EVERY).await;
            if step < 24 {
                counts.published += 500;
                counts.delivered += 5_000;
                counts.batches += 50;
            }
        }
        let rate = rates.now(counts).unwrap();
        assert_eq!(rate.window.as_secs(), 65);
        assert!((rate.published_per_s - 3_500.0 / 65.0).abs() < 0.01, "{rate:?}");
        assert!((rate.delivered_per_s - 35_000.0 / 65.0).abs() < 0.01, "{rate:?}");
        assert!((rate.messages_per_batch - 10.0).abs() < 0.01, "{rate:?}");
    }
}
