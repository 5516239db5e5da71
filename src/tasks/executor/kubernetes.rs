//! Operations on the nodes of a Kubernetes cluster, named by the items of a task.
//!
//! A client of our own for four endpoints, over the HTTP client that is here anyway. Whatever is
//! read before it is written is written with its resource version, so that a conflict is seen and
//! the whole done again. It acts with the server's own rights in the cluster: for admins alone.

pub mod access;
mod api;
mod drain;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use self::access::Access;
use self::api::{ApiServer, Fault};
use self::drain::DrainRules;
use super::{Executor, Outcome, Try};

/// How often something is done again because somebody else changed the node meanwhile.
const CONFLICTS_MAX: u32 = 10;

/// After the first conflict; then a little longer each time.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "operation", rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    Cordon {},
    Uncordon {},
    Drain {
        /// How long a pod may take to end, instead of what it says itself.
        grace_period_s: Option<u32>,
        #[serde(default)]
        delete_emptydir: bool,
        /// Evicts pods of no controller as well, which do not come back.
        #[serde(default)]
        force: bool,
    },
    Label {
        labels: BTreeMap<String, String>,
    },
    Unlabel {
        labels: Vec<String>,
    },
    Taint {
        taints: Vec<Taint>,
    },
    Untaint {
        taints: Vec<TaintPattern>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    value: String,
    effect: Effect,
}

/// A key, with any effect unless one is named.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaintPattern {
    key: String,
    effect: Option<Effect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// The cluster that operations are done in.
pub struct Kubernetes {
    api: Arc<ApiServer>,
}

struct NodeExecutor {
    api: Arc<ApiServer>,
    operation: Operation,
}

impl Kubernetes {
    pub fn new(access: &Access) -> Result<Kubernetes, String> {
        Ok(Kubernetes { api: Arc::new(ApiServer::new(access)?) })
    }

    pub fn executor(&self, operation: Operation) -> Result<Arc<dyn Executor>, String> {
        operation.check()?;
        Ok(Arc::new(NodeExecutor { api: self.api.clone(), operation }))
    }
}

impl Operation {
    /// What the API server would refuse for every node is refused once.
    fn check(&self) -> Result<(), String> {
        let (keys, what): (Vec<&str>, &str) = match self {
            Operation::Cordon {} | Operation::Uncordon {} | Operation::Drain { .. } => {
                return Ok(());
            }
            Operation::Label { labels } => {
                if let Some((key, value)) = labels.iter().find(|(_, value)| !is_value(value)) {
                    return Err(format!("labels: {value:?} is no value for {key}"));
                }
                (labels.keys().map(String::as_str).collect(), "labels")
            }
            Operation::Unlabel { labels } => {
                (labels.iter().map(String::as_str).collect(), "labels")
            }
            Operation::Taint { taints } => {
                if let Some(taint) = taints.iter().find(|taint| !is_value(&taint.value)) {
                    return Err(format!("taints: {:?} is no value for {}", taint.value, taint.key));
                }
                (taints.iter().map(|taint| taint.key.as_str()).collect(), "taints")
            }
            Operation::Untaint { taints } => {
                (taints.iter().map(|taint| taint.key.as_str()).collect(), "taints")
            }
        };
        if keys.is_empty() {
            return Err(format!("{what}: at least one"));
        }
        match keys.iter().find(|key| !is_key(key)) {
            Some(key) => Err(format!("{what}: {key:?} is no key, such as example.com/pool")),
            None => Ok(()),
        }
    }
}

/// `name`, or `prefix/name`.
fn is_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_node_name)
}

fn is_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let ends = [text.bytes().next(), text.bytes().last()];
    let ends = ends.into_iter().flatten().all(|b| b.is_ascii_alphanumeric());
    text.len() <= 63 && ends && text.bytes().all(inner)
}

