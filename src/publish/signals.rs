//! Sends signals: to the sessions of this replica at once, to the other replicas in batches.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::SignalRequest;
use crate::bus::Bus;
use crate::domain::{Draft, Message};
use crate::log::Log;

/// How many signals one statement carries.
const BATCH_MAX: usize = 1_000;

pub struct SignalLoop {
    requests: mpsc::Receiver<SignalRequest>,
    log: Log,
    bus: Arc<dyn Bus>,
}

impl SignalLoop {
    pub(super) fn new(
        requests: mpsc::Receiver<SignalRequest>,
        log: Log,
        bus: Arc<dyn Bus>,
    ) -> SignalLoop {
        SignalLoop { requests, log, bus }
    }

    pub async fn run(&mut self, stop: &CancellationToken) {
        loop {
            let SignalRequest { drafts: mut batch, place } = tokio::select! {
                () = stop.cancelled() => return,
                request = self.requests.recv() => match request {
                    Some(request) => request,
                    None => return,
                }
            };
            let mut places = vec![place];
            while batch.len() < BATCH_MAX
                && let Ok(more) = self.requests.try_recv()
            {
                batch.extend(more.drafts);
                places.push(more.place);
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
