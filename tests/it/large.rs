//! Large messages, byte for byte, over every way in which one can be received.

use serde_json::json;

use crate::fleet::{Replica, three, until};
use crate::follower::{Follower, Way};
use crate::harness;

/// Exactly so many bytes of JSON, of which most are not ASCII. Escapes, white space and line breaks
/// are the publisher's: what arrives is what was written.
fn data(bytes: usize) -> String {
    let (open, piece, close) = ("{ \"text\" :\t\"", r#"aé😀\u0000 \""#, "\",\n\"n\" : 1.50e3 }");
    let left = bytes - open.len() - close.len();
    let (pieces, rest) = (left / piece.len(), left % piece.len());
    let data = [open, &piece.repeat(pieces), &"x".repeat(rest), close].concat();
    assert_eq!(data.len(), bytes);
    data
}

async fn publish(replica: &Replica, topic: &str, data: &str) -> reqwest::Response {
    let body = format!("{{\"topic\":\"{topic}\",\"data\":{data}}}");
    let client = reqwest::Client::new();
    let request = client.post(format!("{}/v1/messages", replica.url));
    request.header("content-type", "application/json").body(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_arrive_live_byte_for_byte() {
    let url = harness::database_url().await;
    let fleet = three(&url, &[]).await;
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap();
    let follow = |way| {
        let urls = vec![fleet[1].url.clone()];
        Follower::keeping(way, urls, "large", Some(cursor.to_owned()))
    };
    let followers = Way::ALL.map(follow);
    for follower in &followers {
        follower.connected().await;
    }
    let mut had = 0;
    for length in [9_000, 200_000, 256 << 10] {
        let data = data(length);
        let answer = publish(&fleet[0], "large", &data).await;
        assert_eq!(answer.status(), 201, "{length}: {}", answer.text().await.unwrap());
        had += 1;
        for follower in &followers {
            let seen = follower.has(had).await;
            let text = seen.texts.last().unwrap();
            let (_, came) = text.split_once("\"data\":").unwrap();
            assert!(came == format!("{data}}}"), "{length} bytes over {:?}", follower.way);
        }
        // And from the log, on yet another replica.
        until("the third replica has it", async || {
            let since = "2020-01-01T00:00:00Z";
            let address = format!("{}/v1/messages?topic=large&since={since}&limit=9", fleet[2].url);
            let page = reqwest::get(address).await.unwrap().text().await.unwrap();
            page.contains(&format!("\"data\":{data}}}"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_that_is_refused() {
    let replica = Replica::in_memory("one", &[]).await;
    for length in [(256 << 10) + 1, 1_000_000] {
        let answer = publish(&replica, "large", &data(length)).await;
        assert_eq!(answer.status(), 413, "{length}");
    }
    assert_eq!(replica.stats().await["log"]["applied"], 0);
}
