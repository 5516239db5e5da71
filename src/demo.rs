//! `tidings demo`: three replicas over one Postgres, on this machine, for as long as one looks at them.
//!
//! The demo finds or makes a Postgres, starts three replicas as processes of this very program, puts
//! one address before them, lets some users and tasks move, says what to try, starts again what is
//! killed, and takes everything away at the end. It needs no token,
//! since every line to try would carry one: the replicas run with `--dev`, on loopback only.
//!
//! ```text
//!   front ──────────bytes─▶ whichever is ready
//!                 ┌─stdin─▶ replica-1 ──┐
//!   demo ─────────┼─stdin─▶ replica-2 ──┼─▶ Postgres
//!     │           └─stdin─▶ replica-3 ──┘       ▲ starts, stops
//!     ├─────────────stdin─▶ sh (see `cluster`) ─┘
//!     └─ edge, a stream of telemetry ◀─ whichever replica reads it
//! ```
//! Whatever ends the demo, Ctrl-C or `kill -9`, ends its pipes, and everything that hangs on one of
//! them leaves by itself: no end depends on the demo being there to ask for it.

mod check;
mod database;
mod edge;
mod front;
mod guide;
mod kill;
mod life;
mod replica;

use std::io::Write;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use futures_util::FutureExt;
use futures_util::future::{join_all, try_join_all};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::database::Database;
use self::edge::Edge;
use self::front::Front;
use self::replica::Replica;
use crate::cluster::ClusterError;

/// The port of the first replica if it is free; the others follow it.
const PORT: u16 = 8081;

const REPLICAS: u16 = 3;

/// What a replica is told that hangs on our pipe: it leaves when its standard input ends.
pub const LEAVE_WITH_STDIN: &str = "leave-with-stdin";
const LEAVE_WITH_STDIN_FLAG: &str = "--leave-with-stdin";

/// How long `--check` waits for the replicas: a private Postgres is there within seconds.
const CHECK_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Postgres(#[from] ClusterError),
    #[error("signals cannot be watched, so the demo could not be ended: {0}")]
    Signals(std::io::Error),
    #[error("a replica could not be started: {0}")]
    Program(std::io::Error),
    #[error("{name} ended {times} times before it listened; what it said stands above")]
    Replica { name: String, times: u32 },
    #[error("no free port was found on 127.0.0.1 for {0}: stop some servers")]
    NoPort(String),
    #[error("{0}")]
    Kill(String),
    #[error("the check failed: {0}")]
    Check(String),
    #[error("the thread that ran Postgres's commands panicked")]
    Thread,
}

pub fn command() -> Command {
    let check = Arg::new("check")
        .long("check")
        .action(ArgAction::SetTrue)
        .help("Sends a message from every replica to every other, says so, and ends");
    let still = Arg::new("still")
        .long("still")
        .action(ArgAction::SetTrue)
        .help("Nothing moves by itself: no users, no tasks, no messages but yours");
    Command::new("demo")
        .about("Three replicas over one Postgres, with addresses and what to try")
        .arg(check)
        .arg(still)
        .subcommand(kill::command())
}

/// The flag of `serve` that the demo's replicas are given.
pub fn leave_with_stdin() -> Arg {
    Arg::new(LEAVE_WITH_STDIN).long(LEAVE_WITH_STDIN).action(ArgAction::SetTrue).hide(true)
}

/// Runs until it is told to end, and returns when nothing is left of it.
pub async fn run(matches: &ArgMatches) -> Result<(), DemoError> {
    if let Some(("kill", matches)) = matches.subcommand() {
        return kill::run(matches).await;
    }
    let mut signals = Signals::watch().map_err(DemoError::Signals)?;
    let database = tokio::select! {
        database = Database::find() => database?,
        // What is being started hangs on our pipe and ends with us.
        () = signals.next() => return Ok(()),
    };
    let edge = Edge::bind().await?;
    let made = |number| Replica::new(number, PORT - 1 + number, &database, edge.host());
    let replicas: Vec<Replica> = (1..=REPLICAS).map(made).collect();
    let leave = CancellationToken::new();
    let mut lives = Box::pin(try_join_all(replicas.iter().map(|replica| replica.live(&leave))));
    let shown = async {
        let all_ready = join_all(replicas.iter().map(Replica::ready));
        if matches.get_flag("check") {
            let checked = all_ready.then(|_| check::run(&replicas));
            return timeout(CHECK_WITHIN, checked).await.unwrap_or_else(|_| Err(late()));
        }
        all_ready.await;
        let front = Front::bind().await?;
        let url = front.url();
        guide::show(&replicas, &database, &url, &edge.url()).await;
        let life = async {
            if matches.get_flag("still") {
                return std::future::pending().await;
            }
            life::live(&url, &edge.url(), &replicas).await;
        };
        tokio::join!(front.run(&replicas), edge.run(), life);
        Ok(())
    };
    let result = tokio::select! {
        ended = &mut lives => ended.map(|_| ()),
        result = shown => result,
        () = signals.next() => {
            say("\nEnding: the replicas let their clients go. Ctrl-C again ends at once.");
            Ok(())
        }
    };
    leave.cancel();
    if result.is_ok() {
        tokio::select! {
            _ = &mut lives => {}
            () = signals.next() => {}
        }
    }
    // A replica that still runs is killed by this.
    drop(lives);
    let stays = if database.is_borrowed() { "the database" } else { "nothing" };
    database.remove().await?;
    say(&format!("Ended; {stays} is left."));
    result
}

fn late() -> DemoError {
    DemoError::Check(format!("it was not done within {} s", CHECK_WITHIN.as_secs()))
}

/// What asks the demo to end.
struct Signals([Signal; 3]);

impl Signals {
    fn watch() -> std::io::Result<Signals> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Signals([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The demo's own words. A reader that went away is no reason to stop the replicas.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
