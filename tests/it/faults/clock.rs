//! A replica whose wall clock is wrong by ten minutes.

use std::collections::HashMap;

use serde_json::{Value, json};
use tidings::app;
use tidings::clock::Clock;
use tidings::config::{Config, Flags};
use tidings::domain::Timestamp;

use crate::fleet::{Replica, until};
use crate::harness;

async fn is_right_with_a_clock_that_is_wrong_by(shift_ms: i64) {
    let url = harness::database_url().await;
    let right = Replica::start("right", &url, &[]).await;
    let client = harness::connect(&url).await;
    let settings: HashMap<&str, &str> = [
        ("DATABASE_URL", url.as_str()),
        ("TIDINGS_REPLICA", "wrong"),
        ("TIDINGS_DEV", "true"),
        ("TIDINGS_LISTEN", "127.0.0.1:0"),
    ]
    .into();
    let env = |name: &str| settings.get(name).map(|value| (*value).to_owned());
    let config = Config::resolve(&Flags::new(), &env, None).unwrap();
    let (clock, _) = Clock::test(Timestamp(Clock::system().now().0 + shift_ms));
    let wrong = app::Replica::start(&config, clock).await.unwrap();
    let (shutdown, address) = (wrong.shutdown.clone(), wrong.address);
    let wrong_url = format!("http://{address}");
    let life = async {
        wrong.run().await;
    };
    let test = async {
        let http = reqwest::Client::new();
        let publish = async |url: &str, body: Value| -> Value {
            let sent = http.post(format!("{url}/v1/messages")).json(&body).send().await.unwrap();
            assert_eq!(sent.status(), 201);
            sent.json().await.unwrap()
        };
        until("the replica is ready", async || {
            let answer = http.get(format!("{wrong_url}/readyz")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        let before: String = client
            .query_one(
                "select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        // Five minutes: over at once, or for ever, by a clock that is wrong by ten.
        let short = |number: u32| json!({"topic": "a", "data": number, "ttl_s": 300, "idempotency_key": number.to_string()});
        for (number, url) in [(0, &wrong_url), (1, &right.url)] {
            publish(url, short(number)).await;
            for again in [&wrong_url, &right.url] {
                let answer = publish(again, short(number)).await;
                assert_eq!(answer["messages"][0]["duplicate"], true, "{answer}");
            }
        }
        for url in [&wrong_url, &right.url] {
            until("both replicas have both messages", async || {
                let address = format!("{url}/v1/messages?topic=a&since={before}");
                let page: Value = http.get(address).send().await.unwrap().json().await.unwrap();
                page["messages"].as_array().map(Vec::len) == Some(2)
            })
            .await;
        }
        // One that is over by the database's clock is over on both.
        client
            .execute(
                "update tidings.message set expires_at = now() - interval '1 second' where seq = 1",
                &[],
            )
            .await
            .unwrap();
        let fresh = Replica::start("fresh", &url, &[]).await;
        let address = format!("{}/v1/messages?topic=a&since={before}", fresh.url);
        let page: Value = http.get(address).send().await.unwrap().json().await.unwrap();
        assert_eq!(page["messages"].as_array().unwrap().len(), 1);
        shutdown.stop();
    };
    tokio::join!(life, test);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_ahead_change_nothing() {
    is_right_with_a_clock_that_is_wrong_by(600_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_behind_change_nothing() {
    is_right_with_a_clock_that_is_wrong_by(-600_000).await;
}
