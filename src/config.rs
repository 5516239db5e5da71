//! The settings: one catalogue, three places to set them, one typed result.
//!
//! A flag wins over a variable, a variable over the settings file, the file over the default.
//! Everything that is wrong is found at once, and each fault names the setting, where its value
//! came from, the value unless it is secret, and what is allowed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{Pattern, ReplicaId};
use crate::dsn::Dsn;

mod auth;
mod build;
mod catalogue;
mod document;
mod error;
mod secret;
mod sources;
mod values;

pub use auth::{Algorithm, Auth, Keys};
pub use catalogue::{Kind, SETTINGS, Secrecy, Setting, Unit};
pub use document::settings_markdown;
pub use error::{ConfigError, Fault, Source};
pub use secret::Secret;
pub use sources::{CONFIG_ENV, Flags, args};

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub replica: ReplicaId,
    /// No tokens, everybody is admin, loopback only.
    pub dev: bool,
    /// Set by `serve` when a demo started it: then it can be told to die.
    pub demo: bool,
    pub logging: Logging,
    pub server: Server,
    pub auth: Auth,
    pub limits: Limits,
    pub publish: Publish,
    pub hub: Hub,
    pub log: Log,
    pub bus: Bus,
    pub feed: Feed,
    pub tasks: Tasks,
    pub notices: Notices,
    pub presence: Presence,
    pub telemetry: Telemetry,
    pub memory: Memory,
    pub postgres: Postgres,
    /// What is allowed and yet worth a line in the log.
    pub warnings: Vec<String>,
    /// Every setting that has a value.
    pub effective: Vec<Effective>,
    shown: String,
}

/// A setting in force, fit to be shown.
#[derive(Clone, Debug)]
pub struct Effective {
    pub setting: &'static Setting,
    /// `None`: it is set, and secret.
    pub value: Option<String>,
    /// Where it came from.
    pub source: String,
}

#[derive(Clone, Debug)]
pub struct Logging {
    /// In the language of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    Human,
    Json,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub listen: SocketAddr,
    pub ops_listen: Option<SocketAddr>,
    pub allowed_origins: Origins,
    pub drain: Duration,
    pub accept_grace: Duration,
    pub connections_max: usize,
    pub header_timeout: Duration,
}

/// Whose pages may open sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origins {
    Same,
    Any,
    /// In lower case, `scheme://host[:port]`.
    Listed(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub data_bytes_max: usize,
    pub frame_bytes_max: usize,
    pub body_bytes_max: usize,
    pub batch_messages_max: usize,
    pub frames_per_s_max: u32,
    pub topics_per_session_max: usize,
    pub history_limit_max: usize,
    pub long_poll_max: Duration,
    pub body_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Publish {
    pub intake_messages_max: usize,
    pub intake_bytes_max: usize,
    pub timeout: Duration,
    pub lanes: usize,
    pub batch_bytes_max: usize,
    pub idempotency: Duration,
}

#[derive(Clone, Debug)]
pub struct Hub {
    pub sessions_max: usize,
    pub sessions_per_user_max: usize,
    pub session_queue_messages_max: usize,
    pub session_queue_bytes_max: usize,
    pub stall: Duration,
    pub heartbeat: Duration,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub ring_messages_max: usize,
    pub ring_bytes_max: usize,
    pub tick: Duration,
}

#[derive(Clone, Debug)]
pub struct Bus {
    pub polling_tick: Duration,
    pub pulse: Duration,
}

#[derive(Clone, Debug)]
pub struct Feed {
    pub replay_readers_max: usize,
    pub page_messages_max: usize,
    pub page_bytes_max: usize,
}

/// The log of a replica without a database.
#[derive(Clone, Debug)]
pub struct Memory {
    pub messages_max: usize,
    pub bytes_max: usize,
    pub items_max: usize,
}

#[derive(Clone, Debug)]
pub struct Tasks {
    pub tasks_max: usize,
    pub items_at_once_max: usize,
    pub concurrency_max: u32,
    pub items_max: usize,
    pub lease: Duration,
    pub tick: Duration,
    pub takeovers_max: u32,
    pub retention: Duration,
    /// As they were written; the executors know what they mean.
    pub http_hosts: Vec<String>,
    pub http_secrets: Vec<Secret>,
    /// `in-cluster`, or the path of a kubeconfig.
    pub kubernetes: Option<String>,
    pub kubernetes_context: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Telemetry {
    pub hosts: Vec<String>,
    pub key: Option<Secret>,
    pub sources_max: usize,
    pub instances_max: usize,
    pub lease: Duration,
    pub silence: Duration,
    pub flush: Duration,
    pub batch_events: usize,
    pub batch_age: Duration,
    pub buffer_events_max: usize,
    pub buffer_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub struct Notices {
    pub users_max: usize,
    pub replays_max: usize,
    pub replay_age: Duration,
    pub grace: Duration,
    pub tick: Duration,
    pub retention: Duration,
}

#[derive(Clone, Debug)]
pub struct Presence {
    pub lease: Duration,
    /// Where joining and leaving is told.
    pub topics: Vec<Pattern>,
}

#[derive(Clone, Debug)]
pub struct Postgres {
    /// `None`: one replica in memory.
    pub database: Option<Dsn>,
    /// Past the pooler, if there is one; then `database` is the pooler's.
    pub listen_database: Option<Dsn>,
    pub pool_connections_max: usize,
    pub pool_wait: Duration,
    pub statement_timeout: Duration,
    pub retention: Duration,
    pub partition_rows: u64,
}

impl Config {
    /// From the command line, the process's variables and the file that one of them names.
    pub fn load(flags: &Flags) -> Result<Config, ConfigError> {
        let env = |name: &str| std::env::var(name).ok();
        let path = flags.config_file().map(str::to_owned).or_else(|| env(CONFIG_ENV));
        let toml = match path.filter(|path| !path.is_empty()).map(PathBuf::from) {
            None => None,
            Some(path) => Some(std::fs::read_to_string(&path).map_err(|error| {
                ConfigError(vec![Fault::File(format!("{}: {error}", path.display()))])
            })?),
        };
        Config::resolve(flags, &env, toml.as_deref())
    }

    /// The same without a process around it; reads no files but those that settings name.
    pub fn resolve(
        flags: &Flags,
        env: &dyn Fn(&str) -> Option<String>,
        toml: Option<&str>,
    ) -> Result<Config, ConfigError> {
        build::config(flags, env, toml)
    }

    /// Every setting with its source, in the form of a settings file, without secrets.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

#[cfg(test)]
mod tests;
