//! Loops that end, fail, panic and hang, and what becomes of the replica.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const SOON: Duration = Duration::from_secs(1);

fn supervisor() -> Supervisor {
    Supervisor::new(Shutdown::new(), Metrics::new())
}

/// A loop that fails `failures` times and then runs until it is stopped.
fn failing(failures: u32, runs: Arc<AtomicU32>) -> impl FnMut(Shutdown) -> RunFuture + Send {
    move |shutdown| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if run < failures {
                return Err("the connection was lost".to_owned());
            }
            shutdown.stopping.cancelled().await;
            Ok(())
        })
    }
}

type RunFuture = std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

#[tokio::test(start_paused = true)]
async fn a_loop_that_fails_begins_again_after_growing_pauses() {
    let supervisor = supervisor();
    let runs = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
    supervisor.start("listener", Policy::Restart, failing(5, runs.clone()));
    while runs.load(Ordering::SeqCst) < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // 0.1 + 0.2 + 0.4 + 0.8 + 1.6 s, each with up to as much jitter again.
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(3_100) && took < Duration::from_millis(6_500),
        "{took:?}"
    );
    assert_eq!(supervisor.running(), ["listener"]);
    supervisor.shutdown().stop();
    let ending = supervisor.join_all(SOON).await;
    assert_eq!(ending, Ending { hung: vec![], failure: None });
    assert_eq!(ending.exit_code(), 0);
    let page = supervisor.metrics.encode();
    assert!(page.contains("tidings_supervise_restarts_total{name=\"listener\"} 5"), "{page}");
    assert!(page.contains("tidings_supervise_running 0"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn the_pause_ends_when_the_replica_stops() {
    let supervisor = supervisor();
    supervisor.start("sick", Policy::Restart, failing(u32::MAX, Arc::default()));
    tokio::time::sleep(Duration::from_secs(100)).await;
    supervisor.shutdown().stop();
    assert_eq!(supervisor.join_all(Duration::from_millis(1)).await.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_the_replica_needs_and_that_is_not_well_again_takes_it_down_by_a_drain() {
    let supervisor = supervisor();
    let runs = Arc::new(AtomicU32::new(0));
    supervisor.start("log", Policy::Needed, failing(u32::MAX, runs.clone()));
    supervisor.shutdown().draining.cancelled().await;
    assert_eq!(runs.load(Ordering::SeqCst), FAILURES_MAX);
    assert!(!supervisor.shutdown().stopping.is_cancelled());
    supervisor.shutdown().stop();
    let ending = supervisor.join_all(SOON).await;
    assert_eq!(ending.failure.as_ref().map(|failure| failure.name), Some("log"));
    assert_eq!(ending.exit_code(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_the_replica_needs_may_fail_now_and_then() {
    let supervisor = supervisor();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    supervisor.start("log", Policy::Needed, move |shutdown: Shutdown| {
        // It fails in a row, then is well for a while before it fails again, over and over.
        let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            if run.is_multiple_of(FAILURES_MAX - 1) {
                tokio::select! {
                    () = shutdown.stopping.cancelled() => return Ok(()),
                    () = tokio::time::sleep(WELL_AFTER) => {}
                }
            }
            Err("the connection was lost")
        }
    });
    while runs.load(Ordering::SeqCst) < 4 * FAILURES_MAX {
        assert_eq!(supervisor.failure(), None);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    supervisor.shutdown().stop();
    assert_eq!(supervisor.join_all(SOON).await.exit_code(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_the_loop_begins_again() {
    let supervisor = supervisor();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    supervisor.start("fragile", Policy::Restart, move |shutdown| {
        // Once before the first await and once after it: both are runs that failed.
        let run = counted.fetch_add(1, Ordering::SeqCst);
        assert!(run != 0, "on purpose");
        async move {
            tokio::task::yield_now().await;
            assert!(run != 1, "on purpose");
            shutdown.stopping.cancelled().await;
            Ok::<(), String>(())
        }
    });
    while runs.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    supervisor.shutdown().stop();
    assert_eq!(supervisor.join_all(SOON).await.exit_code(), 0);
    let page = supervisor.metrics.encode();
    assert!(page.contains("tidings_supervise_panics_total{name=\"fragile\"} 2"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_named_and_aborted() {
    let supervisor = supervisor();
    supervisor.start("well", Policy::Needed, failing(0, Arc::default()));
    supervisor.start("deaf", Policy::Restart, |_| std::future::pending::<Result<(), String>>());
    supervisor.shutdown().stop();
    let ending = supervisor.join_all(SOON).await;
    assert_eq!(ending.hung, ["deaf"]);
    assert_eq!(ending.exit_code(), 1);
    supervisor.tracker.wait().await;
    assert!(supervisor.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_fails_while_stopping_stays_down() {
    let supervisor = supervisor();
    supervisor.start("late", Policy::Needed, |shutdown: Shutdown| async move {
        shutdown.stopping.cancelled().await;
        Err("too late")
    });
    supervisor.shutdown().stop();
    let ending = supervisor.join_all(SOON).await;
    assert_eq!(ending, Ending { hung: vec![], failure: None });
}
