//! Connections that hear nothing: how long opening one takes and what it costs, what one weighs, and
//! what all of them cost while nothing happens.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::meter::{histogram, micros, tell};
use super::stream::{hearing, listeners};
use super::{BenchError, Contender, Figures, Idle, Meter, Processes, run_name};

pub async fn measure(
    contender: &dyn Contender,
    idle: &Idle,
    processes: &Processes,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Figures, BenchError> {
    let meter = Arc::new(Meter::new()?);
    let name = run_name();
    progress(&format!("opening {} connections", idle.connections));
    let (before_kib, before) = (processes.memory_kib(), processes.spent());
    let began = Instant::now();
    let topic = |place| format!("{name}:{place}");
    let mut figures = Figures::default();
    let mut set = match idle.rate {
        None => listeners(contender, idle.connections, topic, &meter).await?,
        Some(rate) => paced(contender, idle.connections, rate, topic, &meter, &mut figures).await?,
    };
    let took_s = began.elapsed().as_secs_f64();
    let count = idle.connections as f64;
    figures.add("connects_per_s", count / took_s);
    processes.tell(&before, idle.connections as u64, "connect", &mut figures);
    progress(&format!("{} connections, idle", idle.connections));
    let quiet = processes.spent();
    tokio::select! {
        () = sleep(idle.lasts) => {}
        Some(Ok(error)) = set.join_next() => return Err(error),
    }
    if let (Some(before), Some(after)) = (before_kib, processes.memory_kib()) {
        figures.add("memory_kib_per_connection", (after - before) / count);
        figures.add("memory_mib", after / 1_024.0);
    }
    for (group, spent) in processes.since(&quiet).0 {
        figures.add(format!("idle_{group}_percent"), 100.0 * spent / idle.lasts.as_secs_f64());
    }
    Ok(figures)
}

/// Each is opened at its time, however long those before it take, and charged from then on.
async fn paced(
    contender: &dyn Contender,
    count: usize,
    rate: u32,
    topic: impl Fn(usize) -> String,
    meter: &Arc<Meter>,
    figures: &mut Figures,
) -> Result<JoinSet<BenchError>, BenchError> {
    let from = Instant::now();
    let mut opening: FuturesUnordered<_> = (0..count)
        .map(|place| {
            let due = from + Duration::from_secs_f64(place as f64 / f64::from(rate));
            let topic = topic(place);
            async move {
                sleep_until(due).await;
                let way = contender.way_out(place, &topic).await?;
                Ok::<_, BenchError>((place, way, due.elapsed()))
            }
        })
        .collect();
    let (mut set, mut latencies) = (JoinSet::new(), histogram()?);
    while let Some(opened) = opening.next().await {
        let (place, way, took) = opened?;
        latencies.saturating_record(micros(took).max(1));
        set.spawn(hearing(way, place, meter.clone()));
    }
    tell(&latencies, "connect_", figures);
    Ok(set)
}
