//! What a replica is made of, by mode: in memory, or over Postgres.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::AppError;
use crate::api::SchemaCheck;
use crate::auth::{AuthSettings, KeySource};
use crate::bus::Bus;
use crate::bus::memory::MemoryBus;
use crate::bus::postgres::PostgresBus;
use crate::clock::Clock;
use crate::config::{Config, Keys};
use crate::dsn::{Dsn, DsnError};
use crate::hosts::{Hosts, Secret};
use crate::metrics::Metrics;
use crate::notices::NoticeSettings;
use crate::presence::PresenceSettings;
use crate::store::memory::{MemorySettings, MemoryStore};
use crate::store::notice::{InboxStore, NoticeStore, Replays};
use crate::store::postgres::connect::Connector;
use crate::store::postgres::database::{Database, PoolSettings};
use crate::store::postgres::migrate::{MigrateError, migrate};
use crate::store::postgres::{PostgresSettings, PostgresStore};
use crate::store::presence::{Own, PresenceStore};
use crate::store::source::{ReaderStore, SourceStore};
use crate::store::task::TaskStore;
use crate::store::{LogStore, Upkeep};
use crate::tasks::{Access, SERVICE_ACCOUNT, TaskSettings};
use crate::telemetry::TelemetrySettings;

/// How long to leave a database alone whose schema could not be brought up.
const SCHEMA_RETRY: Duration = Duration::from_secs(1);

/// After so many rounds, with doubled pauses a quarter of an hour, a client that acknowledges nothing
/// is left alone: it finds what it missed in its inbox.
const NOTICE_TRIES_MAX: u32 = 5;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one read may take for who only reads.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

pub struct Backend {
    pub store: Arc<dyn LogStore>,
    pub bus: Arc<dyn Bus>,
    pub upkeep: Arc<dyn Upkeep>,
    pub tasks: Arc<dyn TaskStore>,
    pub notices: Arc<dyn NoticeStore>,
    pub inboxes: Arc<dyn InboxStore>,
    pub presence: Arc<dyn PresenceStore>,
    /// This process among all, which may bear one name.
    pub own: Own,
    pub sources: Arc<dyn SourceStore>,
    pub readers: Arc<dyn ReaderStore>,
    pub schema: Schema,
    /// Whose statements are to be given up at the end.
    pub database: Option<Database>,
}

/// What must be there before the log can be used.
pub enum Schema {
    NotNeeded,
    Postgres { connector: Connector, store: PostgresStore },
}

impl Backend {
    pub fn new(config: &Config, clock: &Clock, metrics: &Metrics) -> Result<Backend, AppError> {
        match &config.postgres.database {
            None => Ok(Backend::in_memory(config, clock)),
            Some(database) => Backend::in_postgres(config, database, metrics),
        }
    }

    fn in_memory(config: &Config, clock: &Clock) -> Backend {
        let bus = MemoryBus::default();
        let settings = MemorySettings {
            messages_max: config.memory.messages_max,
            bytes_max: config.memory.bytes_max,
            items_max: config.memory.items_max,
            retention_s: seconds(config.postgres.retention),
            idempotency_s: seconds(config.publish.idempotency),
        };
        let store = MemoryStore::new(settings, clock.clone(), bus.clone());
        Backend {
            store: Arc::new(store.clone()),
            bus: Arc::new(bus),
            upkeep: Arc::new(store.clone()),
            tasks: Arc::new(store.clone()),
            notices: Arc::new(store.clone()),
            inboxes: Arc::new(store.clone()),
            presence: Arc::new(store.clone()),
            own: own(config),
            sources: Arc::new(store.clone()),
            readers: Arc::new(store),
            schema: Schema::NotNeeded,
            database: None,
        }
    }

