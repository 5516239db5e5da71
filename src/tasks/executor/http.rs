//! A request for each item.
//!
//! `{item}` in the URL is replaced by the item's name, encoded so that it stays one piece of a path or
//! a value of a query; in the strings of the body it is replaced as it is, and a string that is `{data}` becomes
//! the item's data. `{secret:name}` in a header
//! is a secret of the settings, and goes to its own host only. Redirects are not followed: they would
//! lead past the list of hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::{Executor, Outcome, Try};
use crate::hosts::{Hosts, Resolver, Secret};

const ITEM: &str = "{item}";
const DATA: &str = "{data}";

/// How much of an answer is read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// And for how long.
const ANSWER_REST: Duration = Duration::from_millis(500);

/// Connections kept for the next item, for each host.
const IDLE_CONNECTIONS_MAX: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpDocument {
    #[serde(default = "post")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
}

fn post() -> String {
    "POST".to_owned()
}

/// One client for all tasks.
pub struct HttpClient {
    client: Result<Client, String>,
    hosts: Hosts,
    secrets: Vec<Secret>,
}

pub struct HttpExecutor {
    client: Client,
    hosts: Hosts,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<Value>,
}

impl HttpClient {
    pub fn new(hosts: Hosts, secrets: Vec<Secret>) -> HttpClient {
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // A proxy of the environment would resolve names by itself.
            .no_proxy()
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .dns_resolver(std::sync::Arc::new(Resolver(hosts.clone())))
            .build()
            .map_err(|error| format!("no HTTP client could be made: {error}"));
        HttpClient { client, hosts, secrets }
    }

