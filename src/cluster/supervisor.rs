//! Our end of the shell that owns a server.
//!
//! The server must go when we go, even when nobody could tell it: so its owner is a child that
//! reads our pipe, and the pipe ends with us whatever ended us. Everything that touches the server
//! goes through that one shell, one command after the other, so that the end can never overtake a
//! start.
//!
//! ```text
//!  Cluster --"start 20311"--> sh --> pg_ctl --> postgres
//!          <------"ok"-------
//!  kill -9      end of file-> sh: pg_ctl stop -m immediate; rm -rf
//! ```

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::account::Account;
use super::programs::Programs;
use super::wait::wait_until;
use super::{ClusterError, directory, docker};

const NATIVE: &str = concat!(include_str!("native.sh"), include_str!("supervisor.sh"));
const DOCKER: &str = concat!(include_str!("docker.sh"), include_str!("supervisor.sh"));

/// `pg_ctl` gives up after 60 s by itself; a command that outlives this hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// The same for fetching an image over a slow line.
const FETCH_WITHIN: Duration = Duration::from_secs(600);
/// The shell needs 10 s at most to stop a server that does not answer.
const GONE_WITHIN: Duration = Duration::from_secs(15);

pub struct Supervisor {
    child: Child,
    /// Closed to tell the end.
    commands: Option<ChildStdin>,
    /// Sent by a thread that reads the shell's lines. At most one command is under way, so one
    /// place is enough; when nobody takes it any more, the thread ends with the shell.
    answers: Receiver<String>,
    dir: PathBuf,
}

impl Supervisor {
    /// `settings` are names and values of `postgresql.conf`.
    pub fn start(
        programs: &Programs,
        settings: &[(String, String)],
    ) -> Result<Supervisor, ClusterError> {
        let native = matches!(programs, Programs::Native(_));
        let account = if native { Account::to_drop_to()? } else { None };
        let dir = directory::make(account).map_err(ClusterError::Directory)?;
        let mut command = Command::new("sh");
        match programs {
            Programs::Native(bin) => command.args(["-c", NATIVE]).env("TIDINGS_BIN", bin),
            Programs::Docker => command
                .args(["-c", DOCKER])
                .env("TIDINGS_IMAGE", docker::IMAGE)
                .env("TIDINGS_CONTAINER", format!("tidings-{:016x}", directory::random())),
        };
        command
            .env("TIDINGS_DIR", &dir)
            .env("TIDINGS_LOG_FILE", dir.join("supervisor.log"))
            .env("TIDINGS_SETTINGS", as_file(settings))
            .env("TIDINGS_FLAGS", as_flags(settings))
            // What the server says is read by us, and where it lies is told by us.
            .env("LC_ALL", "C")
            .env_remove("PGDATA")
            .current_dir(&dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(account) = account {
            account.apply(&mut command);
        }
        let spawned = command.spawn();
        let mut child = spawned.map_err(|error| {
            let _ = std::fs::remove_dir_all(&dir);
            ClusterError::Directory(error)
        })?;
        let commands = child.stdin.take();
        let (send, answers) = sync_channel(1);
        if let Some(lines) = child.stdout.take() {
            std::thread::spawn(move || {
                let lines = BufReader::new(lines).lines().map_while(Result::ok);
                lines.map(|line| send.send(line)).take_while(Result::is_ok).count()
            });
        }
        Ok(Supervisor { child, commands, answers, dir })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether what was asked for succeeded; why it did not is in the log.
    pub fn tell(&mut self, command: &str) -> Result<bool, ClusterError> {
        let within = if command == "init" { FETCH_WITHIN } else { ANSWER_WITHIN };
        let told = self.commands.as_mut().map(|pipe| writeln!(pipe, "{command}"));
        match (told, self.answers.recv_timeout(within)) {
            (Some(Ok(())), Ok(answer)) => Ok(answer == "ok"),
            _ => Err(ClusterError::Supervisor(command.to_owned())),
        }
    }

    /// The end of what the server and its programs said.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let text = read("supervisor.log") + &read("postgres.log");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.commands.take());
        let child = &mut self.child;
        if !wait_until(GONE_WITHIN, || !matches!(child.try_wait(), Ok(None))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Only what the shell may not remove itself is left: its own name in a directory of ours.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn as_file(settings: &[(String, String)]) -> String {
    let line =
        |(name, value): &(String, String)| format!("{name} = '{}'", value.replace('\'', "''"));
    settings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The image is given flags instead, and has its own addresses.
fn as_flags(settings: &[(String, String)]) -> String {
    let own = |name: &str| matches!(name, "listen_addresses" | "unix_socket_directories");
    let given = settings.iter().filter(|(name, _)| !own(name));
    given.map(|(name, value)| format!("-c {name}={value}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_in_the_file_and_addresses_are_left_to_the_image() {
        let settings = [("listen_addresses", "127.0.0.1"), ("application_name", "it's")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            as_file(&settings),
            "listen_addresses = '127.0.0.1'\napplication_name = 'it''s'"
        );
        assert_eq!(as_flags(&settings), "-c application_name=it's");
    }
}
