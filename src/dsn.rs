//! Connection strings as managed Postgres hands them out.
//!
//! tokio-postgres refuses `sslmode=verify-full|verify-ca|allow`, `sslrootcert` and
//! `target_session_attrs=primary`, knows no `PG*` variables, and reads `tcp_user_timeout` in
//! seconds where libpq means milliseconds. So the text is read here, as libpq reads it, and
//! handed on by setters. A parameter that would be weaker if left out is refused; one that
//! belongs to other clients (`pgbouncer=true`) is left out and can be asked for.

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::{
    ChannelBinding, Config, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
};

mod text;
mod tls;

pub use tls::TlsMode;

use text::Params;

/// A peer that vanished is noticed after 10 + 3 × 5 s without traffic, ...
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_RETRIES: u32 = 3;
/// ... and after this with traffic, where keepalives do not run.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// A host that drops packets must not hold up the next one, nor a reconnect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where no host is named at all; libpq would try the socket that it was built with.
const HOST_DEFAULT: &str = "localhost";

/// What other clients put into a URL and Tidings has no use for. None of it weakens anything.
const FOREIGN: &[&str] = &[
    "application_id",
    "client_encoding",
    "connection_limit",
    "fallback_application_name",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "pgbouncer",
    "pool_mode",
    "pool_timeout",
    "prepareThreshold",
    "prepared_statements",
    "schema",
    "socket_timeout",
    "sslcompression",
    "sslpassword",
    "sslsni",
    "statement_cache_size",
    "supa",
];

/// A connection string that was understood. Its `Debug` and `Display` show no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Dsn {
    config: Config,
    tls_mode: TlsMode,
    tls_files: tls::Files,
    ignored: Vec<String>,
}

