//! The one place that waits by looking again.

use std::time::{Duration, Instant};

/// Short against everything that is waited for here, long enough to cost nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Whether `condition` became true before `deadline` had passed.
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if started.elapsed() >= deadline {
            return false;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "other processes do not tell when their state changes: this is the one place that looks again"
        )]
        std::thread::sleep(LOOK_AGAIN);
    }
}