    pub fn executor(&self, document: HttpDocument) -> Result<HttpExecutor, String> {
        let method = ["GET", "PUT", "POST", "PATCH", "DELETE"]
            .into_iter()
            .find(|known| *known == document.method)
            .and_then(|known| Method::from_bytes(known.as_bytes()).ok())
            .ok_or("method: GET, PUT, POST, PATCH or DELETE")?;
        let with = |item: &str| {
            Url::parse(&document.url.replace(ITEM, item)).map_err(|error| format!("url: {error}"))
        };
        let (url, other) = (with("a")?, with("b")?);
        if url.origin() != other.origin() || !url.username().is_empty() || url.password().is_some()
        {
            return Err("url: neither a user nor an item names the host".to_owned());
        }
        self.hosts.check(&url)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &document.headers {
            let refuse = || format!("headers: {name:?} is no header that may be set");
            let name: HeaderName = name.parse().map_err(|_| refuse())?;
            if ["host", "content-length", "transfer-encoding", "connection"]
                .contains(&name.as_str())
            {
                return Err(refuse());
            }
            let mut value: HeaderValue = self.filled(value, &url)?.parse().map_err(|_| refuse())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = self.client.clone()?;
        let HttpDocument { url, body, .. } = document;
        Ok(HttpExecutor { client, hosts: self.hosts.clone(), method, url, headers, body })
    }

    /// A header with its secrets, if they are for this host.
    fn filled(&self, text: &str, url: &Url) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{secret:") {
            let (name, after) = after.split_once('}').ok_or("headers: a secret is not closed")?;
            let own = |secret: &&Secret| secret.name == name && secret.is_for(url);
            let secret = self.secrets.iter().find(own);
            let secret = secret.ok_or_else(|| {
                let to = url.origin().ascii_serialization();
                format!("headers: task_http_secrets has no secret {name:?} for {to}")
            })?;
            filled.push_str(before);
            filled.push_str(&secret.value);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

impl HttpExecutor {
    fn url(&self, item: &str) -> Result<Url, String> {
        if self.url.contains(ITEM) && [".", ".."].contains(&item) {
            return Err("an item that is a step in a path cannot be put into one".to_owned());
        }
        let url = Url::parse(&self.url.replace(ITEM, &encoded(item)))
            .map_err(|error| error.to_string())?;
        // The template was checked; this is what is asked.
        self.hosts.check(&url)?;
        Ok(url)
    }
}

#[async_trait]
impl Executor for HttpExecutor {
    async fn run(&self, one: Try<'_>) -> Outcome {
        let url = match self.url(one.name) {
            Ok(url) => url,
            Err(error) => return Outcome::Failed(error),
        };
        let mut request = self.client.request(self.method.clone(), url);
        if let Some(body) = &self.body {
            request = request.json(&replaced(body, one));
        }
        // After the body, whose type they may change.
        match request.headers(self.headers.clone()).send().await {
            Ok(response) => judged(response).await,
            Err(error) => Outcome::TryAgain { error: told(&error.without_url()), after: None },
        }
    }
}

/// An error with all that is behind it: the last of them says what to change.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

async fn judged(mut response: Response) -> Outcome {
    let status = response.status();
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = asked.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    // Whatever comes after the head changes nothing: an answer without an end is one too.
    let rest = async {
        let mut read = 0;
        while read < ANSWER_BYTES_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            read += chunk.len();
        }
    };
    let _ = timeout(ANSWER_REST, rest).await;
    if status.is_success() {
        return Outcome::Succeeded;
    }
    let error = format!("answered {status}");
    let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if passes || status.is_server_error() {
        Outcome::TryAgain { error, after }
    } else {
        Outcome::Failed(error)
    }
}

/// Everything but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

fn replaced(body: &Value, one: Try<'_>) -> Value {
    match body {
        Value::String(text) if text == DATA => {
            one.data.and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default()
        }
        Value::String(text) => text.replace(ITEM, one.name).into(),
        Value::Array(list) => list.iter().map(|value| replaced(value, one)).collect(),
        Value::Object(map) => {
            let filled = |(key, value): (&String, &Value)| (key.clone(), replaced(value, one));
            Value::Object(map.iter().map(filled).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> HttpClient {
        let hosts =
            Hosts::parse("task_http_hosts", &["nodes.test".to_owned(), "other.test".to_owned()])
                .unwrap();
        HttpClient::new(hosts, vec![Secret::parse("token@nodes.test=s3cr3t").unwrap()])
    }

    fn document(text: &str) -> HttpDocument {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_item_stays_one_piece_of_the_url() {
        let text = r#"{"url":"https://nodes.test/nodes/{item}/cordon?name={item}"}"#;
        let executor = client().executor(document(text)).unwrap();
        for (item, path) in [
            ("node-1", "/nodes/node-1/cordon?name=node-1"),
            ("a/b?c#d", "/nodes/a%2Fb%3Fc%23d/cordon?name=a%2Fb%3Fc%23d"),
            ("é %", "/nodes/%C3%A9%20%25/cordon?name=%C3%A9%20%25"),
            ("@evil.test/", "/nodes/%40evil.test%2F/cordon?name=%40evil.test%2F"),
        ] {
            let url = executor.url(item).unwrap();
            assert_eq!(url.as_str(), format!("https://nodes.test{path}"));
        }
        assert!(executor.url("..").is_err() && executor.url(".").is_err());
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for bad in [
            r#"{"url":"https://{item}/"}"#,
            r#"{"url":"https://{item}.nodes.test/"}"#,
            r#"{"url":"https:\\\\{item}/"}"#,
            r#"{"url":"https://nodes.test:44{item}/"}"#,
            r#"{"url":"https://user@nodes.test/"}"#,
            r#"{"url":"https://evil.test/nodes.test"}"#,
            r#"{"url":"nodes.test"}"#,
            r#"{"url":"https://nodes.test/","method":"CONNECT"}"#,
            r#"{"url":"https://nodes.test/","headers":{"Host":"evil.test"}}"#,
            r#"{"url":"https://nodes.test/","headers":{"a b":"c"}}"#,
            r#"{"url":"https://nodes.test/","headers":{"a":"{secret:none}"}}"#,
            r#"{"url":"https://other.test/","headers":{"a":"{secret:token}"}}"#,
            r#"{"url":"http://nodes.test/","headers":{"a":"{secret:token}"}}"#,
            r#"{"url":"https://nodes.test/","headers":{"a":"{secret:token"}}"#,
        ] {
            assert!(client().executor(document(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_goes_into_its_header_and_an_item_into_the_body() {
        let text =
            r#"{"url":"https://nodes.test/","headers":{"authorization":"Bearer {secret:token}"}}"#;
        let executor = client().executor(document(text)).unwrap();
        assert_eq!(executor.headers["authorization"], "Bearer s3cr3t");
        assert!(!format!("{:?}", executor.headers).contains("s3cr3t"));
        let body =
            serde_json::json!({"names": ["{item}", 7], "why": "as {item} said", "d": "{data}"});
        let one =
            Try { name: "a\"b", data: Some("[1]"), attempt: 1, tried: 0, timeout: Duration::MAX };
        let wanted = serde_json::json!({"names": ["a\"b", 7], "why": "as a\"b said", "d": [1]});
        assert_eq!(replaced(&body, one), wanted);
        assert_eq!(replaced(&body, Try { data: None, ..one })["d"], Value::Null);
    }
}
