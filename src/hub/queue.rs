//! What waits for one session: bounded in count and bytes, in three priorities.
//!
//! ```text
//!            full, and only events are left           the reader has read past all it missed
//!   Live ───────────────────────────────────▶ Behind ────────────────────────────────────────▶ Live
//! ```
//! Full means, one after the other: of states and signals only the newest per topic and key stays;
//! then signals are dropped and counted; then the session goes behind. Behind, it takes no more
//! events and states, it only notes the highest that passed by, and the session reads them from the
//! log at the pace of its socket. What already waits stays and is sent first.
//!
//! Making room looks at the whole queue, so it must free a quarter of it, or the queue is `crowded`
//! until something is taken from it: then signals are dropped at once and the first message with a
//! seq sends the session behind, since every one of them would look at the whole queue again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::domain::{Class, Cursor, Priority, Seq, Topic};
use crate::frame::Frame;
use crate::metrics::HubMetrics;
use crate::wake::Flag;

/// How many topics of dropped signals are counted apart; the rest is added to the last.
const GAP_TOPICS_MAX: usize = 64;

/// A queue that held more than this gives its memory back when it was emptied.
const KEPT_CAPACITY: usize = 32;

#[derive(Debug, Clone, Copy)]
pub struct QueueSettings {
    pub messages_max: usize,
    pub bytes_max: usize,
}

pub struct Queue {
    settings: QueueSettings,
    metrics: Arc<HubMetrics>,
    /// Written by the delivering loop, emptied by the session; never held across an await.
    state: Mutex<State>,
    ready: Flag,
    /// Where it stands in the hub's list of sessions; written under that list's lock.
    place: AtomicUsize,
}

struct State {
    waiting: [VecDeque<Arc<Frame>>; 3],
    messages: usize,
    bytes: usize,
    /// How many of the waiting ones have a seq.
    kept: usize,
    behind: bool,
    /// Making room did not free a quarter, and nothing was taken since.
    crowded: bool,
    /// The highest seq that passed by while behind.
    missed: Seq,
    /// The highest seq that was taken in, or that the reader has read.
    last: Seq,
    /// The last round in which a signal came, to see that a second pattern matched it too.
    round: u64,
    gaps: Vec<(Topic, u64)>,
    reset: Option<Cursor>,
}

/// A frame on its way to the socket.
#[derive(Debug, Clone)]
pub struct Taken {
    pub frame: Arc<Frame>,
    /// Whether a client may resume from it: nothing due before it is still waiting.
    pub cursor: bool,
}

/// What else was there when frames were taken.
#[derive(Debug, Default)]
pub struct End {
    pub gaps: Vec<(Topic, u64)>,
    /// The log began a new life; what was taken in the same call belongs to that one.
    pub reset: Option<Cursor>,
    /// Everything due at or below this has been taken. `None` when frames with a seq still wait.
    pub settled: Option<Seq>,
    /// Nothing with a seq waits, and the session must read on from the log. Told together with the
    /// rest: asked a moment later, frames might have come in between.
    pub behind: bool,
    /// Something still waits.
    pub more: bool,
}

impl Queue {
    pub(super) fn new(settings: QueueSettings, metrics: Arc<HubMetrics>) -> Queue {
        let state = State {
            waiting: Default::default(),
            messages: 0,
            bytes: 0,
            kept: 0,
            behind: true,
            crowded: false,
            missed: Seq::ZERO,
            last: Seq::ZERO,
            round: 0,
            gaps: Vec::new(),
            reset: None,
        };
        let (state, ready, place) = (Mutex::new(state), Flag::default(), AtomicUsize::new(0));
        Queue { settings, metrics, state, ready, place }
    }

