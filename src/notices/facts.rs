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

#[derive(Default)]
pub struct Facts {
    known: Mutex<HashMap<NoticeId, Except>>,
    /// One at a time: a notice comes to all sessions at once, and one of them asks.
    asking: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
}

impl Facts {
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
        if known.len() >= FACTS_MAX {
            known.clear();
        }
        known.insert(id.clone(), except.clone());
        Ok(except)
    }

    fn known(&self, id: &NoticeId) -> Option<Except> {
        self.known.lock().get(id).cloned()
    }
}
