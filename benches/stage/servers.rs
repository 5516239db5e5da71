//! What is started for a run, and ended with it.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidings::bench::Group;
use tidings::cluster::{Cluster, Options};

/// For this run alone: nobody else can reach loopback of this machine under it.
pub const KEY: &str = "a-key-for-the-bench-alone";

/// With no time to drain, a replica leaves in less.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// A process that is ended when it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The floor, as a process of this program: it says its address on a line of its own.
    pub fn ws_floor(program: &Path, args: &[&str]) -> Result<Server, crate::Failure> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.trim().parse().ok());
        let address = address.ok_or("the floor of sockets did not start")?;
        Ok(Server { child, address })
    }

    /// A replica of the real binary, once it listens.
    pub fn replica(
        program: &Path,
        number: usize,
        database: &str,
    ) -> Result<Server, crate::Failure> {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("TIDINGS_") || name.starts_with("PG"))
            {
                command.env_remove(name);
            }
        }
        command
            // It leaves when its standard input ends, however we end.
            .args(["serve", "--leave-with-stdin"])
            .env("DATABASE_URL", database)
            .env("TIDINGS_LISTEN", "127.0.0.1:0")
            .env("TIDINGS_REPLICA", format!("replica-{number}"))
            .env("TIDINGS_API_KEYS", KEY)
            // All sessions here are of one user.
            .env("TIDINGS_SESSIONS_PER_USER_MAX", "1000000")
            .env("TIDINGS_DRAIN_S", "0")
            .env("TIDINGS_LOG_FORMAT", "human")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let err = child.stderr.take().ok_or("no standard error")?;
        let mut lines = BufReader::new(err).lines();
        let mut said = Vec::new();
        let address = loop {
            let line =
                lines.next().ok_or_else(|| format!("a replica did not start: {said:?}"))??;
            let word = line.split_whitespace().find_map(|word| word.strip_prefix("address="));
            if let Some(address) = word.filter(|_| line.contains("listening")) {
                break address.trim_matches('"').parse()?;
            }
            said.push(line);
        };
        // Read on, so that it can go on speaking; of that only trouble is of interest.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("WARN") || line.contains("ERROR") {
                    say(&format!("replica-{number} | {line}"));
                }
            }
        });
        Ok(Server { child, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A replica leaves when its pipe ends; a floor has nothing to lose.
        if let Some(pipe) = self.child.stdin.take() {
            drop(pipe);
            let ended = || !matches!(self.child.try_wait(), Ok(None));
            if tidings::cluster::wait_until(LEAVE_WITHIN, ended) {
                return;
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Postgres with nothing switched off.
pub fn postgres() -> Result<(Cluster, Group), crate::Failure> {
    let options = Options::demo().setting("shared_buffers", "256MB");
    let cluster = Cluster::start(&options)?;
    let pid =
        cluster.with_dir(|dir| std::fs::read_to_string(dir.join("data/postmaster.pid")))??;
    let pid = pid.lines().next().unwrap_or_default().trim().parse()?;
    Ok((cluster, Group::postgres(pid)))
}

/// A line of progress. Whoever no longer reads it misses nothing.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
