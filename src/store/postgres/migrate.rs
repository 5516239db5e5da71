//! Brings the schema up: each file of `sql/schema` once, in order, whoever starts first.
//!
//! Several replicas may start at once: an advisory lock lets one migrate while the others wait, and
//! then find nothing left to do. All that is missing runs in one transaction, with its rows in
//! `tidings.migration`. Files are only ever added; one that was changed after it ran is refused.

use std::time::Duration;

use tokio_postgres::Client;

use super::connect::{Connector, classify};
use crate::store::StoreError;

/// The files, in order. A file's name is its version.
pub const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_log", include_str!("../../../sql/schema/0001_log.sql")),
    ("0002_task", include_str!("../../../sql/schema/0002_task.sql")),
    ("0003_notice", include_str!("../../../sql/schema/0003_notice.sql")),
    ("0004_source", include_str!("../../../sql/schema/0004_source.sql")),
    ("0005_trace", include_str!("../../../sql/schema/0005_trace.sql")),
];

/// What the roles of an installation may do, where it has them.
const GRANTS: &str = include_str!("../../../sql/grants.sql");

/// The advisory lock; the number spells "tidings" and is used for nothing else.
const LOCK: i64 = 0x0074_6964_696e_6773;

/// How long to wait for another replica that migrates.
const LOCK_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("migration {name} failed: {reason}")]
    Failed { name: &'static str, reason: String },
    #[error("another replica has been migrating for {}s; look for the advisory lock in pg_locks", LOCK_WAIT.as_secs())]
    Busy,
    #[error("migration {0} was changed after it ran: restore the file, and add a new one instead")]
    Changed(String),
}

/// What stands between the schema and this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaState {
    Right,
    /// These have not run yet.
    Behind(Vec<&'static str>),
}

/// Whether the schema is what this version needs. A newer one is right: it was expanded, not contracted.
pub async fn state(client: &Client) -> Result<SchemaState, MigrateError> {
    let exists = "select to_regclass('tidings.migration') is not null";
    let there: bool = match client.query_typed(exists, &[]).await {
        Ok(rows) => rows.first().is_some_and(|row| row.get(0)),
        Err(error) => return Err(classify(&error).into()),
    };
    let done = if there { done(client).await? } else { Vec::new() };
    let mut behind = Vec::new();
    for (name, text) in MIGRATIONS {
        match done.iter().find(|(done, _)| done == name) {
            Some((_, hash)) if *hash == fingerprint(text) => {}
            Some(_) => return Err(MigrateError::Changed((*name).to_owned())),
            None => behind.push(*name),
        }
    }
    Ok(if behind.is_empty() { SchemaState::Right } else { SchemaState::Behind(behind) })
}

/// Runs what has not run yet, and returns the names.
pub async fn migrate(connector: &Connector) -> Result<Vec<&'static str>, MigrateError> {
    let client = connector.connect().await?;
    if state(&client).await? == SchemaState::Right {
        return Ok(Vec::new());
    }
    lock(&client).await?;
    batch(
        &client,
        "set local client_min_messages = warning;
         create schema if not exists tidings;
         -- Whoever migrates: what comes belongs to the owner of what is there.
         select set_config('role', n.nspowner::regrole::text, true) from pg_namespace n
         where n.nspname = 'tidings' and n.nspowner <> to_regrole(quote_ident(current_user)) and pg_has_role(n.nspowner, 'member');
         create table if not exists tidings.migration (
             name text primary key, hash text not null, at timestamptz not null default clock_timestamp());
         comment on table tidings.migration is 'Which files of the schema have run.';
         comment on column tidings.migration.name is 'The file.';
         comment on column tidings.migration.hash is 'Its fingerprint when it ran.';
         comment on column tidings.migration.at is 'When it ran.';",
    )
    .await?;
    let SchemaState::Behind(behind) = state(&client).await? else {
        batch(&client, "commit").await?;
        return Ok(Vec::new());
    };
    for (name, text) in MIGRATIONS.iter().filter(|(name, _)| behind.contains(name)) {
        let record = format!(
            "{text}; insert into tidings.migration (name, hash) values ('{name}', '{}')",
            fingerprint(text)
        );
        run(&client, name, &record).await?;
    }
    run(&client, "grants", GRANTS).await?;
    batch(&client, "commit").await?;
    for name in &behind {
        tracing::info!(migration = name, "schema migrated");
    }
    Ok(behind)
}

/// Gives the roles of an installation their rights again, for roles that were made after the schema.
pub async fn grant(connector: &Connector) -> Result<(), MigrateError> {
    let client = connector.connect().await?;
    lock(&client).await?;
    batch(&client, "set local client_min_messages = error").await?;
    run(&client, "grants", GRANTS).await?;
    Ok(batch(&client, "commit").await?)
}

/// Begins a transaction in which nobody else migrates. The lock goes with the transaction: a replica
/// that dies here leaves nothing behind, and a pooler that gives the connection to somebody else after
/// the commit keeps no lock for us.
async fn lock(client: &Client) -> Result<(), MigrateError> {
    let begin = format!("begin; select pg_advisory_xact_lock({LOCK})");
    match tokio::time::timeout(LOCK_WAIT, batch(client, &begin)).await {
        Ok(locked) => Ok(locked?),
        Err(_) => Err(MigrateError::Busy),
    }
}

async fn batch(client: &Client, text: &str) -> Result<(), StoreError> {
    client.batch_execute(text).await.map_err(|error| classify(&error))
}

async fn run(client: &Client, name: &'static str, text: &str) -> Result<(), MigrateError> {
    let failed = |error: StoreError| MigrateError::Failed { name, reason: error.to_string() };
    batch(client, text).await.map_err(failed)
}

async fn done(client: &Client) -> Result<Vec<(String, String)>, MigrateError> {
    let rows = client
        .query_typed("select name, hash from tidings.migration", &[])
        .await
        .map_err(|error| classify(&error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// FNV-1a: it guards against edits made by mistake, not against malice.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}
