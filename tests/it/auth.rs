//! Who is let in where: every endpoint, asked in every way with every kind of token.

mod expiry;
mod jwks;
mod origins;
mod secrets;
mod tokens;

use std::collections::BTreeSet;

use serde_json::json;

use self::tokens::{API_KEY, Credential, Issuer, Rights};
use crate::client::{self, Answer, Carrier};
use crate::fleet::{Replica, until};
use crate::protocol;

/// What is asked for, and what it takes.
struct Endpoint {
    method: &'static str,
    target: &'static str,
    body: Option<&'static str>,
    /// The answers to a user with rights, to one without, and to a server or an admin.
    allowed: [u16; 3],
    /// The answer to whoever is not known.
    unknown: u16,
    /// The answer to a server, where it is another one than to an admin.
    server: Option<u16>,
}

const fn get(target: &'static str, allowed: [u16; 3]) -> Endpoint {
    Endpoint { method: "GET", target, body: None, allowed, unknown: 401, server: None }
}

/// What a kubelet and Prometheus ask, who have no token.
const fn open(target: &'static str) -> Endpoint {
    Endpoint { method: "GET", target, body: None, allowed: [200; 3], unknown: 200, server: None }
}

/// Of a task of the user 42 that has ended.
const fn task(target: &'static str, body: &'static str, allowed: [u16; 3]) -> Endpoint {
    Endpoint { method: "POST", target, body: Some(body), allowed, unknown: 401, server: None }
}

const fn post(body: &'static str, allowed: [u16; 3]) -> Endpoint {
    Endpoint {
        method: "POST",
        target: "/v1/messages",
        body: Some(body),
        allowed,
        unknown: 401,
        server: None,
    }
}

const fn send(
    method: &'static str,
    target: &'static str,
    body: &'static str,
    allowed: [u16; 3],
) -> Endpoint {
    Endpoint { method, target, body: Some(body), allowed, unknown: 401, server: None }
}

const fn own(method: &'static str, target: &'static str, body: Option<&'static str>) -> Endpoint {
    Endpoint { method, target, body, allowed: [200; 3], unknown: 401, server: Some(403) }
}

