//! A Postgres that is paused, crashes, or comes back as it was before.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tidings::cluster::{Mode, Options};

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, lost_and_doubled_nothing, received};

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_stands_still_for_a_while_costs_nobody_a_message() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let settings = [("TIDINGS_STATEMENT_TIMEOUT_MS", "1000"), ("TIDINGS_PULSE_S", "1")];
    let fleet = [
        Replica::start("one", &url, &settings).await,
        Replica::start("two", &url, &settings).await,
    ];
    let follow = |replica: &Replica| {
        Follower::start(Way::WebSocket, vec![replica.url.clone()], "load:*", None)
    };
    let followers: Vec<Follower> = fleet.iter().map(follow).collect();
    for follower in &followers {
        follower.connected().await;
    }
    let load = Load::start(&fleet.iter().map(|one| one.url.clone()).collect::<Vec<_>>(), 4);
    for _ in 0..2 {
        let had = followers.iter().map(|one| one.seen().messages.len()).max().unwrap();
        received(&followers, had + 50).await;
        cluster.pause().unwrap();
        for replica in &fleet {
            until("the replica has noticed", async || {
                replica.readyz().await["status"] == "not_ready"
            })
            .await;
        }
        cluster.resume().unwrap();
    }
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_database_that_was_restored_are_told_to_reload() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let replica = Replica::start("one", &url, &[]).await;
    let other = Replica::start("two", &url, &[]).await;
    let published = replica.publish(&json!({"topic": "a", "data": "kept"})).await;
    let kept = published["messages"][0]["cursor"].as_str().unwrap().to_owned();
    // Else it would come to those who begin after it.
    until("the other replica has it too", async || other.stats().await["log"]["applied"] == 1)
        .await;
    let data = cluster.with_dir(|dir| dir.join("data")).unwrap();
    let backup = cluster.with_dir(|dir| dir.join("backup")).unwrap();
    cluster.stop(Mode::Fast).unwrap();
    copy(&data, &backup);
    cluster.start_again().unwrap();
    let follower = Follower::start(Way::WebSocket, vec![replica.url.clone()], "a", None);
    let elsewhere = Follower::start(Way::Sse, vec![other.url.clone()], "a", None);
    follower.connected().await;
    elsewhere.connected().await;
    let mut lost = String::new();
    for number in 0..10 {
        let key = number.to_string();
        let body = json!({"topic": "a", "data": number, "idempotency_key": key});
        let answer = replica.publish(&body).await;
        lost = answer["messages"][0]["cursor"].as_str().unwrap().to_owned();
    }
    follower.has(10).await;
    elsewhere.has(10).await;
    cluster.stop(Mode::Fast).unwrap();
    copy(&backup, &data);
    cluster.start_again().unwrap();
    until("sessions are told that the log began anew", async || {
        follower.seen().resets == 1 && elsewhere.seen().resets == 1
    })
    .await;
    // Both replicas agree on the new life, and go on in it.
    until("the replicas have one epoch", async || {
        let (one, two) = (replica.stats().await, other.stats().await);
        one["log"]["epoch"] == two["log"]["epoch"]
    })
    .await;
    let after =
        other.publish(&json!({"topic": "a", "data": "after", "idempotency_key": "after"})).await;
    assert_eq!(after["messages"][0]["seq"], 2, "the numbers that were lost are given again");
    for follower in [&follower, &elsewhere] {
        until("the message after it came", async || follower.seen().messages.len() == 11).await;
        assert_eq!(follower.seen().seqs().last(), Some(&2));
    }
    // A cursor of the old life is not taken for one of the new.
    for cursor in [&kept, &lost] {
        let late = vec![other.url.clone()];
        let late = Follower::start(Way::WebSocket, late, "a", Some(cursor.clone()));
        until("it is told to reload", async || late.seen().resets == 1).await;
    }
}
