//! The memory store behind what Postgres has and it has not: a flush, and writer slots.
//!
//! A batch is committed at once, flushed a little later, and announced after that, as in
//! `sql/schema`: a reader that goes by what it can see in the table, instead of by what was
//! announced or put behind a barrier, is caught here. A crash takes away what was not flushed.
//!
//! `DiskWriter` keeps the contract of a writer in the simplest way, so that what uses it can be tried;
//! it shows nothing about the real one, which `writer` tries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidings::bus::memory::MemoryBus;
use tidings::clock::Clock;
use tidings::domain::{Draft, Epoch, Message, Pattern, Seq, Timestamp};
use tidings::notification::Announcement;
use tidings::store::memory::{MemorySettings, MemoryStore};
use tidings::store::{
    Appended, Found, Head, LogStore, LogWriter, Mark, Page, Relayed, StoreError, Turn, Upkeep,
};

use crate::operation::Seeded;

/// How old a message may become.
const RETENTION_S: u32 = 30;

#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
}

struct Shared {
    /// Announces into nowhere: here that comes after the flush.
    store: MemoryStore,
    wire: MemoryBus,
    state: Mutex<State>,
}

struct State {
    durable: Seq,
    /// Counts crashes.
    life: u64,
    slots: Vec<Slot>,
    /// Everything that was ever written and not taken back by a crash.
    history: Vec<Message>,
    faults: Vec<String>,
    delays: Seeded,
}

#[derive(Default)]
struct Slot {
    holder: String,
    fence: u64,
    batch: u64,
    last: Option<Appended>,
    idle: bool,
}

impl Disk {
    pub fn new(clock: Clock, seed: u64) -> Disk {
        let settings = MemorySettings {
            messages_max: 1_000_000,
            bytes_max: 1 << 30,
            items_max: 100_000,
            retention_s: RETENTION_S,
            idempotency_s: 86_400,
        };
        let state = State {
            durable: Seq::ZERO,
            life: 0,
            slots: Vec::new(),
            history: Vec::new(),
            faults: Vec::new(),
            delays: Seeded::new(seed),
        };
        let shared = Shared {
            store: MemoryStore::new(settings, clock, MemoryBus::default()),
            wire: MemoryBus::default(),
            state: Mutex::new(state),
        };
        Disk { shared: Arc::new(shared) }
    }

    pub fn wire(&self) -> &MemoryBus {
        &self.shared.wire
    }

    pub fn history(&self) -> Vec<Message> {
        self.shared.state.lock().history.clone()
    }

    pub fn durable(&self) -> Seq {
        self.shared.state.lock().durable
    }

    /// What was asked of the store that must never be asked.
    pub fn faults(&self) -> Vec<String> {
        self.shared.state.lock().faults.clone()
    }

    /// The server dies and comes back: what was not flushed is gone, and its numbers are given again.
    pub fn crash(&self) {
        let mut state = self.shared.state.lock();
        let durable = state.durable;
        state.life += 1;
        state.history.retain(|message| message.seq <= Some(durable));
        self.shared.store.set_back(durable);
        for slot in &mut state.slots {
            // A batch that met the key of a message that is gone came after it, and is gone too.
            let lost = |last: &Appended| last.placed.iter().any(|placed| placed.seq > durable);
            if slot.last.as_ref().is_some_and(lost) {
                slot.batch -= 1;
                slot.last = None;
            }
        }
    }

    /// Makes the slots of a holder look unused, so that the next claim takes one.
    pub fn slots_idle(&self, holder: &str) {
        let own = |slot: &&mut Slot| slot.holder.starts_with(holder);
        self.shared.state.lock().slots.iter_mut().filter(own).for_each(|slot| slot.idle = true);
    }

    pub fn writer_of(&self, holder: &str) -> Box<dyn LogWriter> {
        let holder = format!("{holder}/{}", uuid::Uuid::now_v7().simple());
        Box::new(DiskWriter { disk: self.clone(), holder, slot: None, batch: 0 })
    }

    /// Returns when everything up to a seq is flushed, unless the server crashes meanwhile.
    async fn flush(&self, until: Seq) -> Result<(), StoreError> {
        let (life, delay) = {
            let mut state = self.shared.state.lock();
            (state.life, Duration::from_millis(state.delays.next() % 4))
        };
        tokio::time::sleep(delay).await;
        let mut state = self.shared.state.lock();
        if state.life != life {
            return Err(StoreError::Unavailable("the server crashed".to_owned()));
        }
        state.durable = state.durable.max(until);
        Ok(())
    }

    fn check_durable(&self, until: Seq) {
        let mut state = self.shared.state.lock();
        if until > state.durable {
            let fault = format!("read up to {until}, of which {} is durable", state.durable);
            state.faults.push(fault);
        }
    }
}

#[async_trait]
impl LogStore for Disk {
    async fn head(&self) -> Result<Head, StoreError> {
        self.shared.store.head().await
    }

    async fn barrier(&self) -> Result<(), StoreError> {
        let head = self.shared.store.head().await?.seq;
        self.flush(head).await
    }

    async fn range(&self, after: Seq, until: Seq, page: Page) -> Result<Found, StoreError> {
        self.check_durable(until);
        self.shared.store.range(after, until, page).await
    }

