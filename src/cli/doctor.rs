//! `tidings doctor`: examines what a replica would stand on, and says what to do.
//!
//! It looks with the settings that `serve` would have, changes nothing, and asks each question on
//! its own, so that one ailment does not hide the next.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::failure::Failure;
use super::output::answer;
use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::store::postgres::connect::{Connector, classify};

mod database;
mod finding;
mod listening;

use finding::{Finding, State};

/// How long one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub struct Doctor {
    /// Prints the findings as JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub async fn run(&self, config: &Config) -> Result<ExitCode, Failure> {
        let Some(database) = &config.postgres.database else {
            return Err(Failure::misused(
                "there is no database to examine: set DATABASE_URL (without one, serve runs in memory)",
            ));
        };
        let connector = app::connector(config, database).map_err(Failure::misused)?;
        let listener = match &config.postgres.listen_database {
            Some(listen) => app::connector(config, listen).map_err(Failure::misused)?,
            None => connector.clone(),
        };
        let findings = examine(config, &connector, &listener).await;
        if self.json {
            let ok = findings.iter().all(|finding| finding.state != State::Fail);
            let findings: Vec<_> = findings.iter().map(Finding::as_json).collect();
            answer(format!("{:#}", json!({ "ok": ok, "findings": findings })));
        } else {
            answer(format!("examining {}", database.redacted()));
            for finding in &findings {
                answer(finding);
            }
        }
        let failed = findings.iter().any(|finding| finding.state == State::Fail);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

async fn examine(config: &Config, connector: &Connector, listener: &Connector) -> Vec<Finding> {
    let asked = Instant::now();
    let client = match connector.connect().await {
        Ok(client) => client,
        Err(error) => {
            let advice = "see that the server runs, that this machine may reach it, and that \
                          DATABASE_URL (or PGHOST and the like) names host, port, user and password";
            return vec![Finding::fail("database", error.to_string(), advice)];
        }
    };
    let took = asked.elapsed();
    let mut findings = vec![match took < Duration::from_millis(500) {
        true => Finding::ok("database", format!("reached in {}", millis(took))),
        false => Finding::warn(
            "database",
            format!("reached, after {}", millis(took)),
            "look for a slow name lookup, or a network that is far; replicas belong near their database",
        ),
    }];
    findings.push(bounded("version", database::version(&client)).await);
    findings.push(bounded("primary", database::primary(&client)).await);
    findings.push(bounded("schema", database::schema(&client)).await);
    findings.push(bounded("rights", database::rights(&client)).await);
    findings.push(bounded("connections", database::connections(&client, config)).await);
    findings.push(bounded("durability", database::durability(&client)).await);
    findings.push(bounded("clock", database::clock(&client, &Clock::system())).await);
    findings.push(bounded("notify queue", database::notify_queue(&client)).await);
    findings.extend(listening::examine(&client, listener).await);
    findings
}

/// A question that the database refuses, or does not answer, is a finding as well.
async fn bounded(
    check: &'static str,
    question: impl Future<Output = Result<Finding, tokio_postgres::Error>>,
) -> Finding {
    let advice = "see the log of the server; the account may lack the right to ask";
    match timeout(QUESTION_TIMEOUT, question).await {
        Ok(Ok(finding)) => finding,
        Ok(Err(error)) => Finding::fail(check, classify(&error).to_string(), advice),
        Err(_) => Finding::fail(check, "the database does not answer", advice),
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
