//! A private Postgres for tests and for `tidings demo`, found or made without being told.
//!
//! `Cluster::start` takes the server's programs from wherever they are (see `Programs::find`), makes
//! a cluster in a directory of its own on a free port of loopback, and takes all of it away again
//! when the `Cluster` is dropped or our process ends, by whatever death (see `supervisor`).
//! `Cluster::from_url` stands for a server that somebody else looks after.
//!
//! Everything here blocks: it is for the beginning and the end of tests, not for a replica's loops.

mod account;
mod directory;
mod docker;
mod install;
mod process;
mod programs;
mod statement;
mod supervisor;
mod wait;

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;

pub use programs::Programs;
use supervisor::Supervisor;
pub use wait::wait_until;

/// A free port may be taken by somebody else before Postgres binds it, but not time and again.
const PORT_ATTEMPTS: usize = 5;
/// How long a stopped server's own port may be held by somebody else before we give up.
const PORT_BACK_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no Postgres, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "no Postgres was found and {0}: install one (`apt-get install postgresql`, `brew install postgresql@17`), start Docker, or set DATABASE_URL to one that runs"
    )]
    NoPostgres(String),
    #[error(
        "Postgres refuses to run as root, and there is no account `postgres` or `nobody` to run it as: run this as another user, or set DATABASE_URL"
    )]
    NoAccount,
    #[error(
        "a directory for Postgres could not be prepared; set TMPDIR to one that can be written"
    )]
    Directory(#[source] std::io::Error),
    #[error("no free port was found on 127.0.0.1: stop some servers, or set DATABASE_URL")]
    NoPort,
    #[error("Postgres could not {doing}; it said:\n{log}")]
    Server { doing: &'static str, log: String },
    #[error(
        "the shell that owns Postgres did not answer `{0}`; it was stopped by somebody, start again"
    )]
    Supervisor(String),
    #[error("this server is not ours to stop or pause: unset DATABASE_URL and TEST_DATABASE_URL")]
    Borrowed,
    #[error(
        "the database URL cannot be read: write it as postgres://user:password@host:port/database"
    )]
    Url,
    #[error("Postgres refused a statement: {0}")]
    Statement(String),
    #[error("no thread could be prepared to talk to Postgres")]
    Runtime(#[from] std::io::Error),
}

/// How a private cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Off is faster, and loses the cluster if the machine (not the server) crashes.
    pub fsync: bool,
    pub connections_max: u16,
    /// More lines of `postgresql.conf`: names and values.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// For what is thrown away when the tests are over.
    pub fn test() -> Options {
        Options { fsync: false, ..Options::demo() }
    }

    /// As durable as a real installation.
    pub fn demo() -> Options {
        Options { fsync: true, connections_max: 200, settings: Vec::new() }
    }

    pub fn setting(mut self, name: &str, value: &str) -> Options {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As `postgresql.conf` has it; the last of two lines counts, so what was asked for stands last.
    fn lines(&self) -> Vec<(String, String)> {
        let flag = |on: bool| if on { "on" } else { "off" };
        let own = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            // Other systems keep sockets in one directory for all; loopback is enough.
            ("unix_socket_directories", String::new()),
            ("max_connections", self.connections_max.to_string()),
            ("fsync", flag(self.fsync).to_owned()),
            ("full_page_writes", flag(self.fsync).to_owned()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(self.settings.iter().cloned()).collect()
    }
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sessions are cut off, then it shuts down in order.
    Fast,
    /// As in a crash: it recovers from the WAL when it starts again.
    Immediate,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Mode::Fast => "fast",
            Mode::Immediate => "immediate",
        }
    }
}

/// A Postgres server, ours or borrowed.
pub struct Cluster {
    /// The server's own database, in which others are made.
    admin: String,
    own: Option<Own>,
}

/// What belongs to a server of ours.
struct Own {
    port: u16,
    /// Held for one command at a time, and never across an await.
    supervisor: Mutex<Supervisor>,
}

impl Cluster {
    /// Finds what can run a Postgres, and starts a private one.
    pub fn start(options: &Options) -> Result<Cluster, ClusterError> {
        Cluster::start_with(&Programs::find()?, options)
    }

