//! What `make bench` runs: floors, replicas and a Postgres of its own, measured in turn.
//!
//! ```text
//!   stage ──starts──▶ ws-floor (a process of this program)      ─┐
//!     │    ──starts──▶ Postgres ◀── replicas of the real binary ─┤ measured one after the other,
//!     └─── is the pg-floor, and every client ────────────────────┘ A B C A B C A B C
//! ```
//! A floor does the least that has to be done, so that every figure is a ratio within one run on one
//! machine: `ws_floor` writes one ready-made frame to each socket, `pg_floor` commits what has queued.

mod conduct;
mod machine;
mod pg_floor;
mod plan;
mod plot;
mod report;
mod servers;
mod ws_floor;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser, Debug)]
#[command(about = "Measures Tidings against its floors")]
enum Command {
    /// A bare server that writes one ready-made frame to each socket with one system call each
    WsFloor,
    /// Starts everything, measures it in turn, and writes what was found
    Conduct(Conduct),
}

#[derive(clap::Args, Clone, Debug)]
pub struct Conduct {
    /// How often each contender is measured with each shape
    #[arg(long, default_value = "3")]
    rounds: usize,
    /// For how long each is measured
    #[arg(long, default_value = "5")]
    seconds: f64,
    /// Only shapes whose words hold this: fanout, unicast, 5000/s, …
    #[arg(long)]
    only: Option<String>,
    /// Only these contenders: ws-floor, pg-floor, tidings, tidings-3, …
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// Divides numbers of connections, rates and items, for a look whether everything runs
    #[arg(long, default_value = "1")]
    small: usize,
    /// How much is measured of growth: replicas, topics, sizes, and rows in the log
    #[arg(long)]
    growth: bool,
    /// The longest log that growth is measured with: ten million rows take 5 GB, a hundred 50 GB
    #[arg(long, default_value = "1000000")]
    log_rows_max: u64,
    /// The binary of Tidings; beside this program unless it is given
    #[arg(long)]
    program: Option<PathBuf>,
    /// Where pages, plots and raw figures go
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let ended = match Command::parse() {
        Command::WsFloor => ws_floor::run().map_err(Into::into),
        Command::Conduct(wanted) => conduct::run(&wanted),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            servers::say(&format!("stage: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whatever went wrong, the run is over.
type Failure = Box<dyn std::error::Error + Send + Sync>;
