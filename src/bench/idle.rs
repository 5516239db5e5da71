//! Connections that hear nothing: what opening one costs, what one weighs, and what all of them cost
//! while nothing happens.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::stream::listeners;
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
    let mut set = listeners(contender, idle.connections, topic, &meter).await?;
    let took_s = began.elapsed().as_secs_f64();
    let count = idle.connections as f64;
    let mut figures = Figures::default();
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
    }
    for (group, spent) in processes.since(&quiet).0 {
        figures.add(format!("idle_{group}_percent"), 100.0 * spent / idle.lasts.as_secs_f64());
    }
    Ok(figures)
}
