//! Puts the parts together into a running replica. Only here (and in tests) are implementations named.

pub mod loops;
mod parts;
mod signals;

use std::time::Duration;

use tokio::sync::watch;

use self::loops::{LogLoops, Loops};
pub use self::parts::{Backend, connector, log_in};
use crate::api::limits::{Limits, OriginPolicy};
use crate::api::{Api, ApiSettings, Inner, Roll, SchemaCheck, Setting};
use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::config::{Config, Effective, Origins};
use crate::hub::{Hub, QueueSettings};
use crate::log::{Log, LogSettings};
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::presence::Presence;
use crate::publish::{PublishSettings, publisher};
use crate::recovery::{Recovery, RecoverySettings};
use crate::server::{Bounds, Server, descriptors, farewells};
use crate::store::Page;
use crate::store::postgres::database::Database;
use crate::supervise::{Shutdown, Supervisor};
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;

/// How long loops have to end after the last connection is gone: more than any of them takes, which
/// each knows itself, whatever it waits for. What is still there then hangs.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(
        "nobody could be let in: set TIDINGS_API_KEYS or a key for tokens (TIDINGS_JWT_SECRET, TIDINGS_JWT_PUBLIC_KEY_FILE, TIDINGS_JWKS_URL), or try things out with --dev"
    )]
    NobodyMayEnter,
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: std::net::SocketAddr, reason: std::io::Error },
    #[error(transparent)]
    Keys(#[from] crate::auth::KeyError),
    #[error("{file}: {reason}")]
    KeyFile { file: String, reason: std::io::Error },
    #[error("task_http_hosts: {0}")]
    TaskHosts(String),
    #[error("task_http_secrets: each must be name@host=value")]
    TaskSecrets,
    #[error("telemetry_hosts: {0}")]
    TelemetryHosts(String),
    #[error("task_kubernetes: {0}")]
    TaskKubernetes(String),
    #[error(transparent)]
    Dsn(#[from] crate::dsn::DsnError),
}

/// A replica that listens.
pub struct Replica {
    pub shutdown: Shutdown,
    pub address: std::net::SocketAddr,
    pub ops_address: Option<std::net::SocketAddr>,
    pub log: Log,
    server: Server,
    ops: Option<Server>,
    supervisor: Supervisor,
    tasks: Tasks,
    telemetry: Telemetry,
    database: Option<Database>,
    drain: Duration,
}

impl Replica {
    /// Starts the loops and binds the addresses. Postgres may come later.
    pub async fn start(config: &Config, clock: Clock) -> Result<Replica, AppError> {
        let metrics = Metrics::new();
        let backend = Backend::new(config, &clock, &metrics)?;
        Replica::over(backend, config, clock, metrics).await
    }

    /// Over a store and a bus that are given: in a test, ones that fail.
    pub async fn over(
        backend: Backend,
        config: &Config,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Replica, AppError> {
        if config.auth.is_empty() && !config.dev {
            return Err(AppError::NobodyMayEnter);
        }
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone(), metrics.clone());
        let hub = Hub::new(queue_settings(config), metrics.hub.clone());
        let (log, log_loop) = Log::new(
            log_settings(config),
            backend.store.clone(),
            hub.clone(),
            clock.clone(),
            metrics.clone(),
        );
        let (publisher, lanes, signals) = publisher(
            publish_settings(config),
            config.publish.lanes,
            &backend.store,
            backend.bus.clone(),
            &log,
            metrics.clone(),
        );
        let (tasks, task_runner) = Tasks::new(
            parts::task_settings(config)?,
            backend.tasks.clone(),
            log.clone(),
            metrics.clone(),
        )
        .map_err(AppError::TaskKubernetes)?;
        let (telemetry, readers, flusher, live) = Telemetry::new(
            parts::telemetry_settings(config)?,
            backend.sources.clone(),
            backend.readers.clone(),
            log.clone(),
            publisher.clone(),
            metrics.clone(),
        );
        let (notices, keeper) = Notices::new(
            parts::notice_settings(config, &backend.own),
            backend.notices.clone(),
            backend.inboxes.clone(),
            log.clone(),
            metrics.clone(),
        );
        let (presence, presence_loop) = Presence::new(
            parts::presence_settings(config, &backend.own),
            backend.presence.clone(),
            publisher.clone(),
            metrics.clone(),
        );
        let auth = Authenticator::new(parts::auth_settings(config)?, clock.clone())?;
        let (schema_known, schema) = watch::channel(SchemaCheck::Unknown);
        let roll = Roll::new(hub.own_signals());
        let api = Api::new(Inner {
            settings: api_settings(config),
            auth: auth.clone(),
            log: log.clone(),
            hub,
            publisher,
            tasks: tasks.clone(),
            notices,
            presence,
            telemetry: telemetry.clone(),
            metrics: metrics.clone(),
            clock,
            shutdown: shutdown.clone(),
            schema: schema.clone(),
            limits: Limits::new(config.publish.intake_bytes_max),
            started: tokio::time::Instant::now(),
            roll,
        });

        // The listener binds before the loops start: what fails at once should leave nothing behind.
        let bounds = Bounds::new(&config.server, config.hub.stall);
        let (router, ops) = match config.server.ops_listen {
            None => (api.whole_router(), None),
            Some(address) => {
                let ops = Server::bind(address, api.ops_router(), bounds, metrics.clone());
                (api.router(), Some(ops.map_err(|reason| AppError::Listen { address, reason })?))
            }
        };
        let address = config.server.listen;
        let server = Server::bind(address, router, bounds, metrics.clone())
            .map_err(|reason| AppError::Listen { address, reason })?;
        let bound = |server: &Server, address| {
            server.local_addr().map_err(|reason| AppError::Listen { address, reason })
        };
        let ops_address = match (&ops, config.server.ops_listen) {
            (Some(ops), Some(address)) => Some(bound(ops, address)?),
            _ => None,
        };
        let address = bound(&server, address)?;

        let settings = RecoverySettings::default();
        let recovery = Recovery::new(settings, backend.upkeep, log.clone(), metrics.clone());
        let loops = Loops {
            schema: backend.schema,
            schema_known,
            log: LogLoops { bus: backend.bus, log: log_loop, lanes, signals, recovery },
            tasks: task_runner,
            keeper,
            presence: presence_loop,
            telemetry: (readers, flusher, live),
            auth,
            api,
            metrics,
        };
        loops.start(&supervisor);
        let drain = config.server.drain;
        let database = backend.database;
        Ok(Replica {
            shutdown,
            address,
            ops_address,
            log,
            server,
            ops,
            supervisor,
            tasks,
            telemetry,
            database,
            drain,
        })
    }

    /// Serves until told to leave, then drains. Returns the exit code.
    pub async fn run(self) -> u8 {
        let Replica {
            shutdown, server, ops, supervisor, tasks, telemetry, database, drain, ..
        } = self;
        let ops = async {
            // Health is told to the end, so that a balancer sees the replica leave.
            let stop = Shutdown { draining: shutdown.stopping.clone(), ..shutdown.clone() };
            match ops {
                Some(ops) => {
                    ops.run(stop).await;
                }
                None => shutdown.stopping.cancelled().await,
            }
        };
        let handed_over = async {
            shutdown.draining.cancelled().await;
            // Items in hand are finished, as long as there is time.
            let both = async { tokio::join!(tasks.drained(), telemetry.drained()) };
            let _ = tokio::time::timeout(drain, both).await;
        };
        let serve = async {
            let (served, ()) = tokio::join!(server.run(shutdown.clone()), handed_over);
            if served.aborted > 0 {
                tracing::warn!(connections = served.aborted, "cut off at the end of the drain");
            }
            shutdown.stop();
        };
        tokio::join!(serve, ops);
        let ending = supervisor.join_all(STOP_TIMEOUT).await;
        if let Some(database) = database {
            database.given_up().await;
        }
        tracing::info!(code = ending.exit_code(), "left");
        ending.exit_code()
    }
}

/// Runs a replica as a process: until a signal tells it to leave, or the end of its standard input
/// if it hangs on that.
///
/// `listening` is told the address, once there is somebody to answer at it.
pub async fn serve(
    config: &Config,
    hangs_on_stdin: bool,
    listening: impl FnOnce(std::net::SocketAddr),
) -> Result<u8, AppError> {
    let files = descriptors::raise();
    let warning = descriptors::warning(files, config.server.connections_max);
    if let Some(warning) = warning.filter(|_| !config.dev) {
        tracing::warn!("{warning}");
    }
    let replica = Replica::start(config, Clock::system()).await?;
    tracing::info!(
        replica = config.replica.as_str(),
        address = %replica.address,
        ops_address = replica.ops_address.map(tracing::field::display),
        mode = if config.postgres.database.is_some() { "postgres" } else { "memory" },
        "listening"
    );
    listening(replica.address);
    let leave = signals::watch(replica.shutdown.clone(), hangs_on_stdin);
    tokio::select! {
        code = replica.run() => Ok(code),
        code = leave => Ok(code),
    }
}

fn queue_settings(config: &Config) -> QueueSettings {
    QueueSettings {
        messages_max: config.hub.session_queue_messages_max,
        bytes_max: config.hub.session_queue_bytes_max,
    }
}

fn log_settings(config: &Config) -> LogSettings {
    LogSettings {
        ring_messages_max: config.log.ring_messages_max,
        ring_bytes_max: config.log.ring_bytes_max,
        tick: config.log.tick,
        polling_tick: config.bus.polling_tick,
        readers_max: config.feed.replay_readers_max,
    }
}

fn publish_settings(config: &Config) -> PublishSettings {
    PublishSettings {
        intake_messages_max: config.publish.intake_messages_max,
        intake_bytes_max: config.publish.intake_bytes_max,
        batch_messages_max: config.limits.batch_messages_max,
        batch_bytes_max: config.publish.batch_bytes_max,
        timeout: config.publish.timeout,
    }
}

fn api_settings(config: &Config) -> ApiSettings {
    let origins = OriginPolicy {
        any: config.server.allowed_origins == Origins::Any,
        origins: match &config.server.allowed_origins {
            Origins::Listed(origins) => origins.clone(),
            _ => Vec::new(),
        },
        loopback_names_only: config.dev,
    };
    ApiSettings {
        replica: config.replica.to_string(),
        origins,
        data_bytes_max: config.limits.data_bytes_max,
        batch_messages_max: config.limits.batch_messages_max,
        body_bytes_max: config.limits.body_bytes_max,
        frame_bytes_max: config.limits.frame_bytes_max,
        frames_per_s_max: config.limits.frames_per_s_max,
        sessions_max: config.hub.sessions_max,
        sessions_per_user_max: config.hub.sessions_per_user_max,
        topics_per_session_max: config.limits.topics_per_session_max,
        history_limit_max: config.limits.history_limit_max,
        long_poll_max: config.limits.long_poll_max,
        body_timeout: config.limits.body_timeout,
        heartbeat: config.hub.heartbeat,
        farewells: farewells(&config.server),
        retention_s: parts::seconds(config.postgres.retention),
        notice_users_max: config.notices.users_max,
        notice_expires_s_max: parts::seconds(config.notices.retention),
        task_items_max: config.tasks.items_max,
        task_concurrency_max: config.tasks.concurrency_max,
        page: Page {
            messages_max: config.feed.page_messages_max,
            bytes_max: config.feed.page_bytes_max,
        },
        demo: config.demo,
        effective: config.effective.iter().map(shown).collect(),
    }
}

fn shown(effective: &Effective) -> Setting {
    let Effective { setting, value, source } = effective;
    Setting {
        part: setting.part,
        key: setting.key,
        value: value.clone(),
        source: source.clone(),
        default: setting.default,
        help: setting.help,
    }
}