/// Why a connection string was refused. Shows no part of it but names of parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    #[error("it must begin with postgres:// or postgresql://, or be key=value pairs: {0}")]
    Text(&'static str),
    #[error("the parameter {0} is not supported: leave it out")]
    Unsupported(String),
    #[error("{0} names a file that Tidings does not read: give host, user and password themselves")]
    Elsewhere(String),
    #[error("the parameter {key} must be {allowed}")]
    Value { key: String, allowed: &'static str },
    #[error("there are {ports} ports for {hosts} hosts: give one for all, or one for each")]
    Ports { hosts: usize, ports: usize },
    #[error("the file in {key} cannot be used: {why}")]
    File { key: &'static str, why: String },
}

impl Dsn {
    /// Reads a URL or `key=value` pairs; what they leave open comes from libpq's `PG*` variables,
    /// so that an empty text means those alone.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Dsn, DsnError> {
        let mut params = Params::parse(text)?;
        params.complete(env);
        let mut dsn = Dsn {
            config: Config::new(),
            tls_mode: TlsMode::Prefer,
            tls_files: tls::Files::default(),
            ignored: Vec::new(),
        };
        dsn.set_defaults();
        dsn.set_hosts(&mut params)?;
        dsn.set_tls(&mut params)?;
        for (key, value) in params.into_rest() {
            dsn.set(&key, &value)?;
        }
        Ok(dsn)
    }

    /// Whether the environment names a database without a connection string.
    pub fn in_environment(env: &dyn Fn(&str) -> Option<String>) -> bool {
        ["PGHOST", "PGHOSTADDR", "PGDATABASE"]
            .iter()
            .any(|name| env(name).is_some_and(|value| !value.is_empty()))
    }

    /// Names the connections in `pg_stat_activity`, unless the connection string did.
    #[must_use]
    pub fn named(mut self, application_name: &str) -> Dsn {
        if self.config.get_application_name().is_none() {
            self.config.application_name(application_name);
        }
        self
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn tls_mode(&self) -> TlsMode {
        self.tls_mode
    }

    /// What `MakeRustlsConnect` is made from; `None` where no TLS is wanted. Reads certificates.
    pub fn tls(&self) -> Result<Option<rustls::ClientConfig>, DsnError> {
        let direct = self.config.get_ssl_negotiation() == SslNegotiation::Direct;
        tls::client_config(self.tls_mode, &self.tls_files, direct)
    }

    /// Parameters of other clients that were left out, worth a line in the log.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// For people: without password, options and certificates.
    pub fn redacted(&self) -> String {
        self.to_string()
    }

    fn set_defaults(&mut self) {
        self.config
            .keepalives_idle(KEEPALIVES_IDLE)
            .keepalives_interval(KEEPALIVES_INTERVAL)
            .keepalives_retries(KEEPALIVES_RETRIES)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT);
    }

    fn set_hosts(&mut self, params: &mut Params) -> Result<(), DsnError> {
        let list = |text: Option<String>| -> Vec<String> {
            text.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
        };
        let addresses = list(params.take("hostaddr"));
        for address in &addresses {
            let address = address.parse().map_err(|_| value("hostaddr", "IP addresses"))?;
            self.config.hostaddr(address);
        }
        let mut hosts = list(params.take("host"));
        if hosts.is_empty() && addresses.is_empty() {
            hosts.push(HOST_DEFAULT.to_owned());
        }
        for host in &hosts {
            match host.as_str() {
                "" => self.config.host(HOST_DEFAULT),
                path if path.starts_with('/') => self.config.host_path(path),
                name => self.config.host(name),
            };
        }
        if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
            return Err(value("hostaddr", "as many addresses as there are hosts"));
        }
        let ports = list(params.take("port"));
        let count = hosts.len().max(addresses.len());
        if ports.len() > 1 && ports.len() != count {
            return Err(DsnError::Ports { hosts: count, ports: ports.len() });
        }
        for port in &ports {
            let port = if port.is_empty() { "5432" } else { port };
            // Part of a password that was not percent-encoded often ends up here.
            let allowed = "a number up to 65535 (is a / ? # or @ in the password written as %2F \
                           %3F %23 %40?)";
            self.config.port(port.parse().map_err(|_| value("port", allowed))?);
        }
        // With several hosts some are standbys, and Tidings writes.
        if count > 1 {
            self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(())
    }

    fn set_tls(&mut self, params: &mut Params) -> Result<(), DsnError> {
        let ssl = params.take("ssl");
        let mode = params.take("sslmode");
        self.tls_files = tls::Files {
            root: params.take("sslrootcert"),
            certificate: params.take("sslcert"),
            key: params.take("sslkey"),
        };
        self.tls_mode = TlsMode::parse(mode.as_deref(), ssl.as_deref(), &self.tls_files)?;
        let only_sockets = self.config.get_hostaddrs().is_empty()
            && self.config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        if only_sockets {
            // As libpq: a Unix socket never speaks TLS, whatever is asked for.
            self.tls_mode = TlsMode::Disable;
        }
        self.config.ssl_mode(match self.tls_mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        Ok(())
    }

    fn set(&mut self, key: &str, text: &str) -> Result<(), DsnError> {
        const SECONDS: &str = "a whole number of seconds";
        let config = &mut self.config;
        match key {
            "user" => drop(config.user(text)),
            "password" => drop(config.password(text)),
            "dbname" => drop(config.dbname(text)),
            "options" => drop(config.options(text)),
            "application_name" => drop(config.application_name(text)),
            "connect_timeout" => {
                // Zero means for ever in libpq; a limit once set cannot be unset here, so a day.
                let timeout = match number(key, text, SECONDS)? {
                    0 => Duration::from_secs(86_400),
                    s => Duration::from_secs(s),
                };
                config.connect_timeout(timeout);
            }
            "tcp_user_timeout" => {
                // Zero leaves it to the system, which tokio-postgres does too when it gets zero.
                let ms = number(key, text, "a whole number of milliseconds")?;
                config.tcp_user_timeout(Duration::from_millis(ms));
            }
            "keepalives" => drop(config.keepalives(number(key, text, "0 or 1")? != 0)),
            "keepalives_idle" => match number(key, text, SECONDS)? {
                0 => {}
                s => drop(config.keepalives_idle(Duration::from_secs(s))),
            },
            "keepalives_interval" => match number(key, text, SECONDS)? {
                0 => {}
                s => drop(config.keepalives_interval(Duration::from_secs(s))),
            },
            "keepalives_count" | "keepalives_retries" => {
                let allowed = "a whole number";
                match u32::try_from(number(key, text, allowed)?) {
                    Ok(0) => {}
                    Ok(count) => drop(config.keepalives_retries(count)),
                    Err(_) => return Err(value(key, allowed)),
                }
            }
            "target_session_attrs" => match text {
                "any" => drop(config.target_session_attrs(TargetSessionAttrs::Any)),
                "read-write" | "primary" => {
                    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
                }
                _ => {
                    return Err(value(key, "any, read-write or primary, because Tidings writes"));
                }
            },
            "channel_binding" => drop(config.channel_binding(match text {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err(value(key, "disable, prefer or require")),
            })),
            "load_balance_hosts" => drop(config.load_balance_hosts(match text {
                "disable" => LoadBalanceHosts::Disable,
                "random" => LoadBalanceHosts::Random,
                _ => return Err(value(key, "disable or random")),
            })),
            "sslnegotiation" => drop(config.ssl_negotiation(match text {
                "postgres" => SslNegotiation::Postgres,
                "direct" if self.tls_mode >= TlsMode::Require => SslNegotiation::Direct,
                _ => return Err(value(key, "postgres, or direct with sslmode=require or more")),
            })),
            "service" | "passfile" => return Err(DsnError::Elsewhere(key.to_owned())),
            "gssencmode" if matches!(text, "disable" | "prefer") => {}
            "gssencmode" => return Err(value(key, "disable or prefer: use TLS")),
            "sslcertmode" if matches!(text, "disable" | "allow") => {}
            "sslcertmode" => return Err(value(key, "disable or allow")),
            foreign if FOREIGN.contains(&foreign) => self.ignored.push(foreign.to_owned()),
            other => return Err(DsnError::Unsupported(other.to_owned())),
        }
        Ok(())
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        f.write_str("postgres://")?;
        if let Some(user) = config.get_user() {
            let password = if config.get_password().is_some() { ":***" } else { "" };
            write!(f, "{user}{password}@")?;
        }
        let ports = config.get_ports();
        let addresses: Vec<String> =
            config.get_hostaddrs().iter().map(ToString::to_string).collect();
        let mut hosts: Vec<String> = config.get_hosts().iter().map(host_text).collect();
        if hosts.is_empty() {
            hosts = addresses;
        }
        for (i, host) in hosts.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{host}")?;
            if let Some(port) = ports.get(i).or(ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}?sslmode={}", config.get_dbname().unwrap_or(""), self.tls_mode)
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self})")
    }
}

fn host_text(host: &Host) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string().replace('/', "%2F"),
    }
}

fn number(key: &str, text: &str, allowed: &'static str) -> Result<u64, DsnError> {
    match text.trim().parse::<i64>() {
        // As libpq: what is below zero means what zero means.
        Ok(number) => Ok(u64::try_from(number).unwrap_or(0)),
        Err(_) => Err(value(key, allowed)),
    }
}

fn value(key: &str, allowed: &'static str) -> DsnError {
    DsnError::Value { key: key.to_owned(), allowed }
}

#[cfg(test)]
mod tests;
