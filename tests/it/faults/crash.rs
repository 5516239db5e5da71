//! A Postgres that crashes after an append and before any barrier: nobody was told of it, nobody is.

use serde_json::{Value, json};
use tidings::cluster::{Mode, Options};

use crate::fleet::{three, until_live};
use crate::follower::{Follower, Way};
use crate::harness;

/// Nobody looks at the head of the log while the test runs, so nobody puts a barrier behind it.
const NO_TICK: &[(&str, &str)] =
    &[("TIDINGS_TICK_MS", "60000"), ("TIDINGS_POLLING_TICK_MS", "60000")];

/// Now and then something else of the server flushes what was not meant to be.
const TRIES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_and_not_flushed_is_seen_by_nobody_and_its_seq_is_given_anew() {
    let options = Options::test().setting("wal_writer_delay", "10s").setting("autovacuum", "off");
    let cluster = harness::private(options);
    let url = cluster.url("postgres");
    let fleet = three(&url, NO_TICK).await;
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap().to_owned();
    let mut followers = Vec::new();
    for replica in &fleet {
        for way in Way::ALL {
            let urls = vec![replica.url.clone()];
            followers.push(Follower::keeping(way, urls, "a", Some(cursor.clone())));
        }
    }
    let mut expected: Vec<(u64, String)> = Vec::new();
    let mut lost = 0;
    for round in 0..TRIES {
        until_live(&fleet).await;
        let published = fleet[round % 3].publish(&json!({"topic": "a", "data": round})).await;
        expected.push((published["messages"][0]["seq"].as_u64().unwrap(), round.to_string()));
        for follower in &followers {
            follower.has(expected.len()).await;
        }
        let client = harness::connect(&url).await;
        let append = "select first_seq from tidings.log_append(
            array['a'], array['\"never\"'], array[null], array[0::smallint], array[null],
            array[1::smallint], array[null::integer], null)";
        let seq: i64 = client.query_one(append, &[]).await.unwrap().get(0);
        let seq = u64::try_from(seq).unwrap();
        // It stands in the table, and no replica shows it.
        for replica in &fleet {
            let address = format!("{}/v1/messages?topic=a&after={cursor}&limit=1000", replica.url);
            let page: Value = reqwest::get(address).await.unwrap().json().await.unwrap();
            assert_eq!(page["messages"].as_array().unwrap().len(), expected.len());
        }
        cluster.stop(Mode::Immediate).unwrap();
        cluster.start_again().unwrap();
        until_live(&fleet).await;
        let client = harness::connect(&url).await;
        let head = "select head from tidings.log";
        let head: i64 = client.query_one(head, &[]).await.unwrap().get(0);
        if u64::try_from(head).unwrap() >= seq {
            // It was flushed after all, so it is a message like any other.
            expected.push((seq, "\"never\"".to_owned()));
            continue;
        }
        lost += 1;
        let again = fleet[(round + 1) % 3].publish(&json!({"topic": "a", "data": "again"})).await;
        assert_eq!(again["messages"][0]["seq"], seq, "its number is given anew");
        expected.push((seq, "\"again\"".to_owned()));
        if lost == 3 {
            break;
        }
    }
    assert!(lost > 0, "nothing was lost in {TRIES} crashes, so nothing was tried");
    // Who comes with a cursor from before all crashes is not told to reload.
    for replica in &fleet {
        for way in Way::ALL {
            let urls = vec![replica.url.clone()];
            followers.push(Follower::keeping(way, urls, "a", Some(cursor.clone())));
        }
    }
    for follower in &followers {
        let seen = follower.has(expected.len()).await;
        assert_eq!(seen.resets, 0, "{:?}: every cursor stays good", follower.way);
        for (text, (seq, data)) in seen.texts.iter().zip(&expected) {
            let wanted = (format!("\"seq\":{seq},"), format!("\"data\":{data}}}"));
            assert!(
                text.contains(&wanted.0) && text.ends_with(&wanted.1),
                "{text}: not {wanted:?}"
            );
        }
    }
    for replica in &fleet {
        assert_eq!(replica.stats().await["log"]["epochs"], 0, "the log went on");
    }
}
