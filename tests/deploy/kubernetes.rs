//! What schemas do not say of the manifests: that probes, drains, selectors and rights fit together.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::manifests::{Rendered, all, containers, list};
use crate::{passes, python, read, settings_are_right, subcommand_exists, yaml};

/// How long loops have to end after the last connection is gone, as in src/app.rs.
const STOP_S: u64 = 5;

fn each(check: impl Fn(&Rendered)) {
    for rendered in all().unwrap_or_default() {
        check(rendered);
    }
}

fn replica(rendered: &Rendered) -> (&Value, &Value) {
    let deployment = rendered.one("Deployment", "tidings");
    let container = &list(&deployment["spec"]["template"]["spec"]["containers"])[0];
    (deployment, container)
}

/// The settings that a container of ours is given; what is a secret has a name only.
fn settings(rendered: &Rendered, container: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for from in list(&container["envFrom"]) {
        let name = from["configMapRef"]["name"].as_str().expect("of a ConfigMap");
        for (key, value) in rendered.one("ConfigMap", name)["data"].as_object().unwrap() {
            found.insert(key.clone(), value.as_str().unwrap().to_owned());
        }
    }
    for env in list(&container["env"]) {
        let stand_in = match env["name"].as_str().unwrap() {
            "DATABASE_URL" => "postgres://a:b@c/d",
            "TIDINGS_JWT_SECRET" => "a secret that is long enough for a test",
            _ => "a-value-of-sixteen",
        };
        let value = env["value"].as_str().unwrap_or(stand_in);
        found.insert(env["name"].as_str().unwrap().to_owned(), value.to_owned());
    }
    found
}

fn is_ours(container: &Value) -> bool {
    container["image"].as_str().unwrap().starts_with("tidings:")
}

fn matches(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("labels to match");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn schemas_take_all_of_it() {
    let Some(rendered) = all() else { return };
    let Some(validate) = python::find("kubernetes-validate", "1.37.0") else { return };
    for version in ["1.30", "1.37"] {
        let mut command = Command::new(&validate);
        command.args(["--strict", "--quiet", "--no-warn", "-k", version]);
        passes(command.args(rendered.iter().map(|one| &one.file)));
    }
}

#[test]
fn containers_may_do_nothing_that_they_need_not() {
    each(|rendered| {
        for (name, pod) in rendered.pods() {
            let security = &pod["spec"]["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{name}");
            assert!(security["runAsUser"].as_u64() > Some(0), "{name}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            for field in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod["spec"][field].is_null(), "{name}: {field}");
            }
            for container in containers(pod) {
                let own = &container["securityContext"];
                assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(own["capabilities"], json!({"drop": ["ALL"]}), "{name}");
                let resources = &container["resources"];
                assert!(resources["requests"]["cpu"].is_string(), "{name}");
                assert!(resources["requests"]["memory"].is_string(), "{name}");
                assert!(resources["limits"]["memory"].is_string(), "{name}");
                let image = container["image"].as_str().unwrap();
                assert!(image.contains(':') && !image.ends_with(":latest"), "{name}: {image}");
                let own = concat!("tidings:", env!("CARGO_PKG_VERSION"));
                assert!(!image.starts_with("tidings:") || image == own, "{name}: {image}");
            }
        }
    });
}

#[test]
fn replicas_are_given_settings_that_exist_and_secrets_by_reference() {
    let page = tidings::config::settings_markdown();
    let is_secret = |name: &str| {
        let entry = page.split(&format!("`{name}`")).nth(1).expect("a setting");
        entry.split("\n### ").next().unwrap().contains("*secret*")
    };
    each(|rendered| {
        for (name, pod) in rendered.pods() {
            for container in containers(pod).filter(|container| is_ours(container)) {
                // Kubernetes sets variables for services: TIDINGS_PORT would be one.
                assert_eq!(pod["spec"]["enableServiceLinks"], false, "{name}");
                let given = settings(rendered, container);
                settings_are_right(&given.clone().into_iter().collect::<Vec<_>>());
                subcommand_exists(container["args"][0].as_str().unwrap());
                let secret: Vec<&String> = given.keys().filter(|name| is_secret(name)).collect();
                assert!(!secret.is_empty(), "{name}: not even the database's URL");
                for setting in secret {
                    let env = list(&container["env"]).iter().find(|env| env["name"] == **setting);
                    let env = env.unwrap_or_else(|| panic!("{name}: {setting} is in a ConfigMap"));
                    assert!(
                        env["valueFrom"]["secretKeyRef"]["key"].is_string(),
                        "{name}: {setting}"
                    );
                }
            }
        }
    });
}

#[test]
fn a_rollout_never_has_fewer_replicas_and_leaves_time_to_drain() {
    each(|rendered| {
        let (deployment, container) = replica(rendered);
        let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(rolling["maxUnavailable"], 0);
        assert!(rolling["maxSurge"].as_u64() >= Some(1));
        let pod = &deployment["spec"]["template"]["spec"];
        let given = settings(rendered, container);
        let drain: u64 = given["TIDINGS_DRAIN_S"].parse().unwrap();
        let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace >= pause + drain + STOP_S + 5, "killed before it has left");
        // Endpoints are known everywhere within a readiness round or two.
        let ready = &container["readinessProbe"];
        let round = ready["periodSeconds"].as_u64().unwrap();
        assert!(pause >= round * ready["failureThreshold"].as_u64().unwrap());
    });
}

