//! Clients that are cut off under load, stay away for a while, and come back with their cursors.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::installation::pattern;
use super::meter::{histogram, micros, stamp_of, stamped};
use super::pace::Pace;
use super::returning::mark;
use super::{Away, BenchError, Contender, Figures, Installation, Letter, Meter, run_name};
use crate::client::{Event, Tail};
use crate::domain::Cursor;

/// Between two absences, so that everybody is live again.
const BETWEEN: Duration = Duration::from_millis(500);

/// How long the last message may take to reach everybody.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one client has seen.
struct Seen {
    stamps: HashSet<u64>,
    doubled: u64,
    /// From the begin of a reconnect to the first message missed, and to the first one published
    /// since; and from the welcome to the first one missed.
    first: Vec<Duration>,
    caught_up: Vec<Duration>,
    after_welcome: Vec<Duration>,
}

pub async fn measure(
    installation: &Installation,
    away: &Away,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Figures, BenchError> {
    let topic = format!("{}:0", run_name());
    let begin = mark(installation, &topic).await?;
    let meter = Arc::new(Meter::new()?);
    let from_us = meter.now_us();
    let rounds = u32::try_from(away.rounds).unwrap_or(u32::MAX);
    let lasts = (away.away + BETWEEN * 2) * rounds + BETWEEN;
    let pace = Pace::new(meter.clone(), Some(away.rate.into()), from_us, from_us + micros(lasts));
    // The stamp of the last message, once there is one.
    let (last, is_last) = watch::channel(None);
    let publishing = async {
        let mut way = installation.way_in(0).await?;
        let mut stamps = Vec::new();
        while let Some(due) = pace.next().await {
            let data = stamped(due.us, away.bytes);
            way.publish(&[Letter { topic: topic.clone(), data }]).await?;
            stamps.push(due.us);
        }
        last.send_replace(stamps.last().copied());
        Ok::<_, BenchError>(stamps)
    };
    progress(&format!("{} clients are away {} times", away.listeners, away.rounds));
    let listening = async {
        let mut all: FuturesUnordered<_> = (0..away.listeners)
            .map(|place| {
                let watch = Watch { meter: &meter, away, last: is_last.clone() };
                watch.follow(installation, place, &topic, &begin)
            })
            .collect();
        let mut seen = Vec::new();
        while let Some(one) = all.next().await {
            seen.push(one?);
        }
        Ok::<_, BenchError>(seen)
    };
    let (published, seen) = tokio::try_join!(publishing, listening)?;
    figures(&published, &seen)
}

fn figures(published: &[u64], all: &[Seen]) -> Result<Figures, BenchError> {
    let lost = |seen: &Seen| published.iter().filter(|us| !seen.stamps.contains(us)).count();
    let mut figures = Figures::default();
    figures.add("messages", published.len() as f64);
    figures.add("lost", all.iter().map(lost).sum::<usize>() as f64);
    figures.add("doubled", all.iter().map(|seen| seen.doubled).sum::<u64>() as f64);
    let mut tell = |name: &str, pick: fn(&Seen) -> &[Duration]| {
        let mut times = histogram()?;
        all.iter().flat_map(pick).for_each(|t| times.saturating_record(micros(*t)));
        figures.add(format!("{name}_p50_ms"), times.value_at_percentile(50.0) as f64 / 1e3);
        figures.add(format!("{name}_max_ms"), times.max() as f64 / 1e3);
        Ok::<(), BenchError>(())
    };
    tell("first_missed", |seen| &seen.first)?;
    tell("first_missed_after_welcome", |seen| &seen.after_welcome)?;
    tell("caught_up", |seen| &seen.caught_up)?;
    Ok(figures)
}

struct Watch<'a> {
    meter: &'a Meter,
    away: &'a Away,
    last: watch::Receiver<Option<u64>>,
}

impl Watch<'_> {
    async fn follow(
        mut self,
        installation: &Installation,
        place: usize,
        topic: &str,
        begin: &Cursor,
    ) -> Result<Seen, BenchError> {
        let client = installation.client().beginning_with(place);
        let mut tail = client.tail(&[pattern(topic)?], Some(begin.clone())).with_repeats();
        let mut seen = Seen {
            stamps: HashSet::new(),
            doubled: 0,
            first: Vec::new(),
            caught_up: Vec::new(),
            after_welcome: Vec::new(),
        };
        for _ in 0..self.away.rounds {
            self.hear_for(&mut tail, BETWEEN, &mut seen).await?;
            tail.cut();
            sleep(self.away.away).await;
            self.come_back(&mut tail, &mut seen).await?;
        }
        let to_the_end = async {
            loop {
                if self.last.borrow().is_some_and(|last| seen.stamps.contains(&last)) {
                    return Ok(());
                }
                tokio::select! {
                    event = tail.next() => drop(note(&mut seen, &event?)),
                    _ = self.last.changed() => {}
                }
            }
        };
        // Whoever has not had it by then has lost it, which is counted.
        timeout(PATIENCE, to_the_end).await.unwrap_or(Ok::<(), BenchError>(()))?;
        Ok(seen)
    }

    async fn hear_for(
        &self,
        tail: &mut Tail<'_>,
        lasts: Duration,
        seen: &mut Seen,
    ) -> Result<(), BenchError> {
        let hearing = async {
            loop {
                note(seen, &tail.next().await?);
            }
        };
        timeout(lasts, hearing).await.unwrap_or(Ok(()))
    }

    async fn come_back(&self, tail: &mut Tail<'_>, seen: &mut Seen) -> Result<(), BenchError> {
        let (began, began_us) = (Instant::now(), self.meter.now_us());
        let (mut welcomed, mut first) = (None, None);
        let coming = async {
            loop {
                let event = tail.next().await?;
                if matches!(event, Event::Connected { .. }) {
                    welcomed = Some(Instant::now());
                }
                let Some(us) = note(seen, &event) else { continue };
                first.get_or_insert_with(Instant::now);
                if us >= began_us {
                    return Ok::<_, BenchError>(Instant::now());
                }
            }
        };
        let late = |_| BenchError::Failed("a client did not come back in time".to_owned());
        let caught_up = timeout(PATIENCE, coming).await.map_err(late)??;
        if let (Some(welcomed), Some(first)) = (welcomed, first) {
            seen.first.push(first.duration_since(began));
            seen.after_welcome.push(first.duration_since(welcomed));
        }
        seen.caught_up.push(caught_up.duration_since(began));
        Ok(())
    }
}

/// The stamp of a message, which it puts into the books.
fn note(seen: &mut Seen, event: &Event) -> Option<u64> {
    let Event::Message(received) = event else { return None };
    let us = stamp_of(&received.data)?;
    seen.doubled += u64::from(!seen.stamps.insert(us));
    Some(us)
}
