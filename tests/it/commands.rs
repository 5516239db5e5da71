//! Commands as processes of the real binary, and what may stand between them and a server.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};

use crate::fleet::PATIENCE;

/// What a command returned and said.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a command to its end, with these variables and no others.
pub async fn tidings(args: &[&str], env: &[(&str, &str)]) -> Ran {
    Running::start(args, env).with_input("").await
}

/// The sentence of a command that failed.
pub fn said(err: &str) -> &str {
    err.strip_prefix("tidings: ").unwrap_or(err)
}

/// A command that runs.
pub struct Running {
    child: Child,
    out: Option<Lines<BufReader<ChildStdout>>>,
    err: Option<Lines<BufReader<ChildStderr>>>,
}

impl Running {
    pub fn start(args: &[&str], env: &[(&str, &str)]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.args(args).env_clear().envs(env.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().map(|out| BufReader::new(out).lines());
        let err = child.stderr.take().map(|err| BufReader::new(err).lines());
        Running { child, out, err }
    }

    /// Gives it that to read and waits for its end.
    pub async fn with_input(mut self, text: &str) -> Ran {
        let mut input = self.child.stdin.take().unwrap();
        let (mut out, mut err) = (self.out.take().unwrap(), self.err.take().unwrap());
        let write = async {
            // Who does not read it may have ended already.
            let _ = input.write_all(text.as_bytes()).await;
            drop(input);
        };
        let (mut said, mut complained) = (String::new(), String::new());
        let all = async {
            let ((), read_out, read_err) = tokio::join!(
                write,
                out.get_mut().read_to_string(&mut said),
                err.get_mut().read_to_string(&mut complained)
            );
            read_out.unwrap();
            read_err.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = timeout_at(Instant::now() + PATIENCE, all).await.expect("it ends");
        Ran { code: status.code().unwrap(), out: said, err: complained }
    }

    pub async fn stdout(&mut self) -> String {
        let line = self.out.as_mut().unwrap().next_line();
        let line = timeout_at(Instant::now() + PATIENCE, line).await.expect("it prints a line");
        line.unwrap().expect("it goes on")
    }

    pub async fn stderr(&mut self) -> String {
        let line = self.err.as_mut().unwrap().next_line();
        let line = timeout_at(Instant::now() + PATIENCE, line).await.expect("it says something");
        line.unwrap().expect("it goes on")
    }

    /// Waits until it says so.
    pub async fn says(&mut self, text: &str) {
        while !self.stderr().await.contains(text) {}
    }

    pub fn close_stdout(&mut self) {
        self.out = None;
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn signal(&self, signal: &str) {
        assert!(kill(signal, self.id()), "it runs");
    }

    /// Its exit code, and what else it said.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        let err = self.err.as_mut().unwrap().get_mut();
        let end = async {
            err.read_to_string(&mut rest).await.unwrap();
            self.child.wait().await.unwrap().code()
        };
        let code = timeout_at(Instant::now() + PATIENCE, end).await.expect("it ends");
        (code, rest)
    }
}

/// A way to a server on which every answer is lost. Its address.
pub async fn loses_answers(server: &str) -> String {
    stand_between(server, |_| {}, true).await
}

/// A way to a database on which LISTEN is answered and does nothing, as through a pooler. Its URL.
pub async fn swallows_listen(url: &str) -> String {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else {
        panic!("tests are on loopback");
    };
    let server = format!("{host}:{}", config.get_ports()[0]);
    let swallow = |bytes: &mut [u8]| {
        const LISTEN: &[u8] = b"listen tidings_doctor";
        if let Some(at) = bytes.windows(LISTEN.len()).position(|window| window == LISTEN) {
            bytes[at..at + LISTEN.len()].copy_from_slice(b"select 'nobody hears'");
        }
    };
    let address = stand_between(&server, swallow, false).await;
    url.replacen(&server, &address, 1)
}

async fn stand_between(server: &str, change: fn(&mut [u8]), lose: bool) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.to_owned();
    let pass = async move |client: TcpStream| {
        let server = TcpStream::connect(&server).await?;
        let (mut from, mut to) = (client.into_split(), server.into_split());
        let mut there = vec![0; 64 << 10];
        let mut back = vec![0; 64 << 10];
        loop {
            tokio::select! {
                read = from.0.read(&mut there) => match read? {
                    0 => return Ok::<(), std::io::Error>(()),
                    read => {
                        change(&mut there[..read]);
                        to.1.write_all(&there[..read]).await?;
                    }
                },
                read = to.0.read(&mut back) => match read? {
                    read if read == 0 || lose => return Ok(()),
                    read => from.1.write_all(&back[..read]).await?,
                },
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "stands between until the test ends")]
    tokio::spawn(async move {
        let mut open = futures_util::stream::FuturesUnordered::new();
        loop {
            use futures_util::StreamExt;
            tokio::select! {
                accepted = listener.accept() => open.push(pass(accepted.unwrap().0)),
                Some(_) = open.next() => {}
            }
        }
    });
    address
}

/// A server that says the same to everybody. Its URL, and how often it was asked.
pub async fn always_answers(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    #[expect(clippy::disallowed_methods, reason = "answers until the test ends")]
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            // One read takes a small request whole; what it says is of no interest.
            let _ = client.read(&mut [0; 64 << 10]).await;
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

/// Sends a signal, and says whether there was a process to take it. The shell has a `kill` of its
/// own where the system has none.
pub fn kill(signal: &str, pid: u32) -> bool {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("kill {signal} {pid}")]).stderr(Stdio::null());
    shell.status().unwrap().success()
}
