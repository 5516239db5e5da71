//! How an item is run. A task says which executor it wants, as JSON; what it may be is checked when
//! it is submitted, and again by the replica that runs it, whose settings may differ.

mod http;
pub mod kubernetes;
mod simulate;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use self::http::{HttpClient, HttpDocument};
use self::kubernetes::access::Access;
use self::kubernetes::{Kubernetes, Operation};
use self::simulate::Simulate;
use crate::hosts::{Hosts, Secret};

/// One try of one item.
#[derive(Debug, Clone, Copy)]
pub struct Try<'a> {
    pub name: &'a str,
    /// JSON.
    pub data: Option<&'a str>,
    /// The attempt of the task.
    pub attempt: u32,
    /// How many tries of this attempt came before.
    pub tried: u32,
    /// How long it may take before it is cut off.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Succeeded,
    /// Trying again would not help.
    Failed(String),
    /// It may pass; the other side may have said after how long.
    TryAgain {
        error: String,
        after: Option<Duration>,
    },
}

/// Runs items. May be dropped between any two awaits; a panic fails the item.
#[async_trait]
pub trait Executor: Send + Sync {
    async fn run(&self, one: Try<'_>) -> Outcome;
}

/// Who runs the items of a task.
#[derive(Clone)]
pub enum Plan {
    Run(Arc<dyn Executor>),
    /// A worker that claims over HTTP.
    External,
}

/// What executors share: the client, the hosts that may be reached, the secrets.
pub struct Executors {
    http: HttpClient,
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Document {
    Simulate(Simulate),
    Http(HttpDocument),
    Kubernetes(Operation),
    External {},
}

impl Document {
    fn read(text: &str) -> Result<Document, String> {
        serde_json::from_str(text).map_err(|error| {
            // The place within the text is of no use to somebody who sent it in a larger one.
            let text = error.to_string();
            text.split(" at line ").next().unwrap_or_default().to_owned()
        })
    }
}

/// Whether an executor acts in the server's name, with its reach and its secrets: then only an admin
/// may ask for it, and nobody else is told what it could reach.
pub fn acts_as_server(text: &str) -> bool {
    matches!(Document::read(text), Ok(Document::Http(_) | Document::Kubernetes(_)))
}

impl Executors {
    pub fn new(
        hosts: Hosts,
        secrets: Vec<Secret>,
        kubernetes: Option<&Access>,
    ) -> Result<Executors, String> {
        let kubernetes = kubernetes.map(Kubernetes::new).transpose()?;
        Ok(Executors { http: HttpClient::new(hosts, secrets), kubernetes })
    }

    /// What a document asks for, or what is wrong with it.
    pub fn plan(&self, text: &str) -> Result<Plan, String> {
        match Document::read(text)? {
            Document::Simulate(simulate) => Ok(Plan::Run(Arc::new(simulate.checked()?))),
            Document::Http(document) => Ok(Plan::Run(Arc::new(self.http.executor(document)?))),
            Document::Kubernetes(operation) => match &self.kubernetes {
                Some(kubernetes) => Ok(Plan::Run(kubernetes.executor(operation)?)),
                None => Err("kubernetes: the setting task_kubernetes names no cluster".to_owned()),
            },
            Document::External {} => Ok(Plan::External),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_understood_or_refused_with_a_reason() {
        let hosts = Hosts::parse("task_http_hosts", &["nodes.test".to_owned()]).unwrap();
        let executors = Executors::new(hosts, Vec::new(), None).unwrap();
        for good in [
            r#"{"type":"simulate"}"#,
            r#"{"type":"simulate","delay_ms":[20,80],"fail_rate":0.01,"seed":7}"#,
            r#"{"type":"simulate","delay_ms":5,"fail":["a"],"flaky_rate":0.5}"#,
            r#"{"type":"external"}"#,
            r#"{"type":"http","method":"POST","url":"https://nodes.test/a/{item}"}"#,
        ] {
            assert!(executors.plan(good).is_ok(), "{good}");
        }
        for (bad, reason) in [
            ("7", "expected"),
            ("{}", "type"),
            (r#"{"type":"dance"}"#, "dance"),
            (r#"{"type":"simulate","colour":1}"#, "colour"),
            (r#"{"type":"simulate","delay_ms":[80,20]}"#, "delay_ms"),
            (r#"{"type":"simulate","fail_rate":2}"#, "fail_rate"),
            (r#"{"type":"external","a":1}"#, "a"),
            (r#"{"type":"kubernetes","operation":"drain"}"#, "task_kubernetes"),
            (r#"{"type":"kubernetes","operation":"dance"}"#, "dance"),
            (r#"{"type":"http"}"#, "url"),
            (r#"{"type":"http","url":"https://other.test/"}"#, "other.test"),
        ] {
            let Err(error) = executors.plan(bad) else { panic!("{bad} is taken") };
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
