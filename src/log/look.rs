//! Looks at the head of the log, and what a look finds out.
//!
//! A look is a future that the loop holds beside everything else it waits for: a store that answers
//! late holds up no announcement. So it knows what was true when it began, and is judged by that:
//! the head that it reads is newer than all it was asked with.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::domain::{Epoch, Seq};
use crate::store::{Head, LogStore, Mark, StoreError};

/// What is known when a look begins.
pub struct Look {
    pub epoch: Epoch,
    pub applied: Seq,
    /// The message at `applied`, where it is to be seen whether it still is there.
    pub mark: Option<Mark>,
    /// How often there was doubt of that before it began.
    pub doubts: u64,
    /// Up to here the log was durable for certain.
    pub vouched: Seq,
    /// How far others have said that it is durable.
    pub heard: Seq,
    /// Whether what it sees is to be made certain.
    pub barrier: bool,
}

/// What was asked, and the answer.
pub enum Asked {
    Looked {
        look: Look,
        head: Result<Head, StoreError>,
    },
    /// A barrier behind a head that was seen before; false if it is the head of another log.
    Vouched {
        look: Look,
        head: Head,
        done: Result<bool, StoreError>,
    },
}

pub type Asking = BoxFuture<'static, Asked>;

/// The head; where the log has begun a new life, or a barrier was asked for, with a barrier behind it.
pub fn look(store: Arc<dyn LogStore>, look: Look) -> Asking {
    Box::pin(async move {
        let head = look.at(&*store).await;
        Asked::Looked { look, head }
    })
}

pub fn vouch(store: Arc<dyn LogStore>, look: Look, head: Head) -> Asking {
    Box::pin(async move {
        let done = match look.continues(&*store).await {
            Ok(true) => store.barrier().await.map(|()| true),
            other => other,
        };
        Asked::Vouched { look, head, done }
    })
}

impl Look {
    async fn at(&self, store: &dyn LogStore) -> Result<Head, StoreError> {
        self.continues(store).await?;
        let mut head = store.head().await?;
        if head.epoch == self.epoch && head.seq < self.vouched.max(self.applied) {
            tracing::error!(head = %head.seq, applied = %self.applied, vouched = %self.vouched, "the log was set back; renewing its epoch");
            store.epoch_renew(&head.epoch).await?;
            head = store.head().await?;
        }
        if self.barrier || head.epoch != self.epoch {
            store.barrier().await?;
        }
        Ok(head)
    }

    /// Whether the row at our position still is the one we applied; if not, the log was set back.
    async fn continues(&self, store: &dyn LogStore) -> Result<bool, StoreError> {
        let Some(mark) = &self.mark else { return Ok(true) };
        let found = store.mark(self.applied).await?;
        // Retention may have taken it; that is no reason to doubt the rest.
        if found.is_none() && self.applied < store.head().await?.oldest {
            return Ok(true);
        }
        if found.as_ref() == Some(mark) {
            return Ok(true);
        }
        tracing::error!(seq = %self.applied, "the log no longer continues what was read; renewing its epoch");
        store.epoch_renew(&self.epoch).await?;
        Ok(false)
    }
}
