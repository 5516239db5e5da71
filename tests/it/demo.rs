//! `tidings demo` as a new user runs it, ended in every way, and what is left of it: nothing.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use crate::commands::kill;
use crate::fleet::{PATIENCE, publish_to, until};
use crate::follower::{Follower, Way};
use crate::harness;

/// One test at a time: a port that one demo leaves free is the first that the next one takes.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

struct Demo {
    child: Child,
    /// Its own words; the logs of the replicas go elsewhere.
    words: Lines<BufReader<ChildStdout>>,
    replicas: Vec<Running>,
    /// Everything that it said until it was ready.
    guide: String,
}

#[derive(Clone)]
struct Running {
    url: String,
    pid: u32,
}

/// What a private server of a demo owns, to see it go.
struct Server {
    port: u16,
    /// None in a container, whose files and processes are not ours to see.
    files: Option<(PathBuf, u32)>,
}

impl Demo {
    /// One in which nothing moves but what a test moves.
    async fn start(database_url: Option<&str>) -> Demo {
        Demo::started(&["--still"], database_url).await
    }

    async fn started(arguments: &[&str], database_url: Option<&str>) -> Demo {
        let mut child = command(arguments, database_url).spawn().unwrap();
        let words = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut demo = Demo { child, words, replicas: Vec::new(), guide: String::new() };
        loop {
            let line = demo.line().await;
            let parts: Vec<&str> = line.split_whitespace().collect();
            if let [name, url, "(process", pid] = parts[..]
                && name.starts_with("replica-")
            {
                let pid = pid.trim_end_matches(')').parse().unwrap();
                demo.replicas.push(Running { url: url.to_owned(), pid });
            }
            demo.guide.push_str(&line);
            demo.guide.push('\n');
            if line.starts_with("Ready.") {
                return demo;
            }
        }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.words.next_line()).await.expect("the demo goes on");
        line.unwrap().unwrap_or_else(|| panic!("the demo ended after:\n{}", self.guide))
    }

    async fn says(&mut self, what: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(what) {
                return line;
            }
        }
    }

    fn urls(&self) -> Vec<String> {
        self.replicas.iter().map(|replica| replica.url.clone()).collect()
    }

    /// The private server, by what it says of itself.
    async fn server(&self) -> Server {
        let mut words = self.guide.split_whitespace();
        let url = words.find(|word| word.starts_with("postgres://")).unwrap();
        let client = harness::connect(url).await;
        let row = client.query_one("show data_directory", &[]).await.unwrap();
        let data = PathBuf::from(row.get::<_, String>(0));
        let pid = std::fs::read_to_string(data.join("postmaster.pid")).ok();
        let pid = pid.and_then(|text| text.lines().next()?.parse().ok());
        let port = url.rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap();
        Server { port, files: pid.map(|pid| (data.parent().unwrap().to_owned(), pid)) }
    }

    fn signal(&self, signal: &str) {
        kill(signal, self.child.id().expect("it runs"));
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// Neither processes nor ports nor directories.
    async fn left_nothing(&self, server: &Server) {
        for replica in &self.replicas {
            until("the replica has gone", async || !runs(replica.pid)).await;
            let address = replica.url.strip_prefix("http://").unwrap();
            until("its port is free", async || TcpListener::bind(address).is_ok()).await;
        }
        if let Some((dir, postmaster)) = &server.files {
            until("Postgres has gone", async || !runs(*postmaster)).await;
            until("its directory has gone", async || !dir.exists()).await;
        }
        let port = ("127.0.0.1", server.port);
        until("the port of Postgres is free", async || TcpListener::bind(port).is_ok()).await;
    }
}

