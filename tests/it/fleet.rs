//! Replicas as processes of the real binary.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout_at};

/// Long enough for a loaded machine; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Replica {
    pub name: String,
    pub url: String,
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
        let mut all: BTreeMap<String, String> =
            [("DATABASE_URL", database_url), ("TIDINGS_REPLICA", name), ("TIDINGS_DEV", "true")]
                .into_iter()
                .chain(settings.iter().copied())
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
        all.entry("TIDINGS_LISTEN".to_owned()).or_insert("127.0.0.1:0".to_owned());
        Replica::spawn(name, all).await
    }

    /// One without a database.
    pub async fn in_memory(name: &str, settings: &[(&str, &str)]) -> Replica {
        let own =
            [("TIDINGS_REPLICA", name), ("TIDINGS_DEV", "true"), ("TIDINGS_LISTEN", "127.0.0.1:0")];
        let all =
            own.iter().chain(settings).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut replica = Replica::spawn(name, all.collect()).await;
        replica.until_ready().await;
        replica
    }

    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    async fn spawn(name: &str, mut settings: BTreeMap<String, String>) -> Replica {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.arg("serve").env_clear().envs(&settings).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let deadline = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        let address = loop {
            let line =
                timeout_at(deadline, lines.next_line()).await.expect("it says where it listens");
            let line = line.unwrap().unwrap_or_else(|| panic!("it did not start: {before:?}"));
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            if said["message"] == "listening" {
                break said["address"].as_str().unwrap().to_owned();
            }
            before.push(line);
        };
        settings.insert("TIDINGS_LISTEN".to_owned(), address.clone());
        let url = format!("http://{address}");
        Replica { name: name.to_owned(), url, child, stderr: Some(lines), settings }
    }

    /// The same replica again, under the same address.
    pub async fn start_again(&mut self) {
        let again = Replica::spawn(&self.name, self.settings.clone()).await;
        *self = again;
        self.until_ready().await;
    }

    pub async fn until_ready(&mut self) {
        until("the replica is ready", || async {
            let answer = reqwest::get(format!("{}/readyz", self.url)).await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    pub async fn readyz(&self) -> Value {
        reqwest::get(format!("{}/readyz", self.url)).await.unwrap().json().await.unwrap()
    }

    pub async fn stats(&self) -> Value {
        reqwest::get(format!("{}/v1/stats", self.url)).await.unwrap().json().await.unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let id = self.process().to_string();
        let sent = std::process::Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
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

/// Publishes to one of several replicas, the next one if that does not work.
pub async fn publish_to(client: &reqwest::Client, urls: &[&str], body: &Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    for url in urls.iter().cycle() {
        assert!(Instant::now() < deadline, "nobody takes {body}");
        let sent = client.post(format!("{url}/v1/messages")).json(body).send().await;
        match sent {
            Ok(answer) if answer.status() == 201 => return answer.json().await.unwrap(),
            Ok(answer) if [429, 503].contains(&answer.status().as_u16()) => {}
            Ok(answer) => panic!("{}: {}", answer.status(), answer.text().await.unwrap()),
            Err(_) => {}
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
