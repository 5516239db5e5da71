//! Decides what may be applied next, from announcements in any order, doubled or missing.
//!
//! Knows no store and no clock: ranges go in, the next step comes out.

use std::collections::BTreeMap;

use crate::domain::{Message, Seq};
use crate::notification::Announcement;

/// How many announcements wait for those before them; with more, only how far they reach is kept.
const WAITING_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct Order {
    applied: Seq,
    /// Everything up to here is durable.
    durable: Seq,
    /// What was announced beyond the position, by first seq.
    waiting: BTreeMap<Seq, (Seq, Option<Vec<Message>>)>,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Everything that is durable has been applied.
    Rest,
    /// These come next.
    Apply(Vec<Message>),
    /// These come next and have to be read.
    Read { until: Seq },
    /// Something before what was announced is missing. It is durable, so it can be read;
    /// but its own announcement may only have been overtaken, and is cheaper.
    Hole { until: Seq },
}

impl Order {
    pub fn new(applied: Seq) -> Order {
        Order { applied, durable: applied, waiting: BTreeMap::new() }
    }

    pub fn applied(&self) -> Seq {
        self.applied
    }

    pub fn announced(&mut self, announcement: Announcement) {
        let Announcement { first, last, messages, .. } = announcement;
        self.durable(last);
        if last <= self.applied {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.clear();
            return;
        }
        self.waiting.insert(first, (last, messages));
    }

    /// Everything up to here is durable, whoever said so.
    pub fn durable(&mut self, until: Seq) {
        self.durable = self.durable.max(until);
    }

    /// Whether there is nothing to do.
    pub fn is_at_rest(&self) -> bool {
        self.durable <= self.applied
    }

    pub fn step(&mut self) -> Step {
        loop {
            if self.is_at_rest() {
                self.waiting.clear();
                return Step::Rest;
            }
            let Some(entry) = self.waiting.first_entry() else {
                return Step::Read { until: self.durable };
            };
            let first = *entry.key();
            if first > self.applied.next() {
                return Step::Hole { until: first.previous() };
            }
            let (last, messages) = entry.remove();
            match messages {
                _ if last <= self.applied => {}
                None => return Step::Read { until: last },
                Some(mut messages) => {
                    messages.retain(|message| message.seq > Some(self.applied));
                    return Step::Apply(messages);
                }
            }
        }
    }

    pub fn advanced(&mut self, to: Seq) {
        self.applied = self.applied.max(to);
        self.durable = self.durable.max(to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Draft, Epoch, Timestamp, Topic};

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    fn announcement(first: u64, last: u64, inline: bool) -> Announcement {
        let message = |number| {
            let draft = Draft::new(Topic::parse("a").unwrap(), "1");
            Message::from_draft(&draft, Seq::new(number), Timestamp(0))
        };
        let messages = inline.then(|| (first..=last).map(message).collect());
        Announcement {
            epoch: Epoch::parse("e").unwrap(),
            first: seq(first),
            last: seq(last),
            messages,
        }
    }

    #[test]
    fn an_announcement_that_was_overtaken_is_waited_for() {
        let mut order = Order::new(seq(10));
        order.announced(announcement(13, 14, true));
        assert_eq!(order.step(), Step::Hole { until: seq(12) });
        order.announced(announcement(11, 12, true));
        let Step::Apply(messages) = order.step() else { panic!() };
        assert_eq!(messages.len(), 2);
        order.advanced(seq(12));
        assert!(matches!(order.step(), Step::Apply(_)));
        order.advanced(seq(14));
        assert_eq!(order.step(), Step::Rest);
    }

    #[test]
    fn what_was_applied_is_never_applied_again() {
        let mut order = Order::new(seq(10));
        order.announced(announcement(5, 10, true));
        assert_eq!(order.step(), Step::Rest);
        order.announced(announcement(9, 12, true));
        let Step::Apply(messages) = order.step() else { panic!() };
        assert_eq!(messages.iter().map(|m| m.seq.unwrap().get()).collect::<Vec<_>>(), [11, 12]);
    }

    #[test]
    fn a_range_without_its_messages_is_read() {
        let mut order = Order::new(seq(10));
        order.announced(announcement(11, 20, false));
        assert_eq!(order.step(), Step::Read { until: seq(20) });
        let mut order = Order::new(seq(10));
        order.durable(seq(15));
        assert_eq!(order.step(), Step::Read { until: seq(15) });
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut order = Order::new(seq(0));
        for number in 0..1_000 {
            order.announced(announcement(10 + number * 2, 10 + number * 2, true));
        }
        assert!(order.waiting.len() <= WAITING_MAX);
        assert_eq!(order.durable, seq(10 + 999 * 2));
    }

    proptest! {
        /// Any order of any subset of announcements, some doubled: all is applied once, in order.
        #[test]
        fn everything_durable_is_applied_once_and_in_order(
            lengths in prop::collection::vec((1u64..5, any::<bool>()), 1..30),
            shuffle in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let mut first = 1;
            let all: Vec<Announcement> = lengths.iter().map(|(length, inline)| {
                let made = announcement(first, first + length - 1, *inline);
                first += length;
                made
            }).collect();
            let mut order = Order::new(Seq::ZERO);
            let mut applied = Vec::new();
            let mut run = |order: &mut Order, patient: bool| loop {
                match order.step() {
                    Step::Rest => break,
                    Step::Hole { .. } if patient => break,
                    Step::Apply(messages) => {
                        applied.extend(messages.iter().map(|m| m.seq.unwrap().get()));
                        order.advanced(messages.last().unwrap().seq.unwrap());
                    }
                    Step::Read { until } | Step::Hole { until } => {
                        applied.extend(order.applied().get() + 1..=until.get());
                        order.advanced(until);
                    }
                }
            };
            let mut top = 0;
            for index in shuffle {
                let one = index.get(&all).clone();
                top = top.max(one.last.get());
                order.announced(one);
                run(&mut order, true);
            }
            run(&mut order, false);
            prop_assert_eq!(applied, (1..=top).collect::<Vec<_>>());
        }
    }
}
