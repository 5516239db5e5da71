//! The log in Postgres.
//!
//! `connect` makes connections, `database` runs named statements on a pool of them, `migrate` brings
//! the schema up, `reader` reads the log, `writer` appends to it, `upkeep` keeps it in order,
//! `task` keeps tasks, `notice` and `inbox` keep notices, `presence` keeps who is there.
//! `task` keeps tasks, `source` telemetry.
//! Every statement stands in its own file under `sql/query`, listed in `query`.

pub mod connect;
pub mod database;
mod inbox;
pub mod migrate;
mod notice;
mod presence;
pub mod query;
mod reader;
mod row;
mod source;
mod task;
mod upkeep;
mod writer;

use std::sync::Arc;

use self::connect::Connector;
use self::database::{Database, PoolSettings};
use super::StoreError;
use crate::metrics::StoreMetrics;

/// What the log in Postgres wants to know of the settings.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Who holds a writer slot, for people who look at the table.
    pub replica: String,
    pub pool: PoolSettings,
    pub retention_s: u32,
    pub partition_rows: u32,
    pub data_bytes_max: u32,
    pub idempotency_s: u32,
}

#[derive(Clone)]
pub struct PostgresStore {
    database: Database,
    settings: Arc<PostgresSettings>,
}

impl PostgresStore {
    /// Connects to nothing yet: the first statement does.
    pub fn new(
        connector: Connector,
        settings: PostgresSettings,
        metrics: Arc<StoreMetrics>,
    ) -> PostgresStore {
        let database = Database::new(connector, settings.pool, metrics);
        PostgresStore { database, settings: Arc::new(settings) }
    }

    /// Tells the functions in the database what they need to know of the settings.
    pub async fn settings_store(&self) -> Result<(), StoreError> {
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let rows = i64::from(self.settings.partition_rows);
        let data_bytes_max = number(self.settings.data_bytes_max);
        let idempotency_s = number(self.settings.idempotency_s);
        let params: query::Params = &[&rows, &data_bytes_max, &idempotency_s];
        self.database.rows(&query::LOG_SETTINGS, params).await.map(drop)
    }

    pub fn database(&self) -> &Database {
        &self.database
    }
}
