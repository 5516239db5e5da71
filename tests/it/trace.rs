//! A `traceparent` is carried from whoever publishes to everybody who receives.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidings::store::postgres::migrate::{MIGRATIONS, migrate};
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::fleet::{PATIENCE, Replica, until, until_live};
use crate::follower::{Follower, Way};
use crate::{harness, upgrade};

/// The trace of one of a test's publishers.
pub fn trace(number: u64) -> String {
    format!("00-{:032x}-{number:016x}-01", 0xabc0_0000 + number)
}

/// What is no traceparent, as far as a header can hold it.
const HOSTILE: &[&str] = &[
    "",
    "00",
    "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
    "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
    "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
    "00-0af7651916cd43dd8448eb211c80319cb7ad6b71692033310-00",
    "00-0af7651916cd43dd8448eb211c80319\"-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01,00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
];

/// Publishes under headers of the trace.
pub async fn publish(replica: &Replica, traces: &[&str], body: &Value) {
    let mut request = reqwest::Client::new().post(format!("{}/v1/messages", replica.url));
    for trace in traces {
        request = request.header("traceparent", *trace);
    }
    let answer = request.json(body).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{traces:?} {body}");
}

async fn publish_by_websocket(replica: &Replica, message: &Value) {
    let address = format!("{}/v1/ws", replica.url.replace("http://", "ws://"));
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
    let frame = json!({"op": "publish", "message": message, "ref": 1}).to_string();
    socket.send(Message::text(frame)).await.unwrap();
    let answered = async {
        while let Some(Ok(frame)) = socket.next().await {
            let frame: Value = serde_json::from_str(frame.to_text().unwrap()).unwrap();
            if frame["type"] == "ok" {
                return;
            }
            assert_ne!(frame["type"], "error", "{frame}");
        }
        panic!("it was not answered");
    };
    timeout(PATIENCE, answered).await.unwrap();
}

/// Each message says under which trace it was published, or nothing of one.
fn shows(texts: &[Arc<str>], expected: &[Option<String>], what: &str) {
    assert_eq!(texts.len(), expected.len(), "{what}");
    for (text, expected) in texts.iter().zip(expected) {
        let frame: Value = serde_json::from_str(text).unwrap();
        assert_eq!(frame["traceparent"].as_str(), expected.as_deref(), "{what}: {text}");
        assert_eq!(text.contains("traceparent"), expected.is_some(), "{what}: {text}");
    }
}

