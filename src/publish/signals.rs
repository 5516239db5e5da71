//! Sends signals to the other replicas, in batches. The sessions of this replica have them by then:
//! they wait for no bus.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::domain::{Draft, Timestamp};

/// How many signals one statement carries.
const BATCH_MAX: usize = 1_000;

/// Signals of one publisher, when they were handed out here, and their place in the queue, given
/// back when they were sent.
pub(super) struct Signals {
    pub at: Timestamp,
    pub drafts: Vec<Draft>,
    pub place: OwnedSemaphorePermit,
}

pub struct SignalLoop {
    signals: mpsc::Receiver<Signals>,
    bus: Arc<dyn Bus>,
}

impl SignalLoop {
    pub(super) fn new(signals: mpsc::Receiver<Signals>, bus: Arc<dyn Bus>) -> SignalLoop {
        SignalLoop { signals, bus }
    }

    pub async fn run(&mut self, stop: &CancellationToken) {
        loop {
            let Signals { mut at, mut drafts, place } = tokio::select! {
                () = stop.cancelled() => return,
                signals = self.signals.recv() => match signals {
                    Some(signals) => signals,
                    None => return,
                }
            };
            let mut places = vec![place];
            while drafts.len() < BATCH_MAX
                && let Ok(more) = self.signals.try_recv()
            {
                at = more.at;
                drafts.extend(more.drafts);
                places.push(more.place);
            }
            if let Err(error) = self.bus.signal(&drafts, at).await {
                let signals = drafts.len();
                tracing::warn!(%error, signals, "signals did not reach the other replicas");
            }
            drop(places);
        }
    }
}