    pub fn start_with(programs: &Programs, options: &Options) -> Result<Cluster, ClusterError> {
        let mut supervisor = Supervisor::start(programs, &options.lines())?;
        if !supervisor.tell("init")? {
            return Err(ClusterError::Server { doing: "prepare its data", log: supervisor.log() });
        }
        for _ in 0..PORT_ATTEMPTS {
            let port = directory::free_port().ok_or(ClusterError::NoPort)?;
            if supervisor.tell(&format!("start {port}"))? {
                let admin = format!("postgres://postgres@{}:{port}/postgres", Ipv4Addr::LOCALHOST);
                let own = Some(Own { port, supervisor: Mutex::new(supervisor) });
                return Ok(Cluster { admin, own });
            }
            if !is_clash(&supervisor.log()) {
                break;
            }
        }
        Err(ClusterError::Server { doing: "start", log: supervisor.log() })
    }

    /// A server that somebody else looks after: databases are made there, it is never stopped.
    pub fn from_url(url: &str) -> Cluster {
        Cluster { admin: url.to_owned(), own: None }
    }

    pub fn is_borrowed(&self) -> bool {
        self.own.is_none()
    }

    /// The address of one of its databases.
    pub fn url(&self, database: &str) -> String {
        with_database(&self.admin, database)
    }

    /// A new database, as a copy of `template` if one is given.
    pub fn create_database(&self, name: &str, template: Option<&str>) -> Result<(), ClusterError> {
        let name = statement::quoted(name);
        let copied = template.map(|template| format!(" template {}", statement::quoted(template)));
        let create = format!("create database {name}{}", copied.unwrap_or_default());
        statement::execute(&self.admin, &create)
    }

    /// Whoever is connected to it is cut off.
    pub fn drop_database(&self, name: &str) -> Result<(), ClusterError> {
        let drop = format!("drop database if exists {} with (force)", statement::quoted(name));
        statement::execute(&self.admin, &drop)
    }

    pub fn stop(&self, mode: Mode) -> Result<(), ClusterError> {
        let own = self.own()?;
        tell(&mut own.supervisor.lock(), &format!("stop {}", mode.as_str()), "stop")
    }

    /// On the port it had, so that every address stays good.
    pub fn start_again(&self) -> Result<(), ClusterError> {
        let own = self.own()?;
        let mut supervisor = own.supervisor.lock();
        let mut result = Ok(());
        wait_until(PORT_BACK_WITHIN, || {
            result = tell(&mut supervisor, &format!("start {}", own.port), "start again");
            match &result {
                Err(ClusterError::Server { log, .. }) => !is_clash(log),
                _ => true,
            }
        });
        result
    }

    /// Time stops for the server: connections stay, nobody answers.
    ///
    /// The postmaster first, so that no child is born that nobody paused.
    pub fn pause(&self) -> Result<(), ClusterError> {
        let own = self.own()?;
        let mut supervisor = own.supervisor.lock();
        let Some(postmaster) = process::postmaster(supervisor.dir()) else {
            return tell(&mut supervisor, "pause", "be paused");
        };
        tell(&mut supervisor, &format!("pause {postmaster}"), "be paused")?;
        for child in process::children(postmaster) {
            // One that ended meanwhile needs no pause.
            supervisor.tell(&format!("pause {child}"))?;
        }
        Ok(())
    }

    pub fn resume(&self) -> Result<(), ClusterError> {
        tell(&mut self.own()?.supervisor.lock(), "resume", "go on")
    }

    /// Where a server of ours keeps everything it has.
    pub fn with_dir<T>(&self, look: impl FnOnce(&Path) -> T) -> Result<T, ClusterError> {
        Ok(look(self.own()?.supervisor.lock().dir()))
    }

    /// Whether somebody listens on its port; a paused server does.
    pub fn is_listening(&self) -> Result<bool, ClusterError> {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, self.own()?.port)).is_ok())
    }

    fn own(&self) -> Result<&Own, ClusterError> {
        self.own.as_ref().ok_or(ClusterError::Borrowed)
    }
}

fn tell(
    supervisor: &mut Supervisor,
    command: &str,
    doing: &'static str,
) -> Result<(), ClusterError> {
    match supervisor.tell(command)? {
        true => Ok(()),
        false => Err(ClusterError::Server { doing, log: supervisor.log() }),
    }
}

/// Postgres says the first, Docker one of the others.
fn is_clash(log: &str) -> bool {
    ["Address already in use", "port is already allocated", "address already in use"]
        .iter()
        .any(|words| log.contains(words))
}

/// The same server with another database, in either form in which a server is written.
fn with_database(url: &str, database: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Of two the last one counts.
        return format!("{url} dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"));
    };
    let (rest, parameters) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    let parameters = parameters.map(|text| format!("?{text}")).unwrap_or_default();
    format!("{scheme}://{host}/{database}{parameters}")
}

#[cfg(test)]
mod tests;
