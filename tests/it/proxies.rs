//! What stands in front of replicas: Debian's nginx and haproxy, with the configuration of `deploy`.
//!
//! Addresses and places are put in their stead; everything else is what users are given.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use futures_util::StreamExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, lost_and_doubled_nothing, received};
use crate::programs::{self, Running};

/// Health apart, so that clients cannot see it through the proxy.
const SETTINGS: &[(&str, &str)] = &[
    ("TIDINGS_OPS_LISTEN", "127.0.0.1:0"),
    ("TIDINGS_DRAIN_S", "4"),
    ("TIDINGS_ACCEPT_GRACE_S", "2"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    Haproxy,
}

struct Proxy {
    url: String,
    running: Running,
}

impl Proxy {
    async fn start(kind: Kind, replicas: &[Replica]) -> Option<Proxy> {
        let port = programs::free_port();
        let running = match kind {
            Kind::Nginx => nginx(port, replicas)?,
            Kind::Haproxy => haproxy(port, replicas)?,
        };
        until("the proxy listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Some(Proxy { url: format!("http://127.0.0.1:{port}"), running })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.running.dir.join("log")).unwrap()
    }

    async fn status(&self, path: &str) -> u16 {
        reqwest::get(format!("{}{path}", self.url)).await.unwrap().status().as_u16()
    }
}

fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

fn deployed(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name))
        .unwrap()
}

/// Replaces what must be there.
fn put(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old} is not in the configuration any more");
    text.replace(old, new)
}

fn nginx(port: u16, replicas: &[Replica]) -> Option<Running> {
    let program = programs::find("nginx", "nginx-light")?;
    let dir = programs::directory("nginx");
    let place = dir.display().to_string();
    let text = put(&deployed("nginx/nginx.conf"), "listen 8080;", &format!("listen {port};"));
    let text = put(&text, "/tmp/", &format!("{place}/"));
    let text = put(&text, "/dev/stdout", &format!("{place}/log"));
    let text = put(&text, "/dev/stderr", &format!("{place}/errors"));
    std::fs::write(dir.join("nginx.conf"), text).unwrap();
    // Debian's is older than the one that resolves names again: it is given the addresses.
    let upstream = put(&deployed("nginx/upstream.conf"), "    resolver 127.0.0.11 valid=2s;\n", "");
    let server = |one: &Replica| format!("server {} fail_timeout=2s;\n", address(&one.url));
    let servers: String = replicas.iter().map(server).collect();
    let upstream = put(&upstream, "    server app:8080 resolve fail_timeout=2s;\n", &servers);
    std::fs::write(dir.join("upstream.conf"), upstream).unwrap();
    let mut command = Command::new(program);
    command.args(["-p", &place, "-c", "nginx.conf", "-e", "errors", "-g", "daemon off;"]);
    Some(Running::start(dir, &mut command))
}

fn haproxy(port: u16, replicas: &[Replica]) -> Option<Running> {
    let program = programs::find("haproxy", "haproxy")?;
    let dir = programs::directory("haproxy");
    let text =
        put(&deployed("haproxy/haproxy.cfg"), "bind :8080", &format!("bind 127.0.0.1:{port}"));
    std::fs::write(dir.join("haproxy.cfg"), text).unwrap();
    let text = put(&deployed("haproxy/replicas.cfg"), " resolvers names init-addr none", "");
    let text = put(&text, " port 9090", "");
    let server = |one: &Replica| {
        let ops = one.ops_url.as_deref().unwrap();
        let ops = address(ops).rsplit(':').next().unwrap();
        format!("    server {} {} port {ops}\n", one.name, address(&one.url))
    };
    let servers: String = replicas.iter().map(server).collect();
    let text = put(&text, "    server-template app 1-10 app:8080\n", &servers);
    std::fs::write(dir.join("replicas.cfg"), text).unwrap();
    // Its log goes to its standard output.
    let script = "exec \"$0\" -f haproxy.cfg -f replicas.cfg >log 2>errors";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program).current_dir(&dir);
    Some(Running::start(dir, &mut command))
}

