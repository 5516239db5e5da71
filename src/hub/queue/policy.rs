//! The policy of a session's queue against a simple model, whatever comes in whatever order.
//!
//! The model is the log and what the session was handed: every message is on one side or still
//! waits, nothing is on both, and what is missing was coalesced or counted. The log runs ahead of
//! the hub, as it does; frames are offered twice, as to a session with two patterns; the hub skips,
//! and the log begins a new life.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::domain::{Draft, Epoch, Message, Timestamp};
use crate::metrics::Metrics;

const SETTINGS: QueueSettings = QueueSettings { messages_max: 8, bytes_max: 8 << 10 };

#[derive(Debug, Clone)]
enum Step {
    /// Into the log alone: applied, and not yet delivered.
    Apply {
        frame: Shape,
    },
    /// What was applied reaches the queue.
    Deliver,
    Signal {
        frame: Shape,
    },
    /// What was applied and not delivered never will be.
    Skip,
    /// The log is set back by so many messages.
    Reset {
        back: usize,
    },
    Take {
        messages: usize,
        bytes: usize,
    },
    /// A page of the log, if the queue says that there is something to read.
    Read {
        messages: usize,
    },
}

#[derive(Debug, Clone)]
struct Shape {
    topic: usize,
    class: Class,
    key: usize,
    priority: Priority,
    bytes: usize,
}

fn shape(classes: &'static [Class]) -> impl Strategy<Value = Shape> {
    let priority = prop::sample::select(&Priority::ALL[..]);
    let bytes = prop_oneof![4 => 1_usize..100, 1 => 1_000_usize..9_000];
    (0_usize..2, prop::sample::select(classes), 0_usize..3, priority, bytes).prop_map(
        |(topic, class, key, priority, bytes)| Shape { topic, class, key, priority, bytes },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => shape(&[Class::Event, Class::State]).prop_map(|frame| Step::Apply { frame }),
        8 => Just(Step::Deliver),
        5 => shape(&[Class::Signal]).prop_map(|frame| Step::Signal { frame }),
        1 => Just(Step::Skip),
        1 => (0_usize..6).prop_map(|back| Step::Reset { back }),
        2 => (0_usize..6, 1_usize..4_000).prop_map(|(messages, bytes)| Step::Take { messages, bytes }),
        2 => (1_usize..6).prop_map(|messages| Step::Read { messages }),
    ]
}

/// A log, a queue, and a session that follows both.
struct Model {
    queue: Queue,
    metrics: Metrics,
    log: Vec<Arc<Frame>>,
    /// How much of the log the hub has delivered or skipped.
    delivered: usize,
    round: u64,
    position: Seq,
    had: BTreeSet<Seq>,
    /// Up to here the session was told to reload instead.
    reloaded: Seq,
    /// The last seq that was handed out, by topic and priority.
    last: HashMap<(Topic, Priority), Seq>,
    /// How many frames waited at some time, and signals that never did, ...
    came: u64,
    /// ... and what became of them.
    handed: u64,
    dropped: u64,
    reset: u64,
}

impl Model {
    fn new() -> Model {
        let metrics = Metrics::new();
        let queue = Queue::new(SETTINGS, metrics.hub.clone());
        assert!(queue.go_live(Seq::ZERO));
        Model {
            queue,
            metrics,
            log: Vec::new(),
            delivered: 0,
            round: 0,
            position: Seq::ZERO,
            had: BTreeSet::new(),
            reloaded: Seq::ZERO,
            last: HashMap::new(),
            came: 0,
            handed: 0,
            dropped: 0,
            reset: 0,
        }
    }

