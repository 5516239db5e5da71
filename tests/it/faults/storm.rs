//! All faults at once, in an order that a seed decides, under load, for as long as one likes: each
//! once, and then at random. Half an hour and more must have had so many of each that counts.
//!
//! What counts as failure: a message that was answered 201 and that a client did not have, had
//! twice or had out of order; a message in the log that is there twice; a hole in its seqs.
//! `TIDINGS_SOAK_S` says for how many seconds (20 unless told), `TIDINGS_SEED` which storm.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tidings::cluster::{Cluster, Mode, Options};
use tokio::time::Instant;

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, SqlLoad};
use crate::proxy::{Proxy, Weather};

const REPLICAS: usize = 3;

/// After so long without a word clients leave a replica; it has a heartbeat every second.
const SILENCE: Duration = Duration::from_secs(4);

/// How many more messages somebody must have had before the next fault.
const BETWEEN: usize = 10;

fn number_of(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ReplicaKilled,
    ReplicaFrozen,
    ReplicaRestarted,
    ListenerCut,
    StoreCut,
    AnswersLost,
    NotificationsLost,
    PostgresRestarted,
    PostgresCrashed,
    ClientsCut,
}

/// Which fault comes how often.
const MIX: &[(Fault, u32)] = &[
    (Fault::ReplicaKilled, 16),
    (Fault::ReplicaFrozen, 4),
    (Fault::ReplicaRestarted, 2),
    (Fault::ListenerCut, 16),
    (Fault::StoreCut, 8),
    (Fault::AnswersLost, 4),
    (Fault::NotificationsLost, 4),
    (Fault::PostgresRestarted, 4),
    (Fault::PostgresCrashed, 4),
    (Fault::ClientsCut, 20),
];

/// A storm that lasts so long must have had at least so many of these, each alone or together.
const LONG: Duration = Duration::from_secs(1_800);
const WANTED: &[(&[Fault], usize)] = &[
    (&[Fault::ReplicaKilled], 200),
    (&[Fault::PostgresRestarted, Fault::PostgresCrashed], 50),
    (&[Fault::ListenerCut], 200),
    (&[Fault::ClientsCut], 1_000),
];

/// How many messages are in the larger requests.
const BATCH: usize = 7;

/// A replica with everything that stands between it and the others.
struct Station {
    replica: Replica,
    store: Proxy,
    listener: Proxy,
    clients: Proxy,
    clients_url: String,
}

struct Storm {
    cluster: Cluster,
    stations: Vec<Station>,
    random: StdRng,
    /// Those that were not tried yet.
    untried: Vec<Fault>,
    runs: BTreeMap<Fault, usize>,
}

impl Storm {
    async fn gather(seed: u64) -> Storm {
        let cluster = harness::private(Options::test());
        let direct = cluster.url("postgres");
        let mut stations = Vec::new();
        for number in 1..=REPLICAS {
            let (store, url) = Proxy::to_database(&direct).await;
            let (listener, listen) = Proxy::to_database(&direct).await;
            let settings = [
                ("LISTEN_DATABASE_URL", listen.as_str()),
                ("TIDINGS_PULSE_S", "1"),
                ("TIDINGS_STATEMENT_TIMEOUT_MS", "1500"),
                ("TIDINGS_DRAIN_S", "2"),
                ("TIDINGS_HEARTBEAT_S", "1"),
            ];
            let replica = Replica::start(&format!("replica-{number}"), &url, &settings).await;
            let (clients, clients_url) = Proxy::to_replica(&replica.url).await;
            stations.push(Station { replica, store, listener, clients, clients_url });
        }
        let mut random = StdRng::seed_from_u64(seed);
        let mut untried: Vec<Fault> = MIX.iter().map(|(fault, _)| *fault).collect();
        untried.shuffle(&mut random);
        Storm { cluster, stations, random, untried, runs: BTreeMap::new() }
    }

    fn followers(&self, cursor: &str) -> Vec<Follower> {
        let urls: Vec<String> = self.stations.iter().map(|one| one.clients_url.clone()).collect();
        let mut followers = Vec::new();
        for start in 0..REPLICAS {
            for way in Way::ALL {
                let urls = [&urls[start..], &urls[..start]].concat();
                let cursor = Some(cursor.to_owned());
                followers.push(Follower::impatient(way, urls, "load:*", cursor, SILENCE));
            }
        }
        followers
    }

