//! Where a replica stands in the log, and how it gets there when it starts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::order::Order;
use super::ring::Ring;
use crate::domain::{Cursor, Epoch, Message, Seq};
use crate::frame::Frame;
use crate::store::{Mark, Page, StoreError};

/// How long to leave a store alone that could not be read.
pub const RETRY: Duration = Duration::from_millis(200);

/// How many messages a replica that starts takes into its ring, for the clients of the one it replaces.
const WARM_MESSAGES: u64 = 4_096;

/// Pages in which missing messages are read.
pub const PAGE: Page = Page { messages_max: 1_000, bytes_max: 4 << 20 };

/// What the loop knows once the log was reached.
pub struct Place {
    pub epoch: Epoch,
    pub order: Order,
    /// The message at the position, to see after a reconnect whether the log still is the same.
    pub mark: Option<Mark>,
}

/// Reads where the log stands, as often as it takes.
pub async fn reach(shared: &Shared, stop: &CancellationToken) -> Option<Place> {
    // The loop was restarted: sessions hold cursors, so it goes on where it was.
    if let Some(position) = shared.ring.read().as_ref().map(Ring::position) {
        let order = Order::new(position.seq);
        return Some(Place { epoch: position.epoch, order, mark: None });
    }
    loop {
        match enter(shared).await {
            Ok(place) => return Some(place),
            Err(error) => tracing::warn!(%error, "the log cannot be reached yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = sleep_until(Instant::now() + RETRY * 5) => {}
        }
    }
}

/// Starts at the head, with the last messages in the ring for clients that come back.
async fn enter(shared: &Shared) -> Result<Place, StoreError> {
    let head = shared.store.head().await?;
    shared.store.barrier().await?;
    shared.note(&head);
    let from = Seq::new(head.seq.distance_from(Seq::ZERO).saturating_sub(WARM_MESSAGES))
        .unwrap_or_default()
        .max(head.oldest.previous());
    let settings = &shared.settings;
    let position = Cursor::new(head.epoch.clone(), from);
    let mut ring = Ring::new(position, settings.ring_messages_max, settings.ring_bytes_max);
    let mut mark = None;
    let mut after = from;
    while after < head.seq {
        let found = shared.store.range(after, head.seq, PAGE).await?;
        after = complete(after, &found.messages, found.read_to)?;
        mark = found.messages.last().map(mark_of).or(mark);
        for message in &found.messages {
            ring.push(Arc::new(Frame::new(message, &head.epoch)));
        }
    }
    *shared.ring.write() = Some(ring);
    Ok(Place { epoch: head.epoch, order: Order::new(head.seq), mark })
}

pub fn mark_of(message: &Message) -> Mark {
    Mark { at: message.at, topic: message.topic.clone() }
}

/// A missing number is a lost message: it is an error, never skipped in silence.
pub fn complete(after: Seq, messages: &[Message], read_to: Seq) -> Result<Seq, StoreError> {
    let expected = after.next().get()..=read_to.get();
    let found = messages.iter().filter_map(|message| message.seq).map(Seq::get);
    if found.eq(expected) {
        Ok(read_to)
    } else {
        Err(StoreError::Refused(format!("the log has a gap between {after} and {read_to}")))
    }
}
