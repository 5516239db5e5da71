//! Tasks: submitted, shown, changed.

use std::time::Duration;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{Method, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::Undone;
use super::{Address, Client, ClientError};
use crate::domain::{TaskId, TaskStatus};

/// How many tasks or items a page holds at most.
const PAGE_MAX: usize = 1_000;

/// A task as the protocol takes it.
#[derive(Clone, Debug, Serialize)]
pub struct Submission {
    pub action: String,
    pub items: Vec<Box<RawValue>>,
    pub executor: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_timeout_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most_once: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Box<RawValue>>,
    /// Not an option: without one a task that is said again might be run twice.
    pub idempotency_key: String,
}

/// A task as it stands.
#[derive(Clone, Debug, Deserialize)]
pub struct Task {
    pub id: String,
    pub action: String,
    pub owner: Option<String>,
    pub status: String,
    pub current: u64,
    pub total: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub progress: f64,
    pub in_flight: Vec<String>,
    pub message: Option<String>,
    pub error: Option<String>,
    pub attempt: u32,
    pub replica: Option<String>,
    pub created_at: String,
    pub finished_at: Option<String>,
    pub concurrency: u32,
    /// Of the last message about it: of two answers the one with the higher one is the newer.
    pub seq: u64,
    /// Not in messages.
    #[serde(default)]
    pub item_timeout_s: u64,
    #[serde(default)]
    pub at_most_once: bool,
    /// In the answer to a submission.
    #[serde(default)]
    pub duplicate: bool,
    /// Byte for byte as it was received.
    #[serde(skip)]
    pub text: String,
}

impl Task {
    /// Of an answer or of a message's data.
    pub fn read(text: &str) -> Option<Task> {
        let task: Task = serde_json::from_str(text).ok()?;
        Some(Task { text: text.to_owned(), ..task })
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<TaskStatus> {
        TaskStatus::parse(&self.status).filter(|status| status.is_final())
    }
}

/// Which tasks; the newest come first.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    pub status: Option<String>,
    pub owner: Option<String>,
    pub action: Option<String>,
    /// The last one of the page before.
    pub after: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Item {
    pub name: String,
    pub data: Option<Box<RawValue>>,
    pub status: String,
    pub error: Option<String>,
    /// Byte for byte as it was received.
    #[serde(skip)]
    pub text: String,
}

impl Item {
    pub(super) fn read(text: &str) -> Option<Item> {
        let item: Item = serde_json::from_str(text).ok()?;
        Some(Item { text: text.to_owned(), ..item })
    }
}

/// Which items of a task, in the order of submission.
#[derive(Clone, Debug, Default)]
pub struct Items {
    pub status: Option<String>,
    /// The last one of the page before.
    pub after: Option<String>,
}

/// What somebody may want of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Cancel,
    Pause,
    Resume,
    Retry,
}

impl Wish {
    const fn as_str(self) -> &'static str {
        match self {
            Wish::Cancel => "cancel",
            Wish::Pause => "pause",
            Wish::Resume => "resume",
            Wish::Retry => "retry",
        }
    }
}

impl Client {
    pub async fn task_submit(
        &self,
        submission: &Submission,
        within: Duration,
    ) -> Result<Task, ClientError> {
        let body = serde_json::to_vec(submission);
        let body = body.map_err(|error| ClientError::Refused(error.to_string()))?;
        self.task_asked(Method::POST, "/v1/tasks", Some(body.into()), within).await
    }

    pub async fn task(&self, id: &TaskId, within: Duration) -> Result<Task, ClientError> {
        self.task_asked(Method::GET, &format!("/v1/tasks/{id}"), None, within).await
    }

    /// A page of tasks, and whether there is a next one.
    pub async fn tasks(
        &self,
        which: &Tasks,
        limit: usize,
        within: Duration,
    ) -> Result<(Vec<Task>, bool), ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            tasks: Vec<Box<RawValue>>,
            more: bool,
        }
        let query = [
            ("status", &which.status),
            ("owner", &which.owner),
            ("action", &which.action),
            ("after", &which.after),
        ];
        let path = format!("/v1/tasks?{}", page(&query, limit));
        self.insist(within, async |address| {
            let text = self.said(address, Method::GET, &path, None).await?;
            let answer: Answer = read(address, &text)?;

            let tasks: Option<Vec<Task>> =
                answer.tasks.iter().map(|raw| Task::read(raw.get())).collect();
            Ok((tasks.ok_or_else(|| foreign(address))?, answer.more))
        })
        .await
    }

    /// A page of a task's items, and whether there is a next one.
    pub async fn task_items(
        &self,
        id: &TaskId,
        which: &Items,
        limit: usize,
        within: Duration,
    ) -> Result<(Vec<Item>, bool), ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            items: Vec<Box<RawValue>>,
            more: bool,
        }
        let query = [("status", &which.status), ("after", &which.after)];
        let path = format!("/v1/tasks/{id}/items?{}", page(&query, limit));
        self.insist(within, async |address| {
            let text = self.said(address, Method::GET, &path, None).await?;
            let answer: Answer = read(address, &text)?;
            Ok((items(address, &answer.items)?, answer.more))
        })
        .await
    }

    pub async fn task_wish(
        &self,
        id: &TaskId,
        wish: Wish,
        within: Duration,
    ) -> Result<Task, ClientError> {
        let path = format!("/v1/tasks/{id}/{}", wish.as_str());
        if wish != Wish::Retry {
            return self.task_asked(Method::POST, &path, None, within).await;
        }
        // Said again because an answer was lost, it would begin an attempt that nobody wants.
        let before = self.task(id, within).await?.attempt;
        let own = format!("/v1/tasks/{id}");
        self.insist(within, async |address| {
            let now = task(address, &self.said(address, Method::GET, &own, None).await?)?;
            if now.attempt > before {
                return Ok(now);
            }
            task(address, &self.said(address, Method::POST, &path, None).await?)
        })
        .await
    }

    async fn task_asked(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        within: Duration,
    ) -> Result<Task, ClientError> {
        self.insist(within, async |address| {
            let text = self.said(address, method.clone(), path, body.clone()).await?;
            task(address, &text)
        })
        .await
    }

    pub(super) async fn said(
        &self,
        address: &Address,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Vec<u8>, Undone> {
        let mut request = self.http.request(method, address.http(path));
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        self.exchange(address, request).await
    }
}

fn page(query: &[(&str, &Option<String>)], limit: usize) -> String {
    let mut text = Serializer::new(String::new());
    for (name, value) in query {
        if let Some(value) = value {
            text.append_pair(name, value);
        }
    }
    text.append_pair("limit", &limit.clamp(1, PAGE_MAX).to_string());
    text.finish()
}

pub(super) fn task(address: &Address, text: &[u8]) -> Result<Task, Undone> {
    let text = std::str::from_utf8(text).ok();
    text.and_then(Task::read).ok_or_else(|| foreign(address))
}

pub(super) fn read<T: DeserializeOwned>(address: &Address, text: &[u8]) -> Result<T, Undone> {
    serde_json::from_slice(text).map_err(|_| foreign(address))
}

pub(super) fn items(address: &Address, raws: &[Box<RawValue>]) -> Result<Vec<Item>, Undone> {
    let items: Option<Vec<Item>> = raws.iter().map(|raw| Item::read(raw.get())).collect();
    items.ok_or_else(|| foreign(address))
}

fn foreign(address: &Address) -> Undone {
    Undone::Never(format!("what answers at {address} is not Tidings"))
}
