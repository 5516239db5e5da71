//! Messages to listeners who are there: fan-out, unicast, and everything between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered};
use futures_util::{StreamExt, TryStreamExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::meter::{micros, stamped};
use super::pace::Pace;
use super::{BenchError, Contender, Figures, Letter, Meter, Processes, Stream, WayIn, run_name};

/// How many connections are opened at the same time.
pub(super) const OPENED_AT_ONCE: usize = 64;

/// How long after the last message stragglers are waited for.
const STRAGGLERS: Duration = Duration::from_secs(15);

/// Between everybody being there and the first message.
const LEAD: Duration = Duration::from_millis(200);

/// How often it is looked whether there is room, or all is there.
const LOOK: Duration = Duration::from_millis(1);

struct Run<'a> {
    stream: &'a Stream,
    name: String,
    meter: Arc<Meter>,
    /// Taken for good, and how many deliveries that makes; written by the publishers.
    accepted: AtomicU64,
    expected: AtomicU64,
}

/// How far it had come at a moment.
struct Mark {
    at: Instant,
    accepted: u64,
    heard: u64,
}

pub async fn measure(
    contender: &dyn Contender,
    stream: &Stream,
    processes: &Processes,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Figures, BenchError> {
    let run = Run {
        stream,
        name: run_name(),
        meter: Arc::new(Meter::new()?),
        accepted: AtomicU64::new(0),
        expected: AtomicU64::new(0),
    };
    let topic = |place: usize| run.topic(place % stream.topics);
    let mut listeners = listeners(contender, stream.listeners, topic, &run.meter).await?;
    let ways: Vec<Box<dyn WayIn>> = stream::iter(0..stream.publishers)
        .map(|place| contender.way_in(place))
        .buffer_unordered(OPENED_AT_ONCE)
        .try_collect()
        .await?;
    let telling = async {
        let mut second = interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            progress(&run.progress());
        }
    };
    let lost = async {
        match listeners.join_next().await {
            Some(Ok(error)) => error,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        figures = run.conduct(ways, processes) => figures,
        error = lost => Err(BenchError::Failed(format!("a listener was lost: {error}"))),
        () = telling => Err(BenchError::Failed("nobody tells any more".to_owned())),
    }
}

/// Opens so many and lets each tell the meter what it hears. They end when the set is dropped.
pub(super) async fn listeners(
    contender: &dyn Contender,
    count: usize,
    topic: impl Fn(usize) -> String,
    meter: &Arc<Meter>,
) -> Result<JoinSet<BenchError>, BenchError> {
    let mut set = JoinSet::new();
    let mut opening = stream::iter(0..count)
        .map(|place| {
            let topic = topic(place);
            async move { contender.way_out(place, &topic).await.map(|way| (place, way)) }
        })
        .buffer_unordered(OPENED_AT_ONCE);
    while let Some(opened) = opening.next().await {
        let (place, way) = opened?;
        let meter = meter.clone();
        set.spawn(async move {
            let heard = |text: &str| {
                meter.heard(place, text);
            };
            way.hear(&heard).await
        });
    }
    Ok(set)
}

impl Run<'_> {
    async fn conduct(
        &self,
        ways: Vec<Box<dyn WayIn>>,
        processes: &Processes,
    ) -> Result<Figures, BenchError> {
        let stream = self.stream;
        let from_us = self.meter.now_us() + micros(LEAD);
        let measured_us = from_us + micros(stream.warm_up);
        let until_us = measured_us + micros(stream.lasts);
        self.meter.measure(measured_us, until_us);
        let requests_per_s = stream.rate.map(|rate| f64::from(rate) / stream.batch as f64);
        let pace = Pace::new(self.meter.clone(), requests_per_s, from_us, until_us);
        let publishing = async {
            let mut all: FuturesUnordered<_> =
                ways.into_iter().map(|way| self.publish(way, &pace)).collect();
            while let Some(published) = all.next().await {
                published?;
            }
            Ok::<(), BenchError>(())
        };
        let watching = async {
            sleep_until(self.meter.instant(measured_us)).await;
            let (begun, spent) = (self.mark(), processes.spent());
            sleep_until(self.meter.instant(until_us)).await;
            (begun, spent, self.mark())
        };
        let (published, (begun, spent, ended)) = tokio::join!(publishing, watching);
        published?;
        self.stragglers().await;
        let mut figures = Figures::default();
        let lasted_s = ended.at.duration_since(begun.at).as_secs_f64();
        figures.add("messages_per_s", (ended.accepted - begun.accepted) as f64 / lasted_s);
        figures.add("deliveries_per_s", (ended.heard - begun.heard) as f64 / lasted_s);
        self.meter.tell(&mut figures);
        let (end, expected) = (self.mark(), self.expected.load(Ordering::Relaxed));
        figures.add("lost", expected.saturating_sub(end.heard) as f64);
        processes.tell(&spent, end.heard - begun.heard, "delivery", &mut figures);
        if stream.topics == 1 {
            return Ok(figures);
        }
        let (_, sum) = processes.since(&spent);
        figures.add("cpu_us_per_message", sum * 1e6 / (end.accepted - begun.accepted) as f64);
        Ok(figures)
    }

    async fn publish(&self, mut way: Box<dyn WayIn>, pace: &Pace) -> Result<(), BenchError> {
        let Stream { topics, bytes, batch, .. } = *self.stream;
        let mut letters = Vec::with_capacity(batch);
        loop {
            self.room().await;
            let Some(due) = pace.next().await else { return Ok(()) };
            let mut deliveries = 0;
            letters.clear();
            for place in 0..batch {
                let number = due.number.wrapping_mul(batch as u64).wrapping_add(place as u64);
                let topic = usize::try_from(number % topics as u64).unwrap_or_default();
                deliveries += self.listeners_of(topic);
                let (topic, data) = (self.topic(topic), stamped(due.us, bytes));
                letters.push(Letter { topic, data });
            }
            way.publish(&letters).await?;
            self.accepted.fetch_add(batch as u64, Ordering::Relaxed);
            self.expected.fetch_add(deliveries as u64, Ordering::Relaxed);
        }
    }

    /// Where no rate is given: waits while too many are under way to listeners.
    async fn room(&self) {
        if self.stream.rate.is_some() {
            return;
        }
        let each = (self.stream.listeners / self.stream.topics).max(1);
        let most = (self.stream.window * each) as u64;
        while self.expected.load(Ordering::Relaxed) > self.meter.heard_count() + most {
            sleep(LOOK).await;
        }
    }

    async fn stragglers(&self) {
        let deadline = Instant::now() + STRAGGLERS;
        while self.meter.heard_count() < self.expected.load(Ordering::Relaxed)
            && Instant::now() < deadline
        {
            sleep(LOOK).await;
        }
    }

    fn topic(&self, number: usize) -> String {
        format!("{}:{number}", self.name)
    }

    fn listeners_of(&self, topic: usize) -> usize {
        let Stream { listeners, topics, .. } = *self.stream;
        listeners / topics + usize::from(topic < listeners % topics)
    }

    fn mark(&self) -> Mark {
        let accepted = self.accepted.load(Ordering::Relaxed);
        Mark { at: Instant::now(), accepted, heard: self.meter.heard_count() }
    }

    fn progress(&self) -> String {
        let Mark { accepted, heard, .. } = self.mark();
        format!("{accepted} messages, {heard} deliveries")
    }
}
