//! The loop that applies the log on this replica, in order, once.
//!
//! ```text
//!   own batches ──┐
//!   bus events  ──┼──▶ order ──▶ apply (or read, then apply) ──▶ ring ──▶ hub
//!   looks       ──┘
//! ```
//! It hears from three sides and trusts none of them alone. Whatever was lost is found by the tick:
//! it looks at the head of the log, gives announcements a moment to arrive, then puts a barrier
//! behind what it saw and reads the rest itself. Whatever was announced and is not there is found by
//! the same look. A look runs beside the loop, which goes on applying what it is told meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::enter::{PAGE, Place, complete, mark_of, reach};
use super::look::{Asked, Asking, Look, look, vouch};
use super::order::{Order, Step};
use super::ring::Ring;
use super::sight::Sight;
use super::{Log, Shared, Unseen};
use crate::bus::{Bus, BusEvent, BusState};
use crate::domain::{Cursor, Message, Seq};
use crate::frame::Frame;
use crate::notification::Announcement;
use crate::store::{Head, StoreError};

/// How long a range beyond the position waits for those before it, which were overtaken by a little.
const HOLE_WAIT: Duration = Duration::from_millis(5);

/// How long after a tick saw the head ahead announcements may still arrive.
const TICK_GRACE: Duration = Duration::from_millis(50);

/// How long to leave a store alone that could not be read.
const RETRY: Duration = Duration::from_millis(200);

/// How many events are taken at once before the result is shown.
const EVENTS_MAX: usize = 256;

/// The loop, with the receiving ends of what it is told.
pub struct LogLoop {
    log: Log,
    own_batches: mpsc::Receiver<Announcement>,
    /// Outlives a run that failed: the bus says only once that it listens.
    sight: Sight,
}

struct Runner<'a> {
    shared: &'a Shared,
    bus: &'a dyn Bus,
    sight: &'a mut Sight,
    place: Place,
    /// The one question to the store that is under way.
    asking: Option<Asking>,
    /// The end of the missing part that is waited for, and when it is read if it has not come by then.
    hole: Option<(Seq, Instant)>,
    /// Something could not be read: not before then again.
    retry_at: Option<Instant>,
    /// What the last tick saw, and when it is read if it was not announced by then.
    head_due: Option<(Head, Instant)>,
    /// The highest seq that a look has seen.
    seen: Seq,
    /// While catching up: how far it must be applied to be live.
    target: Option<Seq>,
    /// What comes next is no longer kept, so it goes on from the head.
    away: bool,
    /// Whether the log may be another one than the one that was read: nothing is applied until the
    /// row at the position was seen to be the same.
    doubtful: bool,
    /// How often there was doubt: a look that was begun before the last one does not end it.
    doubts: u64,
    next_tick: Instant,
}

impl LogLoop {
    pub(super) fn new(log: Log, own_batches: mpsc::Receiver<Announcement>) -> LogLoop {
        LogLoop { log, own_batches, sight: Sight::new() }
    }

