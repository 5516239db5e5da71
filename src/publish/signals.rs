//! Sends signals: to the sessions of this replica at once, to the other replicas in batches.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::domain::{Draft, Message};
use crate::log::Log;

/// How many signals one statement carries.
const BATCH_MAX: usize = 1_000;

pub struct SignalLoop {
    drafts: mpsc::Receiver<Vec<Draft>>,
    log: Log,
    bus: Arc<dyn Bus>,
}

impl SignalLoop {
    pub(super) fn new(
        drafts: mpsc::Receiver<Vec<Draft>>,
        log: Log,
        bus: Arc<dyn Bus>,
    ) -> SignalLoop {
        SignalLoop { drafts, log, bus }
    }

    pub async fn run(&mut self, stop: &CancellationToken) {
        loop {
            let mut batch = tokio::select! {
                () = stop.cancelled() => return,
                drafts = self.drafts.recv() => match drafts {
                    Some(drafts) => drafts,
                    None => return,
                }
            };
            while batch.len() < BATCH_MAX
                && let Ok(more) = self.drafts.try_recv()
            {
                batch.extend(more);
            }
            self.send(&batch).await;
        }
    }

    async fn send(&self, drafts: &[Draft]) {
        let at = self.log.now();
        let messages: Vec<Message> =
            drafts.iter().map(|draft| Message::from_draft(draft, None, at)).collect();
        self.log.signal(&messages);
        if let Err(error) = self.bus.signal(drafts, at).await {
            tracing::warn!(%error, signals = drafts.len(), "signals did not reach the other replicas");
        }
    }
}
