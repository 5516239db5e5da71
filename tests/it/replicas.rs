//! Several replicas on one database: what is published on any is received on every other.

use serde_json::{Value, json};
use tidings::cluster::Options;
use tokio::task::JoinSet;

use crate::client;
use crate::fleet::{Replica, publish_to, three, until, urls};
use crate::follower::{Follower, Way};
use crate::harness;

fn order(publisher: usize) -> String {
    format!("order:{}", publisher % 10)
}

/// Publishes from many places at once; returns the seqs that were answered, by publisher.
async fn publish_many(
    urls: &[String],
    publishers: usize,
    each: usize,
    batch: usize,
) -> Vec<Vec<u64>> {
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
                        "topic": order(publisher),
                        "data": number,
                        "idempotency_key": format!("{publisher}-{number}"),
                    })
                };
                let messages: Vec<Value> = (0..batch).map(message).collect();
                let answer = publish_to(&client, &urls, &json!({ "messages": messages })).await;
                let answered = answer["messages"].as_array().unwrap();
                seqs.extend(answered.iter().map(|one| one["seq"].as_u64().unwrap()));
            }
            (publisher, seqs)
        });
    }
    let mut published = tasks.join_all().await;
    published.sort_unstable();
    published.into_iter().map(|(_, seqs)| seqs).collect()
}

/// Publishes over one WebSocket, as many at a time as there come.
async fn publish_over_a_socket(url: String, topic: String, messages: usize) -> Vec<u64> {
    let mut socket = client::connect(&url, "/v1/ws", &[]).await.unwrap();
    assert_eq!(socket.frame().await["type"], "welcome");
    let mut seqs = Vec::new();
    for number in 0..messages {
        let message = json!({"topic": topic, "data": number});
        socket.send(&json!({"op": "publish", "message": message, "ref": number})).await;
        let ok = socket.frame().await;
        assert_eq!((&ok["type"], &ok["ref"]), (&json!("ok"), &json!(number)), "{ok}");
        seqs.push(ok["messages"][0]["seq"].as_u64().unwrap());
    }
    seqs
}

