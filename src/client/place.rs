//! How far a client has come, and what it has had beyond that.
//!
//! Everything up to the cursor has been had. Frames that overtake others carry no cursor: their
//! seqs are remembered, since after a resume they come again. They are forgotten when the cursor
//! passes them, which each heartbeat sees to.

use std::collections::BTreeSet;

use crate::domain::Cursor;

/// How many overtakers are remembered between two cursors. With more, the oldest are forgotten and
/// may be seen twice after a resume: better than a client that grows, or one that loses something.
const AHEAD_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Place {
    cursor: Option<Cursor>,
    ahead: BTreeSet<u64>,
}

impl Place {
    pub(super) fn new(cursor: Option<Cursor>) -> Place {
        Place { cursor, ahead: BTreeSet::new() }
    }

    pub(super) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Takes note of a message; whether it is new. A signal has no seq and always is.
    pub(super) fn takes(&mut self, seq: Option<u64>, cursor: Option<&Cursor>) -> bool {
        let continues = cursor.is_none_or(|cursor| self.continues(cursor));
        let had = continues && seq.is_some_and(|seq| self.had(seq));
        match (cursor, seq) {
            (Some(cursor), _) => self.reach(cursor),
            (None, Some(seq)) if !had => {
                self.ahead.insert(seq);
                if self.ahead.len() > AHEAD_MAX {
                    self.ahead.pop_first();
                }
            }
            (None, _) => {}
        }
        !had
    }

    /// Everything up to here has been sent.
    pub(super) fn reach(&mut self, cursor: &Cursor) {
        if !self.continues(cursor) {
            return self.reset(cursor);
        }
        if self.cursor.as_ref().is_none_or(|own| own.seq < cursor.seq) {
            self.cursor = Some(cursor.clone());
            self.ahead = self.ahead.split_off(&cursor.seq.next().get());
        }
    }

    /// The log goes on from here, whatever there was before.
    pub(super) fn reset(&mut self, cursor: &Cursor) {
        self.cursor = Some(cursor.clone());
        self.ahead.clear();
    }

    fn continues(&self, cursor: &Cursor) -> bool {
        self.cursor.as_ref().is_none_or(|own| own.epoch == cursor.epoch)
    }

    fn had(&self, seq: u64) -> bool {
        self.cursor.as_ref().is_some_and(|own| seq <= own.seq.get()) || self.ahead.contains(&seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor {
        Cursor::parse(text).unwrap()
    }

    #[test]
    fn what_overtook_is_not_taken_again_after_a_resume() {
        let mut place = Place::new(Some(cursor("a-4")));
        assert!(place.takes(Some(6), None), "it overtook 5");
        assert!(!place.takes(Some(6), None), "it came again");
        assert!(place.takes(Some(5), Some(&cursor("a-6"))), "5, and with it all up to 6");
        assert!(!place.takes(Some(5), None));
        assert!(!place.takes(Some(6), Some(&cursor("a-6"))));
        assert!(place.takes(Some(7), Some(&cursor("a-7"))));
        assert!(place.ahead.is_empty(), "what the cursor has passed need not be remembered");
    }

    #[test]
    fn a_cursor_never_goes_back_and_signals_are_always_new() {
        let mut place = Place::new(Some(cursor("a-4")));
        place.reach(&cursor("a-2"));
        assert_eq!(place.cursor(), Some(&cursor("a-4")));
        assert!(place.takes(None, None) && place.takes(None, None));
    }

    #[test]
    fn a_new_epoch_begins_anew() {
        let mut place = Place::new(Some(cursor("a-4")));
        place.reset(&cursor("b-0"));
        assert!(place.takes(Some(1), Some(&cursor("b-1"))));
        assert!(place.takes(Some(1), Some(&cursor("c-1"))), "even if nobody said so");
    }

    #[test]
    fn overtakers_without_end_are_bounded() {
        let mut place = Place::new(Some(cursor("a-0")));
        let most = u64::try_from(AHEAD_MAX).unwrap();
        for seq in 2..most + 12 {
            assert!(place.takes(Some(seq), None));
        }
        assert_eq!(place.ahead.len(), AHEAD_MAX);
    }
}
