//! Replicas die, and Postgres goes: what was sent comes, once.

use tidings::cluster::Mode;

use super::tab::Tab;
use super::*;
use crate::harness;
use crate::proxy::{Proxy, Weather};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_killed_and_nobody_misses_a_notice() {
    let mut fleet = fleet(&harness::database_url().await, 3, &[]).await;
    let mut ids = Vec::new();
    let mut tabs = Vec::new();
    for user in 1..=9 {
        let url = &fleet[user % 3].url;
        tabs.push((user, Tab::open(url, &user.to_string()).await));
    }
    let everybody: Vec<String> = (1..=12).map(|user: u32| user.to_string()).collect();
    ids.push(send(&fleet[0].url, json!("all"), json!({})).await);
    fleet.remove(2).kill().await;
    ids.push(send(&fleet[1].url, json!({"users": everybody}), json!({})).await);
    // Those of the dead replica come back elsewhere; some were never there.
    for user in [2, 5, 8] {
        let place = tabs.iter().position(|(own, _)| *own == user).unwrap();
        tabs[place].1 = Tab::open(&fleet[0].url, &user.to_string()).await;
    }
    for user in 10..=12 {
        tabs.push((user, Tab::open(&fleet[1].url, &user.to_string()).await));
    }
    for (user, tab) in &mut tabs {
        tab.until_notices(&[&ids[0], &ids[1]]).await;
        tab.until_counts(2, 2).await;
        let op = ["received", "read", "confirmed"][*user % 3];
        tab.say(op, &[&ids[0], &ids[1]]).await;
        let left = [(2, 2), (0, 2), (0, 0)][*user % 3];
        tab.until_counts(left.0, left.1).await;
    }
    for id in &ids {
        let tally = tally(&fleet[0].url, id).await;
        assert_eq!(tally["total"], 12);
        for (state, count) in
            [("pending", 0), ("sent", 0), ("received", 4), ("read", 4), ("confirmed", 4)]
        {
            assert_eq!(tally[state], count, "{state}: {tally}");
        }
    }
    for (_, tab) in &mut tabs {
        tab.settle().await;
        assert_eq!(tab.notices.len(), 2, "once each: {:?}", tab.notices);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_nothing_is_taken_and_nothing_is_lost() {
    let url = harness::database_url().await;
    let (proxy, through) = Proxy::to_database(&url).await;
    let settings: Vec<_> =
        QUICK.iter().copied().chain([("TIDINGS_STATEMENT_TIMEOUT_MS", "500")]).collect();
    let cut = Replica::start("cut", &through, &settings).await;
    let other = Replica::start("other", &url, &settings).await;
    let mut tab = Tab::open(&cut.url, "1").await;
    let before = send(&cut.url, json!("all"), json!({})).await;
    tab.until_notices(&[&before]).await;
    proxy.weather(Weather::Black);
    proxy.cut();
    let body = json!({"target": "all", "title": "T"});
    until("it says so", async || {
        ask(&cut.url, Method::POST, "/v1/notices", API_KEY, Some(&body)).await.0 == 503
    })
    .await;
    let failed =
        async || get(&cut.url, "/v1/stats", API_KEY).await["rates"]["failed_per_s"].as_f64();
    until("it is counted", async || failed().await.is_some_and(|rate| rate > 0.0)).await;
    // A session that opens meanwhile is given what it missed when Postgres is back.
    let mut late = Tab::open(&cut.url, "3").await;
    let during = send(&other.url, json!({"users": ["1", "3"]}), json!({})).await;
    proxy.weather(Weather::Fair);
    tab.until("the second", |tab| tab.notices.iter().any(|(id, _)| *id == during)).await;
    late.until("both", |tab| {
        [&before, &during].iter().all(|id| tab.notices.iter().any(|(own, _)| own == *id))
    })
    .await;
    tab.settle().await;
    late.settle().await;
    for tab in [&tab, &late] {
        let mut ids: Vec<&String> = tab.notices.iter().map(|(id, _)| id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "once each: {:?}", tab.notices);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_restarted_and_presence_is_written_anew() {
    let cluster = harness::private(tidings::cluster::Options::test());
    cluster.create_database("restarted", None).unwrap();
    let url = cluster.url("restarted");
    let fleet = fleet(&url, 2, &[("TIDINGS_PRESENCE_LEASE_MS", "3000")]).await;
    let mut tab = Tab::open(&fleet[0].url, "1").await;
    let online = async || {
        let online = reqwest::Client::new()
            .get(format!("{}/v1/users/online", fleet[1].url))
            .bearer_auth(API_KEY)
            .send()
            .await
            .unwrap();
        online.text().await.unwrap().contains("\"user\":\"1\"")
    };
    until("it is there", online).await;
    cluster.stop(Mode::Immediate).unwrap();
    cluster.start_again().unwrap();
    until("it is there again", online).await;
    let body = json!({"target": {"users": ["1"]}, "title": "T", "idempotency_key": "k"});
    until("it is sent", async || {
        ask(&fleet[1].url, Method::POST, "/v1/notices", API_KEY, Some(&body)).await.0 == 202
    })
    .await;
    tab.until("it comes", |tab| tab.notices.len() == 1).await;
}

/// A thousand users, two hundred of them away, three notices, and a replica that dies between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_users_have_each_notice_once_though_a_replica_dies() {
    const USERS: usize = 1_000;
    const AWAY: usize = 200;
    let mut fleet = fleet(&harness::database_url().await, 3, &[]).await;
    let urls: Vec<String> = fleet.iter().map(|replica| replica.url.clone()).collect();
    let open = |user: usize, url: String| async move { Tab::open(&url, &user.to_string()).await };
    let here = (AWAY..USERS).map(|user| open(user, urls[user % 3].clone()));
    let mut tabs: Vec<Tab> = futures_util::future::join_all(here).await;
    // Some have a second one, on a replica that stays.
    let twice = (AWAY..USERS).filter(|user| user % 10 == 4);
    let again = twice.clone().map(|user| open(user, urls[(user + 1) % 2].clone()));
    let again = futures_util::future::join_all(again).await;
    let mut again: Vec<(usize, Tab)> = twice.zip(again).collect();
    let named: Vec<String> = (0..USERS).step_by(3).take(300).map(|user| user.to_string()).collect();
    let all = send(&urls[0], json!("all"), json!({})).await;
    fleet.remove(2).kill().await;
    let ops = send(&urls[1], json!({"roles": ["ops"]}), json!({})).await;
    let some = send(&urls[0], json!({"users": named}), json!({})).await;
    let expected = |user: usize| {
        let mut ids = vec![&all];
        ids.extend((user.is_multiple_of(2)).then_some(&ops));
        ids.extend((user.is_multiple_of(3) && user / 3 < 300).then_some(&some));
        ids
    };
    let left = |user: usize| {
        let all = expected(user).len() as u64;
        [(all, all), (0, all), (0, 0)][user % 3]
    };
    // Those of the dead replica come back elsewhere, and whoever was away comes.
    for user in (AWAY..USERS).filter(|user| user % 3 == 2) {
        tabs[user - AWAY] = open(user, urls[user % 2].clone()).await;
    }
    let away = (0..AWAY).map(|user| open(user, urls[user % 2].clone()));
    let mut late: Vec<Tab> = futures_util::future::join_all(away).await;
    for (user, tab) in late.iter_mut().chain(&mut tabs).enumerate() {
        let ids = expected(user);
        tab.until(&format!("all of {user}"), |tab| tab.notices.len() >= ids.len()).await;
        tab.until_counts(ids.len() as u64, ids.len() as u64).await;
        let ids: Vec<&str> = ids.into_iter().map(String::as_str).collect();
        tab.say(["received", "read", "confirmed"][user % 3], &ids).await;
        let left = left(user);
        tab.until_counts(left.0, left.1).await;
        tab.settle().await;
        let mut came: Vec<&str> = tab.notices.iter().map(|(id, _)| id.as_str()).collect();
        came.sort_unstable();
        let mut ids = ids;
        ids.sort_unstable();
        assert_eq!(came, ids, "each once, to {user}");
    }
    for (user, tab) in &mut again {
        let left = left(*user);
        tab.until_counts(left.0, left.1).await;
        tab.settle().await;
        assert_eq!(tab.counts, left, "in the second tab of {user}");
        let mut came: Vec<&str> = tab.notices.iter().map(|(id, _)| id.as_str()).collect();
        let mut ids: Vec<&str> = expected(*user).into_iter().map(String::as_str).collect();
        came.sort_unstable();
        ids.sort_unstable();
        assert_eq!(came, ids, "each once, in the second tab of {user}");
    }
    for (id, has) in [(&all, 1), (&ops, 2), (&some, 3)] {
        let tally = tally(&urls[0], id).await;
        let of = |state: usize| {
            let counted = (0..USERS).filter(|user| expected(*user).contains(&id));
            counted.filter(|user| user % 3 == state).count()
        };
        for (number, state) in ["received", "read", "confirmed"].into_iter().enumerate() {
            assert_eq!(tally[state], of(number), "{state} of {has}: {tally}");
        }
        assert_eq!((&tally["pending"], &tally["sent"]), (&json!(0), &json!(0)));
    }
}
