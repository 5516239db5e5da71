//! A Postgres that comes back as it was before: what was read from it since never happened.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tidings::cluster::{Cluster, Mode, Options};

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;

/// A server, and what it held at one moment.
struct Restorable {
    cluster: Cluster,
    url: String,
    data: PathBuf,
    backup: PathBuf,
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

impl Restorable {
    fn start() -> Restorable {
        let cluster = harness::private(Options::test());
        let url = cluster.url("postgres");
        let data = cluster.with_dir(|dir| dir.join("data")).unwrap();
        let backup = cluster.with_dir(|dir| dir.join("backup")).unwrap();
        Restorable { cluster, url, data, backup }
    }

    fn back_up(&self) {
        self.cluster.stop(Mode::Fast).unwrap();
        copy(&self.data, &self.backup);
        self.cluster.start_again().unwrap();
    }

    fn restore(&self) {
        self.cluster.stop(Mode::Fast).unwrap();
        copy(&self.backup, &self.data);
        self.cluster.start_again().unwrap();
    }
}

async fn publish(replica: &Replica, data: &str) -> (u64, String) {
    let body = json!({"topic": "a", "data": data, "idempotency_key": data});
    let answer = replica.publish(&body).await;
    let one = &answer["messages"][0];
    (one["seq"].as_u64().unwrap(), one["cursor"].as_str().unwrap().to_owned())
}

async fn until_applied(replicas: &[&Replica], seq: u64) {
    for replica in replicas {
        until("it is applied everywhere", async || {
            replica.stats().await["log"]["applied"].as_u64() >= Some(seq)
        })
        .await;
    }
}

/// All replicas have the same epoch, which is another one than that.
async fn until_renewed(replicas: &[&Replica], old: &Value) {
    until("the replicas have one new epoch", async || {
        let mut epochs = Vec::new();
        for replica in replicas {
            epochs.push(replica.stats().await["log"]["epoch"].clone());
        }
        epochs.iter().all(|epoch| epoch != old && *epoch == epochs[0])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_database_that_was_restored_are_told_to_reload() {
    let server = Restorable::start();
    let replica = Replica::start("one", &server.url, &[]).await;
    let other = Replica::start("two", &server.url, &[]).await;
    let (seq, kept) = publish(&replica, "kept").await;
    server.back_up();
    // Whoever connects begins after it.
    until_applied(&[&replica, &other], seq).await;
    let old = replica.stats().await["log"]["epoch"].clone();
    let follower = Follower::start(Way::WebSocket, vec![replica.url.clone()], "a", None);
    let elsewhere = Follower::start(Way::Sse, vec![other.url.clone()], "a", None);
    follower.connected().await;
    elsewhere.connected().await;
    let mut lost = String::new();
    for number in 0..10 {
        lost = publish(&replica, &number.to_string()).await.1;
    }
    follower.has(10).await;
    elsewhere.has(10).await;
    server.restore();
    until("sessions are told that the log began anew", async || {
        follower.seen().resets == 1 && elsewhere.seen().resets == 1
    })
    .await;
    // Both replicas agree on the new life, and go on in it.
    until_renewed(&[&replica, &other], &old).await;
    let (seq, _) = publish(&other, "after").await;
    assert_eq!(seq, 2, "the numbers that were lost are given again");
    for follower in [&follower, &elsewhere] {
        until("the message after it came", async || follower.count() == 11).await;
        assert_eq!(follower.seen().seqs().last(), Some(&2));
    }
    // A cursor of the old life is not taken for one of the new.
    for cursor in [&kept, &lost] {
        let late = vec![other.url.clone()];
        let late = Follower::start(Way::WebSocket, late, "a", Some(cursor.clone()));
        until("it is told to reload", async || late.seen().resets == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_database_that_was_restored_and_moved_on_are_told_to_reload() {
    let server = Restorable::start();
    let mut old_ones = Vec::new();
    for name in ["one", "two", "three"] {
        old_ones.push(Replica::start(name, &server.url, &[]).await);
    }
    let (seq, kept) = publish(&old_ones[0], "kept").await;
    server.back_up();
    until_applied(&old_ones.iter().collect::<Vec<_>>(), seq).await;
    let old = old_ones[0].stats().await["log"]["epoch"].clone();
    let mut followers = Vec::new();
    for replica in &old_ones {
        for way in Way::ALL {
            let urls = vec![replica.url.clone()];
            followers.push(Follower::start(way, urls, "a", Some(kept.clone())));
        }
    }
    let mut lost = String::new();
    for number in 0..10 {
        lost = publish(&old_ones[0], &number.to_string()).await.1;
    }
    for follower in &followers {
        follower.has(10).await;
    }
    // The old replicas see nothing of it until another one has written past where they are: no
    // number tells them that it is another log, only what stands there.
    for replica in &old_ones {
        replica.signal("-STOP");
    }
    server.restore();
    let fresh = Replica::start("fresh", &server.url, &[]).await;
    for number in 0..20 {
        publish(&fresh, &format!("new {number}")).await;
    }
    assert_eq!(fresh.stats().await["log"]["epoch"], old, "nobody has noticed yet");
    for replica in &old_ones {
        replica.signal("-CONT");
    }
    for follower in &followers {
        let what = format!("{:?} is told that the log began anew", follower.way);
        until(&what, async || follower.seen().resets > 0).await;
    }
    let all: Vec<&Replica> = old_ones.iter().chain([&fresh]).collect();
    until_renewed(&all, &old).await;
    let (seq, _) = publish(&fresh, "after").await;
    assert_eq!(seq, 22);
    let expected: Vec<u64> = (2..=11).chain([22]).collect();
    for follower in &followers {
        until("the message after it came", async || follower.count() >= 11).await;
        let seen = follower.seen();
        assert_eq!(seen.seqs(), expected, "{:?}: nothing goes on where it was", follower.way);
        assert_eq!(seen.resets, 1, "{:?}", follower.way);
    }
    for cursor in [&kept, &lost] {
        for way in Way::ALL {
            let late = Follower::start(way, vec![fresh.url.clone()], "a", Some(cursor.clone()));
            until("it is told to reload", async || late.seen().resets == 1).await;
        }
    }
}
