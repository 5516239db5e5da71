//! One replica of the demo: a process that is started again when it dies.
//!
//! ```text
//!             it says that it listens       /readyz says yes
//!   started ──────────────────────▶ listens ───────────────▶ ready
//!    ▲   │ never listened, its port was taken:                 │
//!    │   ▼ at once, on another one                             │ it ended
//!    ├───┘                                                     │
//!    └──────────────── after a growing pause ◀─────────────────┘
//! ```

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::database::Database;
use super::{DemoError, LEAVE_WITH_STDIN_FLAG, say};

/// Long enough to see that a replica is away, short enough not to wait for it.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A replica that ran this long was well, and its next death is followed by the short pause again.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// How often a replica may end without ever having listened: then the fault is not its port's.
const STARTS_MAX: u32 = 5;

/// Clients of a demo need no time to go elsewhere.
const DRAIN_S: &str = "1";
/// Trends move while one looks.
const FLUSH_MS: &str = "1000";
/// Who kills the replica that reads a source sees another one take it over, and need not wait long.
const LEASE_MS: &str = "5000";
/// How long a leaving replica may take: its drain, the end of its loops, and room.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// How often a replica that listens is asked whether it is ready.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Ports ten apart keep their last digit, so that 8092 is still the second replica.
const PORT_STEP: u16 = 10;
const PORTS_TRIED: u16 = 100;

/// What shows it as it is now; written by `live`, read by whoever waits for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub port: u16,
    /// The process, while it is ready.
    pub ready: Option<u32>,
}

pub struct Replica {
    pub name: String,
    port_wanted: u16,
    /// On a server of our own, the variables that are set for another one must not count.
    borrowed: bool,
    database_url: String,
    /// Where sources of telemetry may be read.
    edge: String,
    state: watch::Sender<State>,
}

/// How one process ended.
struct Ended {
    status: Option<ExitStatus>,
    listened: bool,
    port_taken: bool,
}

