//! The endpoints of the API server that are needed, and what its refusals mean.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::access::{Access, Credential};
use super::drain::Pod;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How many pods are asked for at once, and what an answer may weigh.
const PAGE_PODS: usize = 250;
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// More pods than any node runs.
const PODS_MAX: usize = 10_000;

/// Whose changes these are, for those who look at managed fields.
const FIELD_MANAGER: &str = "tidings";

#[derive(Debug, PartialEq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// Somebody else changed it meanwhile.
    Conflict,
    /// It may pass; the server may have said after how long.
    Passing {
        error: String,
        after: Option<Duration>,
    },
    Refused(String),
}

impl Fault {
    pub fn passing(error: impl Into<String>) -> Fault {
        Fault::Passing { error: error.into(), after: None }
    }
}

pub struct ApiServer {
    client: Client,
    url: Url,
    credential: Credential,
}

impl ApiServer {
    pub fn new(access: &Access) -> Result<ApiServer, String> {
        let url = Url::parse(&access.url).map_err(|error| format!("{}: {error}", access.url))?;
        if !["http", "https"].contains(&url.scheme()) || url.cannot_be_a_base() {
            return Err(format!("{}: the API server is https://host:port", access.url));
        }
        let here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let secret = matches!(access.credential, Credential::Token(_) | Credential::TokenFile(_));
        if url.scheme() == "http" && secret && !here {
            let why = "a token goes over TLS only: https, or an address of this machine";
            return Err(format!("{}: {why}", access.url));
        }
        let mut client = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(pem) = &access.authority {
            let authority = reqwest::Certificate::from_pem_bundle(pem);
            let authority =
                authority.map_err(|error| format!("the certificate authority: {error}"))?;
            client = client.tls_certs_only(authority);
        }
        if let Credential::Identity(pem) = &access.credential {
            let identity = reqwest::Identity::from_pem(pem);
            client = client
                .identity(identity.map_err(|error| format!("the client certificate: {error}"))?);
        }
        let client = client.build().map_err(|error| format!("no client could be made: {error}"))?;
        Ok(ApiServer { client, url, credential: access.credential.clone() })
    }

    pub async fn node(&self, name: &str) -> Result<Value, Fault> {
        self.asked(self.request(Method::GET, &["nodes", name], &[])).await
    }

    /// A JSON merge patch.
    pub async fn patch_node(&self, name: &str, patch: &Value) -> Result<(), Fault> {
        let query = [("fieldManager", FIELD_MANAGER)];
        let request = self.request(Method::PATCH, &["nodes", name], &query);
        let request = request.body(patch.to_string());
        let patch = "application/merge-patch+json";
        self.asked::<serde::de::IgnoredAny>(request.header(CONTENT_TYPE, patch)).await.map(|_| ())
    }

    /// All pods that are bound to a node.
    pub async fn pods(&self, node: &str) -> Result<Vec<Pod>, Fault> {
        #[derive(Deserialize)]
        struct Page {
            items: Option<Vec<Pod>>,
            #[serde(default)]
            metadata: Meta,
        }
        #[derive(Default, Deserialize)]
        struct Meta {
            #[serde(rename = "continue", default)]
            next: String,
        }
        let selector = format!("spec.nodeName={node}");
        let limit = PAGE_PODS.to_string();
        let (mut pods, mut next) = (Vec::new(), String::new());
        loop {
            let mut query = vec![("fieldSelector", selector.as_str()), ("limit", limit.as_str())];
            if !next.is_empty() {
                query.push(("continue", next.as_str()));
            }
            let page: Page = self.asked(self.request(Method::GET, &["pods"], &query)).await?;
            pods.extend(page.items.unwrap_or_default());
            if page.metadata.next.is_empty() {
                return Ok(pods);
            }
            if pods.len() > PODS_MAX {
                return Err(Fault::Refused("the node has pods without end".to_owned()));
            }
            next = page.metadata.next;
        }
    }

    /// Asks for a pod to be evicted, this one and not another of its name.
    pub async fn evict(&self, pod: &Pod, grace_period_s: Option<u32>) -> Result<(), Fault> {
        let (namespace, name) = (&*pod.metadata.namespace, &*pod.metadata.name);
        let mut options = json!({ "preconditions": { "uid": pod.metadata.uid } });
        if let Some(grace) = grace_period_s {
            options["gracePeriodSeconds"] = grace.into();
        }
        let body = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": name, "namespace": namespace },
            "deleteOptions": options,
        });
        let path = ["namespaces", namespace, "pods", name, "eviction"];
        let request = self.request(Method::POST, &path, &[]).body(body.to_string());
        let request = request.header(CONTENT_TYPE, "application/json");
        self.asked::<serde::de::IgnoredAny>(request).await.map(|_| ())
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.url.clone();
        if let Ok(mut pieces) = url.path_segments_mut() {
            // Each piece is encoded.
            pieces.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.client.request(method, url)
    }

    async fn asked<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Fault> {
        let request = match &self.credential {
            Credential::Token(token) => request.bearer_auth(token),
            Credential::TokenFile(path) => {
                let token = tokio::fs::read_to_string(path).await.map_err(|error| {
                    Fault::passing(format!("the token {}: {error}", path.display()))
                })?;
                request.bearer_auth(token.trim())
            }
            Credential::Identity(_) | Credential::None => request,
        };
        let answer = request.send().await.map_err(|error| broken(&error))?;
        let (status, after) = (answer.status(), retry_after(&answer));
        let body = whole(answer).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                Fault::Refused(format!("what answers is no API server of Kubernetes: {error}"))
            });
        }
        Err(fault(status, after, &body))
    }
}

async fn whole(mut answer: Response) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Fault::Refused("the API server gave an answer without end".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn broken(error: &reqwest::Error) -> Fault {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Fault::passing(format!("the API server cannot be reached: {cause}"))
}

fn fault(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Fault {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let said = serde_json::from_slice::<Status>(body).map(|status| status.message);
    let said = said.unwrap_or_else(|_| "it gives no reason".to_owned());
    match status {
        StatusCode::NOT_FOUND => Fault::Missing,
        StatusCode::CONFLICT => Fault::Conflict,
        StatusCode::UNAUTHORIZED => {
            Fault::Refused(format!("the API server does not know us (401): {said}"))
        }
        StatusCode::FORBIDDEN => Fault::Refused(format!(
            "the API server does not allow it (403): {said}; see the rules for Kubernetes in docs/operations.md"
        )),
        // 410: the list took longer than the server remembers where it was; it begins anew.
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::GONE => {
            Fault::Passing { error: format!("{said} ({})", status.as_u16()), after }
        }
        _ if status.is_server_error() => {
            Fault::Passing { error: format!("{said} ({})", status.as_u16()), after }
        }
        _ => Fault::Refused(format!("the API server refuses: {said} ({})", status.as_u16())),
    }
}