#[test]
fn probes_mean_what_they_say() {
    each(|rendered| {
        let (_, container) = replica(rendered);
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            let asked = &container[probe]["httpGet"];
            assert_eq!(asked["path"], path, "{probe}");
            assert_eq!(asked["port"], "ops", "{probe}");
            let (every, within) =
                (&container[probe]["periodSeconds"], &container[probe]["timeoutSeconds"]);
            assert!(within.as_u64() > Some(1) && every.as_u64().is_some(), "{probe}");
        }
        let given = settings(rendered, container);
        for (port, setting) in [("http", "TIDINGS_LISTEN"), ("ops", "TIDINGS_OPS_LISTEN")] {
            let mut ports = list(&container["ports"]).iter();
            let port = ports.find(|one| one["name"] == port).unwrap();
            let listens = given[setting].rsplit(':').next().unwrap();
            assert_eq!(port["containerPort"].to_string(), listens, "{setting}");
        }
    });
}

#[test]
fn selectors_find_what_they_are_meant_for_and_nothing_else() {
    each(|rendered| {
        let (deployment, container) = replica(rendered);
        let template = &deployment["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        let of_others = rendered.pods();
        let others: Vec<&Value> = of_others
            .iter()
            .filter(|(_, pod)| !std::ptr::eq(*pod, template))
            .map(|(_, pod)| &pod["metadata"]["labels"])
            .collect();
        let finds_replicas = |selector: &Value, what: &str| {
            assert!(matches(selector, labels), "{}: {what}", rendered.name);
            assert!(
                !others.iter().any(|other| matches(selector, other)),
                "{}: {what}",
                rendered.name
            );
        };
        finds_replicas(&deployment["spec"]["selector"]["matchLabels"], "the deployment");
        for name in ["tidings", "tidings-ops"] {
            let service = rendered.one("Service", name);
            finds_replicas(&service["spec"]["selector"], name);
            assert!(service["spec"]["sessionAffinity"].is_null(), "no sticky sessions");
            for port in list(&service["spec"]["ports"]) {
                let mut known = list(&container["ports"]).iter();
                assert!(known.any(|one| one["name"] == port["targetPort"]), "{name}");
            }
        }
        let budget = &rendered.one("PodDisruptionBudget", "tidings")["spec"];
        finds_replicas(&budget["selector"]["matchLabels"], "the budget");
        assert_eq!(budget["maxUnavailable"], 1);
        let spread = list(&template["spec"]["topologySpreadConstraints"]);
        assert_eq!(spread.len(), 2, "zones and nodes");
        for constraint in spread {
            finds_replicas(&constraint["labelSelector"]["matchLabels"], "spread");
        }
        for policy in rendered.of_kind("NetworkPolicy") {
            let selector = &policy["spec"]["podSelector"]["matchLabels"];
            let mut pods = rendered.pods().into_iter();
            let name = &policy["metadata"]["name"];
            assert!(pods.any(|(_, pod)| matches(selector, &pod["metadata"]["labels"])), "{name}");
        }
    });
}

/// What kustomize adds to selectors must not end up in whom a policy lets out to.
#[test]
fn names_can_be_asked_for_and_postgres_reached() {
    each(|rendered| {
        for policy in rendered.of_kind("NetworkPolicy") {
            let name = policy["metadata"]["name"].as_str().unwrap();
            let egress = list(&policy["spec"]["egress"]);
            if name == "tidings-kubernetes" {
                continue;
            }
            let ports = |rule: &Value| {
                list(&rule["ports"]).iter().map(|port| port["port"].clone()).collect::<Vec<_>>()
            };
            let names = egress.iter().find(|rule| ports(rule).contains(&json!(53))).unwrap();
            let to = &names["to"][0]["podSelector"]["matchLabels"];
            assert_eq!(*to, json!({"k8s-app": "kube-dns"}), "{name}");
            assert!(egress.iter().any(|rule| ports(rule) == [json!(5432)]), "{name}");
        }
    });
}

#[test]
fn what_scales_says_how_many_and_scales_down_slowly() {
    each(|rendered| {
        let (deployment, _) = replica(rendered);
        let Some(scaler) = rendered.of_kind("HorizontalPodAutoscaler").next() else {
            assert!(deployment["spec"]["replicas"].as_u64() >= Some(2), "{}", rendered.name);
            return;
        };
        assert!(deployment["spec"]["replicas"].is_null(), "two who say how many");
        let spec = &scaler["spec"];
        assert_eq!(spec["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
        assert!(spec["minReplicas"].as_u64() >= Some(2));
        let down = &spec["behavior"]["scaleDown"];
        assert!(down["stabilizationWindowSeconds"].as_u64() >= Some(600));
        assert_eq!(down["policies"][0]["value"], 1);
        let page = read("docs/operations.md");
        for metric in list(&spec["metrics"]) {
            if let Some(name) = metric["pods"]["metric"]["name"].as_str() {
                assert!(page.contains(&format!("`{name}` | gauge")), "there is no gauge {name}");
            }
        }
    });
    let by_sessions = all().unwrap_or_default().iter().find(|one| one.name == "autoscale-sessions");
    if let Some(rendered) = by_sessions {
        let scaler = rendered.of_kind("HorizontalPodAutoscaler").next().unwrap();
        assert_eq!(list(&scaler["spec"]["metrics"]).len(), 2);
    }
}

/// Kubernetes is asked for something by the executor alone, which has the rights that the page tells.
#[test]
fn rights_in_the_cluster_are_the_executors_alone() {
    let page = read("docs/operations.md");
    let told = page.split("```yaml\n").find(|block| block.contains("kind: ClusterRole")).unwrap();
    let told = yaml(told.split("```").next().unwrap());
    each(|rendered| {
        let is_executor = rendered.name == "kubernetes-executor";
        for kind in ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"] {
            let expected = usize::from(is_executor && kind.starts_with("Cluster"));
            assert_eq!(rendered.of_kind(kind).count(), expected, "{}: {kind}", rendered.name);
        }
        for (name, pod) in rendered.pods() {
            let has_token = pod["spec"]["automountServiceAccountToken"] != false;
            assert_eq!(has_token, is_executor, "{name}");
        }
        let (_, container) = replica(rendered);
        let given = settings(rendered, container);
        assert_eq!(given.contains_key("TIDINGS_TASK_KUBERNETES"), is_executor);
        if is_executor {
            let role = rendered.one("ClusterRole", "tidings-nodes");
            assert_eq!(role["rules"], told["rules"]);
            let bound = &rendered.one("ClusterRoleBinding", "tidings-nodes")["subjects"][0];
            let account = rendered.one("ServiceAccount", "tidings");
            assert_eq!(bound["name"], account["metadata"]["name"]);
            assert_eq!(bound["namespace"], account["metadata"]["namespace"]);
        }
    });
}

#[test]
fn one_migrates_before_the_others_serve_or_a_job_does_under_a_role_of_its_own() {
    each(|rendered| {
        let (deployment, _) = replica(rendered);
        let before = list(&deployment["spec"]["template"]["spec"]["initContainers"]);
        let job = rendered.of_kind("Job").next();
        assert_eq!(before.is_empty(), job.is_some(), "{}", rendered.name);
        let migrates = match job {
            Some(job) => &job["spec"]["template"]["spec"]["containers"][0],
            None => &before[0],
        };
        assert_eq!(migrates["args"], json!(["migrate"]));
        let from = &migrates["env"][0]["valueFrom"]["secretKeyRef"]["name"];
        let own = job.is_some();
        assert_eq!(from == "tidings-owner", own, "{}: {from}", rendered.name);
    });
}

#[test]
fn secrets_that_are_asked_for_are_told_of() {
    let page = read("docs/kubernetes.md");
    each(|rendered| {
        for (name, pod) in rendered.pods() {
            for container in containers(pod) {
                for env in list(&container["env"]) {
                    let secret = &env["valueFrom"]["secretKeyRef"];
                    let Some(of) = secret["name"].as_str() else { continue };
                    let is_made =
                        rendered.of_kind("Secret").any(|one| one["metadata"]["name"] == of);
                    assert!(is_made || page.contains(&format!("`{of}`")), "{name}: {of}");
                }
            }
        }
        // Only what is for trying out brings secrets of its own.
        assert_eq!(rendered.of_kind("Secret").count() > 0, rendered.name == "demo");
    });
}
