//! What sessions ask of notices to everybody and to roles: who is left out.
//!
//! Whether or not it is remembered here the answer is the same, since who is left out of a notice
//! never changes. Without it each of ten thousand sessions would ask the store about each such notice
//! that comes to them. Bounded by forgetting everything at once, which costs one question a notice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::{NoticeId, UserId};
use crate::store::StoreError;
use crate::store::notice::NoticeStore;

/// How many are remembered.
const FACTS_MAX: usize = 1_024;

/// For how long a store that did not answer is not asked again: all sessions want to know at once, and
/// each would wait for its own answer in turn.
const PAUSE: Duration = Duration::from_millis(500);

/// Who is left out; `None`: there is no such notice, though somebody published a message about it.
pub type Except = Option<Arc<[UserId]>>;

pub struct Facts {
    max: usize,
    known: Mutex<HashMap<NoticeId, Except>>,
    /// One at a time: a notice comes to all sessions at once, and one of them asks.
    asking: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
}

impl Default for Facts {
    fn default() -> Facts {
        Facts::new(FACTS_MAX)
    }
}

impl Facts {
    fn new(max: usize) -> Facts {
        Facts { max, known: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    pub async fn of(&self, id: &NoticeId, store: &dyn NoticeStore) -> Result<Except, StoreError> {
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let mut failed = self.asking.lock().await;
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        if let Some((at, error)) = &*failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        // A message is heard of after it was committed with its notice: what is not there now never was.
        let found = match store.get(id).await {
            Ok(found) => found,
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        let except = found.map(|notice| Arc::from(notice.except));
        let mut known = self.known.lock();
        if known.len() >= self.max {
            known.clear();
        }
        if self.max > 0 {
            known.insert(id.clone(), except.clone());
        }
        Ok(except)
    }

    fn known(&self, id: &NoticeId) -> Option<Except> {
        self.known.lock().get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::memory::MemoryBus;
    use crate::clock::Clock;
    use crate::domain::{Target, Timestamp, Urgency};
    use crate::store::memory::{MemorySettings, MemoryStore};
    use crate::store::notice::NewNotice;

    fn id(number: usize) -> NoticeId {
        NoticeId::parse(&format!("n{number}")).unwrap()
    }

    #[tokio::test]
    async fn what_is_remembered_and_what_is_asked_are_the_same_and_bounded() {
        let settings = MemorySettings {
            messages_max: 100,
            bytes_max: 1 << 20,
            items_max: 100,
            retention_s: 3600,
            idempotency_s: 3600,
        };
        let (clock, _hand) = Clock::test(Timestamp(1_795_168_800_000));
        let store = MemoryStore::new(settings, clock, MemoryBus::default());
        for number in 0..5 {
            let new = NewNotice {
                id: id(number),
                target: Target::All,
                except: vec![UserId::parse(&format!("u{number}")).unwrap()],
                title: "T".into(),
                content: "".into(),
                data: "null".into(),
                urgency: Urgency::default(),
                confirm: false,
                expires_in_s: None,
                sender: None,
                idempotency_key: None,
            };
            store.send(&new).await.unwrap();
        }
        let (with, without) = (Facts::new(2), Facts::new(0));
        // 5 and 6 are of messages that only look like notices.
        for number in [0, 1, 0, 5, 2, 3, 4, 6, 5, 1, 1] {
            let known = with.of(&id(number), &store).await.unwrap();
            let expected =
                (number < 5).then(|| vec![UserId::parse(&format!("u{number}")).unwrap()]);
            assert_eq!(known.as_deref(), expected.as_deref());
            assert_eq!(without.of(&id(number), &store).await.unwrap(), known);
            assert!(with.known.lock().len() <= 2 && without.known.lock().is_empty());
        }
    }
}
