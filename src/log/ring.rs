//! The last messages that were applied, encoded, so that clients who come back cost the store nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Read;
use crate::domain::{Cursor, Epoch, PatternSet, Seq, Timestamp};
use crate::frame::Frame;
use crate::store::Page;

#[derive(Debug)]
pub struct Ring {
    epoch: Epoch,
    applied: Seq,
    /// Contiguous up to `applied`.
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

impl Ring {
    pub fn new(position: Cursor, messages_max: usize, bytes_max: usize) -> Ring {
        Ring {
            epoch: position.epoch,
            applied: position.seq,
            frames: VecDeque::new(),
            bytes: 0,
            messages_max,
            bytes_max,
        }
    }

    pub fn position(&self) -> Cursor {
        Cursor::new(self.epoch.clone(), self.applied)
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends what comes next. The caller has put it in order.
    pub fn push(&mut self, frame: Arc<Frame>) {
        debug_assert_eq!(frame.seq, Some(self.applied.next()));
        self.applied = self.applied.next();
        self.bytes += frame.weight_bytes();
        self.frames.push_back(frame);
        while self.frames.len() > self.messages_max || self.bytes > self.bytes_max {
            match self.frames.pop_front() {
                Some(oldest) => self.bytes -= oldest.weight_bytes(),
                None => break,
            }
        }
    }

    /// `None` when it does not reach back that far.
    pub fn read(
        &self,
        patterns: &PatternSet,
        after: Seq,
        until: Seq,
        page: Page,
        now: Timestamp,
        scan_max: usize,
    ) -> Option<Read> {
        let until = until.min(self.applied);
        if until <= after {
            return Some(Read { epoch: self.epoch.clone(), frames: Vec::new(), read_to: after });
        }
        let behind = usize::try_from(self.applied.distance_from(after)).ok()?;
        let start = self.frames.len().checked_sub(behind)?;
        let count = usize::try_from(until.distance_from(after)).ok()?;
        let mut read = Read { epoch: self.epoch.clone(), frames: Vec::new(), read_to: after };
        let mut bytes = 0;
        for frame in self.frames.range(start..start + count).take(scan_max) {
            let full = read.frames.len() >= page.messages_max || bytes >= page.bytes_max;
            let wanted = patterns.matches(&frame.topic)
                && frame.expires_at.is_none_or(|expires_at| expires_at > now);
            if wanted {
                if full {
                    break;
                }
                bytes += frame.weight_bytes();
                read.frames.push(frame.clone());
            }
            read.read_to = read.read_to.next();
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Draft, Message, Pattern, Topic};

    const PAGE: Page = Page { messages_max: 3, bytes_max: 1 << 20 };

    fn ring(count: u64, messages_max: usize) -> Ring {
        let epoch = Epoch::parse("e").unwrap();
        let mut ring = Ring::new(Cursor::new(epoch.clone(), Seq::ZERO), messages_max, 1 << 20);
        for number in 1..=count {
            let topic = if number % 2 == 0 { "even" } else { "odd" };
            let draft = Draft::new(Topic::parse(topic).unwrap(), "1");
            let message = Message::from_draft(&draft, Seq::new(number), Timestamp(0));
            ring.push(Arc::new(Frame::new(&message, &epoch)));
        }
        ring
    }

    fn read(ring: &Ring, pattern: &str, after: u64, until: u64) -> Option<(Vec<u64>, u64)> {
        let patterns = [Pattern::parse(pattern).unwrap()].into_iter().collect();
        let (after, until) = (Seq::new(after).unwrap(), Seq::new(until).unwrap());
        ring.read(&patterns, after, until, PAGE, Timestamp(0), 100).map(|read| {
            let seqs = read.frames.iter().map(|frame| frame.seq.unwrap().get()).collect();
            (seqs, read.read_to.get())
        })
    }

    #[test]
    fn a_read_returns_what_matches_and_how_far_it_looked() {
        let ring = ring(10, 100);
        assert_eq!(read(&ring, "*", 0, 10), Some((vec![1, 2, 3], 3)));
        assert_eq!(read(&ring, "even", 0, 10), Some((vec![2, 4, 6], 7)));
        assert_eq!(read(&ring, "even", 7, 99), Some((vec![8, 10], 10)));
        assert_eq!(read(&ring, "other", 0, 10), Some((vec![], 10)));
        assert_eq!(read(&ring, "*", 9, 9), Some((vec![], 9)));
        assert_eq!(read(&ring, "*", 12, 20), Some((vec![], 12)));
    }

    #[test]
    fn a_ring_forgets_the_oldest_and_says_so() {
        let ring = ring(10, 4);
        assert_eq!(ring.len(), 4);
        assert_eq!(read(&ring, "*", 5, 10), None);
        assert_eq!(read(&ring, "*", 6, 10), Some((vec![7, 8, 9], 9)));
    }
}