    /// Applies until told to stop. May be run again after it failed: it goes on from the ring.
    pub async fn run(
        &mut self,
        bus: &dyn Bus,
        events: &mut mpsc::Receiver<BusEvent>,
        stop: &CancellationToken,
    ) {
        let shared = self.log.shared.clone();
        self.sight.begin();
        let Some(place) = reach(&shared, stop).await else { return };
        let _unseen = Unseen { shared: &shared, stop };
        let mut runner = Runner::new(&shared, bus, &mut self.sight, place);
        loop {
            let (hole_due, changes_at) = (runner.read_due(), runner.sight.changes_at());
            let (head_due, next_tick) =
                (runner.head_due.as_ref().map(|(_, due)| *due), runner.next_tick);
            let idle = runner.asking.is_none();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(own) = self.own_batches.recv() => {
                    runner.woke("own");
                    runner.own(own);
                    while let Ok(own) = self.own_batches.try_recv() {
                        runner.own(own);
                    }
                }
                Some(event) = events.recv() => {
                    runner.woke("bus");
                    runner.event(event);
                    for _ in 0..EVENTS_MAX {
                        let Ok(event) = events.try_recv() else { break };
                        runner.event(event);
                    }
                }
                asked = answer(&mut runner.asking) => {
                    runner.asking = None;
                    runner.answered(asked);
                }
                () = wait(hole_due) => runner.woke("hole"),
                () = wait(head_due), if idle => { runner.woke("late"); runner.vouch(); }
                () = sleep_until(next_tick), if idle => { runner.woke("tick"); runner.tick(); }
                () = wait(changes_at) => {}
            }
            runner.apply_all().await;
            runner.show();
        }
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Cancel-safe: what was asked stays where it is.
async fn answer(asking: &mut Option<Asking>) -> Asked {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

impl<'a> Runner<'a> {
    fn new(shared: &'a Shared, bus: &'a dyn Bus, sight: &'a mut Sight, place: Place) -> Runner<'a> {
        Runner {
            shared,
            bus,
            sight,
            seen: place.order.applied(),
            place,
            asking: None,
            hole: None,
            retry_at: None,
            head_due: None,
            target: None,
            away: false,
            doubtful: false,
            doubts: 0,
            next_tick: Instant::now(),
        }
    }

    fn woke(&self, why: &'static str) {
        self.shared.metrics.log.wakes.get_or_create(&why.into()).inc();
    }

    fn count(&self, way: &'static str) {
        self.shared.metrics.log.announced.get_or_create(&way.into()).inc();
    }

    fn event(&mut self, event: BusEvent) {
        match event {
            BusEvent::Announced(announcement) => {
                if self.is_of_this_life(&announcement) {
                    self.count(if announcement.messages.is_some() { "inline" } else { "range" });
                    self.place.order.announced(announcement);
                }
            }
            BusEvent::Signals(messages) => {
                let frame = |message: &Message| Arc::new(Frame::new(message, &self.place.epoch));
                let frames: Vec<Arc<Frame>> = messages.iter().map(frame).collect();
                self.shared.hub.deliver(&frames);
                #[cfg(feature = "otel")]
                crate::spans::delivered(&messages, self.shared.now());
                // Nobody may be interested in what sources show, and that is well.
                for message in messages.into_iter().filter(is_of_source) {
                    let _ = self.shared.sources_shown.send(message);
                }
            }
            BusEvent::Listening => {
                self.sight.heard = BusState::CatchingUp;
                self.target = None;
                // The server may be another one by now; what was heard of the last one and is not
                // applied yet is read from this one.
                self.place.order.doubt();
                self.doubt();
                self.look_anew();
            }
            BusEvent::EpochRenewed => self.next_tick = Instant::now(),
            BusEvent::Deaf(state) => {
                self.doubt();
                if self.sight.heard != state {
                    self.sight.lost(state);
                    self.look_anew();
                }
            }
            BusEvent::OutboxFilled => self.shared.outbox_filled.notify_one(),
            // Nobody may be waiting, and that is well: whoever works on tasks looks by itself, too.
            BusEvent::TaskStirred(id) => drop(self.shared.tasks_stirred.send(id)),
            BusEvent::SourceStirred(id, pushed) => {
                let _ = self.shared.sources_stirred.send((id, pushed));
            }
        }
    }

    /// A batch of this replica's own lanes, which have awaited its barrier.
    fn own(&mut self, announcement: Announcement) {
        if self.is_of_this_life(&announcement) {
            self.count("own");
            self.place.order.vouched(announcement.last);
            self.place.order.announced(announcement);
        }
    }

    fn is_of_this_life(&mut self, announcement: &Announcement) -> bool {
        let same = announcement.epoch == self.place.epoch;
        if !same {
            // From before or after a renewal: only the head tells which.
            self.next_tick = Instant::now();
        }
        same
    }

    /// Who comes back may be a server that was restored, and has moved on since.
    fn doubt(&mut self) {
        self.doubtful = true;
        self.doubts += 1;
    }

    /// Looks at once, whatever is being asked: that was begun before something changed.
    fn look_anew(&mut self) {
        self.asking = None;
        self.next_tick = Instant::now();
    }

    /// A listener that is lost and found again is nobody's concern but ours.
    fn show(&mut self) {
        let degraded = self.sight.is_degraded();
        self.shared
            .degraded
            .send_if_modified(|known| std::mem::replace(known, degraded) != degraded);
        self.shared.show(self.sight.state());
        let behind = self.seen.distance_from(self.place.order.applied());
        self.shared.metrics.log.behind.set(i64::try_from(behind).unwrap_or(i64::MAX));
    }

    fn tick(&mut self) {
        let interval = match self.sight.state() {
            BusState::Live => self.shared.settings.tick,
            _ => self.shared.settings.polling_tick,
        };
        // A jitter of a tenth keeps a fleet that started together from asking together.
        let jitter = interval.mul_f64(rand::random_range(-0.1..0.1_f64).abs());
        self.next_tick = Instant::now() + interval.saturating_sub(jitter);
        let barrier = self.sight.heard == BusState::CatchingUp || self.away;
        self.asking = Some(look(self.shared.store.clone(), self.question(barrier)));
    }

    fn question(&self, barrier: bool) -> Look {
        let order = &self.place.order;
        Look {
            epoch: self.place.epoch.clone(),
            applied: order.applied(),
            mark: self.place.mark.clone().filter(|_| self.doubtful),
            doubts: self.doubts,
            vouched: order.certain(),
            heard: order.heard(),
            barrier,
        }
    }

    /// What a tick saw was not announced in time. It may be committed and not durable, so a barrier
    /// first; and nobody has said that it goes on from the position.
    fn vouch(&mut self) {
        let Some((head, _)) = self.head_due.take() else { return };
        if head.epoch == self.place.epoch && head.seq > self.place.order.applied() {
            self.doubt();
            let look = self.question(true);
            self.asking = Some(vouch(self.shared.store.clone(), look, head));
        }
    }

    fn answered(&mut self, asked: Asked) {
        match asked {
            Asked::Looked { look, .. } | Asked::Vouched { look, .. }
                if look.doubts < self.doubts =>
            {
                // It may have seen another server than the one that is there now.
                self.next_tick = Instant::now();
            }
            Asked::Looked { look, head: Ok(head) } => {
                self.sight.looked(true);
                self.looked(&look, head);
            }
            Asked::Looked { head: Err(error), .. } => {
                if self.sight.sees() {
                    tracing::warn!(%error, "the head of the log cannot be read; trying again");
                }
                self.sight.looked(false);
                self.next_tick = Instant::now() + RETRY;
            }
            Asked::Vouched { done: Ok(false), .. } => self.look_anew(),
            Asked::Vouched { head, done: Ok(true), .. } => {
                if head.epoch != self.place.epoch {
                    return;
                }
                self.doubtful = false;
                if self.sight.heard == BusState::Live && head.seq > self.place.order.heard() {
                    self.count("tick");
                    self.bus.suspect();
                }
                self.place.order.vouched(head.seq);
            }
            Asked::Vouched { head, done: Err(error), .. } => {
                tracing::debug!(%error, "no barrier, so nothing is applied");
                self.sight.looked(false);
                self.head_due = Some((head, Instant::now() + RETRY));
            }
        }
    }

    fn looked(&mut self, look: &Look, head: Head) {
        self.shared.note(&head);
        if look.epoch != self.place.epoch {
            return;
        }
        if head.epoch != self.place.epoch || (self.away && look.barrier) {
            self.begin(&head);
        }
        self.doubtful = false;
        self.seen = head.seq;
        let order = &mut self.place.order;
        // Nobody else has spoken since, and it is not there: a server that has lost it, or no word of ours.
        if head.seq < look.heard && order.heard() == look.heard && head.epoch == look.epoch {
            tracing::error!(head = %head.seq, announced = %look.heard, "what was announced is not in the log");
            order.lower(head.seq);
        }
        if look.barrier {
            order.vouched(head.seq);
            self.target = Some(head.seq);
        } else if head.seq > order.applied() && self.head_due.is_none() {
            let live = self.sight.state() == BusState::Live;
            let grace = if live { TICK_GRACE } else { Duration::ZERO };
            self.head_due = Some((head, Instant::now() + grace));
        }
    }

    /// Goes on from the head: the log has a new epoch, or this replica has to skip a part of it.
    fn begin(&mut self, head: &Head) {
        let position = Cursor::new(head.epoch.clone(), head.seq);
        let settings = &self.shared.settings;
        let ring = Ring::new(position.clone(), settings.ring_messages_max, settings.ring_bytes_max);
        *self.shared.ring.write() = Some(ring);
        let renewed = head.epoch != self.place.epoch;
        self.place = Place { epoch: head.epoch.clone(), order: Order::new(head.seq), mark: None };
        (self.hole, self.retry_at, self.head_due, self.away) = (None, None, None, false);
        self.doubtful = false;
        if renewed {
            self.shared.hub.reset(&position);
            self.shared.metrics.log.epochs.inc();
            tracing::warn!(epoch = %head.epoch, "the log has a new epoch; sessions were told to reload");
        } else {
            self.shared.hub.skip(head.seq);
        }
    }

    /// When something is to be read that has not come.
    fn read_due(&self) -> Option<Instant> {
        self.retry_at.max(self.hole.map(|(_, due)| due))
    }

    /// Applies what can be applied, and notes when the rest is to be read.
    async fn apply_all(&mut self) {
        if self.doubtful && !self.place.order.is_at_rest() {
            (self.hole, self.retry_at) = (None, None);
            self.next_tick = self.next_tick.min(Instant::now() + RETRY);
            return;
        }
        loop {
            match self.place.order.step() {
                Step::Rest => {
                    (self.hole, self.retry_at) = (None, None);
                    self.sight.read(true);
                    break;
                }
                Step::Apply(messages) => self.apply(&messages),
                Step::Read { until } => {
                    if !self.read(until).await {
                        break;
                    }
                }
                Step::Hole { until } => {
                    let now = Instant::now();
                    let hole = self.hole.filter(|(of, _)| *of == until);
                    let (_, due) = *self.hole.insert(hole.unwrap_or((until, now + HOLE_WAIT)));
                    if now < due {
                        break;
                    }
                    self.shared.metrics.log.holes.inc();
                    if !self.read(until).await {
                        break;
                    }
                }
            }
        }
        let reached = self.target.is_some_and(|target| self.place.order.applied() >= target);
        if reached && self.sight.heard == BusState::CatchingUp {
            self.sight.heard = BusState::Live;
        }
    }

    /// Reads up to a durable seq and applies it; if that fails, tries again a little later.
    async fn read(&mut self, until: Seq) -> bool {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        self.retry_at = None;
        while self.place.order.applied() < until {
            let after = self.place.order.applied();
            let found = match self.shared.store.range(after, until, PAGE).await {
                Ok(found) => complete(after, &found.messages, found.read_to).map(|_| found),
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => {
                    self.sight.read(true);
                    self.apply(&found.messages);
                }
                Err(error) => {
                    if let StoreError::Expired { oldest } = error {
                        // Its sessions read on from their own cursors, and those whose cursors are
                        // as old must reload.
                        tracing::error!(applied = %after, %oldest, "away for longer than messages are kept");
                        self.away = true;
                    } else {
                        tracing::warn!(%error, %after, %until, "the log cannot be read; trying again");
                    }
                    self.sight.read(false);
                    self.retry_at = Some(Instant::now() + RETRY);
                    // The head tells whether that was ever there.
                    self.next_tick = self.next_tick.min(Instant::now() + RETRY);
                    return false;
                }
            }
        }
        true
    }

    fn apply(&mut self, messages: &[Message]) {
        let Some(last) = messages.last() else { return };
        let frame = |message| Arc::new(Frame::new(message, &self.place.epoch));
        let frames: Vec<Arc<Frame>> = messages.iter().map(frame).collect();
        // First the ring, then the hub: a session that joins in between finds it in one of them.
        if let Some(ring) = self.shared.ring.write().as_mut() {
            for frame in &frames {
                ring.push(frame.clone());
            }
            let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            self.shared.metrics.log.ring_messages.set(gauge(ring.len()));
            self.shared.metrics.log.ring_bytes.set(gauge(ring.bytes()));
        }
        self.shared.hub.deliver(&frames);
        #[cfg(feature = "otel")]
        crate::spans::delivered(messages, self.shared.now());
        let ago = self.shared.now().0.saturating_sub(last.at.0).max(0);
        self.shared.metrics.delivery_seconds.observe(Duration::from_millis(ago.unsigned_abs()));
        self.place.mark = Some(mark_of(last));
        self.place.order.advanced(last.seq.unwrap_or_default());
        self.shared.metrics.log.applied_seq.set(self.place.order.applied().to_db());
    }
}

/// Whether it is a signal about an instance of a source.
fn is_of_source(message: &Message) -> bool {
    message.topic.as_str().starts_with("source:")
}
