//! What moves in a demo: orders, tasks, notices and telemetry of a town that does not exist.
//!
//! Everything here is what an application would ask of the same addresses, and nothing of it is
//! faked on the way: whoever kills a replica sees these users go elsewhere. What a server does not
//! offer is left out; what fails while a replica dies is tried again a moment later.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::edge;
use super::replica::{Replica, http};

const USERS: &[&str] = &["grace", "linus", "mei", "omar"];
const STEPS: &[&str] = &["placed", "paid", "packed", "shipped", "delivered"];
const OPERATIONS: &[(&str, u32, u64, f64)] = &[
    // What, to how many, for how long each (ms), and the share that fails.
    ("cordon", 160, 700, 0.01),
    ("rotate-keys", 420, 400, 0.03),
    ("drain", 48, 3_500, 0.0),
    ("label", 240, 250, 0.0),
    ("upgrade-agent", 120, 1_400, 0.05),
];
const NOTICES: &[(&str, &str, &str)] = &[
    (
        "Welcome to Tidings",
        "This notice waited for you. Confirm it, and see its receipts.",
        "normal",
    ),
    ("Maintenance", "Tonight at 22:00 the east side is restarted, one node at a time.", "high"),
    ("The new console is here", "Light, dark and in two languages.", "normal"),
    ("Certificates", "Those of edge-2 are renewed tomorrow.", "low"),
];
/// As many tasks are kept under way.
const TASKS_GOING: usize = 4;
const EDGES: &[&str] = &["edge-1", "edge-2"];
const EDGE_READ: &str = "edge-3";

const ORDER_EVERY: Duration = Duration::from_millis(250);
const TASKS_EVERY: Duration = Duration::from_secs(4);
const NOTICE_EVERY: Duration = Duration::from_secs(50);
const READ_EVERY: Duration = Duration::from_secs(9);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// After a connection that was lost.
const PAUSE: Duration = Duration::from_millis(500);
/// As many as a reader keeps apart until it has written them.
const PAST_MINUTES: u32 = 11;
/// What must be there, such as a source, is asked for so often.
const TRIES: u32 = 20;

/// Runs until it is dropped.
pub async fn live(url: &str, edge: &str, replicas: &[Replica]) {
    let town = Town { url: url.to_owned(), http: http() };
    let users = join_all(USERS.iter().zip(0..).map(|(user, at)| town.user(user, at, replicas)));
    tokio::join!(users, town.orders(), town.tasks(), town.notices(), town.telemetry(edge));
}

struct Town {
    url: String,
    http: reqwest::Client,
}

