//! When each request is meant to leave.
//!
//! A thread of its own: the runtime's timers count in milliseconds, and what is measured here takes
//! less than one. It waits for nobody; what the publishers do not take queues up, and is as late as it
//! is. Without a rate there is no schedule: publishers take the next number when they are free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::Meter;
use super::meter::micros;

/// How many requests may be due and not begun; with more the thread waits, and its later ones are
/// charged from when they were meant to leave all the same.
const DUE_MAX: usize = 1 << 16;

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub number: u64,
    /// When it was meant to leave.
    pub us: u64,
}

/// Hands out requests to publishers.
pub struct Pace {
    meter: Arc<Meter>,
    /// From the thread to whichever publisher is free; `None` without a rate.
    due: Option<Mutex<mpsc::Receiver<Due>>>,
    next: AtomicU64,
    over: Arc<AtomicBool>,
    until_us: u64,
}

impl Pace {
    /// So many requests a second from a moment on, until another.
    pub fn new(
        meter: Arc<Meter>,
        requests_per_s: Option<f64>,
        from_us: u64,
        until_us: u64,
    ) -> Pace {
        let over = Arc::new(AtomicBool::new(false));
        let due = requests_per_s.map(|requests_per_s| {
            let (sender, due) = mpsc::channel(DUE_MAX);
            let (meter, over) = (meter.clone(), over.clone());
            let schedule = Schedule { requests_per_s, from_us, until_us };
            // It ends when the time is over, or nobody takes anything any more.
            drop(tokio::task::spawn_blocking(move || schedule.run(&meter, &sender, &over)));
            Mutex::new(due)
        });
        Pace { meter, due, next: AtomicU64::new(0), over, until_us }
    }

    /// The next request, once it is due. `None` when the time is over.
    pub async fn next(&self) -> Option<Due> {
        match &self.due {
            Some(due) => due.lock().await.recv().await,
            None => {
                let us = self.meter.now_us();
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                (us < self.until_us).then_some(Due { number, us })
            }
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

struct Schedule {
    requests_per_s: f64,
    from_us: u64,
    until_us: u64,
}

impl Schedule {
    fn at(&self, number: u64) -> u64 {
        let after = Duration::try_from_secs_f64(number as f64 / self.requests_per_s);
        self.from_us.saturating_add(micros(after.unwrap_or(Duration::MAX)))
    }

    #[expect(clippy::disallowed_methods, reason = "the state that is waited for is the time")]
    fn run(&self, meter: &Meter, due: &mpsc::Sender<Due>, over: &AtomicBool) {
        for number in 0.. {
            let us = self.at(number);
            if us >= self.until_us || over.load(Ordering::Relaxed) {
                return;
            }
            let wait = us.saturating_sub(meter.now_us());
            if wait > 0 {
                std::thread::sleep(Duration::from_micros(wait));
            }
            if due.blocking_send(Due { number, us }).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_meant_for_even_moments_however_late_they_are_taken() {
        let meter = Arc::new(Meter::new().unwrap());
        let pace = Pace::new(meter.clone(), Some(1_000.0), 5_000, 10_000);
        let mut taken = Vec::new();
        while let Some(due) = pace.next().await {
            taken.push(due.us);
        }
        assert_eq!(taken, [5_000, 6_000, 7_000, 8_000, 9_000]);
        assert!(meter.now_us() >= 9_000, "none is handed out before its time");
    }

    #[tokio::test]
    async fn without_a_rate_the_next_one_leaves_when_somebody_is_free() {
        let meter = Arc::new(Meter::new().unwrap());
        let pace = Pace::new(meter, None, 0, u64::MAX);
        assert_eq!(pace.next().await.map(|due| due.number), Some(0));
        assert_eq!(pace.next().await.map(|due| due.number), Some(1));
        let over = Pace::new(Arc::new(Meter::new().unwrap()), None, 0, 0);
        assert_eq!(over.next().await, None);
    }
}