async fn answered_by(url: &str) -> String {
    // A client of its own each time: a new connection.
    let answer = reqwest::Client::new().get(format!("{url}/v1/stats")).send().await.unwrap();
    answer.json::<serde_json::Value>().await.unwrap()["replica"].as_str().unwrap().to_owned()
}

async fn everybody_is_asked(proxy: &Proxy) {
    let mut asked = BTreeSet::new();
    for _ in 0..6 {
        asked.insert(answered_by(&proxy.url).await);
    }
    assert_eq!(asked.len(), 3, "in turn: {asked:?}");
}

/// A page that the proxy served may open a socket through it, with its own name as the origin.
async fn a_socket_is_upgraded(proxy: &Proxy) {
    let url = proxy.url.replace("http://", "ws://") + "/v1/ws?topics=a";
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("Origin", proxy.url.parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let Some(Ok(Message::Text(first))) = socket.next().await else { panic!("no welcome") };
    assert!(first.contains("welcome"), "{first}");
}

async fn health_is_not_shown(proxy: &Proxy) {
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(proxy.status(path).await, 404, "{path}");
    }
}

async fn tokens_are_not_logged(proxy: &Proxy) {
    assert_eq!(proxy.status("/v1/messages?topic=seen&access_token=hidden").await, 200);
    until("the request is logged", async || proxy.log().contains("/v1/messages")).await;
    let log = proxy.log();
    assert!(!log.contains("hidden") && !log.contains("topic="), "{log}");
}

/// Follows in each way through the proxy, while replicas die, come back and leave.
async fn nobody_misses_anything(proxy: &Proxy, fleet: &mut [Replica]) {
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap();
    let follow = |way: &Way| {
        Follower::start(*way, vec![proxy.url.clone()], "load:*", Some(cursor.to_owned()))
    };
    let ways: Vec<Way> = Way::ALL.into_iter().cycle().take(9).collect();
    let followers: Vec<Follower> = ways.iter().map(follow).collect();
    for follower in followers.iter().filter(|follower| follower.way != Way::LongPoll) {
        follower.connected().await;
    }
    // One message, which fills nobody's buffer, is there at once.
    fleet[0].publish(&json!({"topic": "load:alone", "data": 1})).await;
    received(&followers, 1).await;

    let load = Load::start(std::slice::from_ref(&proxy.url), 4);
    received(&followers, 20).await;
    fleet[1].kill().await;
    let answered = load.answered();
    until("publishing goes on without it", async || load.answered() > answered + 50).await;
    fleet[1].start_again().await;
    let answered = load.answered();
    until("publishing goes on with it", async || load.answered() > answered + 50).await;
    assert_eq!(fleet[2].leave().await, Some(0));
    let answered = load.answered();
    until("publishing goes on without the other", async || load.answered() > answered + 50).await;
    let mut published = load.end().await;
    published.insert(0, 2);
    lost_and_doubled_nothing(&followers, &published).await;
    let back = followers.iter().filter(|one| one.seen().connects > 1).count();
    assert!(back >= 3, "only {back} had to come back");
}

async fn stands_in_front(kind: Kind) {
    let url = harness::database_url().await;
    let mut fleet = crate::fleet::three(&url, SETTINGS).await;
    let Some(proxy) = Proxy::start(kind, &fleet).await else { return };
    // haproxy asks for the health of replicas before it sends somebody there.
    until("all are asked", async || proxy.status("/v1/stats").await == 200).await;
    everybody_is_asked(&proxy).await;
    a_socket_is_upgraded(&proxy).await;
    health_is_not_shown(&proxy).await;
    tokens_are_not_logged(&proxy).await;
    nobody_misses_anything(&proxy, &mut fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_replicas_take_turns_die_and_leave_and_nobody_misses_anything() {
    stands_in_front(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_haproxy_replicas_take_turns_die_and_leave_and_nobody_misses_anything() {
    stands_in_front(Kind::Haproxy).await;
}
