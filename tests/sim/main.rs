//! A simulation: several replicas in one process, clients that come and go, faults, all from a seed.
//!
//! A seed makes a list of operations (`operation`), a world performs it (`world`): replicas of the
//! real parts and loops (`replica`), over one log and one wire that can fail towards each of them
//! (`disk`, `faults`, `wire`), and clients that follow the protocol to the letter (`client`).
//! Then everything is healed, comes to rest, and is judged (`verdict`).
//! In memory the writer is a model of the real one (`disk`); the real one has a simulation of its own,
//! over Postgres and with faults beneath it (`writer`).
//!
//! # What counts as failure
//! - a message that a publisher was told is accepted, and that is not in the log once, at the seq
//!   that the publisher was told; one that was refused and is there; a request written in part;
//! - a seq missing in the log;
//! - of what a client subscribed to: an event that it lacks, that came twice (after dropping seqs it
//!   had), or out of order within its topic and priority; a state whose newest it lacks; a signal
//!   that came twice over one connection;
//! - a cursor given before everything due at or below it;
//! - something delivered that is not in the log, or, in memory, was not flushed when it came; a
//!   replica that read beyond what is durable;
//! - a `reset` though the client's cursor was good;
//! - a loop that panicked, a publisher who is never answered, a replica that does not reach the head;
//! - anything of this that is not well 30 seconds after all faults are gone. In runs that trust the
//!   bus the tick comes once in an hour, so that it hides nothing.
//!
//! # What remains nondeterministic
//! In memory time is paused and one thread runs everything, so delays take exactly as long as they
//! say. Not in our hands are which ready branch a `select!` takes, the jitter of ticks and backoffs,
//! and names made of random UUIDs. Over Postgres time is real and so is the server. So a list that
//! fails is tried a few times while it is shortened, and a reproduction runs more than once.
//!
//! `TIDINGS_SIM_SEEDS` says how many seeds are run in memory, `TIDINGS_SIM_SEED` runs one alone, and
//! `make simulate` runs as many as fit into `TIDINGS_SOAK_S` seconds.

mod backend;
mod client;
mod disk;
mod faults;
mod ledger;
mod looks;
mod operation;
mod postgres;
mod readers;
mod replica;
mod reproductions;
mod session;
mod shrink;
mod verdict;
mod wire;
mod world;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::clock::Clock;
use tidings::domain::Timestamp;

use crate::backend::Backend;
use crate::operation::Plan;
use crate::postgres::Database;
use crate::shrink::shrink;
use crate::world::Outcome;

const SEEDS: u64 = 1_000;
const POSTGRES_SEEDS: u64 = 8;

/// As many as there are cores on the smallest machine that we test on.
const THREADS: usize = 2;

/// How long a list that fails is made shorter. Over Postgres a run takes seconds, not milliseconds.
const SHRINK: Duration = Duration::from_secs(60);
const SHRINK_OVER_POSTGRES: Duration = Duration::from_secs(600);

/// When the simulated world begins.
const MORNING: Timestamp = Timestamp(1_790_000_000_000);

fn in_memory(plan: &Plan) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let (clock, _hand) = Clock::test(MORNING);
        let backend = Backend::in_memory(&clock, plan.seed);
        world::run(plan, backend, clock).await
    })
}

fn over_postgres(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let backend = Backend::Postgres(Arc::new(Database::fresh().await));
        world::run(plan, backend, Clock::system()).await
    })
}

/// Insists that nothing goes wrong; else shows the shortest list of operations that shows it.
fn check(seed: u64, way: fn(&Plan) -> Outcome, within: Duration) -> Outcome {
    let plan = Plan::of_seed(seed);
    let outcome = way(&plan);
    if outcome.wrongs.is_empty() {
        return outcome;
    }
    let shorter = shrink(&plan, within, |plan| !way(plan).wrongs.is_empty());
    let again = (0..3).map(|_| way(&shorter)).find(|again| !again.wrongs.is_empty());
    let (plan, wrongs) = match again {
        Some(again) => (shorter, again.wrongs),
        // Rare: only the long list shows it.
        None => (plan, outcome.wrongs),
    };
    let wrongs: Vec<String> = wrongs.into_iter().take(8).collect();
    let lines: Vec<String> =
        plan.operations.iter().map(|operation| format!("    {operation:?},")).collect();
    panic!(
        "seed {seed} fails:\n  {}\nwith (for reproductions.rs)\n  seed: {}, trust: {:?}, operations: [\n{}\n  ]",
        wrongs.join("\n  "),
        plan.seed,
        plan.trust,
        lines.join("\n")
    );
}

/// Runs seeds on all cores for as long as `more` gives some, and says what they came to.
fn check_all(
    way: fn(&Plan) -> Outcome,
    within: Duration,
    more: impl Fn(u64) -> Option<u64> + Sync,
) -> u64 {
    let (count, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
    let (seen, resets) = (AtomicU64::new(0), AtomicU64::new(0));
    let add = |total: &AtomicU64, more: usize| {
        total.fetch_add(more as u64, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(seed) = more(count.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = check(seed, way, within);
                    add(&accepted, outcome.accepted);
                    add(&seen, outcome.seen);
                    add(&resets, outcome.resets);
                }
            });
        }
    });
    let total = |total: &AtomicU64| total.load(Ordering::Relaxed);
    println!(
        "{} requests accepted, {} messages seen, {} resets; lost 0, doubled 0, reordered 0",
        total(&accepted),
        total(&seen),
        total(&resets)
    );
    total(&accepted)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_is_lost_doubled_or_reordered_in_memory() {
    if let Some(seed) = number("TIDINGS_SIM_SEED") {
        check(seed, in_memory, SHRINK);
        return;
    }
    let seeds = number("TIDINGS_SIM_SEEDS").unwrap_or(SEEDS);
    let accepted = check_all(in_memory, SHRINK, |seed| (seed < seeds).then_some(seed));
    // A simulation in which nothing happens proves nothing.
    assert!(accepted >= seeds * 5, "{accepted} requests in {seeds} seeds");
}

#[test]
fn nothing_is_lost_doubled_or_reordered_over_postgres() {
    if let Some(seed) = number("TIDINGS_SIM_SEED") {
        check(seed, over_postgres, SHRINK_OVER_POSTGRES);
        return;
    }
    check_all(over_postgres, SHRINK_OVER_POSTGRES, |seed| (seed < POSTGRES_SEEDS).then_some(seed));
}

/// Seeds that nobody has run before, for as long as told: `make simulate`.
#[test]
#[ignore = "runs for TIDINGS_SOAK_S seconds: make simulate"]
fn soak() {
    let until = Instant::now() + Duration::from_secs(number("TIDINGS_SOAK_S").unwrap_or(1_800));
    // Every soak goes where the last one has not been, and says where that is if it fails.
    let first = u64::from(uuid::Uuid::now_v7().as_fields().0) << 20;
    let more = |count: u64| (Instant::now() < until).then_some(first + count);
    std::thread::scope(|scope| {
        scope.spawn(|| check_all(in_memory, SHRINK, more));
        scope.spawn(|| check_all(over_postgres, SHRINK_OVER_POSTGRES, more));
    });
}