    pub(super) fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed)
    }

    pub(super) fn set_place(&self, place: usize) {
        self.place.store(place, Ordering::Relaxed);
    }

    /// Takes a frame in, or notes that it was missed. True when it waits now.
    pub(super) fn push(&self, frame: &Arc<Frame>, round: u64) -> bool {
        let mut state = self.state.lock();
        if let Some(seq) = frame.seq {
            if seq <= state.last || (state.behind && seq <= state.missed) {
                return false;
            }
            if state.behind {
                state.missed = seq;
                self.ready.raise();
                return false;
            }
        } else if round <= state.round {
            return false;
        } else {
            state.round = round;
        }
        if !state.crowded && !state.fits(frame, self.settings) {
            self.make_room(&mut state);
            state.crowded = !state.is_roomy(self.settings) || !state.fits(frame, self.settings);
        }
        let fits = !state.crowded && state.fits(frame, self.settings);
        match frame.seq {
            Some(seq) if !fits => {
                self.metrics.behind.inc();
                state.behind = true;
                state.missed = seq;
            }
            None if !fits => self.drop_signal(&mut state, frame),
            seq => {
                state.last = seq.unwrap_or(state.last);
                state.messages += 1;
                state.kept += usize::from(seq.is_some());
                state.bytes += frame.weight_bytes();
                state.waiting[frame.priority as usize].push_back(frame.clone());
            }
        }
        self.ready.raise();
        fits
    }

    /// Up to so many waiting frames, by priority, within one by seq.
    pub fn take(&self, taken: &mut Vec<Taken>, messages_max: usize, bytes_max: usize) -> End {
        let mut state = self.state.lock();
        state.crowded = false;
        let mut bytes = 0;
        while taken.len() < messages_max && bytes < bytes_max {
            let Some(frame) = state.pop() else { break };
            bytes += frame.weight_bytes();
            let cursor = frame.seq.is_some_and(|seq| state.nothing_before(seq));
            taken.push(Taken { frame, cursor });
        }
        if state.messages == 0 {
            state.shrink();
        }
        End {
            gaps: std::mem::take(&mut state.gaps),
            reset: state.reset.take(),
            settled: (state.kept == 0).then_some(state.last),
            behind: state.behind && state.kept == 0,
            more: state.messages > 0,
        }
    }

    /// The reader has handed out everything up to here. True when nothing more was missed:
    /// from here on frames are queued again.
    pub fn go_live(&self, position: Seq) -> bool {
        let mut state = self.state.lock();
        if state.reset.is_some() || state.missed > position {
            return false;
        }
        state.behind = false;
        state.missed = Seq::ZERO;
        state.last = state.last.max(position);
        true
    }

    /// Whether the session must read from the log.
    pub fn is_behind(&self) -> bool {
        self.state.lock().behind
    }

    /// Live, and nothing waits that a cursor would skip.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        !state.behind && state.kept == 0 && state.reset.is_none()
    }

    /// Forgets waiting frames that the session no longer wants.
    pub fn purge(&self, keep: impl Fn(&Frame) -> bool) {
        let mut state = self.state.lock();
        state.retain(|frame| keep(frame));
        state.crowded = false;
    }

    /// Resolves when there may be something to take or to read. Cancel-safe. For one reader: the
    /// session's own.
    pub async fn ready(&self) {
        self.ready.taken().await;
    }

    /// The log has begun a new life at this place.
    pub(super) fn reset(&self, cursor: Cursor) {
        let mut state = self.state.lock();
        state.retain(|frame| frame.seq.is_none());
        state.crowded = false;
        state.behind = true;
        state.missed = Seq::ZERO;
        state.last = cursor.seq;
        state.reset = Some(cursor);
        self.ready.raise();
    }

    /// What comes up to here was not pushed; what waits is older, and stays.
    pub(super) fn skip(&self, to: Seq) {
        let mut state = self.state.lock();
        if state.last < to {
            state.behind = true;
            state.missed = state.missed.max(to);
            self.ready.raise();
        }
    }

    fn make_room(&self, state: &mut State) {
        let coalesced = state.coalesce();
        self.metrics.coalesced.inc_by(coalesced as u64);
        if state.is_roomy(self.settings) {
            return;
        }
        let signals: Vec<Arc<Frame>> = state
            .waiting
            .iter()
            .flatten()
            .filter(|frame| frame.class == Class::Signal)
            .cloned()
            .collect();
        state.retain(|frame| frame.class != Class::Signal);
        for frame in signals {
            self.drop_signal(state, &frame);
        }
    }

    fn drop_signal(&self, state: &mut State, frame: &Frame) {
        self.metrics.dropped_signals.inc();
        if let Some((_, count)) = state.gaps.iter_mut().find(|(topic, _)| *topic == frame.topic) {
            *count += 1;
        } else if state.gaps.len() < GAP_TOPICS_MAX {
            state.gaps.push((frame.topic.clone(), 1));
        } else if let Some((_, count)) = state.gaps.last_mut() {
            *count += 1;
        }
    }
}

impl State {
    fn fits(&self, frame: &Frame, settings: QueueSettings) -> bool {
        self.messages < settings.messages_max
            && self.bytes + frame.weight_bytes() <= settings.bytes_max
    }

    fn is_roomy(&self, settings: QueueSettings) -> bool {
        self.messages <= settings.messages_max / 4 * 3 && self.bytes <= settings.bytes_max / 4 * 3
    }

    fn pop(&mut self) -> Option<Arc<Frame>> {
        let frame = self.waiting.iter_mut().find_map(VecDeque::pop_front)?;
        self.messages -= 1;
        self.kept -= usize::from(frame.seq.is_some());
        self.bytes -= frame.weight_bytes();
        Some(frame)
    }

    /// Whether nothing with a lower seq waits. Each queue is in order of seq, signals aside.
    fn nothing_before(&self, seq: Seq) -> bool {
        let first = |queue: &VecDeque<Arc<Frame>>| queue.iter().find_map(|frame| frame.seq);
        self.waiting.iter().filter_map(first).all(|waiting| waiting > seq)
    }

    /// Of states and signals keeps the newest per topic and key. Returns how many went.
    fn coalesce(&mut self) -> usize {
        let before = self.messages;
        for queue in &mut self.waiting {
            let mut seen: HashSet<(Class, Topic, Option<Arc<str>>)> = HashSet::new();
            // From the newest to the oldest; each priority has a newest of its own.
            let kept = queue.drain(..).rev().filter(|frame| {
                frame.class == Class::Event
                    || seen.insert((frame.class, frame.topic.clone(), frame.key.clone()))
            });
            let mut kept: VecDeque<Arc<Frame>> = kept.collect();
            kept.make_contiguous().reverse();
            *queue = kept;
        }
        self.recount();
        before - self.messages
    }

    fn retain(&mut self, keep: impl Fn(&Frame) -> bool) {
        for queue in &mut self.waiting {
            queue.retain(|frame| keep(frame));
        }
        self.recount();
    }

    fn recount(&mut self) {
        let waiting = || self.waiting.iter().flatten();
        let bytes = waiting().map(|frame| frame.weight_bytes()).sum();
        self.kept = waiting().filter(|frame| frame.seq.is_some()).count();
        (self.messages, self.bytes) = (waiting().count(), bytes);
    }

    fn shrink(&mut self) {
        for queue in &mut self.waiting {
            if queue.capacity() > KEPT_CAPACITY {
                *queue = VecDeque::new();
            }
        }
    }
}

// The queues are indexed by priority, in the order in which they leave.
const _: () = assert!(Priority::High as usize == 0 && Priority::Low as usize == 2);

#[cfg(test)]
mod policy;
