//! Who is there, across replicas, and for how long a dead one's sessions count.

use std::sync::Arc;
use std::time::Duration;

use tidings::domain::{Timestamp, UserId};
use tidings::metrics::Metrics;
use tidings::presence::{Presence, PresenceSettings};
use tidings::store::LogStore;
use tidings::store::presence::{Own, PresenceStore};
use tokio_util::sync::CancellationToken;

use super::tab::Tab;
use super::*;
use crate::harness;

async fn online(url: &str) -> Vec<(String, u64)> {
    let page = get(url, "/v1/users/online", API_KEY).await;
    let users = page["users"].as_array().unwrap().iter();
    users
        .map(|one| (one["user"].as_str().unwrap().to_owned(), one["sessions"].as_u64().unwrap()))
        .collect()
}

async fn until_online(url: &str, expected: &[(&str, u64)]) {
    let expected: Vec<(String, u64)> =
        expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    until(&format!("{expected:?}"), async || online(url).await == expected).await;
}

fn moves(tab: &Tab) -> Vec<(&str, &str)> {
    let moves = tab.others.iter().filter(|one| one["topic"] == "room:1");
    moves
        .map(|one| (one["kind"].as_str().unwrap(), one["data"]["user"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_online_is_known_everywhere_and_a_dead_replicas_users_are_gone() {
    let settings = [("TIDINGS_PRESENCE_LEASE_MS", "2000"), ("TIDINGS_PRESENCE_TOPICS", "room:*")];
    let mut fleet = fleet(&harness::database_url().await, 2, &settings).await;
    let (one, two) = (fleet[0].url.clone(), fleet[1].url.clone());
    let mut watcher = Tab::open_at(&one, "1", "&topics=room:1").await;
    until_online(&two, &[("1", 1)]).await;
    let tab = Tab::open_at(&two, "2", "&topics=room:1").await;
    let second = Tab::open_at(&two, "2", "&topics=room:1").await;
    until_online(&one, &[("1", 1), ("2", 2)]).await;
    watcher.until("it is told", |tab| moves(tab).contains(&("presence.join", "2"))).await;
    let there = get(&one, "/v1/presence?topic=room:1", &token("9")).await;
    assert_eq!(there["users"].as_array().unwrap().len(), 2);
    assert_eq!(there["users"][1]["replicas"], json!(["replica-2"]));
    drop(second);
    until_online(&one, &[("1", 1), ("2", 1)]).await;
    assert!(!moves(&watcher).contains(&("presence.leave", "2")), "one tab is left");
    let stats = get(&one, "/v1/stats", API_KEY).await;
    let names: Vec<&str> =
        stats["replicas"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["replica-1", "replica-2"]);
    fleet.remove(1).kill().await;
    until_online(&one, &[("1", 1)]).await;
    watcher.until("it is told", |tab| moves(tab).contains(&("presence.leave", "2"))).await;
    drop(tab);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_replicas_users_are_gone_and_there_again_when_it_wakes() {
    let settings = [("TIDINGS_PRESENCE_LEASE_MS", "1500")];
    let fleet = fleet(&harness::database_url().await, 2, &settings).await;
    let _stays = Tab::open(&fleet[0].url, "1").await;
    let mut tab = Tab::open(&fleet[1].url, "2").await;
    until_online(&fleet[0].url, &[("1", 1), ("2", 1)]).await;
    fleet[1].signal("-STOP");
    until_online(&fleet[0].url, &[("1", 1)]).await;
    fleet[1].signal("-CONT");
    until_online(&fleet[0].url, &[("1", 1), ("2", 1)]).await;
    let id = send(&fleet[0].url, json!("all"), json!({})).await;
    tab.until_notices(&[&id]).await;
}

/// Through the part itself, on Postgres: ten thousand sockets would measure sockets.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sessions_are_written_in_a_few_statements() {
    const SESSIONS: usize = 10_000;
    let metrics = Metrics::new();
    let own = Own { id: "one/1".into(), name: "one".into() };
    let settings =
        PresenceSettings { own: own.clone(), lease: Duration::from_secs(20), watched: Vec::new() };
    let store: Arc<dyn PresenceStore> = Arc::new(harness::store(harness::database().await));
    let log: Arc<dyn LogStore> = Arc::new(crate::lanes::memory());
    let (publisher, _lane, _signals) = crate::lanes::publishing(&log, &metrics);
    let (presence, mut own_loop) =
        Presence::new(settings, store.clone(), publisher, metrics.clone());
    let stop = CancellationToken::new();
    let running = {
        let stop = stop.clone();
        async move { own_loop.run(&stop).await }
    };
    let test = async {
        let since = Timestamp(1_795_168_000_000);
        let enter = |number: usize| {
            let user = UserId::parse(&format!("u{number}")).unwrap();
            presence.enter(&format!("s{number}"), user, Vec::new(), since)
        };
        let mut places = Vec::new();
        for thousand in 0..SESSIONS / 1_000 {
            places.extend((0..1_000).map(|number| enter(thousand * 1_000 + number)));
            tokio::task::yield_now().await;
        }
        let kept = async || store.replicas().await.unwrap().first().map_or(0, |one| one.sessions);
        until("all are kept", async || kept().await == SESSIONS as u64).await;
        let writes = metrics.presence.writes.get();
        assert!((10..=30).contains(&writes), "{writes} statements");
        drop(places);
        until("none is kept", async || kept().await == 0).await;
        let writes = metrics.presence.writes.get() - writes;
        assert!((10..=30).contains(&writes), "{writes} statements");
        stop.cancel();
    };
    tokio::join!(running, test);
    assert_eq!(store.replicas().await.unwrap().len(), 0, "who leaves is gone at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_that_open_at_once_are_a_few_statements() {
    let fleet = fleet(&harness::database_url().await, 1, &[]).await;
    let url = &fleet[0].url;
    let names: Vec<String> = (0..300).map(|number| format!("u{number}")).collect();
    let tabs = futures_util::future::join_all(names.iter().map(|name| Tab::open(url, name))).await;
    until("all are there", async || {
        let page = get(url, "/v1/users/online?limit=1000", API_KEY).await;
        page["users"].as_array().unwrap().len() == tabs.len()
    })
    .await;
    // Who is left out of a notice is asked once, not by each session.
    let asked = "tidings_store_seconds_count{query=\"notice_get\"}";
    let (id, before) = (send(url, json!("all"), json!({})).await, fleet[0].metric(asked).await);
    let mut tabs = tabs;
    for tab in &mut tabs {
        tab.until_notices(&[&id]).await;
    }
    let asked = fleet[0].metric(asked).await - before;
    assert!(asked <= 1, "{asked} statements for {} sessions", tabs.len());
    let writes = fleet[0].metric("tidings_presence_writes_total").await;
    assert!(writes <= 60, "{writes} statements for {} sessions", tabs.len());
    drop(tabs);
    until_online(url, &[]).await;
}
