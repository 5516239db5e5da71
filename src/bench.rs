//! Measures an installation from outside: how fast, how evenly, and at what cost to the server.
//!
//! ```text
//!   pace ──intended time──▶ publishers ──way in──▶ what is measured ──way out──▶ listeners ──▶ meter
//! ```
//! What is measured is a `Contender`: an installation, or a floor that does the least that has to be
//! done. A message carries the moment at which it was *meant* to be published, by the clock of this
//! process, which also reads it: so a server that stalls is charged for every message that should
//! have gone out meanwhile, not only for the one that waited.
//!
//! `check` says whether what was delivered is right; here it is counted only.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

mod away;
mod figures;
mod idle;
mod installation;
mod meter;
mod pace;
mod process;
mod returning;
mod stream;
mod task;

pub use figures::{Figures, Measured};
pub use installation::Installation;
pub use meter::Meter;
pub use process::{Group, Processes};

use crate::client::ClientError;

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Failed(String),
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub topic: String,
    /// JSON.
    pub data: String,
}

/// What takes messages and hands them out.
#[async_trait]
pub trait Contender: Send + Sync {
    /// One more connection to publish through; `place` counts them.
    async fn way_in(&self, place: usize) -> Result<Box<dyn WayIn>, BenchError>;

    /// One more connection that follows a topic; `place` counts them.
    async fn way_out(&self, place: usize, topic: &str) -> Result<Box<dyn WayOut>, BenchError>;
}

#[async_trait]
pub trait WayIn: Send {
    /// Returns when they are taken for good.
    async fn publish(&mut self, letters: &[Letter]) -> Result<(), BenchError>;
}

#[async_trait]
pub trait WayOut: Send {
    /// Tells of each message, until it is dropped. Returns only if it cannot go on.
    async fn hear(self: Box<Self>, heard: &(dyn for<'a> Fn(&'a str) + Sync)) -> BenchError;
}

/// What is asked of a contender.
#[derive(Clone, Debug)]
pub enum Shape {
    Idle(Idle),
    Stream(Stream),
    Returning(Returning),
    Away(Away),
    Task(Task),
}

/// Connections that hear nothing.
#[derive(Clone, Debug)]
pub struct Idle {
    pub connections: usize,
    pub lasts: Duration,
}

/// Messages to listeners who are connected all the time.
/// Listener *i* follows topic *i* modulo `topics`: one topic is fan-out, one each is unicast.
#[derive(Clone, Debug)]
pub struct Stream {
    pub listeners: usize,
    pub topics: usize,
    /// Messages a second; `None`: as many as are taken.
    pub rate: Option<u32>,
    pub lasts: Duration,
    pub warm_up: Duration,
    /// The size of a message's data.
    pub bytes: usize,
    /// How many messages go into one request.
    pub batch: usize,
    /// How many requests may be under way.
    pub publishers: usize,
    /// How many messages may be under way to listeners, where no rate is given: what waits
    /// somewhere would only be measured as latency.
    pub window: usize,
}

/// Listeners who all come back at once, after some messages.
#[derive(Clone, Debug)]
pub struct Returning {
    pub listeners: usize,
    pub topics: usize,
    pub missed: usize,
    pub bytes: usize,
}

/// Listeners who are away for a while, under load.
#[derive(Clone, Debug)]
pub struct Away {
    pub listeners: usize,
    pub rate: u32,
    pub away: Duration,
    pub rounds: usize,
    pub bytes: usize,
}

/// One task with many items that do nothing.
#[derive(Clone, Debug)]
pub struct Task {
    pub items: usize,
    pub concurrency: u32,
}

impl Shape {
    /// What people call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Shape::Idle(_) => "idle",
            Shape::Stream(stream) if stream.topics == 1 => "fanout",
            Shape::Stream(_) => "unicast",
            Shape::Returning(_) => "reconnect",
            Shape::Away(_) => "recovery",
            Shape::Task(_) => "tasks",
        }
    }
}

/// With what sets it apart from others of its kind.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Shape::Idle(idle) => write!(f, "{name} {}", idle.connections),
            Shape::Stream(stream) => {
                write!(f, "{name} {}", stream.listeners)?;
                if stream.topics != 1 && stream.topics != stream.listeners {
                    write!(f, " on {} topics", stream.topics)?;
                }
                match stream.rate {
                    Some(rate) => write!(f, " at {rate}/s")?,
                    None => f.write_str(" to the limit")?,
                }
                if stream.batch > 1 {
                    write!(f, ", {} a request", stream.batch)?;
                }
                write!(f, ", {} bytes", stream.bytes)
            }
            Shape::Returning(Returning { listeners, topics, missed, .. }) => {
                write!(f, "{name} {listeners}, {missed} messages on {topics} topics later")
            }
            Shape::Away(Away { listeners, rate, away, .. }) => {
                write!(f, "{name} {listeners}, away {} s at {rate}/s", away.as_secs_f64())
            }
            Shape::Task(task) => write!(f, "{name} {} items", task.items),
        }
    }
}

/// Lets this process hold as many connections as the system allows.
pub fn raise_descriptors() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the number of open files stays as it is");
    }
}

/// Measures one shape. `progress` is told every second how far it has come.
pub async fn measure(
    contender: &dyn Contender,
    shape: &Shape,
    processes: &Processes,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Figures, BenchError> {
    match shape {
        Shape::Idle(idle) => idle::measure(contender, idle, processes, progress).await,
        Shape::Stream(stream) => stream::measure(contender, stream, processes, progress).await,
        _ => Err(BenchError::Failed("that shape needs a whole installation".to_owned())),
    }
}

/// The same, and the shapes that need more than a way in and a way out.
pub async fn measure_installation(
    installation: &Installation,
    shape: &Shape,
    processes: &Processes,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Figures, BenchError> {
    match shape {
        Shape::Idle(_) | Shape::Stream(_) => {
            measure(installation, shape, processes, progress).await
        }
        Shape::Returning(returning) => {
            returning::measure(installation, returning, processes, progress).await
        }
        Shape::Away(away) => away::measure(installation, away, progress).await,
        Shape::Task(task) => task::measure(installation, task, processes).await,
    }
}

/// What a run calls its topics, so that nothing else is disturbed.
fn run_name() -> String {
    format!("bench:{:08x}", rand::random::<u32>())
}