    fn in_postgres(
        config: &Config,
        database: &Dsn,
        metrics: &Metrics,
    ) -> Result<Backend, AppError> {
        let connector = connector(config, database)?;
        let settings = PostgresSettings {
            replica: config.replica.to_string(),
            pool: PoolSettings {
                connections_max: config.postgres.pool_connections_max,
                wait: config.postgres.pool_wait,
                statement_timeout: config.postgres.statement_timeout,
                // A listener of its own means that the way there leads through a pooler.
                prepare: config.postgres.listen_database.is_none(),
            },
            retention_s: seconds(config.postgres.retention),
            partition_rows: u32::try_from(config.postgres.partition_rows).unwrap_or(u32::MAX),
            data_bytes_max: u32::try_from(config.limits.data_bytes_max).unwrap_or(u32::MAX),
            idempotency_s: seconds(config.publish.idempotency),
        };
        let store = PostgresStore::new(connector.clone(), settings, metrics.store.clone());
        let listener = match &config.postgres.listen_database {
            Some(listen) => self::connector(config, listen)?,
            None => connector.clone(),
        };
        let own = own(config);
        let bus = PostgresBus::new(
            listener.clone(),
            store.database().clone(),
            &own.id,
            config.bus.pulse,
            metrics.bus.clone(),
        );
        Ok(Backend {
            store: Arc::new(store.clone()),
            bus: Arc::new(bus),
            upkeep: Arc::new(store.clone()),
            tasks: Arc::new(store.clone()),
            notices: Arc::new(store.clone()),
            inboxes: Arc::new(store.clone()),
            presence: Arc::new(store.clone()),
            own,
            sources: Arc::new(store.clone()),
            readers: Arc::new(store.clone()),
            database: Some(store.database().clone()),
            schema: Schema::Postgres { connector: listener, store },
        })
    }
}

/// Two processes may bear one name; what they send and hold must still be told apart.
fn own(config: &Config) -> Own {
    let id = format!("{}/{}", config.replica, uuid::Uuid::now_v7().simple());
    Own { id: id.into(), name: config.replica.as_str().into() }
}

/// Connections under the replica's name.
pub fn connector(config: &Config, dsn: &Dsn) -> Result<Connector, DsnError> {
    let dsn = dsn.clone().named(&format!("tidings/{}", config.replica));
    let tls = match dsn.tls()? {
        Some(tls) => tls,
        None => no_tls(),
    };
    Ok(Connector::new(dsn.config().clone(), tls, CONNECT_TIMEOUT))
}

/// The log in a database, for who only reads it: over one connection, and through any pooler.
pub fn log_in(dsn: &Dsn, application_name: &str) -> Result<Arc<dyn LogStore>, DsnError> {
    let tls = dsn.tls()?.unwrap_or_else(no_tls);
    let dsn = dsn.clone().named(application_name);
    let connector = Connector::new(dsn.config().clone(), tls, CONNECT_TIMEOUT);
    let settings = PostgresSettings {
        replica: application_name.to_owned(),
        pool: PoolSettings {
            connections_max: 1,
            wait: CONNECT_TIMEOUT,
            statement_timeout: READ_TIMEOUT,
            prepare: false,
        },
        // Of what writes.
        retention_s: 0,
        partition_rows: 0,
        data_bytes_max: 0,
        idempotency_s: 0,
    };
    Ok(Arc::new(PostgresStore::new(connector, settings, Metrics::new().store)))
}

/// For connections that ask for no TLS: it trusts nobody, and is never used.
fn no_tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

impl Schema {
    /// Returns when the schema is right.
    pub async fn bring_up(&self, known: &watch::Sender<SchemaCheck>) -> Result<(), String> {
        if let Schema::Postgres { connector, store } = self {
            loop {
                match migrate(connector).await {
                    Ok(_) => break,
                    Err(MigrateError::Store(error)) => {
                        tracing::warn!(%error, "Postgres cannot be used yet; trying again");
                    }
                    Err(error) => {
                        known.send_replace(SchemaCheck::Behind);
                        tracing::error!(%error, "the schema cannot be brought up; trying again");
                    }
                }
                tokio::time::sleep(SCHEMA_RETRY).await;
            }
            store.settings_store().await.map_err(|error| error.to_string())?;
        }
        known.send_replace(SchemaCheck::Right);
        Ok(())
    }
}