/// A DNS subdomain, which also is one piece of a path.
fn is_node_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    let ends = [text.bytes().next(), text.bytes().last()];
    let whole = ends.into_iter().all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()));
    (1..=253).contains(&text.len()) && whole && text.bytes().all(known) && !text.contains("..")
}

impl NodeExecutor {
    async fn done(&self, one: Try<'_>) -> Result<(), Fault> {
        let (api, node) = (&self.api, one.name);
        match &self.operation {
            Operation::Cordon {} => cordon(api, node, true).await,
            Operation::Uncordon {} => cordon(api, node, false).await,
            Operation::Label { labels } => {
                let patch = json!({ "metadata": { "labels": labels } });
                change(api, node, Change::Patch(patch)).await
            }
            Operation::Unlabel { labels } => {
                let none: BTreeMap<&String, Value> =
                    labels.iter().map(|key| (key, Value::Null)).collect();
                let patch = json!({ "metadata": { "labels": none } });
                change(api, node, Change::Patch(patch)).await
            }
            Operation::Taint { taints } => {
                change(api, node, Change::Taints(&|own| tainted(own, taints))).await
            }
            Operation::Untaint { taints } => {
                change(api, node, Change::Taints(&|own| untainted(own, taints))).await
            }
            Operation::Drain { grace_period_s, delete_emptydir, force } => {
                let rules = DrainRules {
                    grace_period_s: *grace_period_s,
                    delete_emptydir: *delete_emptydir,
                    force: *force,
                };
                drain::drain(api, node, rules, one.timeout).await
            }
        }
    }
}

#[async_trait]
impl Executor for NodeExecutor {
    async fn run(&self, one: Try<'_>) -> Outcome {
        if !is_node_name(one.name) {
            return Outcome::Failed(format!("{:?} cannot be the name of a node", one.name));
        }
        match self.done(one).await {
            Ok(()) => Outcome::Succeeded,
            Err(Fault::Missing) => Outcome::Failed(format!("the cluster has no node {}", one.name)),
            Err(Fault::Refused(error)) => Outcome::Failed(error),
            Err(Fault::Conflict) => {
                let error = "somebody else kept changing the node".to_owned();
                Outcome::TryAgain { error, after: None }
            }
            Err(Fault::Passing { error, after }) => Outcome::TryAgain { error, after },
        }
    }
}

/// What becomes of a node.
enum Change<'a> {
    /// A merge patch, whatever it was before.
    Patch(Value),
    /// What follows from the taints that it has.
    Taints(&'a (dyn Fn(&[Value]) -> Vec<Value> + Sync)),
}

async fn cordon(api: &ApiServer, node: &str, closed: bool) -> Result<(), Fault> {
    change(api, node, Change::Patch(json!({ "spec": { "unschedulable": closed } }))).await
}

/// Does it again as long as somebody else was faster.
async fn change(api: &ApiServer, node: &str, change: Change<'_>) -> Result<(), Fault> {
    for conflicts in 1..=CONFLICTS_MAX {
        match change.attempt(api, node).await {
            Err(Fault::Conflict) => {
                let share = rand::random_range(0.5..1.5);
                sleep(CONFLICT_PAUSE.mul_f64(f64::from(conflicts) * share)).await;
            }
            done => return done,
        }
    }
    Err(Fault::Conflict)
}

impl Change<'_> {
    async fn attempt(&self, api: &ApiServer, node: &str) -> Result<(), Fault> {
        let change = match self {
            Change::Patch(patch) => return api.patch_node(node, patch).await,
            Change::Taints(change) => change,
        };
        let read = api.node(node).await?;
        let own = read["spec"]["taints"].as_array().map(Vec::as_slice).unwrap_or_default();
        let changed = change(own);
        if changed == own {
            return Ok(());
        }
        // Refused as a conflict if the node is not the one that was read.
        let version = &read["metadata"]["resourceVersion"];
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": changed}});
        api.patch_node(node, &patch).await
    }
}

