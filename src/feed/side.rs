//! A topic that a session subscribed to after it began, until the main cursor has gone past that moment.
//!
//! Up to `until` its messages are replayed here, or were never asked for; in both cases the queue
//! and the main cursor leave them out.

use crate::domain::{Pattern, PatternSet, Seq};
use crate::frame::Frame;

pub struct Side {
    pattern: Pattern,
    /// What was subscribed already: its messages come on the main way.
    /// `None` for a replay, which sends them all itself.
    before: Option<PatternSet>,
    from: Seq,
    position: Seq,
    until: Seq,
    count: u64,
    told: bool,
    /// Nobody asked for a replay, so none is reported.
    quiet: bool,
}

impl Side {
    /// Subscribed from `until` on, without a replay.
    pub fn settled(pattern: Pattern, before: PatternSet, until: Seq) -> Side {
        let before = Some(before);
        Side {
            pattern,
            before,
            from: until,
            position: until,
            until,
            count: 0,
            told: true,
            quiet: false,
        }
    }

    pub fn replaying(pattern: Pattern, from: Seq, until: Seq) -> Side {
        let until = until.max(from);
        let (count, told, quiet) = (0, false, false);
        Side { pattern, before: None, from, position: from, until, count, told, quiet }
    }

    /// What follows a message that was sent out of its turn.
    pub fn following(pattern: Pattern, from: Seq, until: Seq) -> Side {
        Side { quiet: true, ..Side::replaying(pattern, from, until) }
    }

    pub fn is_replay(&self) -> bool {
        self.before.is_none()
    }

    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    pub fn patterns(&self) -> PatternSet {
        [self.pattern.clone()].into_iter().collect()
    }

    pub fn position(&self) -> Seq {
        self.position
    }

    pub fn until(&self) -> Seq {
        self.until
    }

    pub fn done(&self) -> bool {
        self.told
    }

    pub fn advance(&mut self, read_to: Seq, count: u64) {
        self.position = self.position.max(read_to);
        self.count += count;
    }

    /// Once, when everything has been replayed: from, to, how many.
    pub fn finished(&mut self) -> Option<(Seq, Seq, u64)> {
        let finished = !self.told && self.position >= self.until;
        self.told |= finished;
        (finished && !self.quiet).then_some((self.from, self.until, self.count))
    }

    /// Whether a frame on the main way is this one's business.
    pub fn covers(&self, frame: &Frame) -> bool {
        frame.seq.is_some_and(|seq| seq <= self.until)
            && self.pattern.matches(&frame.topic)
            && self.before.as_ref().is_none_or(|before| !before.matches(&frame.topic))
    }
}
