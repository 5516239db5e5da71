//! Several replicas on one database: what is published on any is received on every other.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fleet::{Replica, publish_to, until};
use crate::follower::{Follower, Way};
use crate::harness;

async fn fleet(database_url: &str, settings: &[(&str, &str)]) -> Vec<Replica> {
    let start = |number: usize| {
        let name = format!("replica-{number}");
        async move { Replica::start(&name, database_url, settings).await }
    };
    futures_util::future::join_all((1..=3).map(start)).await
}

fn urls(fleet: &[Replica]) -> Vec<String> {
    fleet.iter().map(|replica| replica.url.clone()).collect()
}

/// Publishes from many places at once; returns the seqs that were answered.
async fn publish_many(urls: &[String], publishers: usize, each: usize, batch: usize) -> Vec<u64> {
    let mut tasks = JoinSet::new();
    for publisher in 0..publishers {
        let urls: Vec<String> =
            urls.iter().cycle().skip(publisher).take(urls.len()).cloned().collect();
        tasks.spawn(async move {
            let client = reqwest::Client::new();
            let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
            let mut seqs = Vec::new();
            for round in 0..each / batch {
                let message = |place: usize| {
                    let number = round * batch + place;
                    json!({
                        "topic": format!("order:{}", publisher % 10),
                        "data": number,
                        "idempotency_key": format!("{publisher}-{number}"),
                    })
                };
                let messages: Vec<Value> = (0..batch).map(message).collect();
                let answer = publish_to(&client, &urls, &json!({ "messages": messages })).await;
                let answered = answer["messages"].as_array().unwrap();
                seqs.extend(answered.iter().map(|one| one["seq"].as_u64().unwrap()));
            }
            seqs
        });
    }
    tasks.join_all().await.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_on_every_replica_has_every_message_once_and_in_order() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, &[]).await;
    let mut followers = Vec::new();
    for replica in &fleet {
        for way in Way::ALL {
            followers.push(Follower::start(way, vec![replica.url.clone()], "order:*", None));
        }
    }
    for follower in &followers {
        if follower.way != Way::LongPoll {
            follower.connected().await;
        }
    }
    // A long poll begins where its first answer says; give it one before anything is published.
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap().to_owned();
    followers.retain(|follower| follower.way != Way::LongPoll);
    for replica in &fleet {
        let urls = vec![replica.url.clone()];
        followers.push(Follower::start(Way::LongPoll, urls, "order:*", Some(cursor.clone())));
    }
    let mut published = publish_many(&urls(&fleet), 9, 100, 1).await;
    published.sort_unstable();
    for follower in &followers {
        assert_eq!(follower.has(published.len()).await.seqs(), published, "{:?}", follower.way);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_publishers_on_three_replicas_leave_no_hole_and_one_order() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, &[]).await;
    let follower = Follower::start(Way::WebSocket, vec![fleet[2].url.clone()], "*", None);
    follower.connected().await;
    let mut published = publish_many(&urls(&fleet), 50, 400, 10).await;
    published.sort_unstable();
    assert_eq!(published, (1..=20_000).collect::<Vec<_>>());
    assert_eq!(follower.has(20_000).await.seqs(), published);
    let client = harness::connect(&url).await;
    let late: i64 = client
        .query_one(
            "select count(*) from (
                 select pg_xact_commit_timestamp(xmin) as at,
                        lag(pg_xact_commit_timestamp(xmin)) over (order by seq) as before
                 from tidings.message) ordered
             where at < before",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(late, 0, "messages whose commit is earlier than that of a lower seq");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_arrive_byte_for_byte() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, &[]).await;
    for length in [9_000, 200_000] {
        let topic = format!("large:{length}");
        // Escapes and white space are the publisher's: what arrives is what was written.
        let text = r#"aé😀\u0000 \""#.repeat(length / 16);
        let data = format!("{{ \"text\" :\t\"{text}\" }}");
        let body = format!("{{\"topic\":\"{topic}\",\"data\":{data}}}");
        let client = reqwest::Client::new();
        let answer = client
            .post(format!("{}/v1/messages", fleet[0].url))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        until("the other replica has it", async || {
            let since = "2020-01-01T00:00:00Z";
            let address = format!("{}/v1/messages?topic={topic}&since={since}", fleet[1].url);
            let page = reqwest::get(address).await.unwrap().text().await.unwrap();
            page.contains(&format!("\"data\":{data}}}"))
        })
        .await;
    }
    let body = json!({"topic": "large", "data": "x".repeat(1_000_000)});
    let client = reqwest::Client::new();
    let answer =
        client.post(format!("{}/v1/messages", fleet[0].url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_delays_nobody() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, &[]).await;
    let follower = Follower::start(Way::WebSocket, vec![fleet[1].url.clone()], "*", None);
    follower.connected().await;
    let (open, other) = (harness::connect(&url).await, harness::connect(&url).await);
    open.batch_execute("begin; select tidings.publish('a', '1'); select tidings.publish('b', '2')")
        .await
        .unwrap();
    // The opposite order of topics, at the same time: nothing locks, so nothing can deadlock.
    other
        .batch_execute("begin; select tidings.publish('b', '3'); select tidings.publish('a', '4')")
        .await
        .unwrap();
    let rolled_back = harness::connect(&url).await;
    rolled_back.batch_execute("begin; select tidings.publish('a', '5'); rollback").await.unwrap();
    let began = Instant::now();
    for number in 0..20 {
        fleet[0].publish(&json!({"topic": "c", "data": number})).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "publishers wait for an open transaction");
    follower.has(20).await;
    other.batch_execute("commit").await.unwrap();
    follower.has(22).await;
    open.batch_execute("commit").await.unwrap();
    let seen = follower.has(24).await;
    let topics: Vec<&str> = seen.messages[20..].iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["b", "a", "a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_application_publishes_keeps_its_order() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, &[]).await;
    let follower = Follower::start(Way::WebSocket, vec![fleet[0].url.clone()], "sql", None);
    follower.connected().await;
    let client = harness::connect(&url).await;
    for number in 0..300 {
        let two = format!(
            "begin; select tidings.publish('sql', '{}'); select tidings.publish('sql', '{}'); commit",
            number * 2,
            number * 2 + 1
        );
        client.batch_execute(&two).await.unwrap();
    }
    follower.has(600).await;
    let rows = client.query("select data from tidings.message order by seq", &[]).await.unwrap();
    let datas: Vec<u32> = rows.iter().map(|row| row.get::<_, &str>(0).parse().unwrap()).collect();
    assert_eq!(datas, (0..600).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resumes_gets_exactly_what_it_missed() {
    let url = harness::database_url().await;
    // A small ring, so that the longest absence is read from the store, and on another replica.
    let fleet = fleet(&url, &[("TIDINGS_RING_MESSAGES_MAX", "1000")]).await;
    let first = fleet[0].publish(&json!({"topic": "a", "data": 0})).await;
    let cursor = first["messages"][0]["cursor"].as_str().unwrap().to_owned();
    for missed in [0_usize, 1, 10_000] {
        let before = fleet[0].stats().await["log"]["applied"].as_u64().unwrap();
        let wanted = missed - (usize::try_from(before).unwrap() - 1).min(missed);
        for chunk in (0..wanted).collect::<Vec<_>>().chunks(1_000) {
            let messages: Vec<Value> =
                chunk.iter().map(|number| json!({"topic": "a", "data": number})).collect();
            fleet[1].publish(&json!({ "messages": messages })).await;
        }
        let expected: Vec<u64> = (2..2 + missed as u64).collect();
        for way in Way::ALL {
            let urls = vec![fleet[2].url.clone()];
            let follower = Follower::start(way, urls, "a", Some(cursor.clone()));
            follower.connected().await;
            assert_eq!(follower.has(missed).await.seqs(), expected, "{way:?} after {missed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_older_than_what_is_kept_is_told_where_to_go_on() {
    let url = harness::database_url().await;
    let settings = [("TIDINGS_PARTITION_ROWS", "100"), ("TIDINGS_RING_MESSAGES_MAX", "16")];
    let replica = Replica::start("one", &url, &settings).await;
    let first = replica.publish(&json!({"topic": "a", "data": 0})).await;
    let cursor = first["messages"][0]["cursor"].as_str().unwrap().to_owned();
    let messages: Vec<Value> = (0..300).map(|n| json!({"topic": "a", "data": n})).collect();
    replica.publish(&json!({ "messages": messages })).await;
    let client = harness::connect(&url).await;
    until("retention has taken the first partition", async || {
        let expired = client.query_one("select tidings.partition_expire(1)", &[]).await.unwrap();
        expired.get::<_, Option<i64>>(0).is_some()
    })
    .await;
    until("the replica knows", async || {
        replica.stats().await["log"]["oldest"].as_u64().unwrap() > 100
    })
    .await;
    let follower =
        Follower::start(Way::WebSocket, vec![replica.url.clone()], "a", Some(cursor.clone()));
    until("the client is told to reload", async || follower.seen().resets == 1).await;
    replica.publish(&json!({"topic": "a", "data": "after"})).await;
    follower.has(1).await;
    let gone =
        reqwest::get(format!("{}/v1/messages?topic=a&after={cursor}", replica.url)).await.unwrap();
    assert_eq!(gone.status(), 410);
    let problem: Value = gone.json().await.unwrap();
    let oldest = problem["cursor"].as_str().unwrap();
    let page =
        reqwest::get(format!("{}/v1/messages?topic=a&after={oldest}", replica.url)).await.unwrap();
    assert_eq!(page.status(), 200);
}
