//! The lives of loops: who runs, who is started again, and how everything ends.
//!
//! Every long-lived loop is started here with a name and a policy. A loop that panics or fails
//! is counted and logged once, and begins again after a pause. One that the replica is no good
//! without may do so a few times; if it is not well again by then it takes the replica down with it.
//!
//! A shutdown has two stages, each a token that loops watch:
//!
//! ```text
//!  running --drain()--> draining --stop()--> stopping --join_all(deadline)--> gone
//!             (clients are told to go,    (loops return;        (what hangs is named
//!              requests finish)            failed ones stay down)  and aborted)
//! ```
//!
//! A loop that died with `Policy::Needed` begins the same drain by itself, so that the clients of a
//! replica that can no longer work are sent elsewhere rather than cut off.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

/// The first pause before a loop begins again: short, since most failures are a lost connection.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: what an operator who has just repaired something will wait for.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A loop that ran this long was well, and its next failure starts with the short pause again.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// So many failures in a row are no accident: with the pauses between them it has been down for two
/// seconds and more, and what a new process would not mend another replica does not suffer from.
const FAILURES_MAX: u32 = 5;

/// How long what a loop awaits may still take once it is told to end: a statement that is on its way
/// takes milliseconds, and one that hangs is not worth waiting for.
pub const LAST_WORD: Duration = Duration::from_millis(300);

/// Runs to the end, or until it was told to end and has had its time; then it is dropped, and `None`.
pub async fn finish<T>(
    told: &CancellationToken,
    within: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = async { told.cancelled().await; tokio::time::sleep(within).await } => None,
    }
}

/// The two stages of leaving. `stopping` implies `draining`.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    pub draining: CancellationToken,
    pub stopping: CancellationToken,
}

impl Shutdown {
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    pub fn drain(&self) {
        self.draining.cancel();
    }

    pub fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
    }
}

/// What follows when a loop fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Begin again after a growing pause, as often as it takes.
    Restart,
    /// Begin again too, but the replica cannot work without it: after `FAILURES_MAX` failures without
    /// having been well in between, drain and exit non-zero.
    Needed,
}

/// A cheap handle that starts loops and waits for them.
#[derive(Clone)]
pub struct Supervisor {
    shutdown: Shutdown,
    metrics: Metrics,
    tracker: TaskTracker,
    /// Touched when a loop starts or ends, never across an await.
    loops: Arc<Mutex<Loops>>,
}

#[derive(Default)]
struct Loops {
    next_id: u64,
    /// Loops that run now; a name may be there more than once (lanes).
    running: BTreeMap<u64, (&'static str, Option<AbortHandle>)>,
    /// The first loop that took the replica down, and why.
    failure: Option<Failure>,
}

/// The loop that took the replica down, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the loop {name} ended: {why}")]
pub struct Failure {
    pub name: &'static str,
    pub why: String,
}

/// How the replica ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    /// Loops that did not return in time and were aborted, by name.
    pub hung: Vec<&'static str>,
    pub failure: Option<Failure>,
}

impl Ending {
    /// Non-zero when a loop took the replica down or one had to be aborted.
    pub fn exit_code(&self) -> u8 {
        u8::from(self.failure.is_some() || !self.hung.is_empty())
    }
}

impl Supervisor {
    pub fn new(shutdown: Shutdown, metrics: Metrics) -> Supervisor {
        Supervisor { shutdown, metrics, tracker: TaskTracker::new(), loops: Arc::default() }
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a loop. It is handed the tokens and returns `Ok` when it is done, which before
    /// the shutdown means that there is nothing left to do for it.
    pub fn start<F, Fut, E>(&self, name: &'static str, policy: Policy, run: F)
    where
        F: FnMut(Shutdown) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send,
        E: fmt::Display + Send,
    {
        let id = self.enter(name);
        let this = self.clone();
        let life = async move {
            let left = Leave { supervisor: this.clone(), id };
            this.live(name, policy, run).await;
            drop(left);
        };
        #[expect(clippy::disallowed_methods, reason = "this is where loops are owned")]
        let handle = tokio::spawn(self.tracker.track_future(life));
        if let Some((_, abort)) = self.loops.lock().running.get_mut(&id) {
            *abort = Some(handle.abort_handle());
        }
    }

    /// The names of the loops that run now, in the order in which they were started.
    pub fn running(&self) -> Vec<&'static str> {
        self.loops.lock().running.values().map(|(name, _)| *name).collect()
    }

    pub fn failure(&self) -> Option<Failure> {
        self.loops.lock().failure.clone()
    }

    /// Waits for all loops to return, then aborts and names those that did not.
    /// Does not ask them to: that is `Shutdown::stop`.
    pub async fn join_all(&self, deadline: Duration) -> Ending {
        self.tracker.close();
        let mut hung = Vec::new();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            for (name, abort) in self.loops.lock().running.values() {
                hung.push(*name);
                if let Some(abort) = abort {
                    abort.abort();
                }
            }
            tracing::error!(loops = ?hung, ?deadline, "loops did not end in time and are aborted");
        }
        Ending { hung, failure: self.failure() }
    }

    fn enter(&self, name: &'static str) -> u64 {
        self.metrics.supervise.running.inc();
        let mut loops = self.loops.lock();
        loops.next_id += 1;
        let id = loops.next_id;
        loops.running.insert(id, (name, None));
        id
    }

    async fn live<F, Fut, E>(&self, name: &'static str, policy: Policy, mut run: F)
    where
        F: FnMut(Shutdown) -> Fut + Send,
        Fut: Future<Output = Result<(), E>> + Send,
        E: fmt::Display + Send,
    {
        let mut pauses = pauses();
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let Err(why) = self.once(name, &mut run).await else { return };
            if self.shutdown.stopping.is_cancelled() {
                tracing::warn!(name, why, "a loop failed while the replica stopped");
                return;
            }
            if started.elapsed() >= WELL_AFTER {
                pauses = self::pauses();
                failures = 0;
            }
            failures += 1;
            if policy == Policy::Needed && failures >= FAILURES_MAX {
                tracing::error!(
                    name,
                    why,
                    failures,
                    "a loop fails again and again that the replica cannot work without; leaving"
                );
                self.loops.lock().failure.get_or_insert(Failure { name, why });
                self.shutdown.drain();
                return;
            }
            let pause = pauses.next().unwrap_or(PAUSE_MAX);
            tracing::warn!(name, why, ?pause, "a loop failed and will begin again");
            tokio::select! {
                () = self.shutdown.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            self.metrics.supervise.restarts.get_or_create(&name.into()).inc();
        }
    }

    /// One run of the loop, with a panic turned into a reason.
    async fn once<F, Fut, E>(&self, name: &'static str, run: &mut F) -> Result<(), String>
    where
        F: FnMut(Shutdown) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let shutdown = self.shutdown.clone();
        // What a loop had in hand goes with its future. What it keeps across its lives stands behind a
        // lock that is not poisoned, and may be half-done: the log takes its place from the ring and
        // trusts nothing until it has looked, a lane gets a new writer, the others keep nothing that
        // they do not look up again.
        match AssertUnwindSafe(async { run(shutdown).await }).catch_unwind().await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => {
                self.metrics.supervise.panics.get_or_create(&name.into()).inc();
                Err(format!("it panicked: {}", panic_text(panic.as_ref())))
            }
        }
    }
}

/// Takes a loop off the books when it ends, also when it is aborted.
struct Leave {
    supervisor: Supervisor,
    id: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.supervisor.metrics.supervise.running.dec();
        self.supervisor.loops.lock().running.remove(&self.id);
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests;
