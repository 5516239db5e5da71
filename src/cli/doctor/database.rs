//! What the database says of itself.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Error, Row};

use super::finding::Finding;
use super::millis;
use crate::clock::Clock;
use crate::config::Config;
use crate::store::postgres::migrate::{self, MigrateError, SchemaState};

/// What the statements need.
const VERSION_MIN: i32 = 140_000;

/// Tokens are checked by the replica's clock, with ten seconds of leeway.
const SKEW_WARN: Duration = Duration::from_secs(2);

/// Of the 8 GB that all databases of a server share; when they are full, publishing fails.
const QUEUE_WARN: f64 = 0.1;
const QUEUE_FAIL: f64 = 0.5;

pub async fn version(client: &Client) -> Result<Finding, Error> {
    let query = "select current_setting('server_version_num')::integer, version()";
    let row = one(client, query).await?;
    let (number, text): (i32, String) = (row.get(0), row.get(1));
    let short = text.split(" on ").next().unwrap_or_default().to_owned();
    Ok(match number >= VERSION_MIN {
        true => Finding::ok("version", short),
        false => Finding::fail("version", short, "Postgres 14 or later is needed"),
    })
}

pub async fn primary(client: &Client) -> Result<Finding, Error> {
    let query =
        "select pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'";
    let row = one(client, query).await?;
    Ok(match (row.get(0), row.get(1)) {
        (true, _) => Finding::fail(
            "primary",
            "this server is a standby in recovery and takes no writes",
            "name the primary, or all hosts with target_session_attrs=read-write",
        ),
        (false, true) => Finding::fail(
            "primary",
            "transactions are read-only by default",
            "turn default_transaction_read_only off for this account",
        ),
        (false, false) => Finding::ok("primary", "this server takes writes"),
    })
}

pub async fn schema(client: &Client) -> Result<Finding, Error> {
    Ok(match migrate::state(client).await {
        Ok(SchemaState::Right) => Finding::ok("schema", "is what this version needs"),
        Ok(SchemaState::Behind(behind)) => Finding::warn(
            "schema",
            format!("{} not run yet", behind.join(", ")),
            "run `tidings migrate`, or let the next replica do it when it starts",
        ),
        Err(error @ MigrateError::Changed(_)) => {
            Finding::fail("schema", error.to_string(), "it cannot be told what the schema is")
        }
        Err(error) => {
            Finding::fail("schema", error.to_string(), "see that the account may read it")
        }
    })
}

/// Partitions are made and dropped as the log goes on: by the owner of the log, or by functions that
/// have the owner's rights.
pub async fn rights(client: &Client) -> Result<Finding, Error> {
    let query = "
        select current_user::text,
               n.oid is not null,
               has_database_privilege(current_database(), 'CREATE'),
               coalesce(has_schema_privilege(n.oid, 'USAGE'), false),
               coalesce((select p.prosecdef and has_function_privilege(p.oid, 'EXECUTE') from pg_proc p
                         where p.pronamespace = n.oid and p.proname = 'partition_make'), false)
               or coalesce(has_schema_privilege(n.oid, 'CREATE'), false)
                  and coalesce((select pg_has_role(c.relowner, 'USAGE') from pg_class c
                                where c.relnamespace = n.oid and c.relname = 'message'), true)
        from (select to_regnamespace('tidings')::oid) n(oid)";
    let row = one(client, query).await?;
    let user: String = row.get(0);
    Ok(match (row.get(1), row.get(2), row.get(3), row.get(4)) {
        (false, true, _, _) => Finding::ok("rights", format!("{user} may create the schema")),
        (false, false, _, _) => Finding::fail(
            "rights",
            format!("{user} may not create the schema"),
            format!(
                "grant create on database … to {user:?}, or run `tidings migrate` as the owner"
            ),
        ),
        (true, _, true, true) => Finding::ok("rights", format!("{user} may use the schema")),
        (true, _, false, _) => Finding::fail(
            "rights",
            format!("{user} may not use the schema"),
            format!("run sql/roles.sql, or grant usage, create on schema tidings to {user:?}"),
        ),
        (true, _, true, false) => Finding::fail(
            "rights",
            format!("{user} does not own the log and cannot make its partitions"),
            format!("run sql/roles.sql, or grant the role that owns tidings.message to {user:?}"),
        ),
    })
}

