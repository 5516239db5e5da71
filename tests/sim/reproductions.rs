//! Lists of operations that once showed a bug, shortened; each must not show it again.

use tidings::domain::Priority;

use crate::in_memory;
use crate::operation::Op::*;
use crate::operation::{Op, Plan, Trust, What};

/// Which of several ready loops runs first is not in our hands, so each is tried more than once.
const TRIES: usize = 20;

fn holds(trust: Trust, operations: &[Op]) {
    let plan = Plan { seed: operations.len() as u64, trust, operations: operations.to_vec() };
    for _ in 0..TRIES {
        let wrongs = in_memory(&plan).wrongs;
        assert!(wrongs.is_empty(), "{:#?}", wrongs.iter().take(8).collect::<Vec<_>>());
    }
}

/// The welcome carried the head of the new life as its cursor before the reset was sent: a client
/// that was cut off in between came back with it, and never knew that it had to reload.
#[test]
fn a_client_is_told_to_reload_before_it_is_given_a_new_cursor() {
    holds(
        Trust::Tick,
        &[
            Start { at: 1 },
            Subscribe { client: 0, pattern: 4, replay: false },
            Connect { client: 0, at: 1 },
            Advance { ms: 20 },
            Disconnect { client: 0 },
            Publish { at: 1, topic: 0, what: What::Event(Priority::High), count: 1 },
            Advance { ms: 20 },
            RenewEpoch,
            Advance { ms: 3_000 },
            // Slow enough to be cut off between the welcome and the reset.
            Slow { client: 0, ms: 5 },
            Connect { client: 0, at: 1 },
            Advance { ms: 7 },
            Disconnect { client: 0 },
        ],
    );
}

/// A session was called away with messages in hand, told its cursor, and only then sent them: a
/// client that was cut off in between lost them.
#[test]
fn no_cursor_overtakes_the_messages_before_it() {
    holds(
        Trust::Tick,
        &[
            Start { at: 1 },
            Subscribe { client: 1, pattern: 1, replay: false },
            Connect { client: 1, at: 1 },
            Advance { ms: 22 },
            Publish { at: 1, topic: 0, what: What::Event(Priority::High), count: 12 },
            Publish { at: 1, topic: 1, what: What::Keyed(5), count: 1 },
            Subscribe { client: 1, pattern: 4, replay: false },
            Stall { client: 1 },
            Advance { ms: 303 },
        ],
    );
}

/// A replica that could not reach the store for longer than messages are kept skipped what was
/// gone, and its sessions, being in the same epoch as before, were not told.
#[test]
fn a_replica_that_was_away_for_too_long_says_so_to_its_clients() {
    holds(
        Trust::Tick,
        &[
            Start { at: 2 },
            Subscribe { client: 2, pattern: 0, replay: false },
            Connect { client: 2, at: 2 },
            Advance { ms: 20 },
            Start { at: 0 },
            CutStore { at: 2 },
            CutBus { at: 2 },
            Publish { at: 0, topic: 0, what: What::Event(Priority::High), count: 3 },
            Advance { ms: 40_000 },
            Expire,
        ],
    );
}
