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

use futures_util::future::BoxFuture;

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

/// How much one call takes from the queue: the writer flushes between. A session that is stuck has
/// it in hand beside what waits, so it is little; a socket takes no more at once anyway.
const TAKE_MESSAGES_MAX: usize = 512;
const TAKE_BYTES_MAX: usize = 64 << 10;

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
    /// The page that is being read from the store. It is here, and not in `next`, because `next` is
    /// called away by every other thing that happens to a session: a read that began anew each time
    /// would lose its place among the readers, and leave its statement running.
    reading: Option<Reading>,
    /// Behind, and the last call gave only what the queue held: now it is the log's turn.
    log_first: bool,
}

/// A read from the store that is under way. Boxed, so that a session that reads nothing weighs nothing.
struct Reading {
    of_side: bool,
    page: BoxFuture<'static, Result<Read, StoreError>>,
}

/// What is still to come after something was taken from the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Nothing,
    /// More waits in the queue.
    More,
    /// At most signals wait; everything else is to be read from the log.
    Log,
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
            reading: None,
            log_first: false,
        };
        if let Start::After(cursor) = start {
            match refuse(&feed.log, &cursor, &head).await {
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
        // Messages up to here are not queued for it, or are and will be skipped; and no read that is
        // under way goes beyond.
        let until = head.seq.max(self.hub.delivered());
        match start {
            // Nothing up to there is still to come, so there is nothing to leave out.
            Start::Now if until <= self.position => {}
            Start::Now => self.sides.push_back(Side::settled(pattern, before, until)),
            Start::After(cursor) => match refuse(&self.log, &cursor, &head).await {
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
            if self.reading.as_ref().is_some_and(|reading| reading.of_side)
                && self.side().is_some_and(|side| side.pattern() == pattern)
            {
                self.reading = None;
            }
            self.sides.retain(|side| side.pattern() != pattern);
        }
    }

    /// Waits until there is something for the session, and hands it out.
    ///
    /// Cancel-safe, and more: nothing is awaited once there are items, since a caller that is called
    /// away would tell a cursor that is beyond items which it has not sent yet; and a read that has
    /// begun goes on with the next call.
    pub async fn next(&mut self, items: &mut Vec<Item>) {
        while items.is_empty() {
            if !self.first.is_empty() {
                items.append(&mut self.first);
                self.refused = None;
                return;
            }
            self.settle();
            if let Some(reading) = &mut self.reading {
                let read = reading.page.as_mut().await;
                let of_side = reading.of_side;
                self.reading = None;
                self.has_read(of_side, read, items);
            } else if self.side().is_some() {
                self.read(true, items);
            } else if std::mem::take(&mut self.log_first) {
                self.read(false, items);
            } else {
                let left = self.take(items);
                if !items.is_empty() {
                    // Signals may come for ever, faster than the socket takes them.
                    self.log_first = left == Left::Log;
                    return;
                }
                match left {
                    Left::Log => self.read(false, items),
                    Left::More => {}
                    Left::Nothing => {
                        self.queue.ready().await;
                        continue;
                    }
                }
            }
            if items.is_empty() {
                // Nothing that matched in a whole page: let others have the processor.
                tokio::task::yield_now().await;
            }
        }
    }

    /// The topic that is being replayed beside the main cursor: one after the other, as they came.
    fn side(&self) -> Option<&Side> {
        self.sides.iter().find(|side| !side.done())
    }

    /// Forgets later subscriptions that the main cursor has gone past.
    fn settle(&mut self) {
        let position = self.position;
        self.sides.retain(|side| !side.done() || side.until() > position);
    }

    /// What waits in the queue, up to a bound.
    fn take(&mut self, items: &mut Vec<Item>) -> Left {
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
        match (end.behind, end.more) {
            (true, _) => Left::Log,
            (false, true) => Left::More,
            (false, false) => Left::Nothing,
        }
    }

    fn skips(&self, frame: &Frame) -> bool {
        self.sides.iter().any(|side| side.covers(frame))
    }

    /// One page of what was missed, from memory at once, or a read from the store that `next` awaits.
    fn read(&mut self, of_side: bool, items: &mut Vec<Item>) {
        let Some(head) = self.log.position() else { return };
        // No further than now: what is subscribed while this is read counts from a later place.
        let (patterns, after, until) = match self.side() {
            Some(side) if of_side => (&side.patterns(), side.position(), side.until()),
            _ => (&self.patterns, self.position, head.seq),
        };
        match self.log.read_memory(patterns, after, until, self.page) {
            Some(read) => self.has_read(of_side, Ok(read), items),
            None => {
                let (log, patterns, page) = (self.log.clone(), patterns.to_vec(), self.page);
                let page = Box::pin(async move {
                    let read = log.read_store(&patterns, after, until, page).await;
                    if let Err(error) = &read
                        && !matches!(error, StoreError::Expired { .. })
                    {
                        // The session stays; it goes on when the store is back.
                        tracing::debug!(%error, "a session cannot read the log");
                        tokio::time::sleep(RETRY).await;
                    }
                    read
                });
                self.reading = Some(Reading { of_side, page });
            }
        }
    }

    fn has_read(&mut self, of_side: bool, read: Result<Read, StoreError>, items: &mut Vec<Item>) {
        match self.check(read, items) {
            None => {}
            Some(read) if of_side => self.has_read_side(read, items),
            Some(read) => self.has_read_on(read, items),
        }
    }

    /// A page on the main way.
    fn has_read_on(&mut self, read: Read, items: &mut Vec<Item>) {
        self.position = self.position.max(read.read_to);
        let frames = newest_states(read.frames);
        let before = items.len();
        // Meanwhile something may have been unsubscribed, or begun to be replayed.
        let wanted = frames
            .into_iter()
            .filter(|frame| self.patterns.matches(&frame.topic) && !self.skips(frame));
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

    /// A page of a topic that was subscribed later.
    fn has_read_side(&mut self, read: Read, items: &mut Vec<Item>) {
        let Some(side) = self.sides.iter_mut().find(|side| !side.done()) else { return };
        let frames = newest_states(read.frames);
        side.advance(read.read_to, frames.len() as u64);
        items.extend(frames.into_iter().map(|frame| Item::Message { frame, cursor: false }));
        if let Some((from, to, count)) = side.finished() {
            items.push(Item::Replayed { from: self.at(from), to: self.at(to), count });
        }
    }

    /// What a read means for the session, if it was not simply read.
    fn check(&mut self, read: Result<Read, StoreError>, items: &mut Vec<Item>) -> Option<Read> {
        let reason = match read {
            Ok(read) if read.epoch == self.epoch => return Some(read),
            Ok(_) => ResetReason::Epoch,
            Err(StoreError::Expired { .. }) if self.replay.is_some() => ResetReason::Expired,
            Err(StoreError::Expired { .. }) => ResetReason::Overflow,
            // It has waited a little, and is tried again.
            Err(_) => return None,
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

/// Why a cursor cannot be honoured.
async fn refuse(log: &Log, cursor: &Cursor, head: &Cursor) -> Option<ResetReason> {
    let reason = if cursor.epoch != head.epoch {
        ResetReason::Epoch
    } else if cursor.seq.next() < log.oldest() {
        ResetReason::Expired
    } else if cursor.seq > head.seq && !log.reaches(cursor.seq).await {
        ResetReason::Epoch
    } else {
        return None;
    };
    log.reset_note(reason.as_str());
    Some(reason)
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