/// The user is 42 and may subscribe to `order:*` and publish on `order:*`; the stranger is 43 and may nothing.
const ENDPOINTS: &[Endpoint] = &[
    post(r#"{"topic":"order:7","data":1}"#, [201, 403, 201]),
    post(r#"{"topic":"order","data":1}"#, [403, 403, 201]),
    post(r#"{"topic":"user:42","data":1}"#, [403, 403, 201]),
    post(r#"{"topic":"broadcast","data":1}"#, [403, 403, 201]),
    post(
        r#"{"messages":[{"topic":"order:7","data":1},{"topic":"other","data":1}]}"#,
        [403, 403, 201],
    ),
    get("/v1/messages?topic=order:7", [200, 403, 200]),
    get("/v1/messages?topic=order:*", [200, 403, 200]),
    get("/v1/messages?topic=order*", [403, 403, 200]),
    get("/v1/messages?topic=*", [403, 403, 200]),
    get("/v1/messages?topic=user:42", [200, 403, 200]),
    get("/v1/messages?topic=user:4*", [403, 403, 200]),
    get("/v1/messages?topic=role:ops", [200, 403, 200]),
    get("/v1/messages?topic=role:admin", [403, 403, 200]),
    get("/v1/messages?topic=broadcast", [200, 200, 200]),
    get("/v1/sse?topics=order:7", [200, 403, 200]),
    get("/v1/sse?topics=order:7,secret", [403, 403, 200]),
    get("/v1/sse", [200, 200, 200]),
    get("/v1/ws?topics=order:7", [200, 403, 200]),
    get("/v1/ws?topics=order:7,secret", [403, 403, 200]),
    get("/v1/ws?topics=user:42", [200, 403, 200]),
    get("/v1/ws", [200, 200, 200]),
    get("/v1/stats", [403, 403, 200]),
    get("/v1/replicas", [403, 403, 200]),
    get("/v1/settings", [403, 403, 200]),
    // There is nothing at this path unless a demo started the replica.
    task("/v1/demo/kill?replica=replica-1", "", [404; 3]),
    open("/"),
    open("/console/main.js"),
    task("/v1/tasks", r#"{"action":"a","items":["a"],"executor":{"type":"simulate"}}"#, [202; 3]),
    task("/v1/tasks", OF_42, [202, 403, 202]),
    task("/v1/tasks", AS_SERVER, [403, 403, 202]),
    task("/v1/tasks/claim", r#"{"actions":["none"],"worker":"w"}"#, [204; 3]),
    get("/v1/tasks", [200, 200, 200]),
    get("/v1/tasks?owner=42", [200, 403, 200]),
    get("/v1/tasks?owner=43", [403, 200, 200]),
    get("/v1/tasks/{task}", [200, 403, 200]),
    get("/v1/tasks/{task}/items", [200, 403, 200]),
    task("/v1/tasks/{task}/cancel", "", [409, 403, 409]),
    task("/v1/tasks/{task}/pause", "", [409, 403, 409]),
    task("/v1/tasks/{task}/resume", "", [409, 403, 409]),
    task("/v1/tasks/{task}/retry", "", [409, 403, 409]),
    task("/v1/tasks/{task}/report", r#"{"term":7}"#, [409, 403, 409]),
    task("/v1/tasks/{task}/finish", r#"{"term":7}"#, [409, 403, 409]),
    get("/v1/messages?topic=task:{task}", [200, 403, 200]),
    get("/v1/messages?topic=task:*", [403, 403, 200]),
    get("/v1/sse?topics=task:{task}", [200, 403, 200]),
    get("/v1/ws?topics=task:{task}", [200, 403, 200]),
    get("/v1/ws?topics=task:none", [403, 403, 200]),
    send("POST", "/v1/notices", NOTICE, [403, 403, 202]),
    send("POST", "/v1/sources", r#"{"name":"made","url":"http://nowhere.test/"}"#, [403, 403, 422]),
    get("/v1/sources", [200, 200, 200]),
    get("/v1/sources/edge-1", [403, 403, 404]),
    send("PATCH", "/v1/sources/edge-1", r#"{"enabled":true}"#, [403, 403, 404]),
    send("DELETE", "/v1/sources/edge-1", "", [403, 403, 404]),
    send("POST", "/v1/sources/edge-1/test", "", [403, 403, 404]),
    get("/v1/sources/edge-1/instances", [403, 403, 404]),
    get("/v1/instances/edge-1/i-9", [403, 403, 404]),
    send("POST", "/v1/ingest", r#"{"source":"edge-1","events":[]}"#, [403, 403, 404]),
    get("/v1/dashboard", [403, 403, 200]),
    get("/v1/trends?source=edge-1&metric=a", [403, 403, 200]),
    get("/v1/logs?source=edge-1", [403, 403, 200]),
    get("/v1/notices", [403, 403, 200]),
    get("/v1/notices/{notice}", [403, 403, 200]),
    get("/v1/notices/{notice}/recipients", [403, 403, 200]),
    send("POST", "/v1/notices/{notice}/resend", "", [403, 403, 409]),
    send("DELETE", "/v1/notices/{notice}", "", [403, 403, 200]),
    // Everybody has an own inbox; a server has none.
    own("GET", "/v1/inbox", None),
    own("GET", "/v1/inbox/counts", None),
    own("POST", "/v1/inbox/received", Some(r#"{"ids":["n"]}"#)),
    own("POST", "/v1/inbox/read", Some(r#"{"ids":["n"]}"#)),
    own("POST", "/v1/inbox/confirmed", Some(r#"{"all":true}"#)),
    get("/v1/presence?topic=order:7", [200, 403, 200]),
    get("/v1/presence?topic=broadcast", [403, 403, 200]),
    get("/v1/users/online", [403, 403, 200]),
    open("/openapi.json"),
    open("/livez"),
    open("/readyz"),
    open("/metrics"),
];

const NOTICE: &str = r#"{"target":{"users":["nobody"]},"title":"T"}"#;

const OF_42: &str = r#"{"action":"a","items":["a"],"owner":"42","executor":{"type":"simulate"}}"#;

/// With the reach of the server.
const AS_SERVER: &str = r#"{"action":"a","items":["a"],"retries":0,"executor":{"type":"http","url":"http://127.0.0.1:1/"}}"#;

impl Endpoint {
    fn target(&self, given: &Given) -> String {
        self.target.replace("{task}", &given.task).replace("{notice}", &given.notice)
    }

    fn expected(&self, credential: &Credential) -> u16 {
        match credential.rights {
            Rights::None => self.unknown,
            Rights::User => self.allowed[0],
            Rights::Stranger => self.allowed[1],
            Rights::Everything if credential.token == API_KEY => {
                self.server.unwrap_or(self.allowed[2])
            }
            Rights::Everything => self.allowed[2],
        }
    }
}

async fn ask(
    replica: &Replica,
    endpoint: &Endpoint,
    given: &Given,
    carrier: Carrier,
    token: &str,
) -> Answer {
    let target = endpoint.target(given);
    client::ask(&replica.url, endpoint.method, &target, endpoint.body, carrier, token).await
}

/// A task of the user 42 that has ended.
async fn ended_task(replica: &Replica) -> String {
    let ask = |method, target: String, body| async move {
        client::ask(&replica.url, method, &target, body, Carrier::Header, API_KEY).await
    };
    let submitted = ask("POST", "/v1/tasks".to_owned(), Some(OF_42)).await;
    assert_eq!(submitted.status, 202, "{submitted:?}");
    let task: serde_json::Value = serde_json::from_str(&submitted.text).unwrap();
    let id = task["id"].as_str().unwrap().to_owned();
    until("the task has ended", async || {
        ask("GET", format!("/v1/tasks/{id}"), None).await.text.contains("completed")
    })
    .await;
    id
}

/// What the targets speak of.
struct Given {
    task: String,
    notice: String,
}

/// A notice that was sent and taken back.
async fn recalled_notice(replica: &Replica) -> String {
    let sent =
        client::ask(&replica.url, "POST", "/v1/notices", Some(NOTICE), Carrier::Header, API_KEY)
            .await;
    assert_eq!(sent.status, 202, "{sent:?}");
    let sent: serde_json::Value = serde_json::from_str(&sent.text).unwrap();
    let id = sent["notice"]["id"].as_str().unwrap().to_owned();
    let target = format!("/v1/notices/{id}");
    let recalled =
        client::ask(&replica.url, "DELETE", &target, None, Carrier::Header, API_KEY).await;
    assert_eq!(recalled.status, 200, "{recalled:?}");
    id
}

async fn matrix(issuer: &Issuer) {
    let directory = tempdir();
    let settings = issuer.settings(&directory);
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut replica = Replica::start("replica-1", "", &settings).await;
    let given = Given { task: ended_task(&replica).await, notice: recalled_notice(&replica).await };
    let mut wrong = Vec::new();
    for credential in issuer.credentials() {
        for endpoint in ENDPOINTS {
            let mut carriers = vec![Carrier::Header, Carrier::Parameter];
            if endpoint.target.starts_with("/v1/ws") {
                carriers.push(Carrier::Hello);
            }
            // `Bearer` and nothing after it is malformed.
            carriers.retain(|carrier| !credential.token.is_empty() || *carrier != Carrier::Header);
            for carrier in carriers {
                let came = ask(&replica, endpoint, &given, carrier, &credential.token).await;
                let expected = endpoint.expected(&credential);
                if came.status != expected {
                    let (what, target) = (credential.what, endpoint.target);
                    wrong.push(format!(
                        "{what}, as {carrier:?}, {} {target}: {expected} expected, {came:?} came",
                        endpoint.method
                    ));
                }
                // Whatever is wrong with a token, the answer does not repeat it.
                if credential.token.len() > 8 && came.text.contains(&credential.token) {
                    wrong.push(format!("{}: the answer repeats the token", credential.what));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(replica.leave().await, Some(0));
    std::fs::remove_dir_all(directory).unwrap();
}

fn tempdir() -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("tidings-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_holds_with_a_secret() {
    matrix(&Issuer::hs256()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_holds_with_an_rsa_key() {
    matrix(&Issuer::rs256()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_holds_with_an_elliptic_key() {
    matrix(&Issuer::es256()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_holds_with_an_edwards_key() {
    matrix(&Issuer::eddsa()).await;
}

#[test]
fn no_endpoint_is_missing_here() {
    let path = |target: &str| {
        let path = target.split('?').next().unwrap();
        let path = path.replace("main.js", "{path}");
        let path = path.replace("{task}", "{id}").replace("{notice}", "{id}");
        path.replace("edge-1", "{id}").replace("i-9", "{instance}")
    };
    let asked: BTreeSet<(String, String)> = ENDPOINTS
        .iter()
        .map(|endpoint| (endpoint.method.to_owned(), path(endpoint.target)))
        .collect();
    assert_eq!(asked, protocol::endpoints());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_health_and_metrics_answer() {
    let settings = [("TIDINGS_DEV", "false"), ("TIDINGS_API_KEYS", API_KEY)];
    let replica = Replica::start("replica-1", "", &settings).await;
    for endpoint in ENDPOINTS {
        let none = Given { task: "none".to_owned(), notice: "none".to_owned() };
        let came = ask(&replica, endpoint, &none, Carrier::Nothing, "").await;
        // A WebSocket without a token may still say hello; it has to, before anything else.
        let expected = if endpoint.target.starts_with("/v1/ws") { 0 } else { endpoint.unknown };
        assert_eq!(came.status, expected, "{}: {came:?}", endpoint.target);
    }
    for first in
        [json!({"op": "ping"}), json!({"op": "hello"}), json!({"op": "hello", "token": ""})]
    {
        let mut socket = client::connect(&replica.url, "/v1/ws", &[]).await.unwrap();
        socket.send(&first).await;
        assert_eq!(socket.closed().await.0, 4401, "{first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_is_no_bearer_is_malformed() {
    let settings = [("TIDINGS_DEV", "false"), ("TIDINGS_API_KEYS", API_KEY)];
    let replica = Replica::start("replica-1", "", &settings).await;
    let http = reqwest::Client::new();
    for value in ["Basic YTpi", "Bearer", API_KEY, ""] {
        let request = http.get(format!("{}/v1/stats", replica.url));
        let answer = request.header("authorization", value).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{value}");
        let headers = [("authorization", value)];
        let mut socket = client::connect(&replica.url, "/v1/ws", &headers).await.unwrap();
        assert_eq!(socket.closed().await.0, 4400, "{value}");
    }
    // The header counts, whatever the query says, and the scheme is spelt as one likes.
    for (header, query, expected) in [
        (format!("bearer {API_KEY}"), "wrong", 200),
        (format!("BEARER  {API_KEY}"), "wrong", 200),
        ("Bearer wrong".to_owned(), API_KEY, 401),
    ] {
        let url = format!("{}/v1/stats?access_token={query}", replica.url);
        let answer = http.get(url).header("authorization", &header).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{header}");
    }
    // Who one is may be said in dev mode only.
    let url = format!("{}/v1/stats?access_token={API_KEY}&user=1", replica.url);
    assert_eq!(http.get(url).send().await.unwrap().status(), 400);
    assert!(client::connect(&replica.url, "/v1/ws?user=1", &[]).await.is_err());
}