impl Town {
    /// The status and the answer; none if nobody answered.
    async fn ask(
        &self,
        method: reqwest::Method,
        target: &str,
        body: Option<Value>,
    ) -> Option<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}{target}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.timeout(ANSWER_WITHIN).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null)))
    }

    async fn post(&self, target: &str, body: Value) -> Option<(u16, Value)> {
        self.ask(reqwest::Method::POST, target, Some(body)).await
    }

    /// Somebody with an open page, who reads what he is told after a while.
    async fn user(&self, name: &str, at: usize, replicas: &[Replica]) {
        let follow = async {
            for turn in at.. {
                // Each begins elsewhere, and goes to the next one when it is lost.
                let replica = &replicas[turn % replicas.len()];
                let url = format!("{}/v1/sse?user={name}&topics=order:*", replica.url());
                if let Ok(answer) = self.http.get(url).send().await {
                    let mut pieces = answer.bytes_stream();
                    while let Some(Ok(_)) = pieces.next().await {}
                }
                sleep(PAUSE).await;
            }
        };
        let read = async {
            for turn in at.. {
                sleep(READ_EVERY + PAUSE * u32::try_from(at).unwrap_or(0) * 3).await;
                let state = ["received", "read", "confirmed"][turn % 3];
                let target = format!("/v1/inbox/{state}?user={name}");
                if is_absent(&self.post(&target, json!({"all": true})).await) {
                    return;
                }
            }
        };
        tokio::join!(follow, read);
    }

    async fn orders(&self) {
        for number in 0_u64.. {
            let order = number / STEPS.len() as u64 % 40 + 1;
            let step = STEPS[usize::try_from(number).unwrap_or(0) % STEPS.len()];
            let data = json!({"order": order, "step": step, "cents": order * 3_700 % 24_000 + 90});
            let _ = self
                .post(
                    "/v1/messages",
                    json!({"topic": format!("order:{order}"), "kind": step, "data": data}),
                )
                .await;
            sleep(ORDER_EVERY).await;
        }
    }

    async fn tasks(&self) {
        let mut next = 0;
        loop {
            let going = self.ask(reqwest::Method::GET, "/v1/tasks?limit=50", None).await;
            let ended = |task: &Value| !task["finished_at"].is_null();
            let tasks = going.and_then(|(_, page)| page["tasks"].as_array().cloned());
            if let Some(tasks) = tasks
                && tasks.iter().filter(|task| !ended(task)).count() < TASKS_GOING
            {
                let (action, count, delay_ms, fail_rate) = OPERATIONS[next % OPERATIONS.len()];
                let items: Vec<String> = (1..=count).map(|n| format!("node-{n:03}")).collect();
                let owner = ["ada", "grace", "linus"][next % 3];
                let executor = json!({"type": "simulate", "delay_ms": [delay_ms / 2, delay_ms * 3 / 2], "fail_rate": fail_rate, "seed": next});
                let task = json!({"action": action, "items": items, "owner": owner, "concurrency": 4, "executor": executor});
                if self.post("/v1/tasks", task).await.is_some() {
                    next += 1;
                }
                sleep(PAUSE).await;
                continue;
            }
            sleep(TASKS_EVERY).await;
        }
    }

    async fn notices(&self) {
        for (title, content, priority) in NOTICES.iter().cycle() {
            let users: Vec<&str> = ["ada"].iter().chain(USERS).copied().collect();
            let notice = json!({"target": {"users": users}, "title": title, "content": content, "priority": priority, "confirm": *priority != "low", "expires_in_s": 3600});
            if is_absent(&self.post("/v1/notices", notice).await) {
                return;
            }
            sleep(NOTICE_EVERY).await;
        }
    }

    /// Two edges that push what they have to say, and one that is read.
    async fn telemetry(&self, edge: &str) {
        let pushed = EDGES.iter().zip(1..).map(|(source, number)| self.pushed(source, number));
        tokio::join!(join_all(pushed), self.read(edge));
    }

    async fn pushed(&self, source: &str, number: u32) {
        let new = json!({"name": source, "format": "generic", "enabled": true});
        // One that is there already is as good, and has a past of its own.
        if let Some((201, made)) = self.insist("/v1/sources", new).await
            && let Some(made_at) = made["created_at"].as_str().and_then(|at| at.parse().ok())
        {
            self.past(source, number, made_at).await;
        }
        for tick in edge::TICKS_BEFORE.. {
            let body = json!({"source": source, "events": edge::events(number, "update", tick)});
            if is_absent(&self.post("/v1/ingest", body).await) {
                // Somebody has removed it.
                return;
            }
            sleep(edge::EVERY).await;
        }
    }

    /// The minutes before a source was made: its trends begin with something to see.
    async fn past(&self, source: &str, number: u32, made_at: jiff::Timestamp) {
        let mut events = Vec::new();
        for ago in (1..=PAST_MINUTES).rev() {
            let kind = if ago == PAST_MINUTES { "initial" } else { "update" };
            let at = made_at - jiff::SignedDuration::from_mins(i64::from(ago));
            let tick = edge::TICKS_BEFORE - ago * edge::TICKS_A_MINUTE;
            events.extend(edge::tunnels(number, kind, tick).map(|mut event| {
                event["at"] = at.to_string().into();
                event
            }));
        }
        let _ = self.post("/v1/ingest", json!({"source": source, "events": events})).await;
    }

    async fn read(&self, edge: &str) {
        let rules = json!({"url": edge, "format": "generic", "enabled": true});
        let mut new = rules.clone();
        new["name"] = EDGE_READ.into();
        if let Some((409, _)) = self.insist("/v1/sources", new).await {
            // Of an earlier demo, whose edge had another address.
            let _ = self
                .ask(reqwest::Method::PATCH, &format!("/v1/sources/{EDGE_READ}"), Some(rules))
                .await;
        }
    }

    /// Until somebody has answered; a few times.
    async fn insist(&self, target: &str, body: Value) -> Option<(u16, Value)> {
        for _ in 0..TRIES {
            match self.post(target, body.clone()).await {
                Some((status, answer)) if status < 500 => return Some((status, answer)),
                _ => sleep(PAUSE).await,
            }
        }
        None
    }
}

/// Whether the server does not offer it.
fn is_absent(answer: &Option<(u16, Value)>) -> bool {
    matches!(answer, Some((404, _)))
}