pub fn auth_settings(config: &Config) -> Result<AuthSettings, AppError> {
    let keys = match &config.auth.keys {
        None => None,
        Some(Keys::Secret(secret)) => Some(KeySource::Secret(secret.expose().to_owned())),
        Some(Keys::JwksUrl(url)) => Some(KeySource::Jwks(url.clone())),
        Some(Keys::PublicKeyFile(path)) => {
            let file = path.display().to_string();
            let read = std::fs::read(path);
            Some(KeySource::Pem(read.map_err(|reason| AppError::KeyFile { file, reason })?))
        }
    };
    Ok(AuthSettings {
        api_keys: config.auth.api_keys.iter().map(|key| key.expose().to_owned()).collect(),
        keys,
        algorithm: config.auth.algorithm,
        issuer: config.auth.issuer.clone(),
        audience: config.auth.audience.clone(),
        dev: config.dev,
    })
}

pub fn task_settings(config: &Config) -> Result<TaskSettings, AppError> {
    let tasks = &config.tasks;
    let secret =
        |text: &crate::config::Secret| Secret::parse(text.expose()).ok_or(AppError::TaskSecrets);
    Ok(TaskSettings {
        replica: config.replica.as_str().into(),
        tasks_max: tasks.tasks_max,
        items_at_once_max: tasks.items_at_once_max,
        lease: tasks.lease,
        tick: tasks.tick,
        takeovers_max: tasks.takeovers_max,
        retention: tasks.retention,
        hosts: Hosts::parse("task_http_hosts", &tasks.http_hosts).map_err(AppError::TaskHosts)?,
        secrets: tasks.http_secrets.iter().map(secret).collect::<Result<_, _>>()?,
        kubernetes: kubernetes(tasks).map_err(AppError::TaskKubernetes)?,
    })
}

pub fn telemetry_settings(config: &Config) -> Result<TelemetrySettings, AppError> {
    let telemetry = &config.telemetry;
    let hosts = Hosts::parse("telemetry_hosts", &telemetry.hosts);
    Ok(TelemetrySettings {
        replica: config.replica.as_str().into(),
        hosts: hosts.map_err(AppError::TelemetryHosts)?,
        key: telemetry.key.as_ref().map(|key| key.expose().into()),
        sources_max: telemetry.sources_max,
        instances_max: telemetry.instances_max,
        lease: telemetry.lease,
        silence: telemetry.silence,
        flush: telemetry.flush,
        batch_events: telemetry.batch_events,
        batch_age: telemetry.batch_age,
        buffer_events_max: telemetry.buffer_events_max,
        buffer_bytes_max: telemetry.buffer_bytes_max,
    })
}

/// The cluster that tasks may work in, if there is one.
fn kubernetes(tasks: &crate::config::Tasks) -> Result<Option<Access>, String> {
    match tasks.kubernetes.as_deref() {
        None => Ok(None),
        Some("in-cluster") => {
            let account = Path::new(SERVICE_ACCOUNT);
            Access::in_cluster(account, |name| std::env::var(name).ok()).map(Some)
        }
        Some(path) => {
            let context = tasks.kubernetes_context.as_deref();
            Access::kubeconfig(Path::new(path), context).map(Some)
        }
    }
}

pub fn notice_settings(config: &Config, own: &Own) -> NoticeSettings {
    let notices = &config.notices;
    NoticeSettings {
        replica: own.id.clone(),
        replays: Replays { max: notices.replays_max, age: notices.replay_age },
        grace: notices.grace,
        tries_max: NOTICE_TRIES_MAX,
        tick: notices.tick,
        retention: notices.retention,
    }
}

pub fn presence_settings(config: &Config, own: &Own) -> PresenceSettings {
    let presence = &config.presence;
    PresenceSettings { own: own.clone(), lease: presence.lease, watched: presence.topics.clone() }
}

pub fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
