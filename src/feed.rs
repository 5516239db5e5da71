//! What one session receives: a cursor over the log, live as long as it keeps up.
//!
//! Going live, catching up after a lost connection, replaying history and filling a gap are one
//! operation: read after a cursor.
//!
//! ```text
//!                    read up to what was applied,
//!            ┌─────▶ and nothing was missed since ──────┐
//!   open ─▶ reading                                    live ─▶ what the queue holds
//!            └───── the queue was full ◀────────────────┘
//! ```
//! While a session reads, the hub queues no events for it, it only notes the highest that passed by.
//! A feed registers first and reads then, so that nothing lies between.
//!
//! A topic that is subscribed later with a cursor of its own is replayed beside the main cursor: its
//! frames carry no cursor, and what the hub queues meanwhile waits behind them.

mod item;
mod side;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use self::item::{Item, ResetReason};
use self::side::Side;
use crate::domain::{Class, Cursor, Epoch, Pattern, PatternSet, Seq};
use crate::frame::Frame;
use crate::hub::{Hub, Queue, Taken};
use crate::log::{Log, Read};
use crate::store::{Page, StoreError};

/// How long to leave a store alone that could not be read.
const RETRY: Duration = Duration::from_millis(500);

/// How many subscriptions may be replayed at the same time.
const SIDES_MAX: usize = 128;

/// How much one call takes from the queue: the writer flushes between.
const TAKE_MESSAGES_MAX: usize = 512;
const TAKE_BYTES_MAX: usize = 256 << 10;

/// Where a session begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    Now,
    After(Cursor),
}

#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq)]
pub enum FeedError {
    #[error("this replica has not reached the log yet")]
    NotReady,
    #[error("too many subscriptions are being replayed; wait for `replayed`")]
    Busy,
}

pub struct Feed {
    log: Log,
    hub: Hub,
    queue: Arc<Queue>,
    page: Page,
    epoch: Epoch,
    /// Everything due at or below it has been handed out.
    position: Seq,
    patterns: PatternSet,
    /// The replay that was asked for when the session began, until it is done.
    replay: Option<Replay>,
    sides: VecDeque<Side>,
    /// What is to be said before anything else.
    first: Vec<Item>,
    /// The cursor it began with, if that cannot be honoured and the client has not been told so.
    refused: Option<Cursor>,
    taken: Vec<Taken>,
}

#[derive(Debug, Clone, Copy)]
struct Replay {
    from: Seq,
    count: u64,
}

impl Feed {
    pub async fn open(
        log: Log,
        hub: Hub,
        page: Page,
        patterns: PatternSet,
        start: Start,
    ) -> Result<Feed, FeedError> {
        let queue = hub.join();
        for pattern in patterns.to_vec() {
            hub.subscribe(&queue, &pattern);
        }
        // Registered; whatever is applied from here on is either queued or noted as missed.
        let Some(head) = log.position() else {
            hub.leave(&queue, &patterns.to_vec());
            return Err(FeedError::NotReady);
        };
        let mut feed = Feed {
            log,
            hub,
            queue,
            page,
            epoch: head.epoch.clone(),
            position: head.seq,
            patterns,
            replay: None,
            sides: VecDeque::new(),
            first: Vec::new(),
            refused: None,
            taken: Vec::new(),
        };
        if let Start::After(cursor) = start {
            match feed.refuse(&cursor, &head).await {
                Some(reason) => {
                    feed.first.push(Item::Reset { reason, cursor: head });
                    feed.refused = Some(cursor);
                }
                None => {
                    feed.position = cursor.seq;
                    feed.replay = Some(Replay { from: cursor.seq, count: 0 });
                }
            }
        }
        Ok(feed)
    }

    /// Why a cursor cannot be honoured.
    async fn refuse(&self, cursor: &Cursor, head: &Cursor) -> Option<ResetReason> {
        if cursor.epoch != head.epoch {
            Some(ResetReason::Epoch)
        } else if cursor.seq.next() < self.log.oldest() {
            Some(ResetReason::Expired)
        } else if cursor.seq > head.seq && !self.log.reaches(cursor.seq).await {
            Some(ResetReason::Epoch)
        } else {
            None
        }
    }

    /// Where a client may safely resume from: all that was due before it has been handed out.
    pub fn cursor(&self) -> Cursor {
        // With a new one, a client that is cut off before its reset would never know of it.
        if let Some(refused) = &self.refused {
            return refused.clone();
        }
        // In this order: what was delivered before the queue is seen empty has been taken from it.
        let delivered = self.hub.delivered();
        let caught_up = self.queue.is_idle() && self.sides.iter().all(Side::done);
        let seq = if caught_up { self.position.max(delivered) } else { self.position };
        Cursor::new(self.epoch.clone(), seq)
    }

