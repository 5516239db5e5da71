//! A transaction pooler between the replicas and Postgres: Debian's pgbouncer.
//!
//! Such a pooler takes LISTEN and gives the connection to somebody else, so that nothing is ever
//! heard; and it may send a statement to a connection that never saw it prepared.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::json;

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;

pub struct Pooler {
    child: Child,
    dir: PathBuf,
    port: u16,
}

impl Pooler {
    /// In front of the server of a URL; `None` where there is no pgbouncer and none can be installed.
    pub fn start(url: &str) -> Option<Pooler> {
        // Two tests that install at once would be in each other's way.
        static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
        let program = PROGRAM.get_or_init(program).as_ref()?;
        let server: tokio_postgres::Config = url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = &server.get_hosts()[0] else { return None };
        let dir = std::env::temp_dir().join(format!("pooler-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&dir).unwrap();
        let port = free_port();
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
        if is_root() {
            command.args(["-u", "nobody"]);
        }
        let child = command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Pooler { child, dir, port })
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

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// It cannot be asked to find one itself. Not of those that the kernel gives to connections: a client
/// of another test may have it by the time that it is bound.
fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| rand::random_range(20_000..32_000)).find(is_free).unwrap()
}

fn is_root() -> bool {
    let told = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&told.stdout).trim() == "0"
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || {
        std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/opt/homebrew/bin")])
            .map(|dir| dir.join("pgbouncer"))
            .find(|file| Path::is_file(file))
    };
    found().or_else(|| {
        // Only the program is wanted: at this run level Debian starts no service with it.
        let install = "RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
                       install -y -q --no-install-recommends pgbouncer";
        let script = format!("{install} || {{ apt-get update -q && {install}; }}");
        let quiet = || Stdio::null();
        let tried = is_root()
            && Command::new("sh")
                .args(["-c", &script])
                .stdin(quiet())
                .stdout(quiet())
                .stderr(quiet())
                .status()
                .is_ok_and(|status| status.success());
        let found = if tried { found() } else { None };
        if found.is_none() {
            let missing = "there is no pgbouncer here, and it cannot be installed; install it to \
                           run the tests of a transaction pooler";
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            eprintln!("SKIPPED: {missing}");
        }
        found
    })
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
