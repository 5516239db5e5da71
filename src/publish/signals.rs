//! Sends signals to the other replicas, in batches. The sessions of this replica have them by then:
//! they wait for no bus.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::domain::{Draft, Timestamp};

/// How many signals one statement carries.
const BATCH_MAX: usize = 1_000;

/// Signals of one publisher, and when they were handed out here.
pub(super) struct Signals {
    pub at: Timestamp,
    pub drafts: Vec<Draft>,
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
            let mut batch = tokio::select! {
                () = stop.cancelled() => return,
                signals = self.signals.recv() => match signals {
                    Some(signals) => signals,
                    None => return,
                }
            };
            while batch.drafts.len() < BATCH_MAX
                && let Ok(more) = self.signals.try_recv()
            {
                batch.at = more.at;
                batch.drafts.extend(more.drafts);
            }
            if let Err(error) = self.bus.signal(&batch.drafts, batch.at).await {
                let signals = batch.drafts.len();
                tracing::warn!(%error, signals, "signals did not reach the other replicas");
            }
        }
    }
}
