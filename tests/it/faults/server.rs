//! A Postgres that is paused.

use tidings::cluster::Options;

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
