//! Who is inside: the cap, the guards that hold a place under it, and their two ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::metrics::Metrics;

/// Refusals being written at once; beyond that a connection is just closed.
const REFUSALS_MAX: usize = 64;
/// How long a refused client may take to ask and to read its answer.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\n\
    content-length: 135\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"/problems/unavailable\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"this replica holds as many connections as it may\"}";

/// Counts those inside and ends them.
pub(super) struct Gate {
    places: Arc<Semaphore>,
    places_max: usize,
    refusals: Arc<Semaphore>,
    tracker: TaskTracker,
    closing: CancellationToken,
    cut: CancellationToken,
    metrics: Metrics,
}

/// A place under the cap. Held by the connection, by its requests (as an extension), and by
/// whatever a handler lets outlive its response: the drain waits for the last clone.
#[derive(Clone)]
pub struct ConnectionGuard(Arc<Place>);

struct Place {
    closing: CancellationToken,
    cut: CancellationToken,
    stalled: CancellationToken,
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
    _token: TaskTrackerToken,
}

impl ConnectionGuard {
    /// Cancelled when the listener is closed: say goodbye to the client, at a moment of your own.
    pub fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    /// Cancelled when the drain is over; what does not end now is named in the log.
    pub fn cut(&self) -> &CancellationToken {
        &self.0.cut
    }

    /// Cancelled when the client has taken nothing from its socket for too long.
    pub fn stalled(&self) -> &CancellationToken {
        &self.0.stalled
    }

    pub(super) fn note_stalled(&self) {
        self.0.metrics.server.stalled.inc();
    }

    /// Runs what outlives the response, such as a WebSocket, and drops it when the drain is over.
    pub async fn hold<F: Future>(self, work: F) -> Option<F::Output> {
        tokio::select! {
            output = work => Some(output),
            () = self.0.cut.cancelled() => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.server.connections.dec();
    }
}

impl Gate {
    pub(super) fn new(connections_max: usize, metrics: Metrics) -> Arc<Gate> {
        let places_max = connections_max.min(Semaphore::MAX_PERMITS);
        Arc::new(Gate {
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            metrics,
        })
    }

    /// `None` at the cap.
    pub(super) fn enter(&self) -> Option<ConnectionGuard> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        self.metrics.server.accepted.inc();
        self.metrics.server.connections.inc();
        Some(ConnectionGuard(Arc::new(Place {
            closing: self.closing.clone(),
            cut: self.cut.clone(),
            stalled: CancellationToken::new(),
            metrics: self.metrics.clone(),
            _permit: permit,
            _token: self.tracker.token(),
        })))
    }

    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(connection);
    }

    /// Answers 503 whatever the request is.
    pub(super) fn turn_away(&self, mut stream: TcpStream) {
        self.refused("full");
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        let farewell = async move {
            let mut request = [0; 1024];
            // An answer that comes before its request is taken for a broken connection.
            if stream.read(&mut request).await? == 0 {
                return Ok(());
            }
            stream.write_all(REFUSAL).await?;
            stream.shutdown().await?;
            // Closing over unread bytes would reset the connection and take the answer with it.
            while stream.read(&mut request).await? > 0 {}
            std::io::Result::Ok(())
        };
        self.tracker.spawn(async move {
            // Whether the client stayed for the answer changes nothing.
            let _ = tokio::time::timeout(REFUSAL_TIME, farewell).await;
            drop(permit);
        });
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.metrics.server.refused.get_or_create(&reason.into()).inc();
    }

    pub(super) fn close(&self) {
        self.tracker.close();
        self.closing.cancel();
    }

    pub(super) fn cut(&self) {
        self.metrics.server.aborted.inc_by(u64::try_from(self.held()).unwrap_or(u64::MAX));
        self.cut.cancel();
    }

    /// Waits for the last guard and the last task, after `close`.
    pub(super) async fn empty(&self) {
        self.tracker.wait().await;
    }

    pub(super) fn held(&self) -> usize {
        self.places_max - self.places.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
