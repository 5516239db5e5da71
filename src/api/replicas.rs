//! Who else is there: a roll call among replicas, made when somebody looks.
//!
//! ```text
//!   GET /v1/replicas ──▶ this replica ──signal `call`──▶ every other
//!                             ▲                             │
//!                             └───────signal `here`─────────┘ with what each knows of itself
//! ```
//! The signals ride where all signals do, so nothing is asked of the database while nobody looks.
//! Who does not answer is told with the age of its last word, until it is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::error::{FieldError, Problem};
use super::query::Query;
use crate::domain::{Class, Draft, Topic};
use crate::frame::Frame;

const CALL: &str = "call";
const HERE: &str = "here";
const KILL: &str = "kill";

/// Several people may look at once: one call answers all of them.
const CALL_EVERY: Duration = Duration::from_millis(500);
/// Somebody who looks so often is still looking.
const LOOKS_ON: Duration = Duration::from_secs(10);
/// How long those who answered before are waited for.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// A call costs the others an answer, whoever calls how often.
const ANSWER_EVERY: Duration = Duration::from_millis(200);
/// Who was not heard for so long is not told of any more.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// More replicas than one Postgres has connections for.
const REPLICAS_MAX: usize = 256;
/// An answer must fit into one notification.
const ERROR_CHARS_MAX: usize = 300;

/// What is known of the other replicas.
pub struct Roll {
    signals: tokio::sync::Mutex<mpsc::Receiver<Arc<Frame>>>,
    heard: Mutex<BTreeMap<String, Heard>>,
    /// Somebody has answered.
    news: Notify,
    called: Mutex<Option<Instant>>,
}

struct Heard {
    at: Instant,
    stats: Value,
}

impl Roll {
    pub fn new(signals: mpsc::Receiver<Arc<Frame>>) -> Roll {
        let signals = tokio::sync::Mutex::new(signals);
        Roll { signals, heard: Mutex::default(), news: Notify::new(), called: Mutex::new(None) }
    }

    fn hear(&self, name: &str, stats: Value) {
        let mut heard = self.heard.lock();
        if heard.len() < REPLICAS_MAX || heard.contains_key(name) {
            heard.insert(name.to_owned(), Heard { at: Instant::now(), stats });
        }
        drop(heard);
        self.news.notify_waiters();
    }

    /// Notes a call, if it is time for another one; how long the last one is ago.
    fn calls(&self) -> (bool, Option<Duration>) {
        let mut called = self.called.lock();
        let ago = called.map(|at| at.elapsed());
        let may = ago.is_none_or(|ago| ago >= CALL_EVERY);
        if may {
            *called = Some(Instant::now());
        }
        (may, ago)
    }

    /// Returns when everybody who is known has answered.
    async fn complete(&self, since: Instant) {
        loop {
            let news = self.news.notified();
            let answered = |heard: &Heard| since.saturating_duration_since(heard.at) < CALL_EVERY;
            let all = self.heard.lock().values().all(answered);
            if all {
                return;
            }
            news.await;
        }
    }

    fn known(&self) -> Vec<Value> {
        let mut heard = self.heard.lock();
        heard.retain(|_, heard| heard.at.elapsed() < FORGET_AFTER);
        let one = |heard: &Heard| {
            let mut stats = heard.stats.clone();
            let age_ms = u64::try_from(heard.at.elapsed().as_millis()).unwrap_or(u64::MAX);
            stats["heard_ms"] = json!(age_ms);
            stats
        };
        heard.values().map(one).collect()
    }
}

pub async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    if !principal.admin {
        return Err(Problem::forbidden("the replicas are for admins and API keys"));
    }
    let (roll, own) = (&api.inner.roll, &api.inner.settings.replica);
    let since = Instant::now();
    let (may_call, ago) = roll.calls();
    if may_call {
        api.tell(CALL, json!({"from": own})).await;
    }
    roll.hear(own, api.stats());
    if ago.is_none_or(|ago| ago > LOOKS_ON) {
        // Nobody has looked for a while, so it is not known who there is.
        sleep(ANSWER_WITHIN).await;
    } else {
        // Whoever is late is told with the age of its last word.
        let _ = timeout(ANSWER_WITHIN, roll.complete(since)).await;
    }
    Ok(Json(json!({"replica": own, "replicas": roll.known()})))
}

/// Of a demo: a replica dies at once, as by `kill -9`, and whoever started it starts it again.
pub async fn kill(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let name = query.take("replica");
    query.finish()?;
    if !api.inner.settings.demo {
        return Err(Problem::nothing_here());
    }
    if !principal.admin {
        return Err(Problem::forbidden("only admins kill replicas"));
    }
    let Some(name) = name else {
        let error = FieldError::new("/replica", "is missing: the name of a replica");
        return Err(Problem::invalid(vec![error]));
    };
    api.tell(KILL, json!({"replica": name})).await;
    Ok((StatusCode::ACCEPTED, Json(json!({"replica": name}))))
}

impl Api {
    /// Hears of other replicas, and tells them of this one when they ask.
    pub async fn answer_roll_calls(&self, stop: &CancellationToken) {
        let roll = &self.inner.roll;
        let mut signals = roll.signals.lock().await;
        let mut answered: Option<Instant> = None;
        loop {
            let frame = tokio::select! {
                () = stop.cancelled() => return,
                frame = signals.recv() => match frame {
                    Some(frame) => frame,
                    None => return stop.cancelled().await,
                }
            };
            let Ok(mut said) = serde_json::from_str::<Value>(frame.text().as_str()) else {
                continue;
            };
            let data = said["data"].take();
            let own = self.inner.settings.replica.as_str();
            if frame.topic == Topic::of_replicas(CALL) {
                let is_late = answered.is_none_or(|at| at.elapsed() >= ANSWER_EVERY);
                if data["from"] != own && is_late {
                    answered = Some(Instant::now());
                    self.tell(HERE, shortened(self.stats())).await;
                }
            } else if frame.topic == Topic::of_replicas(KILL) {
                if self.inner.settings.demo && data["replica"] == own {
                    // So that whoever asked this very one has its answer.
                    sleep(ANSWER_EVERY).await;
                    let _ = kill_process(getpid(), Signal::KILL);
                }
            } else if let Some(name) = data["replica"].as_str()
                && name != own
            {
                let name = name.to_owned();
                roll.hear(&name, data);
            }
        }
    }

    /// To every replica, and at most once, as signals are.
    async fn tell(&self, what: &str, data: Value) {
        let draft = Draft {
            class: Class::Signal,
            ..Draft::new(Topic::of_replicas(what), data.to_string())
        };
        if let Err(error) = self.inner.publisher.publish(vec![draft]).await {
            tracing::debug!(%error, what, "the other replicas were not told");
        }
    }
}

fn shortened(mut stats: Value) -> Value {
    if let Some(what) = stats["last_error"]["what"].as_str() {
        stats["last_error"]["what"] = what.chars().take(ERROR_CHARS_MAX).collect::<String>().into();
    }
    stats
}
