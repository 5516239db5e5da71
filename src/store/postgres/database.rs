//! A pool of connections, and named statements on it, each bounded in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    TimeoutType,
};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Client, Row};
use tokio_util::task::TaskTracker;

use super::connect::{Connector, GIVE_UP_TIMEOUT, classify, give_up};
use super::query::{self, Params, Query};
use crate::metrics::StoreMetrics;
use crate::store::StoreError;

#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    pub connections_max: usize,
    /// How long to wait for a free connection, and for a new one to be made.
    pub wait: Duration,
    /// How long a statement may take before its connection is given up.
    pub statement_timeout: Duration,
    /// Whether statements may be prepared: not through a pooler that shares connections.
    pub prepare: bool,
}

#[derive(Clone)]
pub struct Database {
    pool: Pool,
    connector: Connector,
    statement_timeout: Duration,
    /// Turned off for good when the server turns out to forget what was prepared.
    prepare: Arc<AtomicBool>,
    metrics: Arc<StoreMetrics>,
    /// Statements that are being cancelled, of whom nobody waits for the answer.
    giving_up: TaskTracker,
}

impl Database {
    pub fn new(
        connector: Connector,
        settings: PoolSettings,
        metrics: Arc<StoreMetrics>,
    ) -> Database {
        let manager = Manager::from_config(
            connector.config().clone(),
            connector.tls(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(settings.connections_max)
            .wait_timeout(Some(settings.wait))
            .create_timeout(Some(settings.wait))
            .recycle_timeout(Some(settings.wait))
            .post_create(Hook::async_fn(move |client, _| {
                Box::pin(async move {
                    let begun = client.query_typed(query::SESSION_BEGIN.text, &[]);
                    match timeout(settings.wait, begun).await {
                        Ok(begun) => begun.map(drop).map_err(HookError::Backend),
                        Err(_) => Err(HookError::message("beginning a session took too long")),
                    }
                })
            }))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a runtime is given, which is all that timeouts need");
        Database {
            pool,
            connector,
            statement_timeout: settings.statement_timeout,
            prepare: Arc::new(AtomicBool::new(settings.prepare)),
            metrics,
            giving_up: TaskTracker::new(),
        }
    }

    /// Cancels a statement for which nobody waits any more. `connection` is kept until then: a pooler
    /// that sees its client go forgets what it was asked.
    pub fn give_up(&self, statement: CancelToken, connection: impl Send + 'static) {
        // Without a runtime the process ends, and its connections with it.
        if Handle::try_current().is_err() {
            return;
        }
        let tls = self.connector.tls();
        let giving_up = async move {
            give_up(statement, tls).await;
            drop(connection);
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded in time, and whoever waited for the statement is gone"
        )]
        tokio::spawn(self.giving_up.track_future(giving_up));
    }

    /// Waits until the server was told of all that was given up, as long as that may take: a process
    /// that ends sooner leaves statements behind that wait for locks.
    pub async fn given_up(&self) {
        self.giving_up.close();
        let _ = timeout(GIVE_UP_TIMEOUT, self.giving_up.wait()).await;
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    pub fn statement_timeout(&self) -> Duration {
        self.statement_timeout
    }

    /// Whether statements are prepared, as far as is known.
    pub fn prepares(&self) -> bool {
        self.prepare.load(Ordering::Relaxed)
    }

    pub fn prepare_never_again(&self) {
        self.prepare.store(false, Ordering::Relaxed);
    }

    /// Runs a statement on a connection of the pool. A statement that takes too long, or whose
    /// caller goes away, is cancelled: nobody is given a connection that still works for another.
    pub async fn rows(&self, query: &Query, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let connection = self.pool.get().await.map_err(|error| self.unavailable(&error))?;
        let busy = Busy { database: self, connection: Some(connection) };
        let asked = Instant::now();
        let answer = timeout(self.statement_timeout, self.run(&busy, query, params)).await;
        self.answered(query, asked.elapsed(), matches!(answer, Ok(Ok(_))));
        match answer {
            Ok(Ok(rows)) => {
                drop(busy.free());
                Ok(rows)
            }
            Ok(Err(error)) => {
                let connection = busy.free();
                let error = classify(&error);
                // After a failover or a shutdown the connection may look alive and be of no use.
                if matches!(error, StoreError::Unavailable(_)) {
                    drop(connection.map(Object::take));
                }
                tracing::debug!(query = query.name, %error, "a statement failed");
                Err(error)
            }
            Err(_) => Err(StoreError::Unavailable(format!("{} took too long", query.name))),
        }
    }

    /// Runs a statement that returns exactly one row.
    pub async fn row(&self, query: &Query, params: Params<'_>) -> Result<Row, StoreError> {
        let mut rows = self.rows(query, params).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(StoreError::Refused(format!("{} did not return one row", query.name))),
        }
    }

    /// Counts a statement, on whatever connection it ran.
    pub fn answered(&self, query: &Query, within: Duration, well: bool) {
        self.metrics.answered(query.name, within, well);
    }

    /// Counts a statement that failed and whose answer nobody waited for.
    pub fn failed(&self, query: &Query) {
        self.metrics.failed(query.name);
    }

    fn unavailable(&self, error: &PoolError) -> StoreError {
        match error {
            PoolError::Backend(error) => match classify(error) {
                // Not even connected: whatever the reason, nothing was refused.
                StoreError::Refused(text) => StoreError::Unavailable(text),
                error => error,
            },
            PoolError::Timeout(TimeoutType::Wait) => {
                self.metrics.pool_waits.inc();
                StoreError::Unavailable("every connection is in use".to_owned())
            }
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
                StoreError::Unavailable("connecting took too long".to_owned())
            }
            error => StoreError::Unavailable(error.to_string()),
        }
    }

    async fn run(
        &self,
        busy: &Busy<'_>,
        query: &Query,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let connection = busy.connection.as_ref().expect("it is held until it is freed");
        if self.prepares() {
            let prepared = connection.prepare_typed_cached(query.text, query.types).await;
            let result = match prepared {
                Ok(statement) => connection.query(&statement, params).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if forgot_prepared(&error) => self.prepare_never_again(),
                result => return result,
            }
        }
        query_unnamed(connection, query, params).await
    }
}

/// A connection of the pool while a statement runs on it.
struct Busy<'a> {
    database: &'a Database,
    connection: Option<Object>,
}

impl Busy<'_> {
    /// The statement was answered.
    fn free(mut self) -> Option<Object> {
        self.connection.take()
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let client = Object::take(connection);
        self.database.give_up(client.cancel_token(), client);
    }
}

/// Runs a statement without giving it a name, so that a pooler may send it anywhere.
pub async fn query_unnamed(
    client: &Client,
    query: &Query,
    params: Params<'_>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let typed: Vec<(&(dyn ToSql + Sync), _)> =
        params.iter().copied().zip(query.types.iter().cloned()).collect();
    client.query_typed(query.text, &typed).await
}

/// No such prepared statement, or one of that name already: a pooler shares connections.
pub fn forgot_prepared(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "26000" | "42P05"))
}
