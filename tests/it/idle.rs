//! What a replica costs while nothing happens.

use futures_util::StreamExt;
use futures_util::future::join_all;
use tidings::cluster::Options;
use tokio::time::Instant;

use crate::client;
use crate::fleet::{Replica, until};
use crate::harness;

/// What a counter of `/metrics` stands at.
async fn counter(replica: &Replica, name: &str) -> u64 {
    let page =
        reqwest::get(format!("{}/metrics", replica.url)).await.unwrap().text().await.unwrap();
    let line = page.lines().find(|line| line.starts_with(name));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_replica_asks_postgres_twice_a_second_at_most() {
    asks_at_most(2.0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_do_nothing_cost_half_a_statement_a_second_at_most() {
    asks_at_most(2.5, 20).await;
}

async fn asks_at_most(most: f64, users: usize) {
    let cluster = harness::private(Options::test().setting("log_statement", "all"));
    let replica = Replica::start("idle", &cluster.url("postgres"), &[]).await;
    until("it is live", async || replica.readyz().await["listener"] == "live").await;
    let mut sockets = Vec::new();
    for user in 0..users {
        let target = format!("/v1/ws?user={user}");
        sockets.push(client::connect(&replica.url, &target, &[]).await.unwrap());
    }
    let asked = || {
        let log =
            cluster.with_dir(|dir| std::fs::read_to_string(dir.join("postgres.log"))).unwrap();
        let log = log.unwrap();
        log.lines()
            .filter(|line| line.contains(" execute ") || line.contains(" statement: "))
            .count()
    };
    let ticks = "tidings_log_wakes_total{why=\"tick\"}";
    // What belongs to the start is over with the first ticks.
    let settled = counter(&replica, ticks).await + 3;
    until("it has settled", async || counter(&replica, ticks).await >= settled).await;
    let (before, since) = (asked(), Instant::now());
    until("it has ticked ten times", async || counter(&replica, ticks).await >= settled + 10).await;
    let rate = (asked() - before) as f64 / since.elapsed().as_secs_f64();
    println!("{rate:.2} statements a second");
    assert!(rate <= most, "{rate:.2} statements a second");
    drop(sockets);
}

/// What a process has allocated, in KiB. Not its share of the program's own pages as well: that
/// grows whenever another process of the same program ends.
#[cfg(target_os = "linux")]
fn memory_kib(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss_Anon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_socket_weighs_twelve_kibibytes_at_most() {
    const SOCKETS: u64 = 1_000;
    let replica = Replica::in_memory("quiet", &[]).await;
    let connect = async || {
        let url = replica.url.replace("http://", "ws://");
        let address = format!("{url}/v1/ws?topics=order:1,order:2");
        let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        socket.next().await.unwrap().unwrap();
        socket
    };
    // What the first ones bring with them is paid once.
    let first = join_all((0..50).map(|_| connect())).await;
    let before = memory_kib(replica.process());
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS / 50 {
        sockets.extend(join_all((0..50).map(|_| connect())).await);
    }
    let each = (memory_kib(replica.process()) - before) as f64 / SOCKETS as f64;
    println!("{each:.1} KiB for each of {SOCKETS} quiet sockets");
    assert!(each <= 12.0, "{each:.1} KiB for each socket");
    drop((first, sockets));
}
