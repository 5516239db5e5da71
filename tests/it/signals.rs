//! Signals: whoever is there gets them once, and nobody later.

use serde_json::{Value, json};

use crate::fleet::{three, until, until_live};
use crate::follower::{Follower, Way};
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_every_replica_and_are_not_kept() {
    let url = harness::database_url().await;
    let fleet = three(&url, &[]).await;
    // What comes before a replica listens is not for it.
    until_live(&fleet).await;
    let mut followers = Vec::new();
    for replica in &fleet {
        for way in [Way::WebSocket, Way::Sse] {
            // Two patterns match: a session gets it once all the same.
            followers.push(Follower::keeping(way, vec![replica.url.clone()], "s,s*", None));
        }
    }
    for follower in &followers {
        follower.connected().await;
    }
    let texts = async |count: usize| {
        for follower in &followers {
            let what = format!("{:?} has {count} messages", follower.way);
            until(&what, async || follower.seen().texts.len() >= count).await;
        }
    };
    let by_http = json!({"topic": "s", "data": "http", "class": "signal"});
    let answer = fleet[0].publish(&by_http).await;
    assert_eq!(answer["messages"][0]["seq"], Value::Null);
    texts(1).await;
    let client = harness::connect(&url).await;
    let by_sql = "select tidings.publish('s', '\"sql\"', class => 'signal')";
    client.batch_execute(by_sql).await.unwrap();
    texts(2).await;
    let rolled_back = format!("begin; {by_sql}; rollback");
    client.batch_execute(&rolled_back).await.unwrap();
    // Whatever came twice has come by the time that everybody has what was published after it.
    client
        .batch_execute("select tidings.publish('s', '\"last signal\"', class => 'signal')")
        .await
        .unwrap();
    texts(3).await;
    let kept = fleet[1].publish(&json!({"topic": "s", "data": "kept"})).await;
    assert_eq!(kept["messages"][0]["seq"], 1, "signals take no seq");
    texts(4).await;
    for follower in &followers {
        let texts = follower.seen().texts;
        let frames: Vec<Value> =
            texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let datas: Vec<&str> = frames.iter().map(|frame| frame["data"].as_str().unwrap()).collect();
        assert_eq!(datas, ["http", "sql", "last signal", "kept"], "{:?}", follower.way);
        for frame in &frames[..3] {
            assert_eq!((&frame["class"], &frame["seq"]), (&json!("signal"), &Value::Null));
            assert_eq!(frame.get("cursor"), None, "nobody can resume from a signal");
        }
    }
    for replica in &fleet {
        let since = "2020-01-01T00:00:00Z";
        let address = format!("{}/v1/messages?topic=s&since={since}", replica.url);
        until("the message that is kept is there", async || {
            let page: Value = reqwest::get(&address).await.unwrap().json().await.unwrap();
            let messages = page["messages"].as_array().unwrap();
            assert!(messages.iter().all(|message| message["data"] == "kept"), "{page}");
            messages.len() == 1
        })
        .await;
    }
    for table in ["message", "outbox"] {
        let count = format!("select count(*) from tidings.{table}");
        let rows: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
        assert_eq!(rows, i64::from(table == "message"), "{table}");
    }
}
