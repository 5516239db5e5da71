//! What sources told, in the order in which it was written, bounded over all of them; the oldest goes first.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::{SourceId, Timestamp};
use crate::store::source::LogLine;

/// How much of a kind is kept of all sources: a few hours of a small fleet, which is what memory is for.
const KEPT_MAX: usize = 20_000;
const BYTES_MAX: usize = 64 << 20;

pub trait Weighs {
    fn weight_bytes(&self) -> usize;
}

impl Weighs for Arc<str> {
    fn weight_bytes(&self) -> usize {
        self.len()
    }
}

impl Weighs for (i64, LogLine) {
    fn weight_bytes(&self) -> usize {
        self.1.text.len()
    }
}

pub struct Past<T> {
    all: VecDeque<(SourceId, Timestamp, T)>,
    bytes: usize,
}

impl<T> Default for Past<T> {
    fn default() -> Past<T> {
        Past { all: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Weighs> Past<T> {
    pub fn push_all(&mut self, of: &SourceId, told: impl Iterator<Item = (Timestamp, T)>) {
        for (at, one) in told {
            self.bytes += one.weight_bytes();
            self.all.push_back((of.clone(), at, one));
        }
        while self.all.len() > KEPT_MAX || self.bytes > BYTES_MAX {
            let Some((.., oldest)) = self.all.pop_front() else { break };
            self.bytes -= oldest.weight_bytes();
        }
    }

    pub fn newest_of<'a>(&'a self, id: &'a SourceId) -> impl Iterator<Item = &'a T> {
        self.all.iter().rev().filter(move |(own, ..)| own == id).map(|(.., one)| one)
    }

    pub fn forget(&mut self, id: &SourceId) {
        self.keep(|own, _| own != id);
    }

    /// Removes what is older, and says how much.
    pub fn sweep(&mut self, old: Timestamp) -> u64 {
        self.keep(|_, at| at >= old)
    }

    fn keep(&mut self, kept: impl Fn(&SourceId, Timestamp) -> bool) -> u64 {
        let before = self.all.len();
        self.all.retain(|(own, at, _)| kept(own, *at));
        self.bytes = self.all.iter().map(|(.., one)| one.weight_bytes()).sum();
        (before - self.all.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_sources_told_is_bounded_in_count_and_bytes_and_the_oldest_goes_first() {
        let [a, b] = ["a", "b"].map(|name| SourceId::parse(name).unwrap());
        let mut past: Past<Arc<str>> = Past::default();
        for number in 0..KEPT_MAX {
            let of = if number % 2 == 0 { &a } else { &b };
            past.push_all(of, [(Timestamp(0), number.to_string().into())].into_iter());
        }
        past.push_all(&b, (0..10).map(|at| (Timestamp(at), "x".into())));
        assert_eq!(past.all.len(), KEPT_MAX);
        assert_eq!(past.newest_of(&a).count(), KEPT_MAX / 2 - 5);
        assert_eq!(&**past.newest_of(&a).last().unwrap(), "10");
        let large: Arc<str> = "x".repeat(BYTES_MAX / 4).into();
        past.push_all(&a, (0..5).map(|at| (Timestamp(at), large.clone())));
        assert_eq!((past.all.len(), past.bytes), (4, BYTES_MAX));
        past.push_all(&b, [(Timestamp(9), "y".into())].into_iter());
        assert_eq!(past.sweep(Timestamp(4)), 2);
        assert_eq!((past.newest_of(&a).count(), past.newest_of(&b).count()), (1, 1));
        past.forget(&a);
        assert_eq!((past.all.len(), past.bytes), (1, 1));
    }
}
