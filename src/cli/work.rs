//! `tidings work`: a worker for tasks of the executor `external`, which runs a command for each item.
//!
//! ```text
//!   claim (long poll) ──▶ job: items in hand, each a command ──▶ reports renew the lease
//!     ▲                                                                  │
//!     └──────────── finished, let go of, or lost to somebody else ◀──────┘
//! ```
//! It has one task at a time. SIGTERM or SIGINT: what is in hand is finished and reported, the rest
//! is let go of for another worker. A second one ends it at once, and its commands with it.

mod command;
mod job;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::command::Template;
use self::job::{Ended, Job};
use super::failure::Failure;
use super::output::say;
use super::server::Server;
use crate::client::{Claim, Client};

pub const ABOUT: &str = "Works on tasks of the executor external: runs a command for each item";

/// How long one claim waits; below what one attempt of a request may take.
const WAIT_S: u64 = 10;

/// Replicas that are away are waited for.
const BACK_WITHIN: Duration = Duration::from_secs(86_400);

/// Ended by a second signal, as a shell would say it.
const TOLD_TWICE: u8 = 130;

#[derive(Args, Debug)]
pub struct Work {
    /// Which tasks; may come several times
    #[arg(long = "action", value_name = "ACTION", required = true)]
    actions: Vec<String>,
    /// How many items at once, if the task allows so many
    #[arg(long, value_name = "ITEMS", default_value = "10",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: u32,
    /// After so long without a word from us another worker takes over
    #[arg(long, value_name = "SECONDS", default_value = "30",
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    lease_s: u64,
    /// What the task says has it; the process and its number unless given
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// The command is one text for `sh -c`, in which the item is "$TIDINGS_ITEM"
    #[arg(long)]
    shell: bool,
    #[command(flatten)]
    server: Server,
    /// What is run; `{item}` becomes the item's name
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Work {
    pub async fn run(&self) -> Result<ExitCode, Failure> {
        let template = Template::new(&self.command, self.shell).map_err(Failure::misused)?;
        let client = self.server.client()?;
        let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(interrupt), Ok(terminate)) = signals else {
            return Err(Failure::failed("signals cannot be watched"));
        };
        let leaving = CancellationToken::new();
        tokio::select! {
            ended = self.claims(&client, &template, &leaving) => ended,
            () = told_twice(interrupt, terminate, &leaving) => Ok(ExitCode::from(TOLD_TWICE)),
        }
    }

    async fn claims(
        &self,
        client: &Client,
        template: &Template,
        leaving: &CancellationToken,
    ) -> Result<ExitCode, Failure> {
        let worker = self.worker.clone().unwrap_or_else(|| format!("work-{}", std::process::id()));
        let claim =
            Claim { actions: self.actions.clone(), worker, lease_s: self.lease_s, wait_s: WAIT_S };
        let lease_for = Duration::from_secs(self.lease_s);
        say(format!("waiting for tasks as {}", claim.worker));
        loop {
            // When it was asked for: a lease cannot have begun before.
            let asked_at = Instant::now();
            let claimed = tokio::select! {
                claimed = client.task_claim(&claim, BACK_WITHIN) => claimed?,
                () = leaving.cancelled() => return Ok(ExitCode::SUCCESS),
            };
            let Some(lease) = claimed else { continue };
            let id = lease.task.id.clone();
            let left = lease.task.total - lease.task.current.min(lease.task.total);
            say(format!("task {id}: {left} items to do"));
            let job = Job::new(client, template, lease, self.concurrency, asked_at, lease_for);
            let job = job.ok_or_else(|| Failure::failed("the server gave an id that is none"))?;
            match job.run(leaving).await {
                Ended::Finished(task) => {
                    say(format!("task {id}: {}, {} failed", task.status, task.failed));
                }
                Ended::LetGo(status) => say(format!("task {id}: let go of, it is {status}")),
                Ended::Lost(reason) => say(format!("task {id}: {reason}")),
            }
            if leaving.is_cancelled() {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// Resolves with the second signal; the first one is passed on.
async fn told_twice(mut interrupt: Signal, mut terminate: Signal, leaving: &CancellationToken) {
    for _ in 0..2 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if !leaving.is_cancelled() {
            say("leaving: what is in hand is finished first; a second signal ends it now");
            leaving.cancel();
        }
    }
}
