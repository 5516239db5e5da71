//! The settings of the parts `notices` and `presence`.

use serde_json::{Value, json};

use super::{database, in_memory, in_postgres, number, until_live};
use crate::client::{Socket, connect};
use crate::fleet::{Replica, until};
use crate::tasks::{get, post};

async fn send(replica: &Replica, target: Value) -> u16 {
    post(&replica.url, "/v1/notices", &json!({"target": target, "title": "T"})).await.0
}

async fn tab(replica: &Replica, user: &str) -> Socket {
    let target = format!("/v1/ws?user={user}&topics=room:1,hall:1");
    let mut socket = connect(&replica.url, &target, &[]).await.unwrap();
    assert_eq!(socket.frame().await["type"], "welcome");
    socket
}

/// What comes up to the counts: how many notices, and how many were left out.
async fn missed(socket: &mut Socket) -> (usize, u64) {
    let (mut notices, mut left_out) = (0, 0);
    loop {
        let frame = socket.frame().await;
        match (frame["kind"].as_str(), frame["type"].as_str()) {
            (Some("notice"), _) => notices += 1,
            (Some("inbox.counts"), _) => return (notices, left_out),
            (_, Some("gap")) => left_out += frame["dropped"].as_u64().unwrap(),
            _ => {}
        }
    }
}

#[tokio::test]
pub(super) async fn more_named_users_are_answered_413() {
    let replica = in_memory(&[("notice_users_max", "2")]).await;
    assert_eq!(send(&replica, json!({"users": ["1", "2"]})).await, 202);
    assert_eq!(send(&replica, json!({"users": ["1", "2", "3"]})).await, 413);
}

#[tokio::test]
pub(super) async fn so_many_missed_notices_come_with_a_session() {
    for (max, expected) in [("2", (2, 3)), ("0", (0, 5)), ("100", (5, 0))] {
        let replica = in_memory(&[("notice_replays_max", max)]).await;
        for _ in 0..5 {
            assert_eq!(send(&replica, json!("all")).await, 202);
        }
        assert_eq!(missed(&mut tab(&replica, "1").await).await, expected, "of {max}");
    }
}

#[tokio::test]
pub(super) async fn older_notices_stay_in_the_inbox() {
    let (url, client) = database().await;
    let week = in_postgres("week", &url, &[]).await;
    assert_eq!(send(&week, json!("all")).await, 202);
    let older = "update tidings.notice set created_at = created_at - interval '61 s'";
    client.batch_execute(older).await.unwrap();
    assert_eq!(send(&week, json!("all")).await, 202);
    let minute = in_postgres("minute", &url, &[("notice_replay_age_s", "60")]).await;
    assert_eq!(missed(&mut tab(&minute, "1").await).await, (1, 1));
    assert_eq!(missed(&mut tab(&week, "1").await).await, (2, 0));
    let inbox = get(&minute.url, "/v1/inbox?user=1").await;
    assert_eq!(inbox["notices"].as_array().unwrap().len(), 2);
}

/// Rounds of redelivery that were begun.
const TRIES: &str = "select coalesce(sum(tries), 0)::bigint from tidings.inbox";

#[tokio::test]
pub(super) async fn what_nobody_acknowledged_is_redelivered_after_so_long() {
    for (grace_ms, expected) in [("100", true), ("86400000", false)] {
        let (url, client) = database().await;
        let settings = [("notice_grace_ms", grace_ms), ("notice_tick_ms", "100")];
        let replica = in_postgres("grace", &url, &settings).await;
        let _tab = tab(&replica, "1").await;
        assert_eq!(send(&replica, json!({"users": ["1"]})).await, 202);
        if expected {
            until("a round begins", async || number(&client, TRIES).await > 0).await;
        } else {
            let looks = "tidings_store_seconds_count{query=\"inbox_due\"}";
            let before = replica.metric(looks).await;
            until("time passes", async || replica.metric(looks).await > before + 5).await;
            assert_eq!(number(&client, TRIES).await, 0);
        }
    }
}

#[tokio::test]
pub(super) async fn what_is_due_is_found_by_the_tick() {
    let looks = "tidings_store_seconds_count{query=\"inbox_due\"}";
    let heads = "tidings_store_seconds_count{query=\"log_head\"}";
    for (tick_ms, expected) in [("100", true), ("600000", false)] {
        let (url, _) = database().await;
        let settings = [("notice_tick_ms", tick_ms), ("tick_ms", "100")];
        let replica = in_postgres("tick", &url, &settings).await;
        until_live(&replica).await;
        let _tab = tab(&replica, "1").await;
        if expected {
            until("it looks", async || replica.metric(looks).await > 3).await;
        } else {
            let before = replica.metric(heads).await;
            until("time passes", async || replica.metric(heads).await > before + 10).await;
            assert_eq!(replica.metric(looks).await, 0);
        }
    }
}

#[tokio::test]
pub(super) async fn notices_that_are_too_old_are_gone() {
    let (url, client) = database().await;
    let looked = "tidings_store_seconds_count{query=\"notice_expire\"}";
    let sending = in_postgres("sending", &url, &[]).await;
    assert_eq!(send(&sending, json!({"users": ["1", "2"]})).await, 202);
    let older = "update tidings.notice set created_at = created_at - interval '61 s'";
    client.batch_execute(older).await.unwrap();
    let quarter = in_postgres("quarter", &url, &[]).await;
    until("it has looked", async || quarter.metric(looked).await > 0).await;
    let (notices, rows) =
        ("select count(*) from tidings.notice", "select count(*) from tidings.inbox");
    assert_eq!((number(&client, notices).await, number(&client, rows).await), (1, 2));
    let _minute = in_postgres("minute", &url, &[("notice_retention_s", "60")]).await;
    until("it is gone", async || number(&client, notices).await == 0).await;
    assert_eq!(number(&client, rows).await, 0);
}

#[tokio::test]
pub(super) async fn a_dead_replicas_sessions_count_for_so_long() {
    let (url, _) = database().await;
    let mut short = in_postgres("short", &url, &[("presence_lease_ms", "1000")]).await;
    let mut long = in_postgres("long", &url, &[("presence_lease_ms", "30000")]).await;
    let other = in_postgres("other", &url, &[]).await;
    let _tabs = (tab(&short, "1").await, tab(&long, "2").await);
    let online = async || {
        let page = get(&other.url, "/v1/users/online").await;
        let users = page["users"].as_array().unwrap().iter();
        users.map(|one| one["user"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("both are there", async || online().await == ["1", "2"]).await;
    short.kill().await;
    long.kill().await;
    until("one is gone", async || online().await == ["2"]).await;
}

#[tokio::test]
pub(super) async fn joining_is_told_on_topics_that_are_named() {
    let replica = in_memory(&[("presence_topics", "room:*")]).await;
    let mut watcher = tab(&replica, "1").await;
    let _tab = tab(&replica, "2").await;
    loop {
        let frame = watcher.frame().await;
        assert_eq!((&frame["kind"], &frame["topic"]), (&json!("presence.join"), &json!("room:1")));
        if frame["data"]["user"] == "2" {
            break;
        }
    }
}
