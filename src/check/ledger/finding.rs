//! What is wrong: of each kind how much, and a few cases in words.

use std::collections::BTreeMap;

/// Cases of one kind that are told in words; of the others only the number is kept.
const EXAMPLES_MAX: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Accepted and not in the log, or in the log and not with a client that was due it.
    Lost,
    Doubled,
    Reordered,
    /// Nobody published it, or not so.
    Phantom,
    /// It stands at another seq than its publisher was told.
    WrongSeq,
    /// A cursor was given before what was due before it.
    Overtaken,
    /// A client's last state of something is not the newest one.
    Stale,
    /// A client was told that it must go on elsewhere, past messages that it had not had.
    Skipped,
    /// The log began a new life: what was accepted before may be gone.
    SetBack,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Lost,
        Kind::Doubled,
        Kind::Reordered,
        Kind::Phantom,
        Kind::WrongSeq,
        Kind::Overtaken,
        Kind::Stale,
        Kind::Skipped,
        Kind::SetBack,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            Kind::Doubled => "doubled",
            Kind::Reordered => "reordered",
            Kind::Phantom => "phantom",
            Kind::WrongSeq => "wrong_seq",
            Kind::Overtaken => "overtaken",
            Kind::Stale => "stale",
            Kind::Skipped => "skipped",
            Kind::SetBack => "set_back",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Findings {
    counts: BTreeMap<Kind, u64>,
    examples: Vec<(Kind, String)>,
}

impl Findings {
    pub fn add(&mut self, kind: Kind, case: impl FnOnce() -> String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= EXAMPLES_MAX as u64 {
            self.examples.push((kind, case()));
        }
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub fn examples(&self) -> &[(Kind, String)] {
        &self.examples
    }
}