fn sorted(seqs: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut seqs: Vec<u64> = seqs.into_iter().collect();
    seqs.sort_unstable();
    seqs
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_on_every_replica_has_every_message_of_its_topics_once_and_in_order() {
    const TOPICS: usize = 9;
    let url = harness::database_url().await;
    let fleet = three(&url, &[]).await;
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap();
    // Each client has two topics of its own, which no other client has both of.
    let topics = |number: usize| [number % TOPICS, (number + 1) % TOPICS];
    let mut followers = Vec::new();
    for replica in &fleet {
        for way in Way::ALL {
            let wanted = topics(followers.len()).map(order).join(",");
            let urls = vec![replica.url.clone()];
            // A long poll begins where its first answer says, so it is told where.
            let cursor = (way == Way::LongPoll).then(|| cursor.to_owned());
            followers.push(Follower::start(way, urls, &wanted, cursor));
        }
    }
    for follower in &followers {
        follower.connected().await;
    }
    // The last topics are published on over WebSockets, one on each replica.
    let sockets = (TOPICS - 3..TOPICS)
        .map(|number| publish_over_a_socket(fleet[number % 3].url.clone(), order(number), 100));
    let everywhere = urls(&fleet);
    let (mut published, over_sockets) = tokio::join!(
        publish_many(&everywhere, TOPICS - 3, 100, 1),
        futures_util::future::join_all(sockets)
    );
    published.extend(over_sockets);
    assert_eq!(published.iter().map(Vec::len).sum::<usize>(), TOPICS * 100);
    for (number, follower) in followers.iter().enumerate() {
        let due = sorted(topics(number).map(|topic| published[topic].clone()).concat());
        let seen = follower.has(due.len()).await;
        assert_eq!(seen.seqs(), due, "{:?}", follower.way);
        let wanted = topics(number).map(order);
        assert!(seen.messages.iter().all(|(topic, _)| wanted.contains(topic)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_publishers_on_three_replicas_leave_no_hole_and_one_order() {
    // Commit times are kept by servers that were told to, as ours are.
    let own = harness::cluster().is_borrowed().then(|| harness::private(Options::test()));
    let url = match &own {
        Some(cluster) => cluster.url("postgres"),
        None => harness::database_url().await,
    };
    let fleet = three(&url, &[]).await;
    let follower = Follower::start(Way::WebSocket, vec![fleet[2].url.clone()], "*", None);
    follower.connected().await;
    let published = sorted(publish_many(&urls(&fleet), 50, 400, 10).await.concat());
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
async fn a_client_that_resumes_gets_exactly_what_it_missed() {
    let url = harness::database_url().await;
    // A small ring, so that the longest absence is read from the store, and on another replica.
    let fleet = three(&url, &[("TIDINGS_RING_MESSAGES_MAX", "1000")]).await;
    for missed in [0_usize, 1, 10_000] {
        let topic = format!("missed:{missed}");
        let message = |number: usize| json!({"topic": topic, "data": number});
        let before = fleet[0].publish(&message(0)).await;
        let cursor = before["messages"][0]["cursor"].as_str().unwrap().to_owned();
        let mut expected = Vec::new();
        for chunk in (0..missed).collect::<Vec<_>>().chunks(1_000) {
            let messages: Vec<Value> = chunk.iter().map(|number| message(*number)).collect();
            let answer = fleet[1].publish(&json!({ "messages": messages })).await;
            let answered = answer["messages"].as_array().unwrap();
            expected.extend(answered.iter().map(|one| one["seq"].as_u64().unwrap()));
        }
        assert_eq!(expected.len(), missed);
        let last = expected.last().copied();
        until("the replica that they come back to has applied it", async || {
            fleet[2].stats().await["log"]["applied"].as_u64() >= last
        })
        .await;
        let follow =
            |way| Follower::start(way, vec![fleet[2].url.clone()], &topic, Some(cursor.clone()));
        let followers = Way::ALL.map(follow);
        for follower in &followers {
            let way = follower.way;
            assert_eq!(follower.has(missed).await.seqs(), expected, "{way:?} after {missed}");
            follower.connected().await;
            if way != Way::LongPoll {
                until("it is told that this was all", async || {
                    !follower.seen().replayed.is_empty()
                })
                .await;
                let seen = follower.seen();
                assert_eq!(seen.replayed, [missed as u64], "{way:?} after {missed}");
                assert_eq!(seen.seqs(), expected, "{way:?} after {missed}");
            }
        }
        let live = fleet[0].publish(&message(missed)).await;
        expected.push(live["messages"][0]["seq"].as_u64().unwrap());
        for follower in &followers {
            let seen = follower.has(missed + 1).await;
            assert_eq!(seen.seqs(), expected, "{:?} after {missed} and live", follower.way);
            assert_eq!(seen.resets, 0);
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
    let follow = |way, cursor| Follower::start(way, vec![replica.url.clone()], "a", cursor);
    let followers = Way::ALL.map(|way| follow(way, Some(cursor.clone())));
    for follower in &followers {
        until("the client is told to reload", async || follower.seen().resets == 1).await;
    }
    // A session goes on from the head; who asks for history is told the oldest place still good.
    let kept: Vec<u64> = (101..=301).collect();
    assert_eq!(followers[2].has(kept.len()).await.seqs(), kept);
    // The cursor of the reset is good, for whoever comes back with it.
    let cursors = followers.each_ref().map(|follower| follower.seen().cursor());
    let mut again = Vec::new();
    for (way, cursor) in Way::ALL.into_iter().zip(cursors) {
        assert!(cursor.is_some(), "{way:?} has a cursor to come back with");
        again.push(follow(way, cursor));
    }
    for follower in &again {
        follower.connected().await;
    }
    let after = replica.publish(&json!({"topic": "a", "data": "after"})).await;
    assert_eq!(after["messages"][0]["seq"], 302);
    for follower in again.iter().chain(&followers[..2]) {
        assert_eq!(follower.has(1).await.seqs(), [302], "{:?}", follower.way);
    }
    assert!(again.iter().all(|follower| follower.seen().resets == 0), "its cursor was good");
    assert!(followers.iter().all(|follower| follower.seen().resets == 1), "told once");
    let gone =
        reqwest::get(format!("{}/v1/messages?topic=a&after={cursor}", replica.url)).await.unwrap();
    assert_eq!(gone.status(), 410);
    let problem: Value = gone.json().await.unwrap();
    let oldest = problem["cursor"].as_str().unwrap();
    let page =
        reqwest::get(format!("{}/v1/messages?topic=a&after={oldest}", replica.url)).await.unwrap();
    assert_eq!(page.status(), 200);
}
