//! Items that are nodes of a cluster: an API server of our own speaks the endpoints that are needed,
//! as Kubernetes documents them.

mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post as posted};
use axum::{Json, Router};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::*;
use crate::commands::tidings;

const TOKEN: &str = "a-token-of-a-service-account";

struct Book {
    token: &'static str,
    nodes: BTreeMap<String, Value>,
    pods: Vec<Value>,
    version: u64,
    /// How many patches of a node are yet refused, because somebody else is faster.
    conflicts: BTreeMap<String, u32>,
    /// How many evictions of a pod its budget does not allow yet.
    blocked: BTreeMap<String, u32>,
    /// What was asked for by eviction, with the options and when.
    evictions: Vec<(String, Value, Instant)>,
    patches: usize,
}

impl Default for Book {
    fn default() -> Book {
        Book {
            token: TOKEN,
            nodes: BTreeMap::new(),
            pods: Vec::new(),
            version: 0,
            conflicts: BTreeMap::new(),
            blocked: BTreeMap::new(),
            evictions: Vec::new(),
            patches: 0,
        }
    }
}

type Shared = Arc<Mutex<Book>>;

struct ApiServer {
    url: String,
    book: Shared,
    serving: JoinHandle<()>,
    kubeconfig: PathBuf,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

impl ApiServer {
    async fn start(nodes: &[&str]) -> ApiServer {
        let book = Shared::default();
        for name in nodes {
            let node = json!({
                "metadata": {"name": name, "resourceVersion": "0", "labels": {"os": "linux"}},
                "spec": {"taints": [{"key": "old", "effect": "NoExecute"}]},
            });
            book.lock().nodes.insert((*name).to_owned(), node);
        }
        let router = router(&book);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a server of a test, ended with it")]
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let name = format!("tidings-kubeconfig-{}", uuid::Uuid::now_v7().simple());
        let kubeconfig = std::env::temp_dir().join(name);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: robot\n\
             clusters: [{{name: c, cluster: {{server: '{url}'}}}}]\n\
             contexts:\n- {{name: robot, context: {{cluster: c, user: robot}}}}\n\
             - {{name: stranger, context: {{cluster: c, user: stranger}}}}\n\
             users:\n- {{name: robot, user: {{token: {TOKEN}}}}}\n\
             - {{name: stranger, user: {{token: other}}}}\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        ApiServer { url, book, serving, kubeconfig }
    }

    fn config(&self) -> &str {
        self.kubeconfig.to_str().unwrap()
    }

    async fn replica(&self) -> Replica {
        let own = [("TIDINGS_TASK_KUBERNETES", self.config())];
        Replica::in_memory("kubernetes", &[QUICK, &own].concat()).await
    }

    fn node(&self, name: &str) -> Value {
        self.book.lock().nodes[name].clone()
    }

    /// A pod on a node, of a ReplicaSet unless it says otherwise.
    fn pod(&self, node: &str, name: &str, changes: impl Into<Value>) {
        let mut pod = json!({
            "metadata": {
                "name": name,
                "namespace": "apps",
                "uid": format!("uid-{name}"),
                "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "controller": true}],
            },
            "spec": {"nodeName": node},
            "status": {"phase": "Running"},
        });
        merge(&mut pod, &changes.into());
        self.book.lock().pods.push(pod);
    }

    fn pods(&self) -> Vec<String> {
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.book.lock().pods.iter().map(name).collect()
    }
}

fn problem(code: StatusCode, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": message, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}

fn query(uri: &Uri) -> HashMap<String, String> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

fn router(book: &Shared) -> Router {
    Router::new()
        .route("/api/v1/nodes/{name}", get(node).patch(patch_node))
        .route("/api/v1/pods", get(pods))
        .route("/api/v1/namespaces/{namespace}/pods/{name}/eviction", posted(evict))
        .layer(from_fn_with_state(book.clone(), known))
        .with_state(book.clone())
}

async fn known(State(book): State<Shared>, request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).cloned();
    let known = format!("Bearer {}", book.lock().token);
    if token.is_some_and(|token| token == known.as_str()) {
        return next.run(request).await;
    }
    problem(StatusCode::UNAUTHORIZED, "Unauthorized")
}

async fn node(State(book): State<Shared>, Path(name): Path<String>) -> Response {
    match book.lock().nodes.get(&name) {
        Some(node) => Json(node.clone()).into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("nodes \"{name}\" not found")),
    }
}

