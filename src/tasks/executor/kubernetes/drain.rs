//! Emptying a node: closed to new pods, then every pod evicted that would run elsewhere.
//!
//! ```text
//!   list ──▶ plan ──▶ refused: nothing was changed
//!              │
//!              ▼
//!           cordon ──▶ evict what is due ──▶ list ──▶ plan ──▶ nothing left: done
//!                        ▲      │ 429: not before Retry-After      │
//!                        └──────┴──────────────────────────────────┘
//! ```
//! A pod whose disruption budget allows no eviction is asked for again until the time is up, as are
//! those that take their time to end. A pod that appeared meanwhile is seen by the next list.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep_until};

use super::api::{ApiServer, Fault};
use super::cordon;

/// Where the kubelet says that a pod is its own, which no API server can evict.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// How often it is looked whether pods have ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When a budget allows no eviction and the server does not say how long to wait.
const BLOCKED_PAUSE: Duration = Duration::from_secs(5);
const BLOCKED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How many pods a sentence names.
const NAMED_MAX: usize = 3;

/// So much earlier than the try is cut off it says what is left.
const LAST_WORD: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DrainRules {
    pub grace_period_s: Option<u32>,
    pub delete_emptydir: bool,
    pub force: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Pod {
    pub metadata: PodMetadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<Owner>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Deserialize)]
struct Owner {
    kind: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct PodSpec {
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Debug, Clone, Deserialize)]
struct Volume {
    #[serde(rename = "emptyDir")]
    empty_dir: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct PodStatus {
    #[serde(default)]
    phase: String,
}

impl Pod {
    fn shown(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}

/// What is to be done with a pod.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// It stays on the node, and is none of ours.
    Leave,
    Evict,
    /// It is ending.
    Await,
    Refuse(&'static str),
}

fn step(pod: &Pod, rules: DrainRules) -> Step {
    let meta = &pod.metadata;
    let controller = meta.owner_references.iter().find(|owner| owner.controller);
    let ended = ["Succeeded", "Failed"].contains(&pod.status.phase.as_str());
    let keeps = pod.spec.volumes.iter().any(|volume| volume.empty_dir.is_some());
    if meta.annotations.contains_key(MIRROR)
        || controller.is_some_and(|owner| owner.kind == "DaemonSet")
    {
        Step::Leave
    } else if meta.deletion_timestamp.is_some() {
        Step::Await
    } else if ended {
        Step::Evict
    } else if controller.is_none() && !rules.force {
        Step::Refuse("has no controller and would not come back: set force to lose it")
    } else if keeps && !rules.delete_emptydir {
        Step::Refuse("keeps data in an emptyDir: set delete_emptydir to lose it")
    } else {
        Step::Evict
    }
}

/// The pods that must go, and whether each is to be asked; or why the node cannot be drained.
fn plan(pods: &[Pod], rules: DrainRules) -> Result<Vec<(&Pod, Step)>, String> {
    let steps: Vec<(&Pod, Step)> = pods.iter().map(|pod| (pod, step(pod, rules))).collect();
    let refused: Vec<String> = steps
        .iter()
        .filter_map(|(pod, step)| match step {
            Step::Refuse(why) => Some(format!("{} {why}", pod.shown())),
            _ => None,
        })
        .collect();
    if !refused.is_empty() {
        return Err(named(&refused, "; "));
    }
    Ok(steps.into_iter().filter(|(_, step)| *step != Step::Leave).collect())
}

/// The first few, and how many more there are.
fn named(all: &[String], between: &str) -> String {
    let shown = all.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(between);
    match all.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown}{between}and {more} more"),
    }
}

