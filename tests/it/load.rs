//! Publishers under whatever happens, and what their followers must have had of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::fleet::{publish_to, until};
use crate::follower::Follower;

/// Publishers that go on whatever happens, and insist until each message is answered.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<u64>>>,
}

impl Load {
    pub fn start(urls: &[String], publishers: usize) -> Load {
        Load::paced(urls, publishers, Duration::from_millis(1))
    }

    /// Each publisher begins a message that long after its last one, or when that one is answered.
    pub fn paced(urls: &[String], publishers: usize, pause: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        // Under the keys of another load it would be answered with what that one published.
        let own = uuid::Uuid::now_v7().simple();
        let publish = |publisher: usize| {
            let (stop, urls) = (stop.clone(), urls.to_vec());
            #[expect(clippy::disallowed_methods, reason = "a client of a test, ended by it")]
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let start = publisher % urls.len();
                let urls: Vec<&str> =
                    urls[start..].iter().chain(&urls[..start]).map(String::as_str).collect();
                let mut seqs = Vec::new();
                let mut pace = tokio::time::interval(pause);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let key = format!("{own}-{publisher}-{}", seqs.len());
                    let topic = format!("load:{publisher}");
                    let body = json!({"topic": topic, "data": seqs.len(), "idempotency_key": key});
                    let answer = publish_to(&client, &urls, &body).await;
                    seqs.push(answer["messages"][0]["seq"].as_u64().unwrap());
                }
                seqs
            })
        };
        let tasks = (0..publishers).map(publish).collect();
        Load { stop, tasks }
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
