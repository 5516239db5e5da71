//! `tidings task`: operations on many items, submitted, watched and changed from a shell.

mod run;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::answer;
use super::server::Server;
use crate::client::{Items, Task, Tasks, Wish};
use crate::domain::TaskId;

pub const ABOUT: &str = "Submits operations on many items, shows and changes them";

#[derive(Subcommand, Debug)]
pub enum TaskCommand {
    /// Submits a task and prints its id
    Run(Box<run::Run>),
    /// Lists tasks, the newest first: id, status, how many items are done, action, owner, since when
    List(List),
    /// Shows a task as it stands
    Show(One),
    /// Follows a task to its end, whatever happens to replicas; ends with 0 if it is completed, 3 if partial, 4 failed, 5 cancelled, 6 interrupted
    Watch(watch::Watch),
    /// Lists the items of a task in the order of submission: name, status, error
    Items(ItemsOf),
    /// Ends a task, once what is in hand is finished
    Cancel(One),
    /// Lets a task finish what is in hand and no more
    Pause(One),
    /// Lets a paused task go on
    Resume(One),
    /// Runs what failed or was cancelled again, as the next attempt
    Retry(One),
}

#[derive(Args, Debug)]
pub struct List {
    /// Only those with this status
    #[arg(long)]
    status: Option<String>,
    /// Only those of this user
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Only those that do this
    #[arg(long)]
    action: Option<String>,
    /// How many at most
    #[arg(long, value_name = "TASKS", default_value = "100")]
    limit: usize,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Args, Debug)]
pub struct ItemsOf {
    #[command(flatten)]
    id: Id,
    /// Only those with this status; `unfinished` are those that are not finished
    #[arg(long)]
    status: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// A command that is about one task and needs nothing else.
#[derive(Args, Debug)]
pub struct One {
    #[command(flatten)]
    id: Id,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Args, Debug)]
struct Id {
    /// The id of a task
    #[arg(value_name = "ID", value_parser = id)]
    id: TaskId,
}

#[derive(Args, Debug)]
struct Asked {
    /// Prints the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
}

/// Whom to ask, and how long.
#[derive(Args, Debug)]
struct Patience {
    /// How long to try
    #[arg(long, value_name = "SECONDS", default_value = "30",
        value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout_s: u64,
    #[command(flatten)]
    server: Server,
}

impl Patience {
    fn within(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

impl TaskCommand {
    pub async fn run(&self) -> Result<ExitCode, Failure> {
        match self {
            TaskCommand::Run(run) => return run.run().await,
            TaskCommand::Watch(watch) => return watch.run().await,
            TaskCommand::List(list) => list.run().await?,
            TaskCommand::Items(items) => items.run().await?,
            TaskCommand::Show(one) => one.show().await?,
            TaskCommand::Cancel(one) => one.wish(Wish::Cancel).await?,
            TaskCommand::Pause(one) => one.wish(Wish::Pause).await?,
            TaskCommand::Resume(one) => one.wish(Wish::Resume).await?,
            TaskCommand::Retry(one) => one.wish(Wish::Retry).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(&self) -> Result<(), Failure> {
        let client = self.asked.patience.server.client()?;
        let mut which = Tasks {
            status: self.status.clone(),
            owner: self.owner.clone(),
            action: self.action.clone(),
            after: None,
        };
        let mut left = self.limit;
        while left > 0 {
            let page = client.tasks(&which, left, self.asked.patience.within()).await;
            let (tasks, more) = page?;
            left -= tasks.len().min(left);
            which.after = tasks.last().map(|task| task.id.clone());
            for task in &tasks {
                self.asked.show(task);
            }
            if !more || which.after.is_none() {
                break;
            }
        }
        Ok(())
    }
}

impl ItemsOf {
    async fn run(&self) -> Result<(), Failure> {
        let client = self.asked.patience.server.client()?;
        let mut which = Items { status: self.status.clone(), after: None };
        loop {
            let asked = client.task_items(&self.id.id, &which, usize::MAX, self.within()).await;
            let (items, more) = asked?;
            for item in &items {
                if self.asked.json {
                    answer(&item.text);
                } else {
                    let error = item.error.as_deref().unwrap_or_default();
                    answer(format!("{}\t{}\t{}", item.name, item.status, one_line(error)));
                }
            }
            which.after = items.last().map(|item| item.name.clone());
            if !more || which.after.is_none() {
                return Ok(());
            }
        }
    }

    fn within(&self) -> Duration {
        self.asked.patience.within()
    }
}

impl One {
    async fn show(&self) -> Result<(), Failure> {
        let client = self.asked.patience.server.client()?;
        let task = client.task(&self.id.id, self.asked.patience.within()).await?;
        if self.asked.json {
            answer(&task.text);
        } else {
            answer(described(&task));
        }
        Ok(())
    }

    async fn wish(&self, wish: Wish) -> Result<(), Failure> {
        let client = self.asked.patience.server.client()?;
        let task = client.task_wish(&self.id.id, wish, self.asked.patience.within()).await?;
        self.asked.show(&task);
        Ok(())
    }
}

impl Asked {
    /// A task as a line.
    fn show(&self, task: &Task) {
        if self.json {
            return answer(&task.text);
        }
        let owner = task.owner.as_deref().unwrap_or("-");
        answer(format!(
            "{}\t{}\t{}/{}\t{}\t{owner}\t{}",
            task.id, task.status, task.current, task.total, task.action, task.created_at
        ));
    }
}

/// A task, a line for what is worth one.
fn described(task: &Task) -> String {
    let mut text = format!("{}\n", task.id);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<9} {}\n", one_line(value)));
        }
    };
    line("action", &task.action);
    line("owner", task.owner.as_deref().unwrap_or_default());
    line("status", &task.status);
    line("items", &counted(task));
    line("attempt", &task.attempt.to_string());
    line("error", task.error.as_deref().unwrap_or_default());
    line("message", task.message.as_deref().unwrap_or_default());
    line("in hand", &task.in_flight.join(", "));
    line("run by", task.replica.as_deref().unwrap_or_default());
    line("created", &task.created_at);
    line("finished", task.finished_at.as_deref().unwrap_or_default());
    text.pop();
    text
}

/// How far it is, and what became of that.
fn counted(task: &Task) -> String {
    let mut text = format!("{}/{} ({} %)", task.current, task.total, task.progress);
    for (count, what) in [(task.failed, "failed"), (task.cancelled, "cancelled")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

/// What others wrote, without what would break a line or move about on a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn id(text: &str) -> Result<TaskId, String> {
    TaskId::parse(text).ok_or_else(|| "an id is what `tidings task run` printed".to_owned())
}
