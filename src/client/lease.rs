//! Working on tasks: claimed under a lease, which every report renews, and let go of or finished.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::task::{Item, Task, items, read, task};
use super::{Client, ClientError};
use crate::domain::TaskId;

/// A task that is ours until the lease runs out, with the first items that are left of it.
#[derive(Clone, Debug)]
pub struct Lease {
    pub task: Task,
    pub term: i64,
    pub items: Vec<Item>,
    /// Whether there are others after these.
    pub more: bool,
}

/// Which tasks, for whom, and for how long.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    pub actions: Vec<String>,
    pub worker: String,
    pub lease_s: u64,
    pub wait_s: u64,
}

/// What the holder of a lease tells.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub term: i64,
    pub results: Vec<ItemResult>,
    pub in_flight: Vec<String>,
    /// Lets go of what is left, for another worker.
    pub release: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct ItemResult {
    pub item: String,
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Client {
    /// A task to work on, or `None` when there was none within the time it waits.
    pub async fn task_claim(
        &self,
        claim: &Claim,
        within: Duration,
    ) -> Result<Option<Lease>, ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            term: i64,
            items: Vec<Box<RawValue>>,
            more: bool,
        }
        let body = json(claim)?;
        self.insist(within, async |address| {
            let text =
                self.said(address, Method::POST, "/v1/tasks/claim", Some(body.clone())).await?;
            if text.is_empty() {
                return Ok(None);
            }
            let Answer { term, items: raws, more } = read(address, &text)?;
            let items = items(address, &raws)?;
            Ok(Some(Lease { task: task(address, &text)?, term, items, more }))
        })
        .await
    }

    /// Books results and renews the lease. Whether to begin nothing new any more. An older term is a
    /// conflict.
    pub async fn task_report(
        &self,
        id: &TaskId,
        report: &Report,
        within: Duration,
    ) -> Result<(Task, bool), ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            stop: bool,
        }
        let (path, body) = (format!("/v1/tasks/{id}/report"), json(report)?);
        self.insist(within, async |address| {
            let text = self.said(address, Method::POST, &path, Some(body.clone())).await?;
            let Answer { stop } = read(address, &text)?;
            Ok((task(address, &text)?, stop))
        })
        .await
    }

    /// Books the last results. What was never reported has failed by this.
    pub async fn task_finish(
        &self,
        id: &TaskId,
        term: i64,
        results: Vec<ItemResult>,
        within: Duration,
    ) -> Result<Task, ClientError> {
        #[derive(Serialize)]
        struct Finish {
            term: i64,
            results: Vec<ItemResult>,
        }
        let body = json(&Finish { term, results })?;
        let path = format!("/v1/tasks/{id}/finish");
        self.insist(within, async |address| {
            task(address, &self.said(address, Method::POST, &path, Some(body.clone())).await?)
        })
        .await
    }
}

fn json(body: &impl Serialize) -> Result<Bytes, ClientError> {
    let text = serde_json::to_vec(body);
    text.map(Bytes::from).map_err(|error| ClientError::Refused(error.to_string()))
}
