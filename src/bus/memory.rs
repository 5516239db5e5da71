//! The bus of one process: for memory mode, and for several replicas in one test.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Bus, BusError, BusEvent};
use crate::domain::{Draft, Message, SourceId, TaskId, Timestamp};
use crate::notification::Announcement;

/// Whose it is, and where its events go.
type Member = (usize, mpsc::Sender<BusEvent>);

/// The wire itself; every replica has a `MemoryBus` of its own on it, made by `member`.
#[derive(Clone, Default)]
pub struct MemoryBus {
    members: Arc<Mutex<Vec<Member>>>,
    own: usize,
}

impl MemoryBus {
    /// Another replica on the same wire.
    pub fn member(&self, own: usize) -> MemoryBus {
        MemoryBus { members: self.members.clone(), own }
    }

    /// A member whose queue is full misses it, as it might with any bus, and finds it by its tick.
    pub fn announce(&self, announcement: &Announcement) {
        for (_, member) in self.members.lock().iter() {
            let _ = member.try_send(BusEvent::Announced(announcement.clone()));
        }
    }

    /// Tells everybody that a task wants to be looked at.
    pub fn stir(&self, id: &TaskId) {
        for (_, member) in self.members.lock().iter() {
            let _ = member.try_send(BusEvent::TaskStirred(id.clone()));
        }
    }

    /// Tells every reader that a source wants to be looked at.
    pub fn stir_source(&self, id: &SourceId, pushed: bool) {
        for (_, member) in self.members.lock().iter() {
            let _ = member.try_send(BusEvent::SourceStirred(id.clone(), pushed));
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn listen(&self, events: mpsc::Sender<BusEvent>, stop: CancellationToken) {
        self.members.lock().push((self.own, events.clone()));
        let _ = events.send(BusEvent::Listening).await;
        stop.cancelled().await;
        self.members.lock().retain(|(_, member)| !member.same_channel(&events));
    }

    async fn signal(&self, drafts: &[Draft], at: Timestamp) -> Result<(), BusError> {
        let messages: Vec<Message> =
            drafts.iter().map(|draft| Message::from_draft(draft, None, at)).collect();
        for (member, events) in self.members.lock().iter() {
            if *member != self.own {
                let _ = events.try_send(BusEvent::Signals(messages.clone()));
            }
        }
        Ok(())
    }

    fn suspect(&self) {}
}
