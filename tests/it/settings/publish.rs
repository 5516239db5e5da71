//! The settings of the part `publish`.

use std::time::Duration;

use serde_json::{Value, json};
use tidings::cluster::Options;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Answer, post};
use super::{Lock, database, in_postgres, number};
use crate::fleet::{Replica, until};
use crate::harness;

/// Long enough that nothing that was waiting is answered before the test lets it.
const PATIENT: &[(&str, &str)] =
    &[("publish_timeout_s", "600"), ("statement_timeout_ms", "600000")];

/// Nobody can append; the head of the log can still be read.
const LOCK: &str = "tidings.log in exclusive mode";

fn patient(settings: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    PATIENT.iter().chain(settings).copied().collect()
}

/// Publishers that are not answered until the log is free again.
struct Waiting(JoinSet<Answer>);

impl Waiting {
    /// Each request is taken in before the next one is sent.
    async fn publish(replica: &Replica, requests: usize, body: &Value) -> Waiting {
        let mut waiting = Waiting(JoinSet::new());
        for _ in 0..requests {
            waiting.add(replica, body).await;
        }
        waiting
    }

    async fn add(&mut self, replica: &Replica, body: &Value) {
        let before = replica.metric("tidings_publish_intake_messages").await;
        let request =
            reqwest::Client::new().post(format!("{}/v1/messages", replica.url)).json(body);
        self.0.spawn(async move { Answer::of(request.send().await.unwrap()).await });
        until("the message waits", async || {
            replica.metric("tidings_publish_intake_messages").await > before
        })
        .await;
    }

    async fn are_answered(self) {
        for answer in self.0.join_all().await {
            assert_eq!(answer.status, 201, "{}", answer.text);
        }
    }
}

#[tokio::test]
pub(super) async fn messages_that_find_no_room_are_answered_429() {
    let (url, database) = database().await;
    let replica = in_postgres(
        "one",
        &url,
        &patient(&[("intake_messages_max", "5"), ("batch_messages_max", "5")]),
    )
    .await;
    let message = json!({"topic": "a", "data": 1});
    let lock = Lock::take(&url, LOCK).await;
    let waiting = Waiting::publish(&replica, 4, &message).await;
    post(&replica, &json!({"messages": [message, message]})).await.is_problem(429);
    let mut waiting = waiting;
    waiting.add(&replica, &message).await;
    post(&replica, &message).await.is_problem(429).says_when_to_come_back();
    assert_eq!(replica.metric("tidings_publish_refused_total{reason=\"full\"}").await, 2);
    lock.release().await;
    waiting.are_answered().await;
    assert_eq!(post(&replica, &message).await.status, 201, "there is room again");
    assert_eq!(number(&database, "select count(*) from tidings.message").await, 6);
}

#[tokio::test]
pub(super) async fn bytes_that_find_no_room_are_answered_429() {
    let (url, _) = database().await;
    let replica = in_postgres(
        "one",
        &url,
        &patient(&[("intake_bytes_max", "1 MiB"), ("body_bytes_max", "1 MiB")]),
    )
    .await;
    let message = json!({"topic": "a", "data": "x".repeat(250 << 10)});
    let lock = Lock::take(&url, LOCK).await;
    let waiting = Waiting::publish(&replica, 4, &message).await;
    let bytes = replica.metric("tidings_publish_intake_bytes").await;
    assert!((1000 << 10..=1 << 20).contains(&bytes), "{bytes}");
    post(&replica, &message).await.is_problem(429).says_when_to_come_back();
    lock.release().await;
    waiting.are_answered().await;
    assert_eq!(post(&replica, &message).await.status, 201, "there is room again");
}

#[tokio::test]
pub(super) async fn who_has_waited_for_long_enough_is_answered_503() {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let settings = [("publish_timeout_s", "1"), ("statement_timeout_ms", "600000")];
    let replica = in_postgres("one", &url, &settings).await;
    let message = json!({"topic": "a", "data": 1, "idempotency_key": "once"});
    cluster.pause().unwrap();
    let begun = Instant::now();
    post(&replica, &message).await.is_problem(503).says_when_to_come_back();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it was given its time");
    assert_eq!(replica.metric("tidings_publish_refused_total{reason=\"unknown\"}").await, 1);
    cluster.resume().unwrap();
    replica.publish(&message).await;
    let database = harness::connect(&url).await;
    assert_eq!(number(&database, "select count(*) from tidings.message").await, 1);
}

#[tokio::test]
pub(super) async fn each_lane_writes_on_a_connection_of_its_own() {
    let (url, database) = database().await;
    for lanes in [1, 3] {
        let name = format!("with-{lanes}");
        let replica = in_postgres(&name, &url, &[("lanes", &lanes.to_string())]).await;
        let publish = async || replica.publish(&json!({"topic": "a", "data": 1})).await;
        let slots = format!("select count(*) from tidings.writer where replica like '{name}/%'");
        until("each lane has written", async || {
            publish().await;
            number(&database, &slots).await == lanes
        })
        .await;
        for _ in 0..10 {
            publish().await;
        }
        assert_eq!(number(&database, &slots).await, lanes, "and no other");
    }
}

#[tokio::test]
pub(super) async fn what_waits_is_split_into_batches() {
    let (url, database) = database().await;
    for (bytes_max, batches) in [("64 KiB", 4), ("64 MiB", 2)] {
        let settings =
            [("data_bytes_max", "32 KiB"), ("lanes", "1"), ("batch_bytes_max", bytes_max)];
        let settings = [&settings[..], &[("intake_bytes_max", "64 MiB")]].concat();
        let replica = in_postgres("one", &url, &patient(&settings)).await;
        let message = json!({"topic": "a", "data": "x".repeat(30 << 10)});
        let lock = Lock::take(&url, LOCK).await;
        // The first one is on its way alone; of the others three fill a small batch.
        let mut waiting = Waiting::publish(&replica, 1, &message).await;
        until("the first batch waits for the log", async || {
            let waiting = "select count(*) from pg_stat_activity
                where application_name = 'tidings/one' and wait_event_type = 'Lock'
                and query like '%log_append%'";
            number(&database, waiting).await > 0
        })
        .await;
        for _ in 0..7 {
            waiting.add(&replica, &message).await;
        }
        lock.release().await;
        waiting.are_answered().await;
        let written = replica.metric("tidings_publish_batch_messages_count").await;
        assert_eq!(written, batches, "with batches of {bytes_max}");
    }
}

#[tokio::test]
pub(super) async fn a_key_is_forgotten_when_its_time_is_over() {
    let (url, database) = database().await;
    let replica = in_postgres("one", &url, &[("idempotency_s", "1000")]).await;
    let message = json!({"topic": "a", "data": 1, "idempotency_key": "once"});
    let publish = async || replica.publish(&message).await["messages"][0]["duplicate"].clone();
    let age = async || {
        let older = "update tidings.idempotency set at = at - interval '500 s'";
        database.batch_execute(older).await.unwrap();
    };
    assert_eq!(publish().await, false);
    age().await;
    assert_eq!(publish().await, true);
    age().await;
    assert_eq!(publish().await, false);
}
