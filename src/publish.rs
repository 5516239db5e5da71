//! Takes messages in, commits them in batches, and answers when they are durable.
//!
//! ```text
//!   publish ──▶ intake (bounded) ──▶ lane: takes all that is queued ──▶ store ──▶ log, then answers
//!           └─▶ signals (bounded) ─▶ loop: takes all that is queued ──▶ bus
//! ```
//! Nobody waits for a batch to fill: idle, a message leaves at once; loaded, batches grow by
//! themselves, because a lane takes whatever has queued while the last batch was being written.

mod lane;
mod signals;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use self::lane::Lane;
pub use self::signals::SignalLoop;
use self::signals::Signals;
use crate::bus::Bus;
use crate::domain::{Class, Cursor, Draft, Epoch, Message, Seq, Timestamp};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::notification;
use crate::store::{LogStore, Placed};

#[derive(Debug, Clone, Copy)]
pub struct PublishSettings {
    /// How much may wait to be written, over all publishers.
    pub intake_messages_max: usize,
    pub intake_bytes_max: usize,
    /// How much one batch takes from the intake; a single request may exceed it and stays whole.
    pub batch_messages_max: usize,
    pub batch_bytes_max: usize,
    /// How long a publisher waits before it is told that the outcome is not known.
    pub timeout: Duration,
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// `None` for a signal.
    pub seq: Option<Seq>,
    pub cursor: Option<Cursor>,
    pub duplicate: bool,
}

/// Why nothing was published, cut by what the publisher can do.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
pub enum PublishError {
    #[error("more is waiting to be written than this replica takes; try again shortly")]
    Full,
    #[error("the log cannot be reached; nothing was published")]
    Unavailable,
    #[error(
        "the log did not answer in time and it is not known whether the message was committed; \
         repeat it with the same idempotency_key"
    )]
    Unknown,
    /// Shorter, it would be taken.
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    Refused(String),
    #[error("this replica is leaving; try another one")]
    Leaving,
}

impl PublishError {
    /// The reason by which refusals are counted.
    pub const fn name(&self) -> &'static str {
        match self {
            PublishError::Full => "full",
            PublishError::Unavailable => "unavailable",
            PublishError::Unknown => "unknown",
            PublishError::TooLarge(_) => "too_large",
            PublishError::Refused(_) => "refused",
            PublishError::Leaving => "leaving",
        }
    }
}

/// A handle for everybody who publishes.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    settings: PublishSettings,
    requests: mpsc::Sender<Request>,
    /// To the loop that tells the other replicas. Full: 429.
    signals: mpsc::Sender<Signals>,
    signal_bytes: Arc<Semaphore>,
    log: Log,
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Lanes that cannot reach the store. While there is one, publishers are told at once.
    troubled: AtomicUsize,
    /// When the last batch was written, in milliseconds; zero before the first.
    last_commit: AtomicI64,
    metrics: Metrics,
}

/// Messages of one publisher, which are committed together or not at all.
struct Request {
    drafts: Vec<Draft>,
    weight_bytes: usize,
    answer: oneshot::Sender<Result<(Epoch, Vec<Placed>), PublishError>>,
    /// Its place in the intake, given back when it was answered.
    _place: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Whoever holds the intake takes everything queued, and passes it on when the order is decided.
type Intake = Arc<Mutex<mpsc::Receiver<Request>>>;

/// A publisher, and the loops that must be run for it.
pub fn publisher(
    settings: PublishSettings,
    lanes: usize,
    store: &Arc<dyn LogStore>,
    bus: Arc<dyn Bus>,
    log: &Log,
    metrics: Metrics,
) -> (Publisher, Vec<Lane>, SignalLoop) {
    // One place a message at most, so the semaphore is full before the channel is.
    let (requests, intake) = mpsc::channel(settings.intake_messages_max);
    let (signals, signal_drafts) = mpsc::channel(SIGNAL_REQUESTS_MAX);
    let shared = Arc::new(Shared {
        settings,
        requests,
        signals,
        signal_bytes: Arc::new(Semaphore::new(SIGNAL_BYTES_MAX)),
        log: log.clone(),
        messages: Arc::new(Semaphore::new(settings.intake_messages_max)),
        bytes: Arc::new(Semaphore::new(settings.intake_bytes_max)),
        troubled: AtomicUsize::new(0),
        last_commit: AtomicI64::new(0),
        metrics,
    });
    let intake: Intake = Arc::new(Mutex::new(intake));
    let lane = |_| Lane::new(shared.clone(), intake.clone(), store.clone(), log.clone());
    let lanes = (0..lanes).map(lane).collect();
    let signal_loop = SignalLoop::new(signal_drafts, bus);
    (Publisher { shared }, lanes, signal_loop)
}

/// How many requests with signals may wait; they are sent by one loop, many at a time.
const SIGNAL_REQUESTS_MAX: usize = 1_024;

/// What all of them may weigh: a few bodies of the largest kind, each full of signals.
const SIGNAL_BYTES_MAX: usize = 16 << 20;

impl Publisher {
    /// Returns when everything is committed and durable, or nothing is. Signals leave after that.
    pub async fn publish(&self, drafts: Vec<Draft>) -> Result<Vec<Published>, PublishError> {
        #[cfg(feature = "otel")]
        let spans = crate::spans::publish(&drafts);
        let result = self.publish_all(drafts).await;
        #[cfg(feature = "otel")]
        spans.end(&result);
        match &result {
            Ok(published) => self.count(published),
            Err(error) => {
                let reason = error.name();
                self.shared.metrics.publish.refused.get_or_create(&reason.into()).inc();
            }
        }
        result
    }