impl Replica {
    pub fn new(number: u16, port_wanted: u16, database: &Database, edge: String) -> Replica {
        Replica {
            name: format!("replica-{number}"),
            port_wanted,
            borrowed: database.is_borrowed(),
            database_url: database.url.clone(),
            edge,
            state: watch::Sender::default(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", address(self.state.borrow().port))
    }

    pub fn pid(&self) -> Option<u32> {
        self.state.borrow().ready
    }

    /// Resolves when it takes traffic.
    pub async fn ready(&self) {
        // The sender is ours, so this ends with the state alone.
        let _ = self.state.subscribe().wait_for(|state| state.ready.is_some()).await;
    }

    /// Where it takes connections, while it is ready.
    pub fn ready_port(&self) -> Option<u16> {
        let state = self.state.borrow();
        state.ready.map(|_| state.port)
    }

    /// Runs until told to leave; fails if it cannot even begin.
    pub async fn live(&self, leave: &CancellationToken) -> Result<(), DemoError> {
        let mut pauses = pauses();
        let mut port = self.free_port()?;
        let mut has_listened = false;
        let mut starts = 0;
        loop {
            let started = Instant::now();
            let ended = self.once(port, has_listened, leave).await?;
            self.state.send_modify(|state| state.ready = None);
            if leave.is_cancelled() {
                return Ok(());
            }
            has_listened |= ended.listened;
            starts += 1;
            if !has_listened && starts == STARTS_MAX {
                return Err(DemoError::Replica { name: self.name.clone(), times: starts });
            }
            if !has_listened && ended.port_taken {
                // Somebody was faster, and nobody knows this address yet.
                port = self.free_port()?;
                continue;
            }
            if started.elapsed() >= WELL_AFTER {
                pauses = self::pauses();
            }
            let pause = pauses.next().unwrap_or(PAUSE_MAX);
            let (name, seconds) = (&self.name, pause.as_secs_f32());
            say(&format!("{name} ended ({}); it starts again in {seconds:.1} s.", ended.reason()));
            tokio::select! {
                () = leave.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The life of one process.
    async fn once(
        &self,
        port: u16,
        again: bool,
        leave: &CancellationToken,
    ) -> Result<Ended, DemoError> {
        let mut child = self.command(port)?.spawn().map_err(DemoError::Program)?;
        self.state.send_replace(State { port, ready: None });
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let said = Said::default();
        let words = async {
            if let Some(stderr) = stderr {
                forward(&self.name, stderr, &said).await;
            }
        };
        let mut words = std::pin::pin!(words);
        let pid = child.id();
        let announced = async {
            let _ = said.listening.subscribe().wait_for(|listening| *listening).await;
            until_ready(port).await;
            self.state.send_replace(State { port, ready: pid });
            if again {
                let (name, address) = (&self.name, address(port));
                let pid = pid.unwrap_or_default();
                say(&format!("{name} is back at http://{address}  (process {pid})"));
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // Its end: nobody else holds the other end of the pipe.
            () = &mut words => {}
            () = announced => {}
            () = leave.cancelled() => {
                // It hangs on this pipe, and leaves when the pipe ends.
                drop(stdin);
                let _ = timeout(LEAVE_WITHIN, &mut words).await;
            }
        }
        let status = self.bury(&mut child).await;
        Ok(Ended {
            status,
            listened: *said.listening.borrow(),
            port_taken: *said.port_taken.borrow(),
        })
    }

    /// Whoever has not gone by now is killed.
    async fn bury(&self, child: &mut Child) -> Option<ExitStatus> {
        if let Ok(status) = timeout(PAUSE_MIN, child.wait()).await {
            return status.ok();
        }
        let _ = child.kill().await;
        child.wait().await.ok()
    }

    fn command(&self, port: u16) -> Result<Command, DemoError> {
        let mut command = Command::new(std::env::current_exe().map_err(DemoError::Program)?);
        command.args(["serve", LEAVE_WITH_STDIN_FLAG, "--dev"]);
        // The demo is the same whatever is set around it; and it waits for words of the log.
        let foreign = |name: &str| {
            let of_postgres = name.starts_with("PG") || name == "LISTEN_DATABASE_URL";
            name.starts_with("TIDINGS_") || (of_postgres && !self.borrowed)
        };
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(foreign) {
                command.env_remove(name);
            }
        }
        command
            .env("DATABASE_URL", &self.database_url)
            .env("TIDINGS_REPLICA", &self.name)
            .env("TIDINGS_LISTEN", address(port).to_string())
            .env("TIDINGS_DRAIN_S", DRAIN_S)
            .env("TIDINGS_TELEMETRY_HOSTS", &self.edge)
            .env("TIDINGS_TELEMETRY_FLUSH_MS", FLUSH_MS)
            .env("TIDINGS_TELEMETRY_LEASE_MS", LEASE_MS)
            .env("TIDINGS_LOG_FORMAT", "human")
            // Ctrl-C is for the demo; a replica that heard it too would hear of its end twice.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    fn free_port(&self) -> Result<u16, DemoError> {
        let wanted = self.port_wanted;
        let mut ports = (0..PORTS_TRIED).map(|step| wanted + step * PORT_STEP);
        let is_free = |port: &u16| TcpListener::bind(address(*port)).is_ok();
        let port = ports.find(is_free).ok_or_else(|| DemoError::NoPort(self.name.clone()))?;
        if port != wanted {
            say(&format!("{}: port {wanted} is taken, so it gets {port}.", self.name));
        }
        Ok(port)
    }
}

impl Ended {
    fn reason(&self) -> String {
        self.status.map_or_else(|| "nobody knows how".to_owned(), |status| status.to_string())
    }
}

/// What was read from its log, for whoever waits for it.
#[derive(Default)]
struct Said {
    listening: watch::Sender<bool>,
    port_taken: watch::Sender<bool>,
}

/// Passes on what it says, with its name in front, until its end of the pipe is closed.
async fn forward(name: &str, pipe: impl AsyncRead + Unpin, said: &Said) {
    let mut lines = BufReader::new(pipe).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        let _ = writeln!(std::io::stderr(), "{name} | {line}");
        if line.contains(" listening ") {
            said.listening.send_replace(true);
        } else if line.contains("cannot listen on") {
            said.port_taken.send_replace(true);
        }
    }
}

/// The replicas are on this machine, where no proxy leads.
pub fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap_or_default()
}

async fn until_ready(port: u16) {
    let url = format!("http://{}/readyz", address(port));
    let mut pause = tokio::time::interval(ASK_AGAIN);
    loop {
        pause.tick().await;
        if http().get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
    }
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .without_max_times()
        .build()
}
