//! From topics to sessions, without waiting for anybody.
//!
//! One loop delivers, in seq order; every session has a bounded queue, and a session that cannot
//! keep up becomes a reader of the log again. The hub knows no store: it never waits.

mod queue;
mod registry;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use self::queue::{End, Queue, QueueSettings, Taken};
use self::registry::Registry;
use crate::domain::{Cursor, Pattern, Seq};
use crate::frame::Frame;
use crate::metrics::HubMetrics;

/// A cheap handle.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    settings: QueueSettings,
    registry: Registry,
    /// Every open session, for what concerns all of them.
    sessions: Mutex<Vec<Arc<Queue>>>,
    session_count: AtomicUsize,
    /// Up to here every session that should have it has it in its queue, or knows that it missed it.
    delivered: AtomicU64,
    /// Numbers the signals, so that a session with two matching patterns gets each once. Held while
    /// one is handed out: there are several callers, and rounds must reach a queue in their order.
    round: Mutex<u64>,
    /// Where the signals go that replicas send one another; no session hears them.
    own: OnceLock<mpsc::Sender<Arc<Frame>>>,
    metrics: Arc<HubMetrics>,
}

/// How many signals of other replicas may wait for whoever reads them; with more, they are lost, as
/// signals may be.
const OWN_MAX: usize = 256;

impl Hub {
    pub fn new(settings: QueueSettings, metrics: Arc<HubMetrics>) -> Hub {
        let shared = Shared {
            settings,
            registry: Registry::new(),
            sessions: Mutex::new(Vec::new()),
            session_count: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            round: Mutex::new(0),
            own: OnceLock::new(),
            metrics,
        };
        Hub { shared: Arc::new(shared) }
    }

    /// The signals that replicas send one another. For one reader, who comes before any is sent.
    pub fn own_signals(&self) -> mpsc::Receiver<Arc<Frame>> {
        let (sender, signals) = mpsc::channel(OWN_MAX);
        let _ = self.shared.own.set(sender);
        signals
    }

    /// A new session. It is behind until its reader says how far it has read.
    pub fn join(&self) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(self.shared.settings, self.shared.metrics.clone()));
        let mut sessions = self.shared.sessions.lock();
        queue.set_place(sessions.len());
        sessions.push(queue.clone());
        self.shared.session_count.store(sessions.len(), Ordering::Relaxed);
        self.shared.metrics.sessions.inc();
        queue
    }

    pub fn leave(&self, queue: &Arc<Queue>, patterns: &[Pattern]) {
        for pattern in patterns {
            self.unsubscribe(queue, pattern);
        }
        let mut sessions = self.shared.sessions.lock();
        let place = queue.place();
        if sessions.get(place).is_some_and(|there| Arc::ptr_eq(there, queue)) {
            sessions.swap_remove(place);
            if let Some(moved) = sessions.get(place) {
                moved.set_place(place);
            }
            self.shared.session_count.store(sessions.len(), Ordering::Relaxed);
            self.shared.metrics.sessions.dec();
        }
    }

    /// From here on the session gets what matches. Once a pattern: the session knows its own.
    pub fn subscribe(&self, queue: &Arc<Queue>, pattern: &Pattern) {
        self.shared.registry.add(pattern, queue);
        self.shared.metrics.subscriptions.inc();
    }

    pub fn unsubscribe(&self, queue: &Arc<Queue>, pattern: &Pattern) {
        if self.shared.registry.remove(pattern, queue) {
            self.shared.metrics.subscriptions.dec();
        }
    }

    /// Puts frames into the queues of all who want them. Frames with a seq come from one caller, in
    /// order; signals may come from several.
    pub fn deliver(&self, frames: &[Arc<Frame>]) {
        let mut deliveries = 0;
        for frame in frames {
            if frame.seq.is_none() && frame.topic.is_of_replicas() {
                if let Some(own) = self.shared.own.get() {
                    let _ = own.try_send(frame.clone());
                }
                continue;
            }
            let mut round = frame.seq.is_none().then(|| self.shared.round.lock());
            let round = round.as_deref_mut().map_or(0, |round| {
                *round += 1;
                *round
            });
            self.shared.registry.each(&frame.topic, |queue| {
                deliveries += u64::from(queue.push(frame, round));
            });
            if let Some(seq) = frame.seq {
                self.shared.delivered.store(seq.get(), Ordering::Release);
            }
        }
        self.shared.metrics.deliveries.inc_by(deliveries);
    }

    /// The highest seq that has reached all queues it should.
    pub fn delivered(&self) -> Seq {
        Seq::new(self.shared.delivered.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// The log has begun a new life at this place: what waits belongs to the old one.
    pub fn reset(&self, cursor: &Cursor) {
        self.shared.delivered.store(cursor.seq.get(), Ordering::Release);
        for queue in self.shared.sessions.lock().iter() {
            queue.reset(cursor.clone());
        }
    }

    /// Frames up to here will not be delivered: who has not had them reads them from the log.
    pub fn skip(&self, to: Seq) {
        for queue in self.shared.sessions.lock().iter() {
            queue.skip(to);
        }
        // Last, so that no session takes it for what it has had.
        self.shared.delivered.store(to.get(), Ordering::Release);
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.shared.session_count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
