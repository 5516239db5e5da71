//! What was heard: how many messages, and how long each took.
//!
//! A message begins with `{"us":` and the moment at which it was meant to leave, in microseconds since
//! the meter began. Only messages of the measured time count in the histogram.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{BenchError, Figures};

/// Listeners write into one of these each, so that they do not wait for one another.
const SHARDS: usize = 16;

/// What took longer is told as this.
const LATENCY_US_MAX: u64 = 120_000_000;

const STAMP: &str = "\"us\":";

pub struct Meter {
    began: Instant,
    shards: Vec<Shard>,
    /// The measured time: written once by the shape before the first message of it.
    from_us: AtomicU64,
    until_us: AtomicU64,
}

struct Shard {
    heard: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Meter {
    pub fn new() -> Result<Meter, BenchError> {
        let shard = |_| {
            let latencies = Mutex::new(histogram()?);
            Ok(Shard { heard: AtomicU64::new(0), latencies })
        };
        let shards: Result<Vec<Shard>, BenchError> = (0..SHARDS).map(shard).collect();
        let shards = shards?;
        let began = Instant::now();
        Ok(Meter { began, shards, from_us: AtomicU64::new(0), until_us: AtomicU64::new(u64::MAX) })
    }

    pub fn now_us(&self) -> u64 {
        micros(self.began.elapsed())
    }

    /// When that was, by the clock of the run.
    pub fn instant(&self, us: u64) -> Instant {
        self.began + Duration::from_micros(us)
    }

    /// Only messages that were meant to leave in this time are measured.
    pub fn measure(&self, from_us: u64, until_us: u64) {
        self.from_us.store(from_us, Ordering::Relaxed);
        self.until_us.store(until_us, Ordering::Relaxed);
    }

    pub fn is_measured(&self, us: u64) -> bool {
        (self.from_us.load(Ordering::Relaxed)..self.until_us.load(Ordering::Relaxed)).contains(&us)
    }

    /// A message as it was read. `place` is its listener's. False if it is none of ours.
    pub fn heard(&self, place: usize, text: &str) -> bool {
        let Some(us) = stamp_of(text) else { return false };
        let shard = &self.shards[place % SHARDS];
        shard.heard.fetch_add(1, Ordering::Relaxed);
        if self.is_measured(us) {
            shard.latencies.lock().saturating_record(self.now_us().saturating_sub(us).max(1));
        }
        true
    }

    pub fn heard_count(&self) -> u64 {
        self.shards.iter().map(|shard| shard.heard.load(Ordering::Relaxed)).sum()
    }

    /// How many of the measured messages were heard.
    pub fn measured_count(&self) -> u64 {
        self.shards.iter().map(|shard| shard.latencies.lock().len()).sum()
    }

    pub fn tell(&self, figures: &mut Figures) {
        let mut all: Option<Histogram<u64>> = None;
        for shard in &self.shards {
            let latencies = shard.latencies.lock();
            match &mut all {
                None => all = Some(latencies.clone()),
                // Of the same bounds, so they fit.
                Some(all) => drop(all.add(&*latencies)),
            }
        }
        let Some(all) = all.filter(|all| !all.is_empty()) else { return };
        for (name, percentile) in
            [("p50_ms", 50.0), ("p90_ms", 90.0), ("p99_ms", 99.0), ("p999_ms", 99.9)]
        {
            figures.add(name, all.value_at_percentile(percentile) as f64 / 1e3);
        }
        figures.add("max_ms", all.max() as f64 / 1e3);
    }
}

/// For latencies in microseconds. It never grows: whatever is longer is told as its longest.
pub fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .map_err(|error| BenchError::Failed(error.to_string()))
}

pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Data of a size, with a stamp.
pub fn stamped(us: u64, bytes: usize) -> String {
    let mut data = format!("{{{STAMP}{us},\"pad\":\"");
    let pad = bytes.saturating_sub(data.len() + 2);
    data.extend(std::iter::repeat_n('x', pad));
    data.push_str("\"}");
    data
}

pub fn stamp_of(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once(STAMP)?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_in_a_frame_and_data_has_its_size() {
        let data = stamped(1234, 300);
        assert_eq!(data.len(), 300);
        assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok());
        let frame = format!("{{\"type\":\"message\",\"topic\":\"a\",\"data\":{data}}}");
        assert_eq!(stamp_of(&frame), Some(1234));
        for none in ["", "{\"type\":\"welcome\"}", "\"us\":", "\"us\":x", "\"us\":12"] {
            assert_eq!(stamp_of(none), None, "{none}");
        }
        assert!(stamp_of(&stamped(7, 0)).is_some(), "a stamp always fits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_charged_from_when_it_was_meant_to_leave() {
        let meter = Meter::new().unwrap();
        meter.measure(1_000, 5_000);
        tokio::time::advance(Duration::from_millis(8)).await;
        // Meant for 3 ms, however late it left; one before and one after the measured time.
        for us in [999, 3_000, 5_000] {
            assert!(meter.heard(0, &stamped(us, 0)));
        }
        assert!(!meter.heard(0, "{\"type\":\"cursor\"}"));
        assert_eq!((meter.heard_count(), meter.measured_count()), (3, 1));
        let mut figures = Figures::default();
        meter.tell(&mut figures);
        let p50 = figures.get("p50_ms").unwrap();
        assert!((4.9..5.1).contains(&p50), "{p50}");
    }
}
