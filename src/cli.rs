//! The command line.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::app;
use crate::config::{self, Config, Flags};
use crate::demo;
use crate::logging;

/// What a command returns that could not do what it was asked.
const FAILED: u8 = 1;

/// What a command returns that was asked wrongly.
const MISUSED: u8 = 2;

pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(MISUSED) };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, FAILED),
    };
    let code = match name {
        "serve" => {
            let hangs_on_stdin = matches.get_flag(demo::LEAVE_WITH_STDIN);
            with_config(matches, |config| runtime.block_on(serve(config, hangs_on_stdin)))
        }
        "demo" => match runtime.block_on(demo::run(matches)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, FAILED),
        },
        "check-config" => with_config(matches, |config| {
            print!("{}", config.shown());
            ExitCode::SUCCESS
        }),
        _ => ExitCode::from(MISUSED),
    };
    // What still runs is of no interest any more.
    runtime.shutdown_background();
    code
}

fn command() -> Command {
    Command::new("tidings")
        .about("A durable realtime notifier that needs nothing but Postgres")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("serve")
                .about("Runs a replica; in memory, unless there is a database URL")
                .args(config::args())
                .arg(demo::leave_with_stdin()),
        )
        .subcommand(demo::command())
        .subcommand(
            Command::new("check-config")
                .about("Shows the settings that would be used, without secrets")
                .args(config::args()),
        )
}

fn with_config(matches: &ArgMatches, run: impl FnOnce(&Config) -> ExitCode) -> ExitCode {
    match Config::load(&Flags::from_matches(matches)) {
        Ok(config) => run(&config),
        Err(error) => fail(&error, MISUSED),
    }
}

async fn serve(config: &Config, hangs_on_stdin: bool) -> ExitCode {
    if let Err(error) = logging::start(&config.logging) {
        return fail(&error, FAILED);
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match app::serve(config, hangs_on_stdin).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error, FAILED),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("tidings: {error}");
    ExitCode::from(code)
}