async fn patch_node(
    State(book): State<Shared>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers[header::CONTENT_TYPE], "application/merge-patch+json");
    assert_eq!(query(&uri)["fieldManager"], "tidings");
    if name.starts_with("slow") {
        std::future::pending::<()>().await;
    }
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let mut book = book.lock();
    book.patches += 1;
    if name.starts_with("locked") {
        let message = format!("nodes \"{name}\" is forbidden: User \"robot\" cannot patch");
        return problem(StatusCode::FORBIDDEN, &message);
    }
    let Book { nodes, conflicts, version, .. } = &mut *book;
    let Some(node) = nodes.get_mut(&name) else {
        return problem(StatusCode::NOT_FOUND, &format!("nodes \"{name}\" not found"));
    };
    *version += 1;
    let left = conflicts.entry(name.clone()).or_default();
    if *left > 0 {
        // Somebody else is faster, and writes something of their own.
        *left -= 1;
        node["metadata"]["labels"][format!("other-{version}")] = "x".into();
        node["metadata"]["resourceVersion"] = version.to_string().into();
        if patch["metadata"]["resourceVersion"].is_null() {
            return problem(StatusCode::CONFLICT, "the object has been modified");
        }
    }
    let known = &patch["metadata"]["resourceVersion"];
    if !known.is_null() && *known != node["metadata"]["resourceVersion"] {
        return problem(StatusCode::CONFLICT, "the object has been modified");
    }
    merge(node, &patch);
    node["metadata"]["resourceVersion"] = version.to_string().into();
    Json(node.clone()).into_response()
}

/// Two pods a page. What is ending has ended when it was listed once.
async fn pods(State(book): State<Shared>, uri: Uri) -> Response {
    let mut book = book.lock();
    let query = query(&uri);
    let node = query["fieldSelector"].strip_prefix("spec.nodeName=").unwrap();
    assert!(query["limit"].parse::<usize>().unwrap() > 0);
    let from: usize = query.get("continue").map_or(0, |text| text.parse().unwrap());
    let own: Vec<Value> =
        book.pods.iter().filter(|pod| pod["spec"]["nodeName"] == node).cloned().collect();
    let page: Vec<&Value> = own.iter().skip(from).take(2).collect();
    let next = if own.len() > from + 2 { (from + 2).to_string() } else { String::new() };
    let answer = json!({"kind": "PodList", "metadata": {"continue": next}, "items": page});
    if next.is_empty() {
        book.pods.retain(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null() || pod["metadata"]["stays"] == true
        });
    }
    Json(answer).into_response()
}

async fn evict(
    State(book): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    Json(eviction): Json<Value>,
) -> Response {
    assert_eq!(
        (&eviction["kind"], &eviction["apiVersion"]),
        (&json!("Eviction"), &json!("policy/v1"))
    );
    assert_eq!(eviction["metadata"], json!({"name": name, "namespace": namespace}));
    let mut book = book.lock();
    let options = eviction["deleteOptions"].clone();
    book.evictions.push((name.clone(), options.clone(), Instant::now()));
    if name.starts_with("locked") {
        return problem(StatusCode::FORBIDDEN, "the namespace is being terminated");
    }
    let left = book.blocked.entry(name.clone()).or_default();
    if *left > 0 {
        *left -= 1;
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut answer = problem(StatusCode::TOO_MANY_REQUESTS, message);
        answer.headers_mut().insert(header::RETRY_AFTER, 2.into());
        return answer;
    }
    let same = |pod: &&mut Value| pod["metadata"]["name"] == *name;
    let Some(pod) = book.pods.iter_mut().find(same) else {
        return problem(StatusCode::NOT_FOUND, "pods not found");
    };
    assert_eq!(options["preconditions"]["uid"], pod["metadata"]["uid"]);
    pod["metadata"]["deletionTimestamp"] = "2026-11-20T10:00:00Z".into();
    (StatusCode::CREATED, Json(json!({"kind": "Status", "status": "Success"}))).into_response()
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut into[name.as_str()], value);
        }
    }
}

fn operation(nodes: &[&str], executor: Value) -> Value {
    let executor = but(json!({"type": "kubernetes"}), executor);
    but(simulated(1, 0), json!({"items": nodes, "executor": executor, "retries": 0}))
}

async fn ended(replica: &Replica, nodes: &[&str], executor: Value) -> Value {
    let id = submit(&replica.url, &operation(nodes, executor)).await;
    until_final(&replica.url, &id).await
}

