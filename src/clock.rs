//! The time of day and the passing of time, as a parameter.
//!
//! Nothing that must be right across replicas hangs on it: leases, expiry and retention use the
//! clock of the database. A test may move the wall clock and see that nothing changes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::domain::Timestamp;

/// A cheap handle on one clock.
#[derive(Clone)]
pub struct Clock(Wall);

#[derive(Clone)]
enum Wall {
    System,
    Set(Arc<SetWall>),
}

/// Runs on with tokio's time, which tests may pause, and is moved by a `TestClock`.
struct SetWall {
    started: Instant,
    /// Written by `TestClock`, read by every `Clock` made with it.
    offset_ms: AtomicI64,
}

impl Clock {
    pub fn system() -> Clock {
        Clock(Wall::System)
    }

    /// A clock that shows `start` now, and the hand that moves it.
    pub fn test(start: Timestamp) -> (Clock, TestClock) {
        let wall = Arc::new(SetWall { started: Instant::now(), offset_ms: start.0.into() });
        (Clock(Wall::Set(wall.clone())), TestClock(wall))
    }

    /// What the wall says; it may jump, so it measures nothing.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Wall::System => system_now(),
            Wall::Set(wall) => {
                let passed_ms = millis(wall.started.elapsed());
                Timestamp(wall.offset_ms.load(Ordering::Relaxed).saturating_add(passed_ms))
            }
        }
    }

    /// For measuring: it never goes back, whatever happens to the wall.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Wall::System => "Clock(system)",
            Wall::Set(_) => "Clock(test)",
        })
    }
}

/// Moves the wall clock of a test; what measures with `instant` notices nothing.
pub struct TestClock(Arc<SetWall>);

impl TestClock {
    pub fn shift_ms(&self, by_ms: i64) {
        self.0.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

fn system_now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else takes")]
    let now = SystemTime::now();
    Timestamp(match now.duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        // A machine whose clock was never set shows a time before 1970.
        Err(before) => -millis(before.duration()),
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES_MS: i64 = 600_000;

    #[tokio::test(start_paused = true)]
    async fn a_moved_wall_clock_leaves_measured_time_alone() {
        let (clock, hand) = Clock::test(Timestamp(1_000_000));
        let before = clock.instant();
        for shift_ms in [TEN_MINUTES_MS, -2 * TEN_MINUTES_MS] {
            hand.shift_ms(shift_ms);
        }
        assert_eq!(clock.now(), Timestamp(1_000_000 - TEN_MINUTES_MS));
        assert_eq!(clock.instant(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_test_clock_runs_with_the_time_of_the_test() {
        let (clock, _hand) = Clock::test(Timestamp(0));
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert_eq!(clock.clone().now(), Timestamp(1_500));
    }

    #[test]
    fn the_system_clock_is_past_the_day_this_was_written() {
        assert!(Clock::system().now() > Timestamp(1_700_000_000_000));
    }
}