    pub fn patterns(&self) -> &PatternSet {
        &self.patterns
    }

    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Whether it is reading from the log instead of following it.
    pub fn is_behind(&self) -> bool {
        self.queue.is_behind()
    }

    /// Whether so many more may be replayed now.
    pub fn has_room(&mut self, replays: usize) -> bool {
        self.settle();
        let running = self.sides.iter().filter(|side| side.is_replay()).count();
        running + replays <= SIDES_MAX
    }

    /// Subscribes to more. With a cursor, what was missed on it comes first.
    pub async fn subscribe(&mut self, pattern: Pattern, start: Start) -> Result<(), FeedError> {
        if start != Start::Now && !self.has_room(1) {
            return Err(FeedError::Busy);
        }
        // On a quiet session the position may lag behind messages that it did not want.
        self.position = self.cursor().seq;
        let before = self.patterns.clone();
        if self.patterns.insert(pattern.clone()) {
            self.hub.subscribe(&self.queue, &pattern);
        } else if start == Start::Now {
            return Ok(());
        }
        let head = self.log.position().ok_or(FeedError::NotReady)?;
        // Messages up to here are not queued for it, or are and will be skipped.
        let until = head.seq.max(self.hub.delivered());
        match start {
            // Nothing up to there is still to come, so there is nothing to leave out.
            Start::Now if until <= self.position => {}
            Start::Now => self.sides.push_back(Side::settled(pattern, before, until)),
            Start::After(cursor) => match self.refuse(&cursor, &head).await {
                Some(reason) => {
                    self.first.push(Item::Reset { reason, cursor: head });
                    self.sides.push_back(Side::settled(pattern, before, until));
                }
                None => self.sides.push_back(Side::replaying(pattern, cursor.seq, until)),
            },
        }
        Ok(())
    }

    /// Subscribes to a topic whose last message says everything: that one first, then what follows
    /// after the seq at which it was the last.
    pub fn follow(
        &mut self,
        pattern: Pattern,
        last: Arc<Frame>,
        as_of: Seq,
    ) -> Result<(), FeedError> {
        if self.sides.len() >= SIDES_MAX {
            return Err(FeedError::Busy);
        }
        let covered = self.patterns.matches(&last.topic);
        if !self.patterns.insert(pattern.clone()) {
            return Ok(());
        }
        self.hub.subscribe(&self.queue, &pattern);
        if covered {
            // It comes on the main way already, which may be at an older place.
            return Ok(());
        }
        let head = self.log.position().ok_or(FeedError::NotReady)?;
        // Messages up to here may be queued for it or not; those after that moment are read.
        let until = head.seq.max(self.hub.delivered());
        self.first.push(Item::Message { frame: last, cursor: false });
        self.sides.push_back(Side::following(pattern, as_of, until));
        Ok(())
    }

    pub fn unsubscribe(&mut self, pattern: &Pattern) {
        if self.patterns.remove(pattern) {
            self.hub.unsubscribe(&self.queue, pattern);
            let patterns = &self.patterns;
            self.queue.purge(|frame| patterns.matches(&frame.topic));
            self.sides.retain(|side| side.pattern() != pattern);
        }
    }

    /// Waits until there is something for the session, and hands it out.
    ///
    /// Cancel-safe, and more: nothing is awaited once there are items. A caller that is called away
    /// would tell a cursor that is beyond items which it has not sent yet.
    pub async fn next(&mut self, items: &mut Vec<Item>) {
        while items.is_empty() {
            if !self.first.is_empty() {
                items.append(&mut self.first);
                self.refused = None;
                return;
            }
            self.settle();
            if let Some(index) = self.sides.iter().position(|side| !side.done()) {
                self.read_side(index, items).await;
                continue;
            }
            let behind = self.take(items);
            if !items.is_empty() {
                continue;
            }
            if behind {
                self.read(items).await;
                if items.is_empty() {
                    // Nothing that matched in a whole page: let others have the processor.
                    tokio::task::yield_now().await;
                }
            } else {
                self.queue.ready().await;
            }
        }
    }

    /// Forgets later subscriptions that the main cursor has gone past.
    fn settle(&mut self) {
        let position = self.position;
        self.sides.retain(|side| !side.done() || side.until() > position);
    }