/// Room for one more replica.
pub async fn connections(client: &Client, config: &Config) -> Result<Finding, Error> {
    let query = "
        select current_setting('max_connections')::bigint
               - current_setting('superuser_reserved_connections')::bigint,
               (select count(*) from pg_stat_activity where backend_type = 'client backend')";
    let row = one(client, query).await?;
    let (most, used): (i64, i64) = (row.get(0), row.get(1));
    // The pool, the lanes and the listener.
    let pool = config.postgres.pool_connections_max + config.publish.lanes + 1;
    let needed = i64::try_from(pool).unwrap_or(i64::MAX);
    let free = (most - used).max(0);
    let detail = format!("{used} of {most} in use, and a replica takes up to {needed}");
    Ok(match free >= needed {
        true => Finding::ok("connections", detail),
        false => Finding::warn(
            "connections",
            detail,
            "raise max_connections, lower pool_connections_max, or close what is idle",
        ),
    })
}

/// `synchronous_commit` of the account does not matter: the log sets its own. What the disk does, does.
pub async fn durability(client: &Client) -> Result<Finding, Error> {
    let query = "
        select current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
               current_setting('synchronous_commit'), current_setting('synchronous_standby_names')";
    let row = one(client, query).await?;
    let (fsync, pages): (bool, bool) = (row.get(0), row.get(1));
    let (commit, standbys): (String, String) = (row.get(2), row.get(3));
    Ok(if !fsync {
        Finding::warn(
            "durability",
            "fsync is off: a crash of the machine loses the log, and what was answered for",
            "turn fsync on, unless everything here may be lost",
        )
    } else if !pages {
        Finding::warn(
            "durability",
            "full_page_writes is off: a crash of the machine may leave torn pages",
            "turn it on, unless the disks write whole pages",
        )
    } else if commit == "off" || commit == "local" {
        Finding::warn(
            "durability",
            format!("synchronous_commit is {commit} for this account"),
            "the log waits for the disk all the same, but tidings.publish in your own transactions \
             is then only as durable as those",
        )
    } else {
        let standbys = if standbys.is_empty() { "no" } else { "with" };
        Finding::ok("durability", format!("fsync on, {standbys} synchronous standbys"))
    })
}

pub async fn clock(client: &Client, clock: &Clock) -> Result<Finding, Error> {
    let query = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
    let (before, asked) = (clock.now(), Instant::now());
    let row = one(client, query).await?;
    let way = asked.elapsed();
    let there_ms: i64 = row.get(0);
    // The database read its clock somewhere on the way; half of it is the best guess.
    let here_ms = before.0 + i64::try_from(way.as_millis() / 2).unwrap_or(0);
    let skew = Duration::from_millis(here_ms.abs_diff(there_ms));
    let detail =
        format!("{} apart from the database's, give or take {}", millis(skew), millis(way / 2));
    Ok(match skew.saturating_sub(way) > SKEW_WARN {
        false => Finding::ok("clock", detail),
        true => Finding::warn(
            "clock",
            detail,
            "let both machines follow one time server; the log does not mind, but tokens expire \
             by the clock here",
        ),
    })
}

pub async fn notify_queue(client: &Client) -> Result<Finding, Error> {
    let usage: f64 = one(client, "select pg_notification_queue_usage()").await?.get(0);
    let detail = format!("{:.1} % full", usage * 100.0);
    let advice = "a session that listens has a transaction open and holds it up: look in \
                  pg_stat_activity for the oldest xact_start, and end it";
    Ok(if usage > QUEUE_FAIL {
        Finding::fail("notify queue", detail, advice)
    } else if usage > QUEUE_WARN {
        Finding::warn("notify queue", detail, advice)
    } else {
        Finding::ok("notify queue", detail)
    })
}

/// Unnamed, so that a pooler may be in the way.
async fn one(client: &Client, query: &str) -> Result<Row, Error> {
    let rows = client.query_typed(query, &[]).await?;
    Ok(rows.into_iter().next().expect("a select without from returns one row"))
}
