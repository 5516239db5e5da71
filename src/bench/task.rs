//! One task with many items that take no time: what the books of it cost.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::installation::pattern;
use super::{BenchError, Figures, Installation, Processes, run_name};
use crate::client::{Event, Submission, Task};
use crate::domain::TaskStatus;

const PATIENCE: Duration = Duration::from_secs(120);

pub async fn measure(
    installation: &Installation,
    task: &super::Task,
    processes: &Processes,
) -> Result<Figures, BenchError> {
    let (client, name) = (installation.client(), run_name());
    let raw = |text: String| {
        RawValue::from_string(text).map_err(|error| BenchError::Failed(error.to_string()))
    };
    let items: Result<Vec<_>, _> = (0..task.items).map(|n| raw(format!("\"{n}\""))).collect();
    let submission = Submission {
        action: "bench".to_owned(),
        items: items?,
        executor: raw("{\"type\":\"simulate\",\"delay_ms\":[0,0]}".to_owned())?,
        owner: None,
        concurrency: Some(task.concurrency),
        retries: None,
        item_timeout_s: None,
        at_most_once: None,
        meta: None,
        notice: None,
        idempotency_key: name,
    };
    let (before, began) = (processes.spent(), Instant::now());
    let submitted = client.task_submit(&submission, PATIENCE).await?;
    let accepted = began.elapsed();
    let mut tail = client.tail(&[pattern(&format!("task:{}", submitted.id))?], None);
    let mut told = 0_u64;
    let finishing = async {
        loop {
            let Event::Message(received) = tail.next().await? else { continue };
            told += 1;
            let read = Task::read(&received.data);
            if let Some(read) = read.filter(|task| task.ended().is_some()) {
                return Ok::<_, BenchError>(read);
            }
        }
    };
    let late = |_| BenchError::Failed("the task was not over in time".to_owned());
    let finished = timeout(PATIENCE, finishing).await.map_err(late)??;
    let took_s = began.elapsed().as_secs_f64();
    if finished.ended() != Some(TaskStatus::Completed) {
        return Err(BenchError::Failed(format!("the task ended as {}", finished.status)));
    }
    let mut figures = Figures::default();
    figures.add("submit_ms", accepted.as_secs_f64() * 1e3);
    figures.add("all_ms", took_s * 1e3);
    figures.add("items_per_s", task.items as f64 / took_s);
    figures.add("messages_told", told as f64);
    processes.tell(&before, task.items as u64, "item", &mut figures);
    Ok(figures)
}
