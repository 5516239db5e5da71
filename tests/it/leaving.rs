//! Replicas that are told to leave while many depend on them.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::fleet::{Replica, until};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::load::{Load, lost_and_doubled_nothing, received};

const SOCKETS: usize = 2_000;
const DRAIN: Duration = Duration::from_secs(6);

/// How a socket was sent away: when, with which code, and when it may come back.
struct Goodbye {
    at: Instant,
    code: u16,
    retry_after_ms: u64,
}

async fn stay_until_sent_away(url: String) -> Goodbye {
    let address = format!("{}/v1/ws?topics=quiet", url.replace("http://", "ws://"));
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(Some(close)) = message {
            let at = Instant::now();
            let reason: Value = serde_json::from_str(&close.reason).unwrap();
            let retry_after_ms = reason["retry_after_ms"].as_u64().unwrap();
            return Goodbye { at, code: close.code.into(), retry_after_ms };
        }
    }
    panic!("a socket ended without a word");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_sockets_are_sent_away_one_after_the_other() {
    let url = harness::database_url().await;
    let settings = [("TIDINGS_DRAIN_S", "6"), ("TIDINGS_ACCEPT_GRACE_S", "1")];
    let mut leaving = Replica::start("leaving", &url, &settings).await;
    let staying = Replica::start("staying", &url, &[]).await;
    let mut sockets = JoinSet::new();
    for _ in 0..SOCKETS / 100 {
        let open = leaving.stats().await["sessions"].as_u64().unwrap() + 100;
        for _ in 0..100 {
            sockets.spawn(stay_until_sent_away(leaving.url.clone()));
        }
        until("a hundred more are connected", async || {
            leaving.stats().await["sessions"].as_u64() >= Some(open)
        })
        .await;
    }
    let urls = [leaving.url.clone(), staying.url.clone()];
    let followers = [Follower::start(Way::WebSocket, urls.to_vec(), "load:*", None)];
    followers[0].connected().await;
    let load = Load::paced(&urls, 8, Duration::from_millis(5));
    received(&followers, 50).await;

    let told = Instant::now();
    leaving.signal("-TERM");
    let answer = reqwest::get(format!("{}/readyz", leaving.url)).await.unwrap();
    assert_eq!(answer.status(), 503, "not ready first, while it still answers");
    let off = Instant::now();
    assert_eq!(leaving.ended().await, Some(0));
    assert!(told.elapsed() < DRAIN + Duration::from_secs(3), "{:?}", told.elapsed());

    let goodbyes = sockets.join_all().await;
    assert_eq!(goodbyes.len(), SOCKETS);
    assert!(goodbyes.iter().all(|goodbye| goodbye.code == 1012));
    // Spread over the window: no fifth of it takes more than half of them.
    let first = goodbyes.iter().map(|goodbye| goodbye.at).min().unwrap();
    assert!(first > off, "the first was sent away before balancers could know");
    let mut fifths = [0; 5];
    for goodbye in &goodbyes {
        let fifth = (goodbye.at - first).as_millis() * 5 / DRAIN.as_millis();
        fifths[usize::try_from(fifth).unwrap().min(4)] += 1;
    }
    assert!(fifths.iter().all(|count| *count < SOCKETS / 2), "{fifths:?}");
    let mut pauses: Vec<u64> = goodbyes.iter().map(|goodbye| goodbye.retry_after_ms).collect();
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > 100, "all were told to come back at {} moments", pauses.len());

    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
    let client = harness::connect(&url).await;
    let held = "select count(*) from tidings.writer where replica like '%leaving%'
                and used_at > now() - interval '10 minutes'";
    let held: i64 = client.query_one(held, &[]).await.unwrap().get(0);
    assert_eq!(held, 0, "its writer slots are free for others at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_grace_leaves_everybody_time_for_a_farewell() {
    let settings = [("TIDINGS_DRAIN_S", "4"), ("TIDINGS_ACCEPT_GRACE_S", "2")];
    let mut leaving = Replica::in_memory("leaving", &settings).await;
    let mut sockets = JoinSet::new();
    for _ in 0..100 {
        sockets.spawn(stay_until_sent_away(leaving.url.clone()));
    }
    until("all are connected", async || leaving.stats().await["sessions"] == 100).await;
    let (code, said) = leaving.leave_saying().await;
    assert_eq!(code, Some(0));
    assert!(!said.iter().any(|line| line.contains("cut off")), "{said:?}");
    let goodbyes = sockets.join_all().await;
    assert!(goodbyes.iter().all(|goodbye| goodbye.code == 1012));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_leaves_nobody_without_a_connection_for_long() {
    let url = harness::database_url().await;
    let settings = [("TIDINGS_DRAIN_S", "3")];
    let mut fleet = Vec::new();
    for name in ["one", "two", "three"] {
        fleet.push(Replica::start(name, &url, &settings).await);
    }
    let urls: Vec<String> = fleet.iter().map(|one| one.url.clone()).collect();
    let follow = |number: usize| {
        let urls = [&urls[number % 3..], &urls[..number % 3]].concat();
        let way = [Way::WebSocket, Way::Sse][number / 3 % 2];
        Follower::start(way, urls, "load:*", None)
    };
    let followers: Vec<Follower> = (0..24).map(follow).collect();
    join_all(followers.iter().map(Follower::connected)).await;
    let load = Load::paced(&urls, 6, Duration::from_millis(5));
    for replica in &mut fleet {
        let had = followers.iter().map(Follower::count).max().unwrap();
        received(&followers, had + 50).await;
        assert_eq!(replica.leave().await, Some(0));
        replica.start_again().await;
    }
    let published = load.end().await;
    lost_and_doubled_nothing(&followers, &published).await;
    for follower in &followers {
        let away = follower.seen().longest_absence;
        assert!(away < Duration::from_secs(5), "{:?} was away for {away:?}", follower.way);
    }
}
