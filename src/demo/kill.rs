//! `tidings demo kill 2`: one of the demo's replicas dies at once, and is started again.

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use super::replica::http;
use super::{DemoError, REPLICAS, say};

const URL: &str = "http://127.0.0.1:8080";

pub fn command() -> Command {
    Command::new("kill")
        .about("Kills a replica of a demo that runs, as by kill -9; it is started again")
        .arg(
            Arg::new("replica")
                .value_name("NUMBER")
                .required(true)
                .value_parser(clap::value_parser!(u16).range(1..=i64::from(REPLICAS)))
                .help("Which of the three"),
        )
        .arg(
            Arg::new("url")
                .long("url")
                .value_name("URL")
                .default_value(URL)
                .hide_default_value(true)
                .help(format!("Where the demo answers; `{URL}` unless given")),
        )
}

pub async fn run(matches: &ArgMatches) -> Result<(), DemoError> {
    let number = matches.get_one::<u16>("replica").copied().unwrap_or_default();
    let url = matches.get_one::<String>("url").map_or(URL, |url| url.trim_end_matches('/'));
    let target = format!("{url}/v1/demo/kill?replica=replica-{number}");
    let answer = http().post(target).send().await.map_err(|error| {
        DemoError::Kill(format!("no demo answers at {url} ({error}): start one, or say --url"))
    })?;
    let status = answer.status();
    if status.is_success() {
        say(&format!("replica-{number} was told to die; the demo starts it again."));
        return Ok(());
    }
    let problem: Value = answer.json().await.unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("no more was said");
    Err(DemoError::Kill(format!(
        "{url} is no demo, or its replicas are not ready: {status}, {detail}"
    )))
}
