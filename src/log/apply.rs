//! The loop that applies the log on this replica, in order, once.
//!
//! ```text
//!   own batches ──┐
//!   bus events  ──┼──▶ order ──▶ apply (or read, then apply) ──▶ ring ──▶ hub
//!   tick        ──┘
//! ```
//! It hears from three sides and trusts none of them alone. Whatever was lost is found by the tick:
//! it reads the head of the log, gives announcements a moment to arrive, then puts a barrier behind
//! what it read and reads the rest itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::order::{Order, Step};
use super::place::{PAGE, Place, RETRY, complete, mark_of, reach};
use super::ring::Ring;
use super::{Log, Shared};
use crate::bus::{Bus, BusEvent, BusState};
use crate::domain::{Cursor, Message, Seq};
use crate::frame::Frame;
use crate::notification::Announcement;
use crate::store::{Head, StoreError};

/// How long a range beyond the position waits for those before it, which were overtaken by a little.
const HOLE_WAIT: Duration = Duration::from_millis(5);

/// How long after a tick saw the head ahead announcements may still arrive.
const TICK_GRACE: Duration = Duration::from_millis(50);

/// How long the bus may be down before sessions are told: a reconnect takes less.
const DEGRADED_AFTER: Duration = Duration::from_secs(2);

/// How many events are taken at once before the result is shown.
const EVENTS_MAX: usize = 256;

/// The loop, with the receiving ends of what it is told.
pub struct LogLoop {
    log: Log,
    own_batches: mpsc::Receiver<Announcement>,
    woken: mpsc::Receiver<()>,
}

struct Runner<'a> {
    shared: &'a Shared,
    bus: &'a dyn Bus,
    place: Place,
    /// When the missing part is read if its announcement has not come by then.
    hole_due: Option<Instant>,
    /// What the last tick saw, and when it is read if it was not announced by then.
    head_due: Option<(Head, Instant)>,
    /// Whether the log may be another one than the one that was read: nothing is applied until the
    /// row at the position was seen to be the same.
    doubtful: bool,
    state: BusState,
    down_since: Option<Instant>,
    next_tick: Instant,
}

impl LogLoop {
    pub(super) fn new(
        log: Log,
        own_batches: mpsc::Receiver<Announcement>,
        woken: mpsc::Receiver<()>,
    ) -> LogLoop {
        LogLoop { log, own_batches, woken }
    }

