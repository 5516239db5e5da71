//! Notices to users who are away, taken at a rate, and delivered when everybody comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::meter::{Meter, histogram, micros, stamp_of, stamped, tell};
use super::pace::Pace;
use super::stream::OPENED_AT_ONCE;
use super::{BenchError, Figures, Installation, Notices, Processes, run_name};
use crate::client::{Listening, Posting};

/// Whoever has not got everything by then does not get it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between everybody being there and the first notice.
const LEAD: Duration = Duration::from_millis(50);

pub async fn measure(
    installation: &Installation,
    notices: &Notices,
    processes: &Processes,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Figures, BenchError> {
    let name = run_name();
    let user = |place: usize| format!("{name}:{}", place % notices.users);
    let meter = Arc::new(Meter::new()?);
    let mut figures = Figures::default();
    progress(&format!("notices to {} users who are away", notices.users));
    let ways: Vec<Posting> = stream::iter(0..notices.publishers)
        .map(|place| installation.client().posting(place, "/v1/notices"))
        .buffer_unordered(OPENED_AT_ONCE)
        .try_collect()
        .await?;
    let (before, from_us) = (processes.spent(), meter.now_us() + micros(LEAD));
    let until_us = from_us + micros(notices.lasts);
    let pace = Pace::new(meter.clone(), Some(f64::from(notices.rate)), from_us, until_us);
    let mut sending: FuturesUnordered<_> =
        ways.into_iter().map(|way| send(way, &pace, &meter, notices.bytes, &user)).collect();
    let mut latencies = histogram()?;
    let mut sent = 0;
    while let Some(one) = sending.next().await {
        let (own, accepted) = one?;
        latencies.add(&own).map_err(|error| BenchError::Failed(error.to_string()))?;
        sent += accepted;
    }
    let took_s = meter.now_us().saturating_sub(from_us) as f64 / 1e6;
    figures.add("accepted_per_s", sent as f64 / took_s);
    tell(&latencies, "accepted_", &mut figures);
    processes.tell(&before, sent as u64, "notice", &mut figures);
    progress(&format!("{} users come", notices.users));
    let (began, each) = (Instant::now(), |place: usize| missed(sent, notices.users, place));
    let mut came = stream::iter(0..notices.users)
        .map(|place| {
            let user = user(place);
            async move {
                let coming = come(installation, place, &user, each(place));
                let late = |_| BenchError::Failed(format!("{user} was not given all in time"));
                timeout(PATIENCE, coming).await.map_err(late)?
            }
        })
        .buffer_unordered(OPENED_AT_ONCE);
    // All stay until the last one has everything.
    let mut open = Vec::with_capacity(notices.users);
    while let Some(one) = came.next().await {
        open.push(one?);
    }
    let all_s = began.elapsed().as_secs_f64();
    figures.add("notices", sent as f64);
    figures.add("delivered_all_ms", all_s * 1e3);
    figures.add("delivered_per_s", sent as f64 / all_s);
    Ok(figures)
}

/// Sends until the time is over: how long each took from when it was meant to leave, and how many.
async fn send(
    mut way: Posting,
    pace: &Pace,
    meter: &Meter,
    bytes: usize,
    user: &(dyn Fn(usize) -> String + Sync),
) -> Result<(Histogram<u64>, usize), BenchError> {
    let (mut latencies, mut sent) = (histogram()?, 0);
    while let Some(due) = pace.next().await {
        let place = usize::try_from(due.number).unwrap_or_default();
        let notice = json!({
            "target": {"users": [user(place)]}, "title": "bench", "content": stamped(due.us, bytes),
        });
        way.post(Bytes::from(notice.to_string())).await?;
        latencies.saturating_record(meter.now_us().saturating_sub(due.us).max(1));
        sent += 1;
    }
    Ok((latencies, sent))
}

/// Numbers go round among the users.
fn missed(sent: usize, users: usize, place: usize) -> usize {
    sent / users + usize::from(place < sent % users)
}

/// A session that has everything which was missed, and nothing twice.
async fn come(
    installation: &Installation,
    place: usize,
    user: &str,
    missed: usize,
) -> Result<Listening, BenchError> {
    let mut listening = installation.user(user)?.listen(place, &[], None).await?;
    let mut stamps = Vec::with_capacity(missed);
    while stamps.len() < missed {
        let text = listening.next().await?;
        if text.contains("\"kind\":\"notice\"") {
            // The stamp stands in a text within the frame.
            stamps.push(stamp_of(&text.replace("\\\"", "\"")));
        }
    }
    let in_order = stamps.is_sorted();
    stamps.dedup();
    match in_order && stamps.len() == missed {
        true => Ok(listening),
        false => {
            Err(BenchError::Failed(format!("{user} was given something twice or out of turn")))
        }
    }
}
