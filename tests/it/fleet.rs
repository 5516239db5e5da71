//! Replicas as processes of the real binary.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout_at};

use crate::commands::kill;

/// Long enough for a loaded machine; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Replica {
    pub name: String,
    pub url: String,
    /// Where health and metrics are, if they are apart.
    pub ops_url: Option<String>,
    child: Child,
    /// Kept open: a process whose stderr is closed would fail to log.
    stderr: Option<Lines<BufReader<ChildStderr>>>,
    settings: BTreeMap<String, String>,
}

impl Replica {
    /// Starts one on a free port and waits until it is ready.
    pub async fn start(name: &str, database_url: &str, settings: &[(&str, &str)]) -> Replica {
        let mut replica = Replica::spawned(name, database_url, settings).await;
        replica.until_ready().await;
        replica
    }

    /// Starts one and waits until it listens.
    pub async fn spawned(name: &str, database_url: &str, settings: &[(&str, &str)]) -> Replica {
        let database = ("DATABASE_URL", database_url);
        let settings: Vec<_> = [database].into_iter().chain(settings.iter().copied()).collect();
        Replica::spawn(name, environment(name, &settings)).await
    }

    /// Starts one without a database, whose log is gone when it ends.
    pub async fn in_memory(name: &str, settings: &[(&str, &str)]) -> Replica {
        let mut replica = Replica::spawn(name, environment(name, settings)).await;
        replica.until_ready().await;
        replica
    }

    /// What it says, and its exit code, when it ought not to start.
    pub async fn refused(settings: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = command(&environment("refused", settings));
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.expect("it does not start").unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    async fn spawn(name: &str, mut settings: BTreeMap<String, String>) -> Replica {
        // Thousands of sockets have two ends, and one of them is here.
        tidings::server::descriptors::raise();
        let mut child = command(&settings).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let deadline = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        let (address, ops_address) = loop {
            let line =
                timeout_at(deadline, lines.next_line()).await.expect("it says where it listens");
            let line = line.unwrap().unwrap_or_else(|| panic!("it did not start: {before:?}"));
            if line.contains("listening")
                && let Some(address) = field(&line, "address")
            {
                break (address, field(&line, "ops_address"));
            }
            before.push(line);
        };
        settings.insert("TIDINGS_LISTEN".to_owned(), address.clone());
        let url = format!("http://{address}");
        let ops_url = ops_address.map(|address| format!("http://{address}"));
        Replica { name: name.to_owned(), url, ops_url, child, stderr: Some(lines), settings }
    }

    /// The same replica again, under the same address.
    pub async fn start_again(&mut self) {
        let again = Replica::spawn(&self.name, self.settings.clone()).await;
        *self = again;
        self.until_ready().await;
    }

    pub async fn until_ready(&mut self) {
        until("the replica is ready", || async {
            let answer = reqwest::get(format!("{}/readyz", self.ops())).await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    fn ops(&self) -> &str {
        self.ops_url.as_deref().unwrap_or(&self.url)
    }

    /// One number of its metrics, by name and labels; 0 for what was never counted.
    pub async fn metric(&self, name: &str) -> u64 {
        let answer = reqwest::get(format!("{}/metrics", self.ops())).await.unwrap();
        let page = answer.text().await.unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Reads what it logs until a line says what is looked for, and returns that line.
    pub async fn said(&mut self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let lines = self.stderr.as_mut().expect("it was not told to leave");
        loop {
            let line = timeout_at(deadline, lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("it never says {what}"));
            let line = line.unwrap().unwrap_or_else(|| panic!("it ended before it said {what}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    pub async fn readyz(&self) -> Value {
        reqwest::get(format!("{}/readyz", self.ops())).await.unwrap().json().await.unwrap()
    }

    pub async fn stats(&self) -> Value {
        reqwest::get(format!("{}/v1/stats", self.url)).await.unwrap().json().await.unwrap()
    }

    pub fn signal(&self, signal: &str) {
        assert!(kill(signal, self.process()), "it runs");
    }

    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Tells it to leave and returns its exit code.
    pub async fn leave(&mut self) -> Option<i32> {
        self.signal("-TERM");
        self.ended().await
    }

    /// Tells it to leave and returns its exit code and what it said since it listens.
    pub async fn leave_saying(&mut self) -> (Option<i32>, Vec<String>) {
        self.signal("-TERM");
        let mut lines = self.stderr.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        while let Ok(Ok(Some(line))) = timeout_at(deadline, lines.next_line()).await {
            said.push(line);
        }
        (timeout_at(deadline, self.child.wait()).await.expect("it ends").unwrap().code(), said)
    }

    pub async fn ended(&mut self) -> Option<i32> {
        // What it still says must go somewhere, or it would wait for ever.
        let mut lines = self.stderr.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Ok(Some(_))) = timeout_at(deadline, lines.next_line()).await {}
        timeout_at(deadline, self.child.wait()).await.expect("it ends").unwrap().code()
    }

    /// Publishes and insists: whatever happens on the way, under one key it is published once.
    pub async fn publish(&self, body: &Value) -> Value {
        let client = reqwest::Client::new();
        publish_to(&client, &[&self.url], body).await
    }
}

/// Three of them over one database.
pub async fn three(database_url: &str, settings: &[(&str, &str)]) -> Vec<Replica> {
    let start = |number: usize| {
        let name = format!("replica-{number}");
        async move { Replica::start(&name, database_url, settings).await }
    };
    futures_util::future::join_all((1..=3).map(start)).await
}

pub fn urls(fleet: &[Replica]) -> Vec<String> {
    fleet.iter().map(|replica| replica.url.clone()).collect()
}

/// A replica is ready a moment before its listener has read what it missed.
pub async fn until_live(fleet: &[Replica]) {
    for replica in fleet {
        until("the listener is live", async || replica.readyz().await["listener"] == "live").await;
    }
}

/// The settings of a test come last, so that they win.
fn environment(name: &str, settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    [("TIDINGS_REPLICA", name), ("TIDINGS_DEV", "true"), ("TIDINGS_LISTEN", "127.0.0.1:0")]
        .into_iter()
        .chain(settings.iter().copied())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn command(settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.arg("serve").env_clear().envs(settings).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A field of a line of the log, in either of its formats.
fn field(line: &str, name: &str) -> Option<String> {
    if let Ok(said) = serde_json::from_str::<Value>(line) {
        return said[name].as_str().map(str::to_owned);
    }
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.map(|word| word.trim_matches('"').to_owned())
}

/// Publishes to one of several replicas, the next one if that does not work.
pub async fn publish_to(client: &reqwest::Client, urls: &[&str], body: &Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    for url in urls.iter().cycle() {
        assert!(Instant::now() < deadline, "nobody takes {body}: {last}");
        let sent = client.post(format!("{url}/v1/messages")).json(body).send().await;
        match sent {
            Ok(answer) if answer.status() == 201 => return answer.json().await.unwrap(),
            // A proxy says 502 or 504 if its replica has just died.
            Ok(answer) if [429, 502, 503, 504].contains(&answer.status().as_u16()) => {
                last = answer.text().await.unwrap_or_default();
            }
            Ok(answer) => panic!("{}: {}", answer.status(), answer.text().await.unwrap()),
            Err(error) => last = error.to_string(),
        }
        tokio::task::yield_now().await;
    }
    unreachable!()
}

/// Waits for a state, and says for which one it waited in vain.
pub async fn until<F: Future<Output = bool>>(what: &str, mut state: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    while !state().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        pause.tick().await;
    }
}