/// Of one key and effect there is one taint.
fn tainted(own: &[Value], taints: &[Taint]) -> Vec<Value> {
    let mut changed = own.to_vec();
    for taint in taints {
        let same =
            |one: &&mut Value| one["key"] == *taint.key && one["effect"] == json!(taint.effect);
        let wanted = json!(taint);
        match changed.iter_mut().find(same) {
            Some(one) if one["value"].as_str().unwrap_or_default() == taint.value => {}
            Some(one) => *one = wanted,
            None => changed.push(wanted),
        }
    }
    changed
}

fn untainted(own: &[Value], patterns: &[TaintPattern]) -> Vec<Value> {
    let stays = |taint: &&Value| {
        !patterns.iter().any(|pattern| {
            let effect = pattern.effect.is_none_or(|effect| taint["effect"] == json!(effect));
            taint["key"] == *pattern.key && effect
        })
    };
    own.iter().filter(stays).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(text: &str) -> Result<Operation, String> {
        let operation: Operation = serde_json::from_str(text).map_err(|error| error.to_string())?;
        operation.check().map(|()| operation)
    }

    #[test]
    fn a_document_is_understood_or_refused_with_a_reason() {
        for good in [
            r#"{"operation":"cordon"}"#,
            r#"{"operation":"drain","grace_period_s":5,"delete_emptydir":true,"force":true}"#,
            r#"{"operation":"label","labels":{"example.com/pool":"a","b":""}}"#,
            r#"{"operation":"unlabel","labels":["b"]}"#,
            r#"{"operation":"taint","taints":[{"key":"a","value":"b","effect":"NoExecute"}]}"#,
            r#"{"operation":"untaint","taints":[{"key":"a"}]}"#,
        ] {
            operation(good).unwrap();
        }
        for (bad, reason) in [
            (r#"{"operation":"reboot"}"#, "reboot"),
            (r#"{"operation":"cordon","force":true}"#, "force"),
            (r#"{"operation":"label","labels":{}}"#, "at least one"),
            (r#"{"operation":"label","labels":{"a b":"c"}}"#, "no key"),
            (r#"{"operation":"label","labels":{"a":"b c"}}"#, "no value"),
            (r#"{"operation":"unlabel","labels":["A_/b"]}"#, "no key"),
            (r#"{"operation":"taint","taints":[{"key":"a","effect":"Later"}]}"#, "Later"),
            (r#"{"operation":"taint","taints":[{"key":"a"}]}"#, "effect"),
        ] {
            let error = operation(bad).unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    #[test]
    fn a_name_of_a_node_is_one_piece_of_a_path() {
        for good in ["a", "node-1", "ip-10-0-0-1.eu.internal"] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "A", "a/b", "..", "a..b", "-a", "a.", "a?b", "a%2f", &"a".repeat(254)] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }

    #[test]
    fn of_a_key_and_an_effect_there_is_one_taint() {
        let own = [
            json!({"key": "a", "value": "1", "effect": "NoSchedule", "timeAdded": "t"}),
            json!({"key": "a", "effect": "NoExecute"}),
        ];
        let taint = |key: &str, value: &str| Taint {
            key: key.to_owned(),
            value: value.to_owned(),
            effect: Effect::NoSchedule,
        };
        assert_eq!(tainted(&own, &[taint("a", "1")]), own);
        let changed = tainted(&own, &[taint("a", "2"), taint("b", "")]);
        assert_eq!(changed[0], json!({"key": "a", "value": "2", "effect": "NoSchedule"}));
        assert_eq!(changed[1], own[1]);
        assert_eq!(changed[2], json!({"key": "b", "effect": "NoSchedule"}));
        let pattern = |effect| TaintPattern { key: "a".to_owned(), effect };
        assert_eq!(untainted(&own, &[pattern(Some(Effect::NoExecute))]), own[..1]);
        assert!(untainted(&own, &[pattern(None)]).is_empty());
    }
}
