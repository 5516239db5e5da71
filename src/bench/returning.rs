//! A fleet that comes back at once, each client with a cursor that is some messages old.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::meter::{histogram, micros, stamped};
use super::{BenchError, Contender, Figures, Installation, Letter, Processes, Returning, run_name};
use crate::client::Outgoing;
use crate::domain::Cursor;

/// Whoever is not back by then does not come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages in one request, far below what a server takes.
const BATCH: usize = 100;

pub async fn measure(
    installation: &Installation,
    returning: &Returning,
    processes: &Processes,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Figures, BenchError> {
    let name = run_name();
    let topic = |place: usize| format!("{name}:{}", place % returning.topics);
    let cursor = mark(installation, &topic(0)).await?;
    let mut way = installation.way_in(0).await?;
    let letters: Vec<Letter> = (0..returning.missed)
        .map(|place| Letter { topic: topic(place), data: stamped(0, returning.bytes) })
        .collect();
    for some in letters.chunks(BATCH) {
        way.publish(some).await?;
    }
    progress(&format!("{} come back, {} messages later", returning.listeners, returning.missed));
    let before = processes.spent();
    let began = Instant::now();
    let mut back: FuturesUnordered<_> = (0..returning.listeners)
        .map(|place| {
            let (topic, cursor) = (topic(place), cursor.clone());
            let missed = missed(returning, place);
            async move {
                let caught_up = come_back(installation, place, &topic, &cursor, missed);
                let kept = timeout(PATIENCE, caught_up).await;
                let late = |_| BenchError::Failed("a client was not back in time".to_owned());
                kept.map_err(late)?.map(|kept| (began.elapsed(), kept))
            }
        })
        .collect();
    let mut times = histogram()?;
    let mut open = Vec::with_capacity(returning.listeners);
    while let Some(one) = back.next().await {
        let (after, kept) = one?;
        times.saturating_record(micros(after));
        open.push(kept);
    }
    let mut figures = Figures::default();
    for (name, percentile) in [("back_p50_ms", 50.0), ("back_p99_ms", 99.0)] {
        figures.add(name, times.value_at_percentile(percentile) as f64 / 1e3);
    }
    figures.add("back_all_ms", times.max() as f64 / 1e3);
    figures.add("messages_each", returning.missed as f64 / returning.topics as f64);
    processes.tell(&before, returning.listeners as u64, "client", &mut figures);
    Ok(figures)
}

/// How many of the missed messages are on the topic of a listener.
fn missed(returning: &Returning, place: usize) -> usize {
    let Returning { missed, topics, .. } = *returning;
    missed / topics + usize::from(place % topics < missed % topics)
}

/// A message of our own, for its cursor.
pub(super) async fn mark(installation: &Installation, topic: &str) -> Result<Cursor, BenchError> {
    let mark = Outgoing {
        topic: topic.to_owned(),
        data: RawValue::NULL.to_owned(),
        kind: None,
        class: None,
        key: None,
        priority: None,
        ttl_s: None,
        idempotency_key: run_name(),
    };
    let published = installation.client().publish(&[mark], PATIENCE).await?;
    let cursor = published.first().and_then(|one| one.cursor.as_deref());
    cursor.and_then(|text| Cursor::parse(text).ok()).ok_or_else(|| {
        BenchError::Failed("a message was accepted without a cursor: is that Tidings?".to_owned())
    })
}

/// The connection, once everything missed has come and the server has said so.
async fn come_back(
    installation: &Installation,
    place: usize,
    topic: &str,
    cursor: &Cursor,
    missed: usize,
) -> Result<crate::client::Listening, BenchError> {
    let mut listening = installation.listen(place, topic, Some(cursor)).await?;
    let (mut came, mut replayed) = (0, false);
    // A replica that has not applied all of it yet says `replayed` early, and the rest comes live.
    while !replayed || came < missed {
        let text = listening.next().await?;
        if text.starts_with("{\"type\":\"message\"") {
            came += 1;
        } else if text.starts_with("{\"type\":\"replayed\"") {
            replayed = true;
        } else if text.starts_with("{\"type\":\"reset\"") {
            return Err(BenchError::Failed(format!("the cursor was not honoured: {text}")));
        }
    }
    match came == missed {
        true => Ok(listening),
        false => Err(BenchError::Failed(format!("{came} messages came, {missed} were missed"))),
    }
}