    /// What waits in the queue. True when nothing does, and the log must be read.
    fn take(&mut self, items: &mut Vec<Item>) -> bool {
        let mut taken = std::mem::take(&mut self.taken);
        let end = self.queue.take(&mut taken, TAKE_MESSAGES_MAX, TAKE_BYTES_MAX);
        if let Some(cursor) = end.reset {
            self.begin(cursor, ResetReason::Epoch, items);
        }
        for Taken { frame, cursor } in taken.drain(..) {
            if !self.skips(&frame) {
                items.push(Item::Message { frame, cursor });
            }
        }
        for (topic, dropped) in end.gaps {
            items.push(Item::Gap { topic, dropped });
        }
        self.position = self.position.max(end.settled.unwrap_or_default());
        self.taken = taken;
        end.behind
    }

    fn skips(&self, frame: &Frame) -> bool {
        self.sides.iter().any(|side| side.covers(frame))
    }

    /// One page of what was missed.
    async fn read(&mut self, items: &mut Vec<Item>) {
        let read = self.log.read(&self.patterns, self.position, Seq::MAX, self.page).await;
        let Some(read) = self.check(read, items).await else { return };
        self.position = self.position.max(read.read_to);
        let frames = newest_states(read.frames);
        let before = items.len();
        let wanted = frames.into_iter().filter(|frame| !self.skips(frame));
        items.extend(wanted.map(|frame| Item::Message { frame, cursor: true }));
        if let Some(replay) = &mut self.replay {
            replay.count += (items.len() - before) as u64;
        }
        let reached = self.log.position().is_none_or(|head| self.position >= head.seq);
        if reached
            && self.queue.go_live(self.position)
            && let Some(Replay { from, count }) = self.replay.take()
        {
            items.push(Item::Replayed { from: self.at(from), to: self.at(self.position), count });
        }
    }

    /// One page of a topic that was subscribed later.
    async fn read_side(&mut self, index: usize, items: &mut Vec<Item>) {
        let side = &self.sides[index];
        let read = self.log.read(&side.patterns(), side.position(), side.until(), self.page).await;
        let Some(read) = self.check(read, items).await else { return };
        let Some(side) = self.sides.get_mut(index) else { return };
        let frames = newest_states(read.frames);
        side.advance(read.read_to, frames.len() as u64);
        items.extend(frames.into_iter().map(|frame| Item::Message { frame, cursor: false }));
        if let Some((from, to, count)) = side.finished() {
            items.push(Item::Replayed { from: self.at(from), to: self.at(to), count });
        }
    }

    /// What a read means for the session, if it was not simply read.
    async fn check(
        &mut self,
        read: Result<Read, StoreError>,
        items: &mut Vec<Item>,
    ) -> Option<Read> {
        let reason = match read {
            Ok(read) if read.epoch == self.epoch => return Some(read),
            Ok(_) => ResetReason::Epoch,
            Err(StoreError::Expired { .. }) if self.replay.is_some() => ResetReason::Expired,
            Err(StoreError::Expired { .. }) => ResetReason::Overflow,
            Err(error) => {
                // The session stays; it goes on when the store is back.
                tracing::debug!(%error, "a session cannot read the log");
                tokio::time::sleep(RETRY).await;
                return None;
            }
        };
        if let Some(head) = self.log.position() {
            self.begin(head, reason, items);
        }
        None
    }

    /// The cursor cannot be honoured any more: the session goes on from here.
    fn begin(&mut self, cursor: Cursor, reason: ResetReason, items: &mut Vec<Item>) {
        if reason == ResetReason::Epoch && cursor.epoch == self.epoch {
            return;
        }
        self.epoch = cursor.epoch.clone();
        self.position = cursor.seq;
        self.replay = None;
        self.sides.clear();
        self.log.reset_note(reason.as_str());
        items.push(Item::Reset { reason, cursor });
    }

    fn at(&self, seq: Seq) -> Cursor {
        Cursor::new(self.epoch.clone(), seq)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.hub.leave(&self.queue, &self.patterns.to_vec());
    }
}

/// Of each state only the newest of a page: older ones may be coalesced away before they are sent.
fn newest_states(frames: Vec<Arc<Frame>>) -> Vec<Arc<Frame>> {
    if !frames.iter().any(|frame| frame.class == Class::State) {
        return frames;
    }
    let mut seen = HashSet::new();
    let mut kept: Vec<Arc<Frame>> = frames
        .into_iter()
        .rev()
        .filter(|frame| {
            frame.class != Class::State || seen.insert((frame.topic.clone(), frame.key.clone()))
        })
        .collect();
    kept.reverse();
    kept
}
