//! A transaction pooler between the replicas and Postgres: Debian's pgbouncer.
//!
//! Such a pooler takes LISTEN and gives the connection to somebody else, so that nothing is ever
//! heard; and it may send a statement to a connection that never saw it prepared.

use std::process::Command;

use serde_json::json;

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::programs::{self, Running};

pub struct Pooler {
    port: u16,
    _running: Running,
}

impl Pooler {
    /// In front of the server of a URL; `None` where there is no pgbouncer and none can be installed.
    pub fn start(url: &str) -> Option<Pooler> {
        let program = programs::find("pgbouncer", "pgbouncer")?;
        let server: tokio_postgres::Config = url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = &server.get_hosts()[0] else { return None };
        let dir = programs::directory("pooler");
        let port = programs::free_port();
        let password = server.get_password().map(String::from_utf8_lossy);
        let password = password.map(|text| format!(" password={text}")).unwrap_or_default();
        let settings = format!(
            "[databases]\n* = host={host} port={} user={}{password}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 200\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.get_ports().first().copied().unwrap_or(5432),
            server.get_user().unwrap_or("postgres"),
        );
        let file = dir.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        if programs::is_root() {
            command.args(["-u", "nobody"]);
        }
        Some(Pooler { port, _running: Running::start(dir, command.arg(&file)) })
    }

    /// How a database of that server is reached through it.
    pub async fn url(&self, database: &str) -> String {
        let name = database.rsplit('/').next().unwrap().split('?').next().unwrap();
        let address = ("127.0.0.1", self.port);
        until("the pooler listens", async || tokio::net::TcpStream::connect(address).await.is_ok())
            .await;
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_transaction_pooler_replicas_poll_and_lose_nothing() {
    let direct = harness::database_url().await;
    let Some(pooler) = Pooler::start(&direct) else { return };
    let url = pooler.url(&direct).await;
    let mut fleet = Vec::new();
    for name in ["one", "two", "three"] {
        fleet.push(Replica::start(name, &url, &[]).await);
    }
    for replica in &fleet {
        until("the replica knows that it hears nothing", async || {
            let readyz = replica.readyz().await;
            readyz["listener"] == "polling" && readyz["status"] == "ready"
        })
        .await;
    }
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap();
    let follow =
        |way| Follower::start(way, vec![fleet[1].url.clone()], "a", Some(cursor.to_owned()));
    let followers = Way::ALL.map(follow);
    for follower in &followers {
        follower.connected().await;
    }
    for number in 0..50 {
        fleet[number % 3].publish(&json!({"topic": "a", "data": number})).await;
    }
    for follower in &followers {
        assert_eq!(follower.has(50).await.seqs(), (2..=51).collect::<Vec<u64>>());
    }
    // An application publishes through the same pooler.
    let client = harness::connect(&direct).await;
    client.batch_execute("select tidings.publish('a', '51')").await.unwrap();
    for follower in &followers {
        follower.has(51).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_past_the_pooler_hears_at_once() {
    let direct = harness::database_url().await;
    let Some(pooler) = Pooler::start(&direct) else { return };
    let url = pooler.url(&direct).await;
    let settings = [("LISTEN_DATABASE_URL", direct.as_str())];
    let replica = Replica::start("one", &url, &settings).await;
    let other = Replica::start("two", &direct, &[]).await;
    until("the replica hears", async || replica.readyz().await["listener"] == "live").await;
    let begin = other.publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap();
    let follow =
        |way| Follower::start(way, vec![replica.url.clone()], "a", Some(cursor.to_owned()));
    let followers = Way::ALL.map(follow);
    for follower in &followers {
        follower.connected().await;
    }
    for number in 0..50 {
        other.publish(&json!({"topic": "a", "data": number})).await;
        replica.publish(&json!({"topic": "a", "data": number})).await;
    }
    for follower in &followers {
        assert_eq!(follower.has(100).await.seqs(), (2..=101).collect::<Vec<u64>>());
    }
}