    async fn matching(
        &self,
        patterns: &[Pattern],
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Found, StoreError> {
        self.check_durable(until);
        self.shared.store.matching(patterns, after, until, page).await
    }

    async fn since(&self, moment: Timestamp) -> Result<Seq, StoreError> {
        self.shared.store.since(moment).await
    }

    async fn mark(&self, seq: Seq) -> Result<Option<Mark>, StoreError> {
        self.shared.store.mark(seq).await
    }

    async fn epoch_renew(&self, old: &Epoch) -> Result<(), StoreError> {
        self.shared.store.epoch_renew(old).await
    }

    async fn writer(&self) -> Result<Box<dyn LogWriter>, StoreError> {
        Ok(self.writer_of("thief"))
    }
}

#[async_trait]
impl Upkeep for Disk {
    async fn outbox_relay(&self) -> Result<Option<Relayed>, StoreError> {
        Ok(None)
    }

    async fn outbox_oldest(&self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    async fn partition_ahead(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn partition_expire(&self) -> Result<Vec<Seq>, StoreError> {
        self.shared.store.partition_expire().await
    }

    async fn partition_drop(&self, first: Seq) -> Result<u64, StoreError> {
        self.shared.store.partition_drop(first).await
    }

    async fn idempotency_expire(&self) -> Result<u64, StoreError> {
        self.shared.store.idempotency_expire().await
    }
}

struct DiskWriter {
    disk: Disk,
    holder: String,
    slot: Option<(usize, u64)>,
    batch: u64,
}

impl DiskWriter {
    fn claim(&mut self) -> (usize, u64) {
        if let Some(slot) = self.slot {
            return slot;
        }
        let mut state = self.disk.shared.state.lock();
        let place = state.slots.iter().position(|slot| slot.idle).unwrap_or_else(|| {
            state.slots.push(Slot::default());
            state.slots.len() - 1
        });
        let fence = state.slots[place].fence + 1;
        state.slots[place] = Slot { holder: self.holder.clone(), fence, ..Slot::default() };
        (self.slot, self.batch) = (Some((place, fence)), 0);
        (place, fence)
    }

    fn announce(&self, appended: &Appended, drafts: &[Draft]) {
        if appended.fresh() > 0 {
            self.disk.shared.wire.announce(&Announcement {
                epoch: appended.epoch.clone(),
                first: appended.first,
                last: appended.first.plus(appended.fresh() - 1),
                messages: Some(appended.messages(drafts)),
            });
        }
    }

    /// What the slot answers by itself: its fence is old, or it has had this batch.
    fn judge(&mut self, place: usize, fence: u64) -> Result<Option<Appended>, StoreError> {
        let state = self.disk.shared.state.lock();
        let slot = &state.slots[place];
        if slot.fence != fence {
            drop(state);
            self.slot = None;
            return Err(StoreError::Fenced);
        }
        if slot.batch == self.batch + 1 {
            return Ok(slot.last.clone());
        }
        let expected = slot.batch == self.batch;
        let refused = || StoreError::Refused(format!("the slot is at batch {}", slot.batch));
        expected.then_some(None).ok_or_else(refused)
    }
}

#[async_trait]
impl LogWriter for DiskWriter {
    async fn write(&mut self, drafts: &[Draft], turn: Turn) -> Result<Appended, StoreError> {
        let (place, fence) = self.claim();
        let appended = match self.judge(place, fence)? {
            Some(before) => before,
            None => {
                // Nothing is awaited in here, so this and the slot are one transaction.
                let mut writer = self.disk.shared.store.writer().await?;
                let appended = writer.write(drafts, Box::new(())).await?;
                let mut state = self.disk.shared.state.lock();
                state.history.extend(appended.messages(drafts));
                let slot = &mut state.slots[place];
                (slot.batch, slot.last) = (self.batch + 1, Some(appended.clone()));
                appended
            }
        };
        drop(turn);
        let head = self.disk.shared.store.head().await?.seq;
        self.disk.flush(head).await?;
        self.batch += 1;
        self.announce(&appended, drafts);
        Ok(appended)
    }

    async fn recover(&mut self, drafts: &[Draft]) -> Result<Option<Appended>, StoreError> {
        let Some((place, _)) = self.slot else { return Ok(None) };
        let (batch, last) = {
            let mut state = self.disk.shared.state.lock();
            let slot = &mut state.slots[place];
            if slot.holder != self.holder {
                drop(state);
                self.slot = None;
                return Err(StoreError::Fenced);
            }
            slot.fence += 1;
            self.slot = Some((place, slot.fence));
            (slot.batch, slot.last.clone())
        };
        if batch == self.batch {
            return Ok(None);
        }
        self.disk.barrier().await?;
        let Some(appended) = last else { return Ok(None) };
        self.batch = batch;
        self.announce(&appended, drafts);
        Ok(Some(appended))
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn release(&mut self) {
        if let Some((place, fence)) = self.slot.take() {
            let mut state = self.disk.shared.state.lock();
            let slot = &mut state.slots[place];
            slot.idle |= slot.fence == fence;
        }
    }
}
