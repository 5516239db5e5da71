//! Makes a list of operations that fails shorter, as long as it still fails.

use std::time::{Duration, Instant};

use crate::operation::{Op, Plan};

/// How often a list is tried: the order in which ready loops run is not in our hands.
const TRIES: usize = 3;

/// Delta debugging: leaves out parts, large ones first, then single operations, for so long.
pub fn shrink(plan: &Plan, within: Duration, fails: impl Fn(&Plan) -> bool) -> Plan {
    let until = Instant::now() + within;
    let mut best = plan.clone();
    let mut size = best.operations.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let before = best.operations.len();
        while at < best.operations.len() {
            if Instant::now() > until {
                return best;
            }
            let end = (at + size).min(best.operations.len());
            let operations: Vec<Op> = [&best.operations[..at], &best.operations[end..]].concat();
            let shorter = Plan { operations, ..best.clone() };
            if (0..TRIES).any(|_| fails(&shorter)) {
                best = shorter;
            } else {
                at = end;
            }
        }
        if size > 1 || best.operations.len() == before {
            size /= 2;
        }
    }
    best
}