    /// Applies until told to stop. May be run again after it failed: it goes on from the ring.
    pub async fn run(
        &mut self,
        bus: &dyn Bus,
        events: &mut mpsc::Receiver<BusEvent>,
        stop: &CancellationToken,
    ) {
        let shared = self.log.shared.clone();
        let Some(place) = reach(&shared, stop).await else { return };
        let mut runner = Runner::new(&shared, bus, place);
        loop {
            let hole_due = runner.hole_due;
            let head_due = runner.head_due.as_ref().map(|(_, due)| *due);
            tokio::select! {
                () = stop.cancelled() => return,
                Some(own) = self.own_batches.recv() => {
                    runner.woke("own");
                    runner.wrote(own);
                    while let Ok(own) = self.own_batches.try_recv() {
                        runner.wrote(own);
                    }
                }
                Some(event) = events.recv() => {
                    runner.woke("bus");
                    runner.event(event).await;
                    for _ in 0..EVENTS_MAX {
                        let Ok(event) = events.try_recv() else { break };
                        runner.event(event).await;
                    }
                }
                () = wait(hole_due) => { runner.woke("hole"); runner.read_hole().await; }
                () = wait(head_due) => { runner.woke("late"); runner.late().await; }
                () = sleep_until(runner.next_tick) => { runner.woke("tick"); runner.tick().await; }
                Some(()) = self.woken.recv() => { runner.woke("asked"); runner.tick().await; }
            }
            runner.apply_all().await;
            runner.note_health();
        }
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

impl Shared {
    /// What every look at the head tells besides the head.
    pub(super) fn note(&self, head: &Head) {
        self.oldest.store(head.oldest.get(), Ordering::Relaxed);
        self.clock_offset_ms.store(head.now.0 - self.clock.now().0, Ordering::Relaxed);
    }
}

impl<'a> Runner<'a> {
    fn new(shared: &'a Shared, bus: &'a dyn Bus, place: Place) -> Runner<'a> {
        let state = *shared.state.borrow();
        let next_tick = Instant::now();
        Runner {
            shared,
            bus,
            place,
            hole_due: None,
            head_due: None,
            doubtful: false,
            state,
            down_since: None,
            next_tick,
        }
    }

    fn woke(&self, why: &'static str) {
        self.shared.metrics.log.wakes.get_or_create(&why.into()).inc();
    }

    fn count(&self, way: &'static str) {
        self.shared.metrics.log.announced.get_or_create(&way.into()).inc();
    }

    async fn event(&mut self, event: BusEvent) {
        match event {
            BusEvent::Announced(announcement) => self.heard(announcement),
            BusEvent::Signals(messages) => {
                let frame = |message| Arc::new(Frame::new(message, &self.place.epoch));
                let frames: Vec<Arc<Frame>> = messages.iter().map(frame).collect();
                self.shared.hub.deliver(&frames);
            }
            BusEvent::Listening => self.catch_up().await,
            BusEvent::EpochRenewed => self.tick().await,
            BusEvent::Deaf(state) => {
                // Who comes back may be a server that was restored, and has moved on since.
                self.doubtful = true;
                self.set_state(state);
            }
            BusEvent::OutboxFilled => self.shared.outbox_filled.notify_one(),
            // Nobody may be waiting, and that is well: whoever works on tasks looks by itself, too.
            BusEvent::TaskStirred(id) => drop(self.shared.tasks_stirred.send(id)),
        }
    }

    /// What this replica wrote itself.
    fn wrote(&mut self, announcement: Announcement) {
        self.count("own");
        self.announced(announcement);
    }

    fn heard(&mut self, announcement: Announcement) {
        self.count(if announcement.messages.is_some() { "inline" } else { "range" });
        self.announced(announcement);
    }

    fn announced(&mut self, announcement: Announcement) {
        if announcement.epoch == self.place.epoch {
            self.place.order.announced(announcement);
        } else {
            // From before or after a renewal: only the head tells which.
            self.next_tick = Instant::now();
        }
    }

    /// A listener that is lost and found again is nobody's concern but ours.
    fn note_health(&mut self) {
        let degraded = self.down_since.is_some_and(|since| since.elapsed() >= DEGRADED_AFTER);
        self.shared
            .degraded
            .send_if_modified(|known| std::mem::replace(known, degraded) != degraded);
    }

    fn set_state(&mut self, state: BusState) {
        if self.state != state {
            tracing::info!(from = %self.state, to = %state, "bus state");
            self.state = state;
            self.down_since = (state == BusState::Down).then(Instant::now);
            self.shared.state.send_replace(state);
            self.shared.metrics.bus.enter(state.as_str());
        }
    }

    /// The bus listens again: what was said meanwhile is read, then it is trusted.
    async fn catch_up(&mut self) {
        self.set_state(BusState::CatchingUp);
        self.doubtful = true;
        if !self.assure().await || !self.read_head_now().await {
            // The next tick tries again, and the state stays until one succeeds.
            self.next_tick = Instant::now() + RETRY;
        }
    }

    /// Sees, where there is doubt, whether the log goes on from the position; if not, begins with
    /// its new life. False when the store cannot be reached.
    async fn assure(&mut self) -> bool {
        if !self.doubtful {
            return true;
        }
        match self.continues().await {
            Ok(true) => self.doubtful = false,
            Ok(false) => return self.look().await.is_some(),
            Err(error) => {
                tracing::debug!(%error, "it cannot be seen whether the log goes on");
                return false;
            }
        }
        true
    }

    /// Whether the row at our position still is the one we applied; if not, the log was set back.
    async fn continues(&mut self) -> Result<bool, StoreError> {
        let Some(mark) = self.place.mark.clone() else { return Ok(true) };
        let at = self.place.order.applied();
        let found = match self.shared.store.mark(at).await {
            // Retention may have taken it; that is no reason to doubt the rest.
            Ok(None) if at < self.shared.store.head().await?.oldest => return Ok(true),
            found => found?,
        };
        if found.as_ref() == Some(&mark) {
            return Ok(true);
        }
        tracing::error!(seq = %at, "the log no longer continues what was read; renewing its epoch");
        self.shared.store.epoch_renew(&self.place.epoch).await?;
        Ok(false)
    }

    /// Reads where the log stands and everything up to there. False when the store cannot be reached.
    async fn read_head_now(&mut self) -> bool {
        let Some(head) = self.look().await else { return false };
        self.head_due = Some((head, Instant::now()));
        self.read_to_head().await;
        self.apply_all().await;
        if self.head_due.is_some() {
            return false;
        }
        if self.state == BusState::CatchingUp && self.hole_due.is_none() {
            self.set_state(BusState::Live);
        }
        true
    }

    async fn tick(&mut self) {
        let interval = match self.state {
            BusState::Live => self.shared.settings.tick,
            _ => self.shared.settings.polling_tick,
        };
        // A jitter of a tenth keeps a fleet that started together from asking together.
        let jitter = interval.mul_f64(rand::random_range(-0.1..0.1_f64).abs());
        self.next_tick = Instant::now() + interval.saturating_sub(jitter);
        if self.state == BusState::CatchingUp {
            self.catch_up().await;
            return;
        }
        let Some(head) = self.look().await else { return };
        if head.seq > self.place.order.applied() && self.head_due.is_none() {
            let grace = if self.state == BusState::Live { TICK_GRACE } else { Duration::ZERO };
            self.head_due = Some((head, Instant::now() + grace));
        }
    }

    /// Looks at the head, and sees whether the log has begun a new life.
    async fn look(&mut self) -> Option<Head> {
        let mut looked = self.shared.store.head().await;
        if let Ok(head) = &looked
            && head.epoch == self.place.epoch
            && head.seq < self.place.order.applied()
        {
            tracing::error!(head = %head.seq, applied = %self.place.order.applied(), "the log was set back; renewing its epoch");
            looked = match self.shared.store.epoch_renew(&head.epoch).await {
                Ok(()) => self.shared.store.head().await,
                Err(error) => Err(error),
            };
        }
        match looked {
            Ok(head) => {
                self.shared.note(&head);
                if head.epoch == self.place.epoch { Some(head) } else { self.begin(head).await }
            }
            Err(error) => {
                tracing::debug!(%error, "the head of the log cannot be read");
                self.next_tick = Instant::now() + RETRY;
                None
            }
        }
    }

    /// Goes on from the head: the log has a new epoch, or this replica has to skip a part of it.
    async fn begin(&mut self, head: Head) -> Option<Head> {
        self.shared.store.barrier().await.ok()?;
        let position = Cursor::new(head.epoch.clone(), head.seq);
        let settings = &self.shared.settings;
        let ring = Ring::new(position.clone(), settings.ring_messages_max, settings.ring_bytes_max);
        *self.shared.ring.write() = Some(ring);
        let renewed = head.epoch != self.place.epoch;
        self.place = Place { epoch: head.epoch.clone(), order: Order::new(head.seq), mark: None };
        (self.hole_due, self.head_due, self.doubtful) = (None, None, false);
        if renewed {
            self.shared.hub.reset(&position);
            self.shared.metrics.log.epochs.inc();
            tracing::warn!(epoch = %head.epoch, "the log has a new epoch; sessions were told to reload");
        } else {
            self.shared.hub.skip(head.seq);
        }
        Some(head)
    }

    /// Nobody announced what a tick saw, so nobody has said that it goes on from the position.
    async fn late(&mut self) {
        self.doubtful = true;
        self.read_to_head().await;
    }

    /// What a tick saw was not announced in time: it may be committed and not durable, so a barrier first.
    async fn read_to_head(&mut self) {
        let Some((head, _)) = self.head_due.take() else { return };
        if head.epoch != self.place.epoch || head.seq <= self.place.order.applied() {
            return;
        }
        let assured = self.assure().await;
        if head.epoch != self.place.epoch {
            return;
        }
        if !assured || self.shared.store.barrier().await.is_err() {
            // No barrier, so nothing is applied.
            self.head_due = Some((head, Instant::now() + RETRY));
            return;
        }
        if self.state == BusState::Live {
            self.count("tick");
            self.bus.suspect();
        }
        self.place.order.durable(head.seq);
        self.hole_due = Some(Instant::now());
        self.read_hole().await;
    }

    /// Applies what can be applied, and notes when the rest is to be read.
    async fn apply_all(&mut self) {
        if !self.may_apply().await {
            return;
        }
        loop {
            match self.place.order.step() {
                Step::Rest => {
                    self.hole_due = None;
                    return;
                }
                Step::Apply(messages) => self.apply(&messages),
                Step::Read { until } => {
                    if !self.read(until).await {
                        return;
                    }
                }
                Step::Hole { .. } => {
                    self.hole_due.get_or_insert_with(|| Instant::now() + HOLE_WAIT);
                    return;
                }
            }
        }
    }

    /// Whether nothing speaks against applying what is there; if it cannot be known, later.
    async fn may_apply(&mut self) -> bool {
        let may = self.place.order.is_at_rest() || self.assure().await;
        if !may {
            self.hole_due = Some(Instant::now() + RETRY);
        }
        may
    }

    /// The missing part did not come: reads it.
    async fn read_hole(&mut self) {
        self.hole_due = None;
        if !self.may_apply().await {
            return;
        }
        loop {
            match self.place.order.step() {
                Step::Rest => return,
                Step::Apply(messages) => self.apply(&messages),
                Step::Hole { until } | Step::Read { until } => {
                    self.shared.metrics.log.holes.inc();
                    if !self.read(until).await {
                        return;
                    }
                }
            }
        }
    }

    /// Reads up to a durable seq and applies it; if that fails, tries again a little later.
    async fn read(&mut self, until: Seq) -> bool {
        while self.place.order.applied() < until {
            let after = self.place.order.applied();
            let found = match self.shared.store.range(after, until, PAGE).await {
                Ok(found) => complete(after, &found.messages, found.read_to).map(|_| found),
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => self.apply(&found.messages),
                Err(StoreError::Expired { oldest }) if self.skip_to(oldest).await => {}
                Err(error) => {
                    tracing::warn!(%error, %after, %until, "the log cannot be read; trying again");
                    self.place.order.durable(until);
                    self.hole_due = Some(Instant::now() + RETRY);
                    return false;
                }
            }
        }
        true
    }

    /// This replica was away for so long that what it missed is gone. Its sessions read on from
    /// their own cursors, and those whose cursors are as old must reload.
    async fn skip_to(&mut self, oldest: Seq) -> bool {
        tracing::error!(applied = %self.place.order.applied(), %oldest, "away for longer than messages are kept");
        match self.shared.store.head().await {
            Ok(head) => self.begin(head).await.is_some(),
            Err(_) => false,
        }
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
        let ago = self.shared.now().0.saturating_sub(last.at.0).max(0);
        self.shared
            .metrics
            .delivery_seconds
            .observe(Duration::from_millis(ago.unsigned_abs()).as_secs_f64());
        self.place.mark = Some(mark_of(last));
        self.place.order.advanced(last.seq.unwrap_or_default());
        self.shared.metrics.log.applied_seq.set(self.place.order.applied().to_db());
    }
}