async fn error(replica: &Replica, task: &Value, node: &str) -> String {
    let failed = items(&replica.url, task["id"].as_str().unwrap(), "failed").await;
    let item = failed.iter().find(|item| item["name"] == node).expect("it failed");
    item["error"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
pub async fn nodes_are_cordoned_labelled_and_tainted_though_others_change_them_too() {
    let api = ApiServer::start(&["a", "b"]).await;
    let replica = api.replica().await;
    for name in ["a", "b"] {
        api.book.lock().conflicts.insert(name.to_owned(), 3);
    }
    let done = async |executor: Value| {
        let task = ended(&replica, &["a", "b"], executor).await;
        assert_eq!(task["status"], "completed", "{task}");
    };
    let taint = json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"});
    done(json!({"operation": "taint", "taints": [taint]})).await;
    let old = json!({"key": "old", "effect": "NoExecute"});
    assert_eq!(api.node("a")["spec"]["taints"], json!([old, taint]));
    assert_eq!(api.node("a")["metadata"]["labels"].as_object().unwrap().len(), 4, "of others too");
    // What is so already is not written again.
    let patches = api.book.lock().patches;
    done(json!({"operation": "taint", "taints": [taint]})).await;
    assert_eq!(api.book.lock().patches, patches);
    done(json!({"operation": "untaint", "taints": [{"key": "old"}]})).await;
    assert_eq!(api.node("b")["spec"]["taints"], json!([taint]));
    api.book.lock().conflicts.insert("a".to_owned(), 3);
    done(json!({"operation": "cordon"})).await;
    assert_eq!(api.node("a")["spec"]["unschedulable"], true);
    done(json!({"operation": "uncordon"})).await;
    assert_eq!(api.node("b")["spec"]["unschedulable"], false);
    done(json!({"operation": "label", "labels": {"example.com/pool": "x", "os": "bsd"}})).await;
    done(json!({"operation": "unlabel", "labels": ["os", "none"]})).await;
    let labels = &api.node("b")["metadata"]["labels"];
    assert_eq!((&labels["example.com/pool"], &labels["os"]), (&json!("x"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_fails_with_a_sentence() {
    let api = ApiServer::start(&["good", "busy", "locked", "slow"]).await;
    let replica = api.replica().await;
    api.book.lock().conflicts.insert("busy".to_owned(), 1_000);
    let nodes = ["good", "busy", "locked", "slow", "missing", "a/../b"];
    let body = operation(&nodes, json!({"operation": "cordon"}));
    let id = submit(&replica.url, &but(body, json!({"item_timeout_s": 3}))).await;
    let task = until_final(&replica.url, &id).await;
    assert_eq!((&task["status"], &task["succeeded"]), (&json!("partial"), &json!(1)), "{task}");
    for (node, sentence) in [
        ("busy", "somebody else kept changing the node"),
        ("locked", "cannot patch"),
        ("slow", "it took longer than 3s"),
        ("missing", "the cluster has no node missing"),
        ("a/../b", "cannot be the name of a node"),
    ] {
        let error = error(&replica, &task, node).await;
        assert!(error.contains(sentence), "{node}: {error}");
    }
    let drained = ended(&replica, &["missing"], json!({"operation": "drain"})).await;
    assert!(error(&replica, &drained, "missing").await.contains("no node missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_evicts_what_would_run_elsewhere_and_waits_for_budgets() {
    let api = ApiServer::start(&["a"]).await;
    let replica = api.replica().await;
    let owner = |kind: &str| json!({"ownerReferences": [{"kind": kind, "controller": true}]});
    for name in ["web-1", "web-2", "web-3"] {
        api.pod("a", name, json!({}));
    }
    api.pod("b", "elsewhere", json!({}));
    api.pod("a", "daemon", json!({"metadata": owner("DaemonSet")}));
    let mirror = json!({"kubernetes.io/config.mirror": "x"});
    api.pod("a", "mirror", json!({"metadata": {"annotations": mirror, "ownerReferences": []}}));
    api.pod("a", "done", json!({"status": {"phase": "Succeeded"}}));
    api.pod("a", "ending", json!({"metadata": {"deletionTimestamp": "2026-11-20T10:00:00Z"}}));
    api.book.lock().blocked.insert("web-2".to_owned(), 2);
    let task = ended(&replica, &["a"], json!({"operation": "drain", "grace_period_s": 7})).await;
    assert_eq!(task["status"], "completed", "{task}");
    assert_eq!(api.node("a")["spec"]["unschedulable"], true);
    assert_eq!(api.pods(), ["elsewhere", "daemon", "mirror"]);
    let book = api.book.lock();
    let mut asked: Vec<&str> = book.evictions.iter().map(|(name, ..)| name.as_str()).collect();
    asked.sort_unstable();
    assert_eq!(asked, ["done", "web-1", "web-2", "web-2", "web-2", "web-3"]);
    assert!(book.evictions.iter().all(|(_, options, _)| options["gracePeriodSeconds"] == 7));
    let tries: Vec<Instant> =
        book.evictions.iter().filter(|own| own.0 == "web-2").map(|own| own.2).collect();
    for pair in tries.windows(2) {
        let waited = pair[1] - pair[0];
        assert!(waited.as_secs_f32() > 1.9, "{waited:?}, and two seconds were asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_refused_does_not_keep_the_others() {
    let api = ApiServer::start(&["a"]).await;
    for name in ["locked-1", "web-1", "web-2"] {
        api.pod("a", name, json!({}));
    }
    let replica = api.replica().await;
    let task = ended(&replica, &["a"], json!({"operation": "drain"})).await;
    assert_eq!(task["status"], "failed", "{task}");
    let error = error(&replica, &task, "a").await;
    assert!(error.contains("apps/locked-1") && error.contains("being terminated"), "{error}");
    assert_eq!(api.pods(), ["locked-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_would_lose_something_is_refused_before_anything_changes() {
    let api = ApiServer::start(&["a"]).await;
    let replica = api.replica().await;
    api.pod("a", "web", json!({}));
    api.pod("a", "cache", json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}));
    api.pod("a", "alone", json!({"metadata": {"ownerReferences": []}}));
    let task = ended(&replica, &["a"], json!({"operation": "drain"})).await;
    let error = error(&replica, &task, "a").await;
    assert!(error.contains("apps/cache keeps data in an emptyDir: set delete_emptydir"), "{error}");
    assert!(error.contains("apps/alone has no controller"), "{error}");
    assert_eq!((api.pods().len(), api.book.lock().patches), (3, 0));
    let executor = json!({"operation": "drain", "delete_emptydir": true, "force": true});
    let task = ended(&replica, &["a"], executor).await;
    assert_eq!((&task["status"], api.pods().len()), (&json!("completed"), 0), "{task}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_runs_out_of_time_names_what_is_left() {
    let api = ApiServer::start(&["a"]).await;
    let replica = api.replica().await;
    api.pod("a", "guarded", json!({}));
    api.pod("a", "stuck", json!({"metadata": {"stays": true}}));
    api.book.lock().blocked.insert("guarded".to_owned(), 1_000);
    let body = operation(&["a"], json!({"operation": "drain"}));
    let id = submit(&replica.url, &but(body, json!({"item_timeout_s": 3}))).await;
    let task = until_final(&replica.url, &id).await;
    let error = error(&replica, &task, "a").await;
    assert!(error.starts_with("pods are left after 3 s"), "{error}");
    assert!(error.contains("apps/guarded: Cannot evict pod as it would violate"), "{error}");
    assert!(error.contains("apps/stuck has not ended"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
pub async fn a_context_says_as_whom() {
    let api = ApiServer::start(&["a"]).await;
    let own = [
        ("TIDINGS_TASK_KUBERNETES", api.config()),
        ("TIDINGS_TASK_KUBERNETES_CONTEXT", "stranger"),
    ];
    let replica = Replica::in_memory("stranger", &[QUICK, &own].concat()).await;
    let task = ended(&replica, &["a"], json!({"operation": "cordon"})).await;
    assert!(error(&replica, &task, "a").await.contains("does not know us (401)"), "{task}");
    // What cannot be understood is told at the start, not by the first task.
    for (config, context, sentence) in [
        (api.config(), "none", "no context"),
        ("/none/config", "", "/none/config"),
        ("in-cluster", "", "KUBERNETES_SERVICE_HOST is not set"),
    ] {
        let settings =
            [("TIDINGS_TASK_KUBERNETES", config), ("TIDINGS_TASK_KUBERNETES_CONTEXT", context)];
        let (code, said) = Replica::refused(&settings).await;
        assert!(code == Some(1) && said.contains("task_kubernetes: "), "{code:?} {said}");
        assert!(said.contains(sentence), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_changes_nodes() {
    let api = ApiServer::start(&["a"]).await;
    let secret = ("TIDINGS_JWT_SECRET", "0123456789abcdef0123456789abcdef");
    let own = [("TIDINGS_DEV", "false"), secret, ("TIDINGS_TASK_KUBERNETES", api.config())];
    let replica = Replica::in_memory("guarded", &[QUICK, &own].concat()).await;
    let body = but(operation(&["a"], json!({"operation": "cordon"})), json!({"owner": "42"}));
    for (roles, status) in [(&[][..], 403), (&["--role", "admin"], 202)] {
        let signed = tidings(&[&["token", "--sub", "42"], roles].concat(), &[secret]).await;
        let request = reqwest::Client::new().post(format!("{}/v1/tasks", replica.url)).json(&body);
        let answer = request.bearer_auth(signed.out.trim()).send().await.unwrap();
        assert_eq!(answer.status(), status, "{roles:?}: {}", signed.err);
    }
    until("it is cordoned", async || api.node("a")["spec"]["unschedulable"] == true).await;
    assert!(api.url.starts_with("http://"));
}
