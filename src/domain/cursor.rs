//! Places in the log: the number of a message, the life of the log, and both together.

use std::fmt;
use std::sync::Arc;

/// The number of a message.
///
/// Seqs start at 1 and have no gaps; `Seq::ZERO` is the place before the first message.
/// They stay below 2^53 so that a JavaScript client can hold one in a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(u64);

impl Seq {
    pub const ZERO: Seq = Seq(0);
    pub const MAX: Seq = Seq((1 << 53) - 1);

    /// `None` when the number is beyond what a client can hold.
    pub const fn new(number: u64) -> Option<Seq> {
        if number <= Self::MAX.0 { Some(Seq(number)) } else { None }
    }

    /// For numbers that come out of the database, whose schema keeps them in range.
    pub fn from_db(number: i64) -> Seq {
        Seq(u64::try_from(number).unwrap_or(0).min(Self::MAX.0))
    }

    #[expect(clippy::cast_possible_wrap, reason = "a seq is below 2^53")]
    pub const fn to_db(self) -> i64 {
        self.0 as i64
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub const fn next(self) -> Seq {
        self.plus(1)
    }

    /// The place before this one; the start of the log has none and stays.
    pub const fn previous(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }

    pub const fn plus(self, count: u64) -> Seq {
        Seq(self.0.saturating_add(count))
    }

    /// How many messages lie after `earlier` up to and including this one.
    pub const fn distance_from(self, earlier: Seq) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seq({})", self.0)
    }
}

/// The life of a log: a short random word that changes when the log was set back.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// 1 to 16 lower-case letters and digits.
    pub fn parse(text: &str) -> Result<Epoch, CursorError> {
        let fits = (1..=16).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            Ok(Epoch(text.into()))
        } else {
            Err(CursorError)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.0)
    }
}

/// A place in the log that outlives connections and replicas: everything up to `seq` has been had.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    pub epoch: Epoch,
    pub seq: Seq,
}

impl Cursor {
    pub fn new(epoch: Epoch, seq: Seq) -> Cursor {
        Cursor { epoch, seq }
    }

    pub fn parse(text: &str) -> Result<Cursor, CursorError> {
        let (epoch, number) = text.split_once('-').ok_or(CursorError)?;
        let canonical = number == "0" || !number.starts_with('0');
        // `u64::from_str` takes a leading plus, and a cursor has one spelling only.
        if !canonical || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CursorError);
        }
        let number: u64 = number.parse().map_err(|_| CursorError)?;
        Ok(Cursor { epoch: Epoch::parse(epoch)?, seq: Seq::new(number).ok_or(CursorError)? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// The text is no cursor that Tidings has given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorError;

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor: hand back one that a frame or an answer carried")
    }
}

impl std::error::Error for CursorError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        for text in ["k3f9-0", "k3f9-1042", "a-9007199254740991"] {
            assert_eq!(Cursor::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in [
            "",
            "-",
            "k3f9",
            "k3f9-",
            "-1",
            "k3f9--1",
            "k3f9-+1",
            "k3f9-01",
            "k3f9-1 ",
            " k3f9-1",
            "K3F9-1",
            "k3f9-9007199254740992",
            "k3f9-99999999999999999999",
            "k3f9-1-2",
            "abcdefghijklmnopq-1",
            "k3f9-١",
        ] {
            assert_eq!(Cursor::parse(text), Err(CursorError), "{text:?}");
        }
    }

    #[test]
    fn the_place_before_the_first_message_is_zero() {
        assert_eq!(Seq::ZERO.previous(), Seq::ZERO);
        assert_eq!(Seq::ZERO.next().get(), 1);
        assert_eq!(Seq::from_db(7).distance_from(Seq::from_db(3)), 4);
        assert_eq!(Seq::from_db(3).distance_from(Seq::from_db(7)), 0);
    }

    fn seq() -> impl Strategy<Value = Seq> {
        let edges = prop::sample::select(vec![0, 1, 2, Seq::MAX.0 - 1, Seq::MAX.0]);
        prop_oneof![edges, 0..=Seq::MAX.0].prop_map(Seq)
    }

    proptest! {
        #[test]
        fn a_seq_is_what_clients_and_the_database_can_hold(number: u64, row: i64) {
            prop_assert_eq!(Seq::new(number).map(Seq::get), (number < 1 << 53).then_some(number));
            prop_assert!(Seq::from_db(row) <= Seq::MAX);
            prop_assert!(Seq::from_db(row).to_db() == row || !(0..1 << 53).contains(&row));
        }

        #[test]
        fn places_are_counted_as_numbers_are(one in seq(), other in seq(), count: u32) {
            prop_assert_eq!(Seq::from_db(one.to_db()), one);
            prop_assert_eq!(one.cmp(&other), one.get().cmp(&other.get()));
            prop_assert_eq!(one.next().previous(), one);
            prop_assert_eq!(one.next().distance_from(one), 1);
            prop_assert_eq!(one.plus(count.into()).distance_from(one), u64::from(count));
            prop_assert_eq!(other.distance_from(one) > 0, other > one);
            if other >= one {
                prop_assert_eq!(one.plus(other.distance_from(one)), other);
            }
        }

        #[test]
        fn a_cursor_of_any_place_reads_back(epoch in "[a-z0-9]{1,16}", seq in seq()) {
            let cursor = Cursor::new(Epoch::parse(&epoch).unwrap(), seq);
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }
    }
}