async fn history(replica: &Replica, topic: &str, after: &str) -> Vec<Arc<str>> {
    let url = format!("{}/v1/messages?topic={topic}&after={after}&limit=1000", replica.url);
    let page: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    page["messages"].as_array().unwrap().iter().map(|frame| frame.to_string().into()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_comes_with_its_message_to_every_replica_and_in_every_way() {
    let url = harness::database_url().await;
    let fleet = [Replica::start("one", &url, &[]).await, Replica::start("two", &url, &[]).await];
    until_live(&fleet).await;
    let [one, two] = &fleet;
    let epoch = one.stats().await["log"]["epoch"].as_str().unwrap().to_owned();
    let first = format!("{epoch}-0");
    let follow = |replica: &Replica, way, topics: &str, cursor| {
        Follower::keeping(way, vec![replica.url.clone()], topics, cursor)
    };
    let live: Vec<Follower> =
        Way::ALL.into_iter().map(|way| follow(two, way, "order:7", None)).collect();
    for follower in &live {
        follower.connected().await;
    }

    let message = |trace: Value| json!({"topic": "order:7", "data": 1, "traceparent": trace});
    let plain = json!({"topic": "order:7", "data": 1});
    publish(one, &[&trace(1)], &plain).await;
    publish(one, &[&trace(2)], &json!({"messages": [plain, message(json!(trace(3)))]})).await;
    publish(one, &[], &plain).await;
    publish(one, &[], &message(json!(trace(5)))).await;
    publish(one, &[&trace(6)], &message(json!("nonsense"))).await;
    publish_by_websocket(one, &message(json!(trace(7)))).await;
    // Too large for a notification, so that the other replica reads it from the table.
    let large = json!({"topic": "order:7", "data": "x".repeat(10_000)});
    publish(one, &[&trace(8)], &large).await;
    // Under an idempotency key the batch takes another way through the log.
    let keyed = json!({"topic": "order:7", "data": 1, "idempotency_key": "k"});
    publish(one, &[&trace(9)], &json!({"messages": [keyed, plain]})).await;
    let shop = harness::connect(&url).await;
    let tell = "select tidings.publish('order:7', '1')";
    let set = |trace: &str| format!("select set_config('tidings.traceparent', '{trace}', true)");
    let sql = format!("begin; {}; {tell}; {tell}; commit; {tell}", set(&trace(11)));
    shop.batch_execute(&sql).await.unwrap();
    let expected: Vec<Option<String>> =
        [1, 2, 3, 0, 5, 6, 7, 8, 9, 9, 11, 11, 0].map(|n| (n > 0).then(|| trace(n))).into();

    for follower in &live {
        let seen = follower.has(expected.len()).await;
        shows(&seen.texts, &expected, &format!("live, {:?}", follower.way));
    }
    // Who comes back reads it from memory; a replica whose memory is short reads it from the table.
    for _ in 0..16 {
        publish(one, &[], &json!({"topic": "filler", "data": 1})).await;
    }
    let short = [("TIDINGS_RING_MESSAGES_MAX", "16")];
    let short = Replica::start("short", &url, &short).await;
    for replica in [two, &short] {
        for (way, topics) in
            Way::ALL.into_iter().flat_map(|way| [(way, "order:7"), (way, "order:*")])
        {
            let follower = follow(replica, way, topics, Some(first.clone()));
            let seen = follower.has(expected.len()).await;
            shows(&seen.texts, &expected, &format!("{} {way:?} {topics}", replica.name));
        }
        for topic in ["order:7", "order:*"] {
            let page = history(replica, topic, &first).await;
            shows(&page, &expected, &format!("{} history {topic}", replica.name));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_carries_its_trace_to_every_replica() {
    let url = harness::database_url().await;
    let fleet = [Replica::start("one", &url, &[]).await, Replica::start("two", &url, &[]).await];
    until_live(&fleet).await;
    let follow = |replica: &Replica| {
        Follower::keeping(Way::WebSocket, vec![replica.url.clone()], "cursor:1", None)
    };
    let followers: Vec<Follower> = fleet.iter().map(follow).collect();
    let shop = harness::connect(&url).await;
    for follower in &followers {
        follower.connected().await;
    }
    let count = async |count: usize| {
        until("everybody has the signal", async || {
            followers.iter().all(|follower| follower.seen().texts.len() == count)
        })
        .await;
    };
    let signal = json!({"topic": "cursor:1", "data": 1, "class": "signal"});
    publish(&fleet[0], &[&trace(1)], &signal).await;
    count(1).await;
    publish(&fleet[0], &[], &signal).await;
    count(2).await;
    let set = format!("begin; set local tidings.traceparent = '{}'", trace(3));
    let tell = "select tidings.publish('cursor:1', '1', class => 'signal')";
    shop.batch_execute(&format!("{set}; {tell}; commit")).await.unwrap();
    count(3).await;
    shop.batch_execute(tell).await.unwrap();
    count(4).await;
    for follower in &followers {
        let expected = [Some(trace(1)), None, Some(trace(3)), None];
        shows(&follower.seen().texts, &expected, "signal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_trace_is_left_out_and_refuses_nothing() {
    let url = harness::database_url().await;
    let replica = Replica::start("one", &url, &[]).await;
    let shop = harness::connect(&url).await;
    let follower = Follower::keeping(Way::WebSocket, vec![replica.url.clone()], "a", None);
    follower.connected().await;
    let mut count = 0;
    let plain = json!({"topic": "a", "data": 1});
    for text in HOSTILE {
        publish(&replica, &[text], &plain).await;
        publish(&replica, &[], &json!({"topic": "a", "data": 1, "traceparent": text})).await;
        let set = "select set_config('tidings.traceparent', $1, false)";
        shop.execute(set, &[text]).await.unwrap();
        shop.batch_execute("select tidings.publish('a', '1')").await.unwrap();
        count += 3;
    }
    // Of two nobody knows which one counts.
    publish(&replica, &[&trace(1), &trace(2)], &plain).await;
    let long = "0".repeat(8 << 10);
    publish(&replica, &[&long], &plain).await;
    for odd in [json!(7), json!(null), json!({"a": [1]}), json!([trace(1)]), json!("\u{0}é")] {
        publish(&replica, &[], &json!({"topic": "a", "data": 1, "traceparent": odd})).await;
        count += 1;
    }
    // Nor does what somebody wrote into the table cost a replica its place in the log.
    shop.batch_execute("update tidings.message set trace = 'x' || chr(10) where seq = 1")
        .await
        .unwrap();
    let seen = follower.has(count + 2).await;
    shows(&seen.texts, &vec![None; count + 2], "hostile");
    let first = format!("{}-0", replica.stats().await["log"]["epoch"].as_str().unwrap());
    let fresh = Replica::start("two", &url, &[]).await;
    shows(&history(&fresh, "a", &first).await[..1], &[None], "from the table");
}

/// An application that keeps what it published open, and a backup, hold the tables for long.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_schema_waits_to_grow_nobody_waits_for_it() {
    let before = MIGRATIONS.iter().position(|(name, _)| *name == "0005_trace").unwrap();
    let url = upgrade::brought_up_by(before).await;
    let (held, shop) = (harness::connect(&url).await, harness::connect(&url).await);
    let tell = "select tidings.publish('a', '1')";
    held.batch_execute(&format!("begin; {tell}")).await.unwrap();
    let connector = harness::connector(&url);
    let migrating = migrate(&connector);
    let publishing = async {
        let waiting = "select 1 from pg_locks l join pg_class c on c.oid = l.relation
            where c.relname = 'outbox' and not l.granted";
        until("it waits for the table", async || {
            !shop.query(waiting, &[]).await.unwrap().is_empty()
        })
        .await;
        for _ in 0..3 {
            let published = timeout(Duration::from_secs(5), shop.batch_execute(tell)).await;
            published.expect("who publishes waits for the schema").unwrap();
        }
        held.batch_execute("commit").await.unwrap();
    };
    let (migrated, ()) = tokio::join!(migrating, publishing);
    assert!(migrated.unwrap().contains(&"0005_trace"));
    let kept = "select count(*) from tidings.outbox";
    assert_eq!(shop.query_one(kept, &[]).await.unwrap().get::<_, i64>(0), 4);
}
