//! `tidings bench`: how fast an installation is, seen from its clients.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::failure::Failure;
use super::output::answer;
use super::server::Server;
use crate::bench::{
    self, Away, Group, Idle, Installation, Measured, Processes, Returning, Shape, Stream, Task,
};

pub const ABOUT: &str = "Measures how fast an installation is, seen from its clients";

const AFTER_HELP: &str = "\
It publishes under bench:<random>: alone, and what it publishes stays in the log for as long as \
anything does. The token must allow bench:*, as an API key does. Give several addresses, and \
listeners and publishers are spread over them.

A latency goes from the moment at which a message was meant to leave to the moment at which its \
frame was read, by one clock; a server that stalls is charged for all that should have left \
meanwhile. Without --rate as much is published as is taken: then the rates are the result, and the \
latencies are those of queues.

  tidings bench unicast --url http://a:8080,http://b:8080 --listeners 1000 --rate 2000
  tidings bench fanout --listeners 1000 --rate 100 --pid 4711
  tidings bench idle reconnect recovery tasks --json";

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Name {
    /// Connections that hear nothing
    Idle,
    /// One topic that everybody follows
    Fanout,
    /// A topic for each listener, or --topics of them
    Unicast,
    /// All listeners come back at once, with cursors --messages old
    Reconnect,
    /// Listeners are away for --away-s under load
    Recovery,
    /// One task of --messages items that take no time
    Tasks,
}

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Bench {
    /// What is measured, one after the other
    #[arg(value_enum, default_values = ["fanout", "unicast"])]
    shapes: Vec<Name>,
    /// How many connections listen; 30 are away in `recovery` unless it is given [default: 100]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    listeners: Option<u32>,
    /// On how many topics `unicast` and `reconnect` publish [default: one for each listener]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    topics: Option<u32>,
    /// Messages a second; as many as are taken unless it is given, and 100 in `recovery`
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// For how long is measured
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    seconds: f64,
    /// For how long it runs before that
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warm_up_s: f64,
    /// The size of a message's data
    #[arg(long, value_name = "BYTES", default_value = "300", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    bytes: u32,
    /// How many messages go into one request
    #[arg(long, value_name = "MESSAGES", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: u32,
    /// How many connections publish, one request at a time each
    #[arg(long, value_name = "NUMBER", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=5000))]
    publishers: u32,
    /// Without --rate: how many messages may be under way to each topic's listeners
    #[arg(long, value_name = "MESSAGES", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    window: u32,
    /// How many messages are missed in `reconnect`, and items worked on in `tasks`
    #[arg(long, value_name = "NUMBER", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    /// For how long they are away in `recovery`, three times
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    away_s: f64,
    /// Processes of the server on this machine: their processor time and memory are told, too
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// The same of a Postgres, by the process that the others are children of
    #[arg(long, value_name = "PID")]
    postgres_pid: Option<u32>,
    /// Prints the figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    match (0.0..=86_400.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("between 0 and 86400 seconds".to_owned()),
    }
}

impl Bench {
    pub async fn run(&self) -> Result<ExitCode, Failure> {
        bench::raise_descriptors();
        let installation = Installation::new(self.server.client()?);
        let processes = self.processes();
        let shown = std::io::stderr().is_terminal();
        let mut all = Vec::new();
        for name in &self.shapes {
            let shape = self.shape(*name);
            let progress = |line: &str| {
                if shown {
                    // Over the last one; whoever no longer reads it misses nothing.
                    let _ = write!(std::io::stderr(), "\r\x1b[K{}: {line}", shape.name());
                }
            };
            let measured =
                bench::measure_installation(&installation, &shape, &processes, &progress).await;
            if shown {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
            let figures = measured.map_err(Failure::failed)?;
            let (contender, shape) = ("tidings".to_owned(), shape.to_string());
            all.push(Measured { contender, shape, figures });
        }
        match self.json {
            true => {
                let all: Vec<_> = all.iter().map(Measured::as_json).collect();
                answer(format!("{:#}", json!({ "measured": all })));
            }
            false => answer(Measured::as_table(&all).trim_end()),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn processes(&self) -> Processes {
        let server = (!self.pid.is_empty()).then(|| Group::server(self.pid.clone()));
        let postgres = self.postgres_pid.map(Group::postgres);
        Processes(server.into_iter().chain(postgres).collect())
    }

    fn shape(&self, name: Name) -> Shape {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let listeners = size(self.listeners.unwrap_or(100));
        let topics = self.topics.map_or(listeners, size);
        let lasts = Duration::from_secs_f64(self.seconds);
        let (bytes, missed) = (size(self.bytes), size(self.messages));
        let stream = |topics: usize| {
            Shape::Stream(Stream {
                listeners,
                topics,
                rate: self.rate,
                lasts,
                warm_up: Duration::from_secs_f64(self.warm_up_s),
                bytes,
                batch: size(self.batch),
                publishers: size(self.publishers),
                window: size(self.window),
            })
        };
        match name {
            Name::Idle => Shape::Idle(Idle { connections: listeners, lasts }),
            Name::Fanout => stream(1),
            // With one topic it would be fan-out.
            Name::Unicast => stream(topics.max(2)),
            Name::Reconnect => Shape::Returning(Returning { listeners, topics, missed, bytes }),
            Name::Recovery => Shape::Away(Away {
                listeners: self.listeners.map_or(30, size),
                rate: self.rate.unwrap_or(100),
                away: Duration::from_secs_f64(self.away_s),
                rounds: 3,
                bytes,
            }),
            Name::Tasks => Shape::Task(Task { items: missed, concurrency: 100 }),
        }
    }
}
