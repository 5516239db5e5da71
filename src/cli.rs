//! The command line: one file a command, what they share beside them.
//!
//! Answers go to standard output, everything else to standard error. A command that was asked
//! wrongly returns 2, one that could not do what it was asked 1, each with a sentence.

use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};

use crate::config::{self, Config, Flags};
use crate::{demo, logging};

mod bench;
mod check;
mod doctor;
mod document;
mod failure;
mod healthcheck;
mod migrate;
mod notice;
mod output;
mod publish;
mod serve;
mod server;
mod tail;
mod task;
mod token;
mod work;

pub use document::commands_markdown;
use failure::Failure;

pub fn main() -> ExitCode {
    // Before anything speaks TLS: whose it is must not depend on what else is compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let matches = command().get_matches();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return said(&Failure::failed(error)),
    };
    let code = runtime.block_on(run(&matches)).unwrap_or_else(|failure| said(&failure));
    // What still runs is of no interest any more.
    runtime.shutdown_background();
    logging::flush();
    code
}

async fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Failure::misused("name a command; --help lists them"));
    };
    match name {
        "serve" => {
            let hangs_on_stdin = matches.get_flag(demo::LEAVE_WITH_STDIN);
            serve::run(load(matches)?, hangs_on_stdin).await
        }
        "demo" => {
            demo::run(matches).await.map_err(Failure::failed)?;
            Ok(ExitCode::SUCCESS)
        }
        "publish" => read::<publish::Publish>(matches)?.run().await,
        "tail" => read::<tail::Tail>(matches)?.run().await,
        "task" => read::<task::TaskCommand>(matches)?.run().await,
        "work" => read::<work::Work>(matches)?.run().await,
        "bench" => read::<bench::Bench>(matches)?.run().await,
        "notice" => read::<notice::Notice>(matches)?.run().await,
        "check" => Ok(read::<check::Check>(matches)?.run().await),
        "token" => read::<token::Token>(matches)?.run(&load(matches)?),
        "migrate" => migrate::run(&load(matches)?).await,
        "doctor" => read::<doctor::Doctor>(matches)?.run(&load(matches)?).await,
        "healthcheck" => read::<healthcheck::Healthcheck>(matches)?.run(|| load(matches)).await,
        "check-config" => {
            output::answer(load(matches)?.shown().trim_end());
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure::misused("there is no such command")),
    }
}

fn command() -> Command {
    let with_settings = |name, about| Command::new(name).about(about).args(config::args());
    Command::new("tidings")
        .about("A durable realtime notifier that needs nothing but Postgres")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_settings("serve", "Runs a replica; in memory, unless there is a database URL")
                .arg(demo::leave_with_stdin()),
        )
        .subcommand(demo::command())
        .subcommand(publish::Publish::augment_args(
            Command::new("publish").about("Publishes a message, or one a line from standard input"),
        ))
        .subcommand(tail::Tail::augment_args(
            Command::new("tail").about("Follows topics, one line a message; comes back by itself"),
        ))
        .subcommand(
            task::TaskCommand::augment_subcommands(Command::new("task").about(task::ABOUT))
                .subcommand_required(true)
                .arg_required_else_help(true),
        )
        .subcommand(work::Work::augment_args(Command::new("work").about(work::ABOUT)))
        .subcommand(
            notice::Notice::augment_subcommands(
                Command::new("notice").about("Sends notices, and shows how far they have come"),
            )
            .subcommand_required(true)
            .arg_required_else_help(true),
        )
        .subcommand(check::Check::augment_args(Command::new("check").about(check::ABOUT)))
        .subcommand(bench::Bench::augment_args(Command::new("bench").about(bench::ABOUT)))
        .subcommand(token::Token::augment_args(with_settings(
            "token",
            "Signs a token with the configured secret",
        )))
        .subcommand(with_settings("migrate", "Brings the schema up; serve does so too"))
        .subcommand(doctor::Doctor::augment_args(with_settings(
            "doctor",
            "Examines the database, and says what to do",
        )))
        .subcommand(healthcheck::Healthcheck::augment_args(with_settings(
            "healthcheck",
            "Asks a replica whether it is ready",
        )))
        .subcommand(with_settings(
            "check-config",
            "Shows the settings that would be used, without secrets",
        ))
}

fn load(matches: &ArgMatches) -> Result<Config, Failure> {
    Ok(Config::load(&Flags::from_matches(matches))?)
}

fn read<T: FromArgMatches>(matches: &ArgMatches) -> Result<T, Failure> {
    T::from_arg_matches(matches).map_err(Failure::misused)
}

fn said(failure: &Failure) -> ExitCode {
    output::say(failure);
    failure.code()
}