    fn draw(&mut self) -> Fault {
        if let Some(fault) = self.untried.pop() {
            return fault;
        }
        let sum: u32 = MIX.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.random_range(0..sum);
        for (fault, weight) in MIX {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return *fault,
            }
        }
        unreachable!("what is drawn is below the sum")
    }

    /// One fault, to its end; its runs are counted by what it hit.
    async fn strike(&mut self, load: &Load) -> Fault {
        let fault = self.draw();
        let number = self.random.random_range(0..REPLICAS);
        let station = &mut self.stations[number];
        let mut runs = 1;
        match fault {
            Fault::ReplicaKilled => {
                station.replica.kill().await;
                station.replica.start_again().await;
            }
            Fault::ReplicaRestarted => {
                assert_eq!(station.replica.leave().await, Some(0), "a replica leaves well");
                station.replica.start_again().await;
            }
            Fault::ReplicaFrozen => {
                station.replica.signal("-STOP");
                progress(load, 3 * BETWEEN, fault).await;
                station.replica.signal("-CONT");
            }
            Fault::ListenerCut => runs = station.listener.cut(),
            Fault::StoreCut => {
                station.store.cut();
            }
            Fault::AnswersLost => {
                station.store.weather(Weather::AnswersLost);
                progress(load, BETWEEN, fault).await;
                station.store.cut();
                station.store.weather(Weather::Fair);
            }
            Fault::NotificationsLost => {
                let weather = Weather::Notifications { lost: 0.5, doubled: 0.2 };
                station.listener.weather(weather);
                progress(load, 3 * BETWEEN, fault).await;
                station.listener.weather(Weather::Fair);
            }
            Fault::PostgresRestarted | Fault::PostgresCrashed => {
                let crashed = fault == Fault::PostgresCrashed;
                self.cluster.stop(if crashed { Mode::Immediate } else { Mode::Fast }).unwrap();
                self.cluster.start_again().unwrap();
            }
            Fault::ClientsCut => runs = station.clients.cut(),
        }
        *self.runs.entry(fault).or_default() += runs;
        fault
    }
}

/// Waits until that many more messages are accepted somewhere. Not until they arrive: all clients
/// may be on the one replica that has lost sight of the log.
async fn progress(load: &Load, messages: usize, fault: Fault) {
    let wanted = load.answered() + messages;
    let what = format!("messages are accepted somewhere after {fault:?}");
    until(&what, async || load.answered() >= wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_of_faults_nothing_is_lost_doubled_or_reordered() {
    let seed = number_of("TIDINGS_SEED", 1);
    let lasts = Duration::from_secs(number_of("TIDINGS_SOAK_S", 20));
    let mut storm = Storm::gather(seed).await;
    let begin = storm.stations[0].replica.publish(&json!({"topic": "begin", "data": 0})).await;
    let followers = storm.followers(begin["messages"][0]["cursor"].as_str().unwrap());
    let urls: Vec<String> = storm.stations.iter().map(|one| one.replica.url.clone()).collect();
    let pause = Duration::from_millis(10);
    let load = Load::with_batches(&urls, 6, pause, BATCH);
    let direct = storm.cluster.url("postgres");
    let by_sql = SqlLoad::start(&direct, 2, 3 * pause);
    let until = Instant::now() + lasts;
    let mut strikes = 0_u32;
    let mut last = Fault::ClientsCut;
    while Instant::now() < until || !storm.untried.is_empty() {
        progress(&load, BETWEEN, last).await;
        last = storm.strike(&load).await;
        strikes += 1;
        if strikes.is_multiple_of(100) {
            println!("{strikes} faults: {:?}", storm.runs);
        }
    }
    let mut published = load.end().await;
    let by_sql = by_sql.end(&direct).await;
    let from_sql = by_sql.len();
    published.extend(by_sql);
    published.sort_unstable();
    let mut told = format!(
        "storm of {} s, seed {seed}: {} messages published, {from_sql} of them from SQL\n",
        lasts.as_secs(),
        published.len()
    );
    for (fault, runs) in &storm.runs {
        told += &format!("  {runs:>6} × {fault:?}\n");
    }
    let mut bad = false;
    for follower in &followers {
        let verdict = follower.verdict(&published).await;
        bad |= verdict.is_bad();
        told += &format!("  {:>9?}: {verdict}\n", follower.way);
    }
    println!("{told}");
    assert!(!bad, "{told}");
    let runs =
        |faults: &[Fault]| faults.iter().filter_map(|one| storm.runs.get(one)).sum::<usize>();
    for (faults, wanted) in WANTED.iter().filter(|_| lasts >= LONG) {
        assert!(runs(faults) >= *wanted, "{faults:?} came {} times of {wanted}", runs(faults));
    }
    let client = harness::connect(&direct).await;
    let count = "select count(*), count(distinct data || topic), max(seq) from tidings.message";
    let row = client.query_one(count, &[]).await.unwrap();
    let (rows, distinct, highest): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!((rows, distinct), (highest, highest), "each message once, and no hole");
    assert_eq!(usize::try_from(rows).unwrap(), published.len() + 1);
}
