//! What sessions ask of notices to everybody and to roles: who is left out.
//!
//! Whether or not it is remembered here, the answer is the same: who is left out of a notice never
//! changes. Bounded by forgetting everything at once, which costs one question a notice.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::{NoticeId, UserId};
use crate::store::StoreError;
use crate::store::notice::NoticeStore;

/// How many are remembered.
const FACTS_MAX: usize = 1_024;

#[derive(Debug)]
pub struct Fact {
    pub except: Vec<UserId>,
    pub sending: u32,
}

#[derive(Default)]
pub struct Facts {
    known: Mutex<HashMap<NoticeId, Arc<Fact>>>,
    /// One at a time: a notice comes to all sessions at once, and one of them asks.
    asking: tokio::sync::Mutex<()>,
}

impl Facts {
    /// `None`: there is no such notice.
    pub async fn of(
        &self,
        id: &NoticeId,
        store: &dyn NoticeStore,
    ) -> Result<Option<Arc<Fact>>, StoreError> {
        if let Some(known) = self.known(id) {
            return Ok(Some(known));
        }
        let _turn = self.asking.lock().await;
        if let Some(known) = self.known(id) {
            return Ok(Some(known));
        }
        let Some(notice) = store.get(id).await? else { return Ok(None) };
        let fact = Arc::new(Fact { except: notice.except, sending: notice.sending });
        let mut known = self.known.lock();
        if known.len() >= FACTS_MAX {
            known.clear();
        }
        known.insert(id.clone(), fact.clone());
        Ok(Some(fact))
    }

    fn known(&self, id: &NoticeId) -> Option<Arc<Fact>> {
        self.known.lock().get(id).cloned()
    }
}