    fn head(&self) -> Seq {
        Seq::new(self.log.len() as u64).unwrap()
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Apply { frame } => self.log.push(made(&frame, Some(self.head().next()))),
            Step::Deliver => {
                while let Some(frame) = self.log.get(self.delivered).cloned() {
                    self.offer(&frame);
                    self.delivered += 1;
                }
            }
            Step::Signal { frame } => {
                let signal = made(&frame, None);
                let gaps = self.untold();
                let waits = self.offer(&signal);
                // One that finds no room is counted as it comes.
                self.came += u64::from(!waits && self.untold() > gaps);
            }
            Step::Skip => {
                self.delivered = self.log.len();
                self.queue.skip(self.head());
            }
            Step::Reset { back } => self.set_back(back),
            Step::Take { messages, bytes } => drop(self.take(messages, bytes)),
            Step::Read { messages } => self.read(messages),
        }
        self.check();
    }

    /// To a session that wants it for two reasons, which gets it once.
    fn offer(&mut self, frame: &Arc<Frame>) -> bool {
        self.round += 1;
        let waits = self.queue.push(frame, self.round);
        self.came += u64::from(waits);
        assert!(!self.queue.push(frame, self.round), "the second pattern matched it too");
        waits
    }

    fn set_back(&mut self, back: usize) {
        self.log.truncate(self.log.len() - back.min(self.log.len()));
        self.delivered = self.log.len();
        let before = self.waiting();
        self.queue.reset(Cursor::new(Epoch::parse("f").unwrap(), self.head()));
        self.reset += before - self.waiting();
        // Numbers above are given again, to other messages.
        self.had.clear();
        self.last.clear();
        self.reloaded = self.head();
    }

    fn take(&mut self, messages: usize, bytes: usize) -> bool {
        let mut taken = Vec::new();
        let end = self.queue.take(&mut taken, messages, bytes);
        assert!(taken.len() <= messages);
        if let Some(cursor) = end.reset {
            self.position = cursor.seq;
        }
        for Taken { frame, cursor } in taken {
            self.handed += 1;
            let Some(seq) = frame.seq else { continue };
            self.hand(&frame);
            if cursor {
                self.all_had_up_to(seq);
            }
        }
        self.dropped += end.gaps.iter().map(|(_, count)| count).sum::<u64>();
        if let Some(settled) = end.settled {
            self.position = self.position.max(settled);
            self.all_had_up_to(self.position);
        }
        end.behind
    }

    /// As a feed does: only when nothing waits, and it was told so.
    fn read(&mut self, messages: usize) {
        if !self.take(0, 1) {
            return;
        }
        let from = usize::try_from(self.position.get()).unwrap();
        for frame in self.log[from..].iter().take(messages).cloned().collect::<Vec<_>>() {
            self.hand(&frame);
            self.position = frame.seq.unwrap();
            self.all_had_up_to(self.position);
        }
        if self.position >= self.head() {
            assert!(self.queue.go_live(self.position), "nothing lies beyond the head");
        }
    }

    fn hand(&mut self, frame: &Frame) {
        let seq = frame.seq.unwrap();
        assert!(self.had.insert(seq), "{seq} came twice");
        let last = self.last.insert((frame.topic.clone(), frame.priority), seq);
        assert!(last < Some(seq), "{seq} came after {last:?}");
    }

    /// Resuming from here would miss nothing: every event was handed out, and of every state that
    /// one, or there is a newer one.
    fn all_had_up_to(&self, seq: Seq) {
        let same = |one: &Frame, other: &Frame| {
            (one.class, &one.topic, &one.key) == (other.class, &other.topic, &other.key)
        };
        for frame in self.log.iter().take(usize::try_from(seq.get()).unwrap()) {
            let own = frame.seq.unwrap();
            let newer = || self.log.iter().any(|other| other.seq > frame.seq && same(frame, other));
            let needed = own > self.reloaded && !self.had.contains(&own);
            assert!(!needed || (frame.class == Class::State && newer()), "{own} before {seq}");
        }
    }

    fn waiting(&self) -> u64 {
        self.queue.state.lock().messages as u64
    }

    /// Dropped signals that the session has not been told of yet.
    fn untold(&self) -> u64 {
        self.queue.state.lock().gaps.iter().map(|(_, count)| count).sum()
    }

    /// After every step: the bounds hold, and every frame is accounted for.
    fn check(&self) {
        let state = self.queue.state.lock();
        let waiting: Vec<&Arc<Frame>> = state.waiting.iter().flatten().collect();
        let bytes: usize = waiting.iter().map(|frame| frame.weight_bytes()).sum();
        assert_eq!((state.messages, state.bytes), (waiting.len(), bytes));
        assert!(state.messages <= SETTINGS.messages_max && state.bytes <= SETTINGS.bytes_max);
        assert!(state.gaps.len() <= GAP_TOPICS_MAX);
        let untold: u64 = state.gaps.iter().map(|(_, count)| count).sum();
        let coalesced = self.metrics.hub.coalesced.get();
        assert_eq!(self.metrics.hub.dropped_signals.get(), self.dropped + untold);
        let accounted = self.handed + waiting.len() as u64 + coalesced + self.dropped + untold;
        assert_eq!(self.came, accounted + self.reset, "a frame is gone, or came from nowhere");
    }

    fn finish(mut self) {
        self.perform(Step::Deliver);
        for _ in 0..3 {
            self.perform(Step::Take { messages: usize::MAX, bytes: usize::MAX });
            self.perform(Step::Read { messages: usize::MAX });
        }
        assert!(self.queue.is_idle(), "the session is live, and nothing waits");
        assert_eq!(self.position, self.head());
        self.all_had_up_to(self.head());
    }
}

fn made(shape: &Shape, seq: Option<Seq>) -> Arc<Frame> {
    let data = format!("\"{}\"", "x".repeat(shape.bytes));
    let mut draft = Draft::new(Topic::parse(["a", "b"][shape.topic]).unwrap(), data);
    draft.class = shape.class;
    draft.key = Some(shape.key.to_string().into());
    draft.priority = shape.priority;
    let message = Message::from_draft(&draft, seq, Timestamp(0));
    Arc::new(Frame::new(&message, &Epoch::parse("e").unwrap()))
}

proptest! {
    #[test]
    fn every_message_is_handed_out_or_accounted_for_within_the_bounds(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.perform(step);
        }
        model.finish();
    }
}
