//! How far this replica sees the log: what its listener says, and whether its own looks succeed.
//!
//! ```text
//!   the listener says    looks and reads succeed    they have failed for a while
//!   down                 polling                    down
//!   anything else        what it says               down
//! ```
//! A listener that cannot connect costs a delay, not sight, as long as the log can be asked; and a
//! listener that hears helps nobody when what it hears of cannot be read.

use std::time::Duration;

use tokio::time::Instant;

use crate::bus::BusState;

/// How long looks may fail beside a listener that hears: one that found no connection is no outage.
const BLIND_AFTER: Duration = Duration::from_secs(1);

/// How long a replica may be blind before sessions are told: a reconnect takes less.
const DEGRADED_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Sight {
    /// What the bus said last, or has come to mean since.
    pub heard: BusState,
    /// Since when no look at the head has succeeded.
    unseen_since: Option<Instant>,
    /// Whether no look has succeeded since the loop began.
    begun: bool,
    /// Since when something durable cannot be read.
    unread_since: Option<Instant>,
}

impl Sight {
    pub fn new() -> Sight {
        let now = Instant::now();
        Sight { heard: BusState::Down, unseen_since: Some(now), begun: true, unread_since: None }
    }

    /// The loop begins, perhaps anew: what it took from the listener last may be lost with its last
    /// life, so it has to catch up.
    pub fn begin(&mut self) {
        self.begun = true;
        self.unseen_since.get_or_insert_with(Instant::now);
        if self.heard == BusState::Live {
            self.heard = BusState::CatchingUp;
        }
    }

    /// A listener that is lost may mean that everything is: only a look tells.
    pub fn lost(&mut self, state: BusState) {
        self.heard = state;
        if state == BusState::Down {
            self.unseen_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether the last look succeeded.
    pub fn sees(&self) -> bool {
        self.unseen_since.is_none()
    }

    pub fn looked(&mut self, well: bool) {
        self.begun &= !well;
        note(&mut self.unseen_since, well);
    }

    pub fn read(&mut self, well: bool) {
        note(&mut self.unread_since, well);
    }

    /// What `/readyz` says, and by which the pace of looking goes.
    pub fn state(&self) -> BusState {
        match (self.heard, self.blind_since()) {
            _ if self.begun => BusState::Down,
            (BusState::Down, None) => BusState::Polling,
            (heard, Some(since)) if since.elapsed() < BLIND_AFTER => heard,
            (_, Some(_)) => BusState::Down,
            (heard, None) => heard,
        }
    }

    pub fn is_degraded(&self) -> bool {
        self.blind_since().is_some_and(|since| since.elapsed() >= DEGRADED_AFTER)
    }

    /// When it is to be told anew, if nothing happens before.
    pub fn changes_at(&self) -> Option<Instant> {
        let since = self.blind_since()?;
        [BLIND_AFTER, DEGRADED_AFTER]
            .map(|after| since + after)
            .into_iter()
            .find(|at| *at > Instant::now())
    }

    fn blind_since(&self) -> Option<Instant> {
        match (self.unseen_since, self.unread_since) {
            (Some(unseen), Some(unread)) => Some(unseen.min(unread)),
            (unseen, unread) => unseen.or(unread),
        }
    }
}

fn note(since: &mut Option<Instant>, well: bool) {
    match well {
        true => *since = None,
        false => drop(since.get_or_insert_with(Instant::now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_listener_it_polls_as_long_as_looks_succeed() {
        let mut sight = Sight::new();
        assert_eq!(sight.state(), BusState::Down);
        sight.looked(true);
        assert_eq!(sight.state(), BusState::Polling);
        sight.heard = BusState::Live;
        sight.lost(BusState::Down);
        assert_eq!(sight.state(), BusState::Down, "until a look tells otherwise");
        sight.looked(true);
        assert_eq!(sight.state(), BusState::Polling);
        assert!(!sight.is_degraded());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_begins_anew_sees_nothing_until_it_has_looked_and_then_catches_up() {
        let mut sight = Sight::new();
        sight.looked(true);
        sight.heard = BusState::Live;
        sight.begin();
        assert_eq!(sight.state(), BusState::Down);
        sight.looked(false);
        assert_eq!(sight.state(), BusState::Down);
        sight.looked(true);
        assert_eq!(sight.state(), BusState::CatchingUp);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_hears_does_not_make_up_for_a_store_that_is_away() {
        for heard in [BusState::Live, BusState::CatchingUp, BusState::Polling] {
            for fail in [Sight::looked, Sight::read] {
                let mut sight = Sight::new();
                sight.looked(true);
                sight.heard = heard;
                fail(&mut sight, false);
                assert_eq!(sight.state(), heard, "once is no outage");
                pass(BLIND_AFTER).await;
                fail(&mut sight, false);
                assert_eq!(sight.state(), BusState::Down);
                pass(DEGRADED_AFTER - BLIND_AFTER).await;
                assert!(sight.is_degraded());
                fail(&mut sight, true);
                assert_eq!(sight.state(), heard);
                assert!(!sight.is_degraded());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn looks_that_succeed_do_not_hide_what_cannot_be_read() {
        let mut sight = Sight::new();
        sight.looked(true);
        sight.heard = BusState::Live;
        sight.read(false);
        pass(BLIND_AFTER).await;
        sight.looked(true);
        assert_eq!(sight.state(), BusState::Down);
    }
}