    async fn publish_all(&self, drafts: Vec<Draft>) -> Result<Vec<Published>, PublishError> {
        let is_signal: Vec<bool> = drafts.iter().map(|d| d.class == Class::Signal).collect();
        let (signals, kept): (Vec<Draft>, Vec<Draft>) =
            drafts.into_iter().partition(|draft| draft.class == Class::Signal);
        // A place for the signals first: after the commit it is too late to refuse.
        let place = match signals.is_empty() {
            true => None,
            false => Some(self.signal_place(&signals)?),
        };
        let mut kept = self.commit(kept).await?.into_iter();
        if let Some((queue, place)) = place {
            // The sessions of this replica wait for no bus.
            let at = self.shared.log.now();
            let message = |draft| Message::from_draft(draft, None, at);
            self.shared.log.signal(&signals.iter().map(message).collect::<Vec<_>>());
            queue.send(Signals { at, drafts: signals, place });
        }
        let signal = || Published { seq: None, cursor: None, duplicate: false };
        let each = |is_signal: bool| if is_signal { Some(signal()) } else { kept.next() };
        Ok(is_signal.into_iter().filter_map(each).collect())
    }

    fn signal_place(
        &self,
        signals: &[Draft],
    ) -> Result<(mpsc::Permit<'_, Signals>, OwnedSemaphorePermit), PublishError> {
        if let Some(large) = signals.iter().find(|draft| !notification::signal_fits(draft)) {
            return Err(PublishError::TooLarge(format!(
                "the signal on {} has more than {} bytes as JSON with its kind and key, which a \
                 notification cannot carry; publish it as class state",
                large.topic,
                notification::BODY_BYTES_MAX,
            )));
        }
        let weight_bytes = signals.iter().map(Draft::weight_bytes).sum();
        let bytes = place(&self.shared.signal_bytes, weight_bytes)?;
        let queue = self.shared.signals.try_reserve().map_err(|error| refused(&error))?;
        Ok((queue, bytes))
    }

    async fn commit(&self, drafts: Vec<Draft>) -> Result<Vec<Published>, PublishError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let shared = &self.shared;
        if shared.troubled.load(Ordering::Relaxed) > 0 {
            return Err(PublishError::Unavailable);
        }
        let weight_bytes: usize = drafts.iter().map(Draft::weight_bytes).sum();
        let places = (place(&shared.messages, drafts.len())?, place(&shared.bytes, weight_bytes)?);
        let (answer, answered) = oneshot::channel();
        let request = Request { drafts, weight_bytes, answer, _place: places };
        shared.requests.try_send(request).map_err(|error| refused(&error))?;
        let (epoch, placed) = match tokio::time::timeout(shared.settings.timeout, answered).await {
            Ok(Ok(answer)) => answer?,
            // The lane went away with the request in hand, or did not answer in time.
            Ok(Err(_)) | Err(_) => return Err(PublishError::Unknown),
        };
        let published = |placed: Placed| Published {
            seq: Some(placed.seq),
            cursor: Some(Cursor::new(epoch.clone(), placed.seq)),
            duplicate: placed.duplicate,
        };
        Ok(placed.into_iter().map(published).collect())
    }

    fn count(&self, published: &[Published]) {
        let duplicates = published.iter().filter(|published| published.duplicate).count();
        let signals = published.iter().filter(|published| published.seq.is_none()).count();
        let metrics = &self.shared.metrics.publish;
        metrics.messages.inc_by((published.len() - duplicates - signals) as u64);
        metrics.duplicates.inc_by(duplicates as u64);
        metrics.signals.inc_by(signals as u64);
    }

    /// How many messages wait to be written.
    pub fn waiting(&self) -> usize {
        self.shared.settings.intake_messages_max - self.shared.messages.available_permits()
    }

    /// What they weigh.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.settings.intake_bytes_max - self.shared.bytes.available_permits()
    }

    /// When the last batch of this replica was written.
    pub fn last_commit(&self) -> Option<Timestamp> {
        let at = self.shared.last_commit.load(Ordering::Relaxed);
        (at > 0).then_some(Timestamp(at))
    }

    /// Whether the store is known to be away.
    pub fn troubled(&self) -> bool {
        self.shared.troubled.load(Ordering::Relaxed) > 0
    }
}

fn place(semaphore: &Arc<Semaphore>, size: usize) -> Result<OwnedSemaphorePermit, PublishError> {
    let size = u32::try_from(size).map_err(|_| PublishError::Full)?;
    semaphore.clone().try_acquire_many_owned(size).map_err(|_| PublishError::Full)
}

fn refused<T>(error: &mpsc::error::TrySendError<T>) -> PublishError {
    match error {
        mpsc::error::TrySendError::Full(_) => PublishError::Full,
        mpsc::error::TrySendError::Closed(_) => PublishError::Leaving,
    }
}
