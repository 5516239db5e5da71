//! Publishers under whatever happens, and what their followers must have had of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::fleet::{publish_to, until};
use crate::follower::Follower;
use crate::harness;

/// Publishers that go on whatever happens, and insist until each message is answered.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<u64>>>,
}

impl Load {
    pub fn start(urls: &[String], publishers: usize) -> Load {
        Load::paced(urls, publishers, Duration::from_millis(1))
    }

    /// Each publisher begins a message that long after its last one, or when that one is answered.
    pub fn paced(urls: &[String], publishers: usize, pause: Duration) -> Load {
        Load::with_batches(urls, publishers, pause, 1)
    }

    /// The same, and one request in four carries so many messages.
    pub fn with_batches(urls: &[String], publishers: usize, pause: Duration, batch: usize) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
        // Under the keys of another load it would be answered with what that one published.
        let own = uuid::Uuid::now_v7().simple();
        let publish = |publisher: usize| {
            let (stop, urls) = (stop.clone(), urls.to_vec());
            let answered: Arc<AtomicUsize> = Arc::clone(&answered);
            #[expect(clippy::disallowed_methods, reason = "a client of a test, ended by it")]
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let start = publisher % urls.len();
                let urls: Vec<&str> =
                    urls[start..].iter().chain(&urls[..start]).map(String::as_str).collect();
                let mut seqs = Vec::new();
                let mut pace = tokio::time::interval(pause);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let message = |number: usize| {
                    let key = format!("{own}-{publisher}-{number}");
                    json!({"topic": format!("load:{publisher}"), "data": number, "idempotency_key": key})
                };
                for request in 0_usize.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    pace.tick().await;
                    let count = if request.is_multiple_of(4) { batch } else { 1 };
                    let body = match count {
                        1 => message(seqs.len()),
                        _ => {
                            let messages = seqs.len()..seqs.len() + count;
                            json!({"messages": messages.map(message).collect::<Vec<_>>()})
                        }
                    };
                    let answer = publish_to(&client, &urls, &body).await;
                    let placed = answer["messages"].as_array().unwrap();
                    assert_eq!(placed.len(), count);
                    seqs.extend(placed.iter().map(|one| one["seq"].as_u64().unwrap()));
                    answered.fetch_add(count, Ordering::Relaxed);
                }
                seqs
            })
        };
        let tasks = (0..publishers).map(publish).collect();
        Load { stop, answered, tasks }
    }

    /// How many messages were answered by now.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Every seq that was answered, in order.
    pub async fn end(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seqs = Vec::new();
        for task in self.tasks {
            seqs.extend(task.await.unwrap());
        }
        seqs.sort_unstable();
        seqs
    }
}

pub async fn received(followers: &[Follower], messages: usize) {
    until("every client has had some of it", async || {
        followers.iter().all(|follower| follower.seen().messages.len() >= messages)
    })
    .await;
}

pub async fn lost_and_doubled_nothing(followers: &[Follower], published: &[u64]) {
    for follower in followers {
        let seen = follower.has(published.len()).await;
        assert_eq!(seen.seqs(), published, "{:?}", follower.way);
        assert_eq!(seen.resets, 0);
    }
}

/// Applications that publish from transactions of their own, and insist until each is committed.
pub struct SqlLoad {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<i64>>,
}

impl SqlLoad {
    /// On the topics `load:sql-…`.
    pub fn start(database_url: &str, publishers: usize, pause: Duration) -> SqlLoad {
        let stop = Arc::new(AtomicBool::new(false));
        let publish = |publisher: usize| {
            let (stop, connector) = (stop.clone(), harness::connector(database_url));
            #[expect(clippy::disallowed_methods, reason = "a client of a test, ended by it")]
            tokio::spawn(async move {
                let (mut client, mut committed, mut unknown) = (None, 0, false);
                let mut pace = tokio::time::interval(pause);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while unknown || !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    if client.is_none() {
                        client = connector.connect().await.ok();
                    }
                    let Some(connected) = &client else { continue };
                    let publish =
                        "select tidings.publish($1, to_json($2::bigint), idempotency_key => $3)";
                    let (topic, key) =
                        (format!("load:sql-{publisher}"), format!("sql-{publisher}-{committed}"));
                    let published = connected.execute(publish, &[&topic, &committed, &key]).await;
                    // If not, it may be committed: it is published again under the same key.
                    unknown = published.is_err();
                    match published {
                        Ok(_) => committed += 1,
                        Err(_) => client = None,
                    }
                }
                committed
            })
        };
        let tasks = (0..publishers).map(publish).collect();
        SqlLoad { stop, tasks }
    }

    /// Every seq that their messages were given, in order, once all are in the log.
    pub async fn end(self, database_url: &str) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut committed = 0;
        for task in self.tasks {
            committed += task.await.unwrap();
        }
        let client = harness::connect(database_url).await;
        let waiting = "select count(*) from tidings.outbox";
        until("the outbox is empty", async || {
            client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        let seqs = "select seq from tidings.message where topic like 'load:sql-%' order by seq";
        let rows = client.query(seqs, &[]).await.unwrap();
        assert_eq!(i64::try_from(rows.len()).unwrap(), committed, "each that was committed, once");
        rows.iter().map(|row| u64::try_from(row.get::<_, i64>(0)).unwrap()).collect()
    }
}
