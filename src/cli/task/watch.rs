//! `tidings task watch`: one line that moves on a terminal, a line for each change elsewhere.
//!
//! It follows the task's topic, and asks how the task stands whenever it has connected or was told
//! that something may be missing: a task that ended meanwhile says nothing any more. Of two answers
//! the one with the higher seq is the newer.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::{Id, Patience, counted, one_line};
use crate::cli::failure::Failure;
use crate::cli::output::{answer, say};
use crate::client::{Client, ClientError, Event, Items, Task};
use crate::domain::{Pattern, TaskId, TaskStatus};

/// A replica that goes away is waited for.
const BACK_WITHIN: Duration = Duration::from_secs(86_400);

/// How many items that failed are named at the end.
const FAILED_SHOWN: usize = 20;

const BAR_WIDTH: u64 = 30;

#[derive(Args, Debug)]
pub struct Watch {
    #[command(flatten)]
    id: Id,
    /// Prints the task as JSON with each change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Watch {
    pub async fn run(&self) -> Result<ExitCode, Failure> {
        let client = self.patience.server.client()?;
        follow(&client, &self.id.id, self.patience.within(), self.json).await
    }
}

/// Follows a task to its end; the exit code says what that was.
pub async fn follow(
    client: &Client,
    id: &TaskId,
    within: Duration,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut screen = Screen { seq: 0, json, moves: !json && std::io::stdout().is_terminal() };
    let topic = Pattern::parse(id.topic().as_str()).map_err(Failure::failed)?;
    let topics = [topic];
    let mut tail = client.tail(&topics, None);
    let deadline = Instant::now() + within;
    let mut connected = false;
    let last = loop {
        let task = match tail.next().await? {
            event @ (Event::Connected { .. } | Event::Reset { .. }) => {
                if matches!(event, Event::Reset { .. }) {
                    screen.seq = 0;
                }
                let patience = if connected { BACK_WITHIN } else { within };
                connected = true;
                Some(client.task(id, patience).await?)
            }
            Event::Message(message) if message.topic == id.topic().as_str() => {
                Task::read(&message.data)
            }
            // An address that is wrong is not tried for ever.
            Event::Lost { reason, .. } if !connected && Instant::now() >= deadline => {
                return Err(ClientError::GaveUp { reason, within }.into());
            }
            Event::Lost { reason, pause } => {
                screen.beside(&format!("{reason}; trying again in {:.1} s", pause.as_secs_f32()));
                None
            }
            Event::TokenExpires => {
                screen.beside("the token expires within 30 s; a new one needs a new start");
                None
            }
            _ => None,
        };
        // What was asked for may come again as a message, and what came before it as well.
        let Some(task) = task.filter(|task| task.seq > screen.seq) else { continue };
        screen.show(&task);
        if task.ended().is_some() {
            break task;
        }
    };
    screen.end();
    if last.failed > 0 && !json {
        // What the task counts is true; that its items can be named is a courtesy.
        let which = Items { status: Some("failed".to_owned()), after: None };
        let failed = client.task_items(id, &which, FAILED_SHOWN, within).await;
        if let Ok((failed, more)) = failed {
            for item in &failed {
                let error = item.error.as_deref().unwrap_or("failed");
                say(format!("{}: {}", item.name, one_line(error)));
            }
            if more {
                let all = format!("tidings task items {id} --status failed");
                say(format!("{} items failed; `{all}` names them all", last.failed));
            }
        }
    }
    if let Some(error) = &last.error {
        say(one_line(error));
    }
    // 1 is trouble on the way, and 2 a command that was misused.
    Ok(ExitCode::from(match last.ended() {
        Some(TaskStatus::Completed) => 0,
        Some(TaskStatus::Partial) => 3,
        Some(TaskStatus::Failed) => 4,
        Some(TaskStatus::Cancelled) => 5,
        Some(TaskStatus::Interrupted) => 6,
        _ => 1,
    }))
}

/// Where the progress is shown.
struct Screen {
    /// Of what is shown.
    seq: u64,
    json: bool,
    /// It is a terminal, whose line is written again and again.
    moves: bool,
}

impl Screen {
    fn show(&mut self, task: &Task) {
        self.seq = task.seq;
        if self.json {
            answer(&task.text);
        } else if self.moves {
            let filled = BAR_WIDTH * task.current / task.total.max(1);
            let bar: String =
                (0..BAR_WIDTH).map(|place| if place < filled { '#' } else { '.' }).collect();
            self.write(&format!("\r\x1b[K[{bar}] {}", line(task)));
        } else {
            answer(line(task));
        }
    }

    fn beside(&self, text: &str) {
        if self.moves {
            self.write("\r\x1b[K");
        }
        say(text);
    }

    fn end(&self) {
        if self.moves {
            self.write("\n");
        }
    }

    /// Who no longer looks is no reason to end: the exit code may be all that is wanted.
    fn write(&self, text: &str) {
        let mut out = std::io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

fn line(task: &Task) -> String {
    format!("{} {}", task.status, counted(task))
}