fn command(arguments: &[&str], database_url: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.arg("demo").args(arguments).kill_on_drop(true);
    command.env_remove("DATABASE_URL");
    if let Some(url) = database_url {
        command.env("DATABASE_URL", url);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// A process that nobody has buried yet counts as gone.
fn runs(pid: u32) -> bool {
    if Path::new("/proc/self/stat").exists() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().to_owned());
        return state.is_some_and(|state| !state.starts_with('Z'));
    }
    kill("-0", pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_on_a_replica_of_the_demo_is_received_on_every_other() {
    let _alone = alone().await;
    let mut demo = Demo::start(None).await;
    let server = demo.server().await;
    assert_eq!(demo.replicas.len(), 3, "{}", demo.guide);
    let follow = |url: String| Follower::start(Way::Sse, vec![url], "order:*", None);
    let followers: Vec<Follower> = demo.urls().into_iter().map(follow).collect();
    for follower in &followers {
        follower.connected().await;
    }
    let client = reqwest::Client::new();
    for url in &demo.urls() {
        publish_to(&client, &[url], &json!({"topic": "order:7", "data": 1})).await;
    }
    for follower in &followers {
        assert_eq!(follower.has(3).await.seqs(), [1, 2, 3]);
    }
    // The line with which everything since the beginning is read works as it was printed.
    let line = demo.guide.lines().find(|line| line.contains("Last-Event-ID")).unwrap();
    let cursor = line.split("Last-Event-ID: ").nth(1).unwrap().split('\'').next().unwrap();
    let again = demo.urls()[2..].to_vec();
    let again = Follower::start(Way::Sse, again, "order:*", Some(cursor.to_owned()));
    assert_eq!(again.has(3).await.seqs(), [1, 2, 3]);
    demo.signal("-INT");
    assert!(demo.ended().await.success());
    demo.left_nothing(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_the_demo_that_is_killed_comes_back_under_its_address() {
    let _alone = alone().await;
    let mut demo = Demo::start(None).await;
    let server = demo.server().await;
    let killed = demo.replicas[1].clone();
    let follower = Follower::start(Way::Sse, vec![killed.url.clone()], "order:*", None);
    follower.connected().await;
    let client = reqwest::Client::new();
    let publish = async |data: u32| {
        let body = json!({"topic": "order:7", "data": data});
        publish_to(&client, &[&demo.replicas[0].url], &body).await;
    };
    publish(1).await;
    follower.has(1).await;
    assert!(kill("-9", killed.pid));
    until("the replica is dead", async || !runs(killed.pid)).await;
    publish(2).await;
    demo.says("replica-2 ended").await;
    let back = demo.says("replica-2 is back").await;
    assert!(back.contains(&killed.url), "{back}");
    assert_eq!(follower.has(2).await.seqs(), [1, 2]);
    let pid = back.rsplit_once("(process ").unwrap().1.trim_end_matches(')').parse().unwrap();
    demo.replicas[1].pid = pid;
    demo.signal("-TERM");
    assert!(demo.ended().await.success());
    demo.left_nothing(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_killed_takes_everything_with_it() {
    let _alone = alone().await;
    let mut demo = Demo::start(None).await;
    let server = demo.server().await;
    let follower = Follower::start(Way::Sse, demo.urls(), "order:*", None);
    follower.connected().await;
    demo.signal("-9");
    assert!(!demo.ended().await.success());
    demo.left_nothing(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_demos_at_once_do_not_meet() {
    let _alone = alone().await;
    let (mut one, mut other) = tokio::join!(Demo::start(None), Demo::start(None));
    let (server, other_server) = (one.server().await, other.server().await);
    assert_ne!(server.port, other_server.port);
    let mut urls = [one.urls(), other.urls()].concat();
    urls.sort();
    urls.dedup();
    assert_eq!(urls.len(), 6, "each replica has an address of its own");
    let client = reqwest::Client::new();
    for demo in [&one, &other] {
        let body = json!({"topic": "order:7", "data": 1});
        let answer = publish_to(&client, &[&demo.urls()[0]], &body).await;
        assert_eq!(answer["messages"][0]["seq"], 1, "each has a log of its own");
    }
    one.signal("-INT");
    assert!(one.ended().await.success());
    one.left_nothing(&server).await;
    let readyz = reqwest::get(format!("{}/readyz", other.urls()[0])).await.unwrap();
    assert_eq!(readyz.status(), 200, "the other one goes on");
    other.signal("-INT");
    assert!(other.ended().await.success());
    other.left_nothing(&other_server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_the_demo_was_given_stays() {
    let _alone = alone().await;
    let url = harness::empty_database_url();
    let mut demo = Demo::start(Some(&url)).await;
    assert!(!demo.guide.contains(&url), "its address may hold a password:\n{}", demo.guide);
    let client = reqwest::Client::new();
    publish_to(&client, &[&demo.urls()[1]], &json!({"topic": "order:7", "data": 1})).await;
    demo.signal("-INT");
    assert!(demo.ended().await.success());
    let rows = harness::connect(&url).await.query("select seq from tidings.message", &[]).await;
    assert_eq!(rows.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_checks_itself_ends_well() {
    let _alone = alone().await;
    let output = timeout(PATIENCE, command(&["--check"], None).output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("replica-3 -> replica-1") && said.contains("Checked:"), "{said}");
}

/// Where the line says that all replicas are.
fn front(guide: &str) -> String {
    let line = guide.lines().find(|line| line.trim_start().starts_with("all ")).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_leads_to_each_replica_in_turn_and_past_a_dead_one() {
    let _alone = alone().await;
    let mut demo = Demo::start(None).await;
    let url = front(&demo.guide);
    let whose = async || {
        // Each on a connection of its own.
        let answer = reqwest::get(format!("{url}/v1/stats")).await.ok()?;
        let stats: serde_json::Value = answer.json().await.ok()?;
        stats["replica"].as_str().map(str::to_owned)
    };
    let mut met = std::collections::BTreeSet::new();
    for _ in 0..3 {
        met.extend(whose().await);
    }
    assert_eq!(met.len(), 3, "{met:?}");
    let pid = demo.replicas[1].pid;
    let killed = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["demo", "kill", "2", "--url", &url])
        .output();
    let killed = timeout(PATIENCE, killed).await.unwrap().unwrap();
    assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    until("the replica is dead", async || !runs(pid)).await;
    for _ in 0..6 {
        assert!(whose().await.is_some(), "somebody answers");
    }
    let back = demo.says("replica-2 is back").await;
    let pid = back.rsplit_once("(process ").unwrap().1.trim_end_matches(')').parse().unwrap();
    demo.replicas[1].pid = pid;
    let server = demo.server().await;
    demo.signal("-INT");
    assert!(demo.ended().await.success());
    demo.left_nothing(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_moves_by_itself_and_ends_all_the_same() {
    let _alone = alone().await;
    let mut demo = Demo::started(&[], None).await;
    let server = demo.server().await;
    let ask = async |path: &str| {
        let answer = reqwest::get(format!("{}{path}", demo.urls()[2])).await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()
    };
    until("a task goes on", async || {
        let page = ask("/v1/tasks?status=running").await;
        page["tasks"].as_array().unwrap().iter().any(|task| task["current"].as_u64() > Some(0))
    })
    .await;
    until("orders are told", async || {
        let page = ask("/v1/messages?topic=order:*&since=2020-01-01T00:00:00Z").await;
        page["messages"].as_array().unwrap().len() > 1
    })
    .await;
    until("users are there", async || {
        let all = ask("/v1/replicas").await;
        let sessions = |one: &serde_json::Value| one["sessions"].as_u64().unwrap_or(0);
        all["replicas"].as_array().unwrap().iter().map(sessions).sum::<u64>() >= 4
    })
    .await;
    until("a source is read", async || ask("/v1/sources/edge-3").await["status"] == "connected")
        .await;
    // Both the one that is read and one that is pushed, with some minutes behind it.
    for (source, tunnel) in [("edge-1", "tunnel-11"), ("edge-3", "tunnel-31")] {
        let path = format!("/v1/instances/{source}/{tunnel}");
        let counted = async || ask(&path).await["counters"]["tcp_rx"].as_u64();
        until("a tunnel is told", async || counted().await.is_some()).await;
        let before = counted().await;
        until("its counters grow", async || counted().await > before).await;
    }
    until("its trend begins before the demo", async || {
        let points = ask("/v1/trends?source=edge-1&metric=tcp_rx").await;
        let grown = |point: &&serde_json::Value| point["sum"].as_u64() > Some(0);
        points["points"].as_array().unwrap().iter().filter(grown).count() >= 10
    })
    .await;
    demo.signal("-INT");
    assert!(demo.ended().await.success());
    demo.left_nothing(&server).await;
}
