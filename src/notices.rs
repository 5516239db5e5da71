//! Notices: sent once, shown to each recipient once a session, and known to have come.
//!
//! ```text
//!   api ──▶ Notices ──▶ store (one transaction: rows, then messages) ──▶ log ──▶ hub ──▶ session
//!              ▲                                                                      │
//!   loop ──────┘  opens inboxes, writes receipts down, redelivers                     ▼
//!     └──────────▶ mailbox (what was missed, counts) ───────────────────────────▶  Inbox
//! ```
//! A session hears of a new notice through the log like of everything else. What it has missed, and
//! what it is to know of its counts, comes from the loop by a mailbox. `Inbox` is the session's own
//! place where both meet: it lets each notice through once, and tells the loop what was written.
//!
//! The loop takes all that waits and makes one statement of it, so that a thousand clients that
//! come back at once are a few statements.

mod facts;
mod inbox;
mod keeper;
mod mailbox;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use self::facts::Facts;
pub use self::inbox::{Inbox, Post};
use self::keeper::Job;
pub use self::keeper::Keeper;
use self::mailbox::Mailboxes;
pub use self::mailbox::WAYS;
use crate::domain::notice::Counts;
use crate::domain::{Notice, NoticeId, Receipt, ReceiptState, Tally};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::notification::Announcement;
use crate::store::StoreError;
use crate::store::notice::{
    Entry, InboxFilter, InboxStore, Mark, NewNotice, NoticeStore, Reader, Recalled,
    RecipientFilter, Replays, Resent, Sent,
};

/// How many requests of sessions may wait for the loop. Beyond it acknowledgements are answered 429;
/// everything else comes again by itself.
const JOBS_MAX: usize = 8_192;

#[derive(Debug, Clone)]
pub struct NoticeSettings {
    /// This process among all, which may bear one name.
    pub replica: Arc<str>,
    pub replays: Replays,
    /// How long a notice may go unacknowledged before it is delivered again.
    pub grace: Duration,
    pub tries_max: u32,
    /// How often that is looked for.
    pub tick: Duration,
    pub retention: Duration,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoticeError {
    #[error("as many acknowledgements are waiting as there is room for")]
    Full,
    #[error("the replica is about to leave; try again elsewhere")]
    Leaving,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A cheap handle for everybody who has to do with notices.
#[derive(Clone)]
pub struct Notices {
    shared: Arc<Shared>,
}

struct Shared {
    settings: NoticeSettings,
    notices: Arc<dyn NoticeStore>,
    inboxes: Arc<dyn InboxStore>,
    log: Log,
    metrics: Metrics,
    /// The sessions of this replica; they enter and leave, the loop posts.
    mailboxes: Mailboxes,
    facts: Facts,
    /// From sessions and handlers to the loop. Full: see `JOBS_MAX`.
    jobs: mpsc::Sender<Job>,
    /// Somebody wants the loop to look for what is due.
    stirred: Notify,
}

impl Notices {
    /// A handle, and the loop that must be run for it.
    pub fn new(
        settings: NoticeSettings,
        notices: Arc<dyn NoticeStore>,
        inboxes: Arc<dyn InboxStore>,
        log: Log,
        metrics: Metrics,
    ) -> (Notices, Keeper) {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let shared = Shared {
            settings,
            notices,
            inboxes,
            log,
            metrics,
            mailboxes: Mailboxes::default(),
            facts: Facts::default(),
            jobs,
            stirred: Notify::new(),
        };
        let notices = Notices { shared: Arc::new(shared) };
        (notices.clone(), Keeper::new(notices, waiting))
    }

    pub async fn send(&self, notice: &NewNotice) -> Result<Sent, StoreError> {
        let mut sent = self.shared.notices.send(notice).await?;
        self.shared.metrics.notices.sent.inc_by(u64::from(!sent.duplicate));
        self.tell(sent.told.take()).await;
        Ok(sent)
    }

    pub async fn get(&self, id: &NoticeId) -> Result<Option<Notice>, StoreError> {
        self.shared.notices.get(id).await
    }

    pub async fn tally(&self, id: &NoticeId) -> Result<Tally, StoreError> {
        self.shared.notices.tally(id).await
    }

    pub async fn list(
        &self,
        before: Option<&NoticeId>,
        limit: usize,
    ) -> Result<Vec<Notice>, StoreError> {
        self.shared.notices.list(before, limit).await
    }

    pub async fn recipients(
        &self,
        id: &NoticeId,
        filter: &RecipientFilter,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError> {
        self.shared.notices.recipients(id, filter, limit).await
    }

    pub async fn resend(&self, id: &NoticeId) -> Result<Resent, StoreError> {
        let resent = self.shared.notices.resend(id).await?;
        // The other replicas find it by their ticks.
        self.shared.stirred.notify_one();
        Ok(resent)
    }

    pub async fn recall(&self, id: &NoticeId) -> Result<Recalled, StoreError> {
        let mut recalled = self.shared.notices.recall(id).await?;
        if let Recalled::Done(told) = &mut recalled {
            self.tell(told.take()).await;
        }
        Ok(recalled)
    }

    pub async fn inbox(
        &self,
        reader: &Reader,
        filter: &InboxFilter,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.shared.inboxes.inbox(reader, filter, limit).await
    }

    pub async fn counts(&self, reader: &Reader) -> Result<Counts, StoreError> {
        let nothing = Replays { max: 0, age: Duration::ZERO };
        let opened = self.shared.inboxes.open(std::slice::from_ref(reader), nothing).await?;
        Ok(opened.first().map_or_else(Counts::default, |opened| opened.counts))
    }

    /// What a client acknowledges: of these notices, or of all of its inbox. Answered when it is
    /// durable, with what is left to be counted.
    pub async fn acknowledge(
        &self,
        reader: &Reader,
        ids: Option<Vec<NoticeId>>,
        state: ReceiptState,
    ) -> Result<Counts, NoticeError> {
        let mark = |id| Mark { reader: reader.clone(), id, state };
        let marks = match ids {
            None => vec![mark(None)],
            Some(ids) if ids.is_empty() => return Ok(self.counts(reader).await?),
            Some(ids) => ids.into_iter().map(|id| mark(Some(id))).collect(),
        };
        let (answer, answered) = oneshot::channel();
        let job = Job::Acknowledge { marks, answer };
        self.shared.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NoticeError::Full,
            mpsc::error::TrySendError::Closed(_) => NoticeError::Leaving,
        })?;
        answered.await.map_err(|_| NoticeError::Leaving)?.map_err(NoticeError::Store)
    }

    /// A session of this reader begins; what it has missed comes by and by.
    pub fn enter(&self, reader: Reader) -> Inbox {
        Inbox::new(self.clone(), reader)
    }

    async fn tell(&self, told: Option<Announcement>) {
        if let Some(announcement) = told {
            self.shared.log.announce_own(announcement).await;
        }
    }
}
