//! Items that only pretend: for trying out, for tests, and for showing what a failure looks like.
//!
//! The same seed, item and attempt always end the same way, on whatever replica.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::{Executor, Outcome, Try};

/// The longest pretence.
const DELAY_MS_MAX: u64 = 3_600_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulate {
    #[serde(default)]
    delay_ms: Delay,
    /// The share of items that fail.
    #[serde(default)]
    fail_rate: f64,
    /// The share of tries that fail and may be tried again.
    #[serde(default)]
    flaky_rate: f64,
    /// Items that fail in any case.
    #[serde(default)]
    fail: Vec<String>,
    #[serde(default)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Delay {
    Fixed(u64),
    Between(u64, u64),
}

impl Default for Delay {
    fn default() -> Delay {
        Delay::Fixed(0)
    }
}

impl Simulate {
    pub fn checked(self) -> Result<Simulate, String> {
        let (low, high) = self.delay();
        if low > high || high > DELAY_MS_MAX {
            return Err(format!("delay_ms: a number, or two in order, up to {DELAY_MS_MAX}"));
        }
        for (name, rate) in [("fail_rate", self.fail_rate), ("flaky_rate", self.flaky_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{name}: 0 to 1"));
            }
        }
        Ok(self)
    }

    fn delay(&self) -> (u64, u64) {
        match self.delay_ms {
            Delay::Fixed(delay) => (delay, delay),
            Delay::Between(low, high) => (low, high),
        }
    }

    /// A number from 0 to below 1 that hangs on nothing but its arguments.
    fn roll(&self, what: &str, name: &str, number: u32) -> f64 {
        // FNV-1a, then the end of splitmix64, which spreads what FNV leaves together.
        let bytes = what.bytes().chain(name.bytes()).chain(number.to_le_bytes());
        let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64 ^ self.seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((hash ^ (hash >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn delay_of(&self, one: Try<'_>) -> Duration {
        let (low, high) = self.delay();
        let share = self.roll("delay", one.name, one.attempt);
        Duration::from_millis(low) + Duration::from_millis(high - low).mul_f64(share)
    }

    fn outcome(&self, one: Try<'_>) -> Outcome {
        let Try { name, attempt, tried, .. } = one;
        if self.fail.iter().any(|fails| fails == name)
            || self.roll("fail", name, attempt) < self.fail_rate
        {
            Outcome::Failed("simulated failure".to_owned())
        } else if self.roll("flaky", name, attempt.wrapping_mul(1_000) + tried) < self.flaky_rate {
            Outcome::TryAgain { error: "simulated trouble".to_owned(), after: None }
        } else {
            Outcome::Succeeded
        }
    }
}

#[async_trait]
impl Executor for Simulate {
    async fn run(&self, one: Try<'_>) -> Outcome {
        tokio::time::sleep(self.delay_of(one)).await;
        self.outcome(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulate(text: &str) -> Simulate {
        serde_json::from_str::<Simulate>(text).unwrap().checked().unwrap()
    }

    fn one(name: &str, attempt: u32, tried: u32) -> Try<'_> {
        Try { name, data: None, attempt, tried, timeout: Duration::MAX }
    }

    fn failed(simulate: &Simulate, attempt: u32) -> Vec<u32> {
        let fails = |number: &u32| {
            let name = format!("node-{number}");
            simulate.outcome(one(&name, attempt, 0)) != Outcome::Succeeded
        };
        (0..10_000).filter(fails).collect()
    }

    #[test]
    fn a_seed_says_which_items_fail_and_a_retry_rolls_again() {
        let simulated = simulate(r#"{"fail_rate":0.05,"seed":7}"#);
        let first = failed(&simulated, 1);
        assert!((400..600).contains(&first.len()), "{}", first.len());
        assert_eq!(first, failed(&simulate(r#"{"fail_rate":0.05,"seed":7}"#), 1));
        assert_ne!(first, failed(&simulate(r#"{"fail_rate":0.05,"seed":8}"#), 1));
        assert_ne!(first, failed(&simulated, 2));
        assert_eq!(failed(&simulate("{}"), 1), Vec::<u32>::new());
        assert_eq!(failed(&simulate(r#"{"fail_rate":1}"#), 1).len(), 10_000);
    }

    #[test]
    fn an_item_that_is_named_fails_and_delays_lie_where_they_should() {
        let simulated = simulate(r#"{"fail":["a"],"delay_ms":[20,80],"flaky_rate":0.5}"#);
        assert!(matches!(simulated.outcome(one("a", 3, 0)), Outcome::Failed(_)));
        let flaky =
            (0..100).filter(|tried| simulated.outcome(one("b", 1, *tried)) != Outcome::Succeeded);
        assert!((30..70).contains(&flaky.count()));
        for name in ["a", "b", "c", "d"] {
            let delay = simulated.delay_of(one(name, 1, 0)).as_millis();
            assert!((20..=80).contains(&delay), "{delay}");
        }
    }
}
