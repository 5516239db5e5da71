//! `tidings check`: whether an installation delivers what it promises; run it while you roll out.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::failure::Failure;
use super::output::{answer, say};
use super::server::Server;
use crate::app;
use crate::check::{self, Outcome, Settings, Wish};
use crate::client::Way;
use crate::dsn::Dsn;

pub const ABOUT: &str = "Checks that messages are delivered, once and in order, while clients are \
    cut off and replicas restart";

/// What a check returns that could not be made.
const NOT_CHECKED: u8 = 2;

const AFTER_HELP: &str = "\
It publishes under check:<random>: alone, so nothing else is disturbed; what it publishes stays in \
the log for as long as anything does. The token must allow check:*, as an API key does.

Exit code: 0 all is well; 1 something was lost, doubled, reordered or otherwise wrong, each kind \
with its number and some cases; 2 it could not be checked, and why. Ctrl-C ends it early with the \
verdict on what was seen; a second one waits for nobody.

  tidings check --url http://a:8080,http://b:8080 --seconds 600 --database postgres://…";

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    /// How many clients follow, spread over the addresses
    #[arg(long, value_name = "NUMBER", default_value = "20", value_parser = clap::value_parser!(u16).range(1..=5000))]
    clients: u16,
    /// What they connect by, taken in turn: ws, sse
    #[arg(long, value_name = "WAY", value_delimiter = ',', default_value = "ws,sse")]
    via: Vec<Way>,
    /// How many publish at the same time
    #[arg(long, value_name = "NUMBER", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=500))]
    publishers: u16,
    /// Messages a second, of all publishers together
    #[arg(long, value_name = "MESSAGES", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// For how long they publish [default: 30, unless --messages is given]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Ends after so many messages
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// On how many topics; every fourth has states, the others events
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=64))]
    topics: u16,
    /// The largest message; most are small
    #[arg(long, value_name = "BYTES", default_value = "10000", value_parser = clap::value_parser!(u32).range(0..=250_000))]
    bytes_max: u32,
    /// How many connections are cut a minute, at random moments; the clients resume elsewhere
    #[arg(long, value_name = "NUMBER", default_value = "60", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    cuts_per_minute: u32,
    /// Which clients are cut, and when; made up and told unless it is given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How long a publish is tried, and how long clients that are away are waited for
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
    timeout_s: u32,
    /// The replicas' database, to read the log itself; else it is read over HTTP
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database: Option<String>,
    /// Prints the verdict as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Check {
    /// Whatever stands in the way, it was not checked.
    pub async fn run(&self) -> ExitCode {
        self.check().await.unwrap_or_else(|failure| {
            say(failure);
            ExitCode::from(NOT_CHECKED)
        })
    }

    async fn check(&self) -> Result<ExitCode, Failure> {
        let client = self.server.client()?;
        let database = self.database.as_deref().map(str::trim).filter(|url| !url.is_empty());
        let store = database.map(|url| {
            let env = |name: &str| std::env::var(name).ok();
            let dsn = Dsn::parse(url, &env)?;
            app::log_in(&dsn, "tidings/check")
        });
        let store =
            store.transpose().map_err(|error| Failure::misused(format!("--database: {error}")))?;
        let (wishes, wish) = watch::channel(Wish::GoOn);
        let shown = std::io::stderr().is_terminal();
        let progress = |line: &str| {
            if shown {
                // Over the last one; whoever no longer reads it misses nothing.
                let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
            }
        };
        let checking = check::run(client, store, self.settings(), wish, progress);
        let outcome = tokio::select! {
            outcome = checking => outcome,
            failure = watch_signals(wishes) => return Err(failure),
        };
        if shown {
            let _ = writeln!(std::io::stderr());
        }
        Ok(self.tell(&outcome.map_err(Failure::failed)?))
    }

    fn settings(&self) -> Settings {
        let lasts = match (self.seconds, self.messages) {
            (Some(seconds), _) => Some(seconds),
            (None, Some(_)) => None,
            (None, None) => Some(30),
        };
        Settings {
            clients: self.clients.into(),
            ways: self.via.clone(),
            publishers: self.publishers.into(),
            rate: self.rate,
            lasts: lasts.map(|seconds| Duration::from_secs(seconds.into())),
            messages: self.messages,
            topics: self.topics.into(),
            bytes_max: usize::try_from(self.bytes_max).unwrap_or(usize::MAX),
            cuts_per_minute: self.cuts_per_minute,
            seed: self.seed.unwrap_or_else(|| rand::random::<u32>().into()),
            timeout: Duration::from_secs(self.timeout_s.into()),
        }
    }

    fn tell(&self, outcome: &Outcome) -> ExitCode {
        match self.json {
            true => answer(format!("{:#}", outcome.as_json())),
            false => answer(outcome),
        }
        match (outcome.is_bad(), outcome.is_whole()) {
            (true, _) => ExitCode::FAILURE,
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::from(NOT_CHECKED),
        }
    }
}

/// The first signal ends it, the second at once. Returns only if signals cannot be watched.
async fn watch_signals(wishes: watch::Sender<Wish>) -> Failure {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return Failure::failed("signals cannot be watched");
    };
    for wish in [Wish::Stop, Wish::AtOnce] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        wishes.send_replace(wish);
    }
    std::future::pending().await
}
