//! `tidings migrate`: brings the schema up and says what was done.
//!
//! `serve` does the same by itself; this is for those who want it to happen before a rollout, or
//! under an account that may do more than the replicas' own.

use std::process::ExitCode;

use super::failure::Failure;
use super::output::answer;
use crate::app;
use crate::config::Config;
use crate::store::postgres::migrate::{grant, migrate};

pub async fn run(config: &Config) -> Result<ExitCode, Failure> {
    let Some(database) = &config.postgres.database else {
        return Err(Failure::misused("there is no database to migrate: set DATABASE_URL"));
    };
    // The lock belongs to a session, which a pooler would give to somebody else.
    let direct = config.postgres.listen_database.as_ref().unwrap_or(database);
    let connector = app::connector(config, direct).map_err(Failure::misused)?;
    let done = migrate(&connector).await.map_err(Failure::failed)?;
    if done.is_empty() {
        // A migration gives the roles their rights itself; these may be younger.
        grant(&connector).await.map_err(Failure::failed)?;
    }
    match done.as_slice() {
        [] => answer("the schema is right: nothing to do"),
        done => answer(format!("migrated: {}", done.join(", "))),
    }
    Ok(ExitCode::SUCCESS)
}