/// Drains a node, or says shortly before the time is up what keeps it.
pub async fn drain(
    api: &ApiServer,
    node: &str,
    rules: DrainRules,
    within: Duration,
) -> Result<(), Fault> {
    let deadline = Instant::now() + within.saturating_sub(LAST_WORD);
    // A node that is not there has no pods either.
    api.node(node).await?;
    let pods = api.pods(node).await?;
    plan(&pods, rules).map_err(Fault::Refused)?;
    cordon(api, node, true).await?;
    // By uid: when to ask again, and why it was not granted.
    let mut blocked: HashMap<String, (Instant, String)> = HashMap::new();
    // By uid: why it will not be granted.
    let mut refused: HashMap<String, String> = HashMap::new();
    loop {
        let pods = api.pods(node).await?;
        let left = plan(&pods, rules).map_err(Fault::Refused)?;
        if left.is_empty() {
            return Ok(());
        }
        blocked.retain(|uid, _| left.iter().any(|(pod, _)| pod.metadata.uid == *uid));
        for (pod, _) in left.iter().filter(|(_, step)| *step == Step::Evict) {
            let uid = &pod.metadata.uid;
            if refused.contains_key(uid) {
                continue;
            }
            if blocked.get(uid).is_some_and(|(until, _)| Instant::now() < *until) {
                continue;
            }
            match api.evict(pod, rules.grace_period_s).await {
                // Gone, or another one of its name: the next list tells.
                Ok(()) | Err(Fault::Missing | Fault::Conflict) => {
                    blocked.remove(uid);
                }
                Err(Fault::Passing { error, after }) => {
                    let pause = after.unwrap_or(BLOCKED_PAUSE).min(BLOCKED_PAUSE_MAX);
                    let until = Instant::now() + pause.max(LOOK_EVERY);
                    blocked.insert(uid.clone(), (until, error));
                }
                // The others go all the same.
                Err(Fault::Refused(error)) => {
                    refused.insert(uid.clone(), error);
                }
            }
        }
        let is_refused = |pod: &Pod| refused.contains_key(&pod.metadata.uid);
        if left.iter().all(|(pod, step)| *step == Step::Evict && is_refused(pod)) {
            let why = |(pod, _): &(&Pod, Step)| {
                format!("{}: {}", pod.shown(), refused[&pod.metadata.uid])
            };
            let left: Vec<String> = left.iter().map(why).collect();
            return Err(Fault::Refused(named(&left, "; ")));
        }
        let next = Instant::now() + LOOK_EVERY;
        if next >= deadline {
            let told =
                |uid: &String| blocked.get(uid).map(|(_, why)| why).or(refused.get(uid)).cloned();
            let why = |(pod, _): &(&Pod, Step)| match told(&pod.metadata.uid) {
                Some(why) => format!("{}: {why}", pod.shown()),
                None => format!("{} has not ended", pod.shown()),
            };
            let left: Vec<String> = left.iter().map(why).collect();
            let error =
                format!("pods are left after {} s: {}", within.as_secs(), named(&left, "; "));
            return Err(Fault::passing(error));
        }
        sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(changes: impl Into<Value>) -> Pod {
        let changes = changes.into();
        let owner = json!([{"kind": "ReplicaSet", "controller": true}]);
        let mut pod = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "ownerReferences": owner},
            "spec": {"volumes": [{"name": "v", "configMap": {}}]},
            "status": {"phase": "Running"},
        });
        for (part, fields) in changes.as_object().unwrap() {
            for (name, value) in fields.as_object().unwrap() {
                pod[part][name] = value.clone();
            }
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn what_becomes_of_a_pod() {
        let none = DrainRules::default();
        let force = DrainRules { force: true, ..none };
        let empty = DrainRules { delete_emptydir: true, ..none };
        let keeps = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let alone = json!({"ownerReferences": []});
        let daemon = json!({"ownerReferences": [{"kind": "DaemonSet", "controller": true}]});
        let mirror = json!({"annotations": {(MIRROR): "x"}, "ownerReferences": []});
        let ending = json!({"deletionTimestamp": "2026-11-20T10:00:00Z", "ownerReferences": []});
        let refused = |step: Step| matches!(step, Step::Refuse(_));
        assert_eq!(step(&pod(json!({})), none), Step::Evict);
        assert_eq!(step(&pod(json!({"metadata": daemon})), none), Step::Leave);
        let daemon_keeps = pod(json!({"metadata": daemon, "spec": keeps}));
        assert_eq!(step(&daemon_keeps, none), Step::Leave);
        assert_eq!(step(&pod(json!({"metadata": mirror})), none), Step::Leave);
        assert_eq!(step(&pod(json!({"metadata": ending, "spec": keeps})), none), Step::Await);
        assert!(refused(step(&pod(json!({"metadata": alone})), none)));
        assert!(refused(step(&pod(json!({"metadata": alone})), empty)));
        assert_eq!(step(&pod(json!({"metadata": alone})), force), Step::Evict);
        assert!(refused(step(&pod(json!({"spec": keeps})), force)));
        assert_eq!(step(&pod(json!({"spec": keeps})), empty), Step::Evict);
        let ended = json!({"status": {"phase": "Succeeded"}, "metadata": alone, "spec": keeps});
        assert_eq!(step(&pod(ended), none), Step::Evict);
    }

    #[test]
    fn a_plan_is_refused_whole_and_names_a_few() {
        let alone = json!({"metadata": {"ownerReferences": []}});
        let daemon = json!({"ownerReferences": [{"kind": "DaemonSet", "controller": true}]});
        let daemon = pod(json!({"metadata": daemon}));
        let mut pods = vec![pod(json!({})), daemon];
        let planned = plan(&pods, DrainRules::default()).unwrap();
        assert_eq!((planned.len(), planned[0].1), (1, Step::Evict));
        pods.extend((0..5).map(|_| pod(alone.clone())));
        let error = plan(&pods, DrainRules::default()).unwrap_err();
        assert!(error.starts_with("n/a has no controller") && error.ends_with("; and 2 more"));
        assert!(plan(&[], DrainRules::default()).unwrap().is_empty());
    }
}
