//! Where a source is: its URL, its headers, and what of them is secret.
//!
//! A redirect is followed within the hosts that are listed; secrets go to the address they were given for only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::json;
use tokio::time::timeout;

use super::format::Format;
use super::seal::Sealer;
use super::stream::{Decoder, Place, Told};
use crate::domain::SourceId;
use crate::hosts::{Hosts, Resolver};
use crate::store::source::Source;

const REDIRECTS_MAX: usize = 5;

/// How long it may take until a source begins to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a test listens.
const TEST_LISTENS: Duration = Duration::from_secs(3);

pub const EVENT_BYTES_MAX: usize = 256 << 10;

/// What is larger than an event may be is passed over, and beyond this taken for one that never ends.
pub const ENDLESS_BYTES: usize = 4 << 20;

const HEADERS_MAX: usize = 20;
const HEADER_BYTES_MAX: usize = 4 << 10;

/// What stands where a query is not shown.
const HIDDEN: &str = "***";

/// A URL with all its parts, and headers.
#[derive(Clone, PartialEq, Default)]
pub struct Secrets {
    pub url: String,
    pub headers: BTreeMap<String, String>,
}

/// What a test found.
pub struct Tested {
    pub ok: bool,
    pub detail: String,
    pub events: usize,
    pub malformed: usize,
}

/// Why there is nothing to read.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// It has nothing more to say.
    NoContent,
    Failed(String),
}

pub struct Remote {
    client: Result<Client, String>,
    hosts: Hosts,
    sealer: Sealer,
}

impl Remote {
    pub fn new(hosts: Hosts, key: Option<&str>) -> Remote {
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // A proxy of the environment would resolve names by itself.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::new(Resolver(hosts.clone())))
            .build()
            .map_err(|error| format!("no HTTP client could be made: {error}"));
        Remote { client, hosts, sealer: Sealer::new(key) }
    }

    /// What is shown of a URL, and the rest with the headers, sealed.
    pub fn sealed(
        &self,
        id: &SourceId,
        secrets: &Secrets,
    ) -> Result<(String, Option<String>), String> {
        let mut url = Url::parse(&secrets.url).map_err(|error| format!("url: {error}"))?;
        self.hosts.check(&url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "url: a user and a password belong into the header Authorization".to_owned()
            );
        }
        if url.query() == Some(HIDDEN) {
            return Err(format!("url: give the query itself instead of {HIDDEN}"));
        }
        url.set_fragment(None);
        headers(&secrets.headers)?;
        let query = url.query().map(str::to_owned);
        let shown = match &query {
            None => url.to_string(),
            Some(_) => {
                url.set_query(Some(HIDDEN));
                url.to_string()
            }
        };
        if query.is_none() && secrets.headers.is_empty() {
            return Ok((shown, None));
        }
        let text = json!({"query": query, "headers": secrets.headers}).to_string();
        let sealed = self.sealer.seal(id, &text).map_err(|error| error.to_string())?;
        Ok((shown, Some(sealed)))
    }

    pub fn opened(
        &self,
        id: &SourceId,
        url: Option<&str>,
        sealed: Option<&str>,
    ) -> Result<Secrets, String> {
        let mut secrets = Secrets { url: url.unwrap_or_default().to_owned(), ..Secrets::default() };
        let Some(sealed) = sealed else { return Ok(secrets) };
        let text = self.sealer.open(id, sealed).map_err(|error| error.to_string())?;
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if let (Some(query), Ok(mut url)) = (kept["query"].as_str(), Url::parse(&secrets.url)) {
            url.set_query(Some(query));
            secrets.url = url.to_string();
        }
        for (name, value) in kept["headers"].as_object().into_iter().flatten() {
            secrets.headers.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
        }
        Ok(secrets)
    }

    /// Asks for the stream, from the last id on.
    pub async fn open(
        &self,
        secrets: &Secrets,
        last_id: Option<&str>,
    ) -> Result<Response, Refusal> {
        let failed = |reason: String| Refusal::Failed(reason);
        let client = self.client.as_ref().map_err(|error| failed(error.clone()))?;
        let mut url = Url::parse(&secrets.url).map_err(|error| failed(format!("url: {error}")))?;
        let origin = url.origin();
        let own = headers(&secrets.headers).map_err(failed)?;
        for _ in 0..=REDIRECTS_MAX {
            self.hosts.check(&url).map_err(failed)?;
            let mut request = client
                .get(url.clone())
                .header(ACCEPT, "text/event-stream")
                .header(CACHE_CONTROL, "no-cache");
            if url.origin() == origin {
                request = request.headers(own.clone());
            }
            if let Some(id) = last_id.and_then(|id| HeaderValue::from_str(id).ok()) {
                request = request.header("last-event-id", id);
            }
            let answer = match timeout(CONNECT_TIMEOUT, request.send()).await {
                Err(_) => return Err(failed("it does not answer".to_owned())),
                // The URL may hold what nobody is to read.
                Ok(answer) => answer.map_err(|error| failed(reason(&error.without_url())))?,
            };
            let status = answer.status();
            if status == StatusCode::NO_CONTENT {
                return Err(Refusal::NoContent);
            }
            if status.is_redirection() {
                let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                let next = to.and_then(|to| url.join(to).ok());
                url = next.ok_or_else(|| failed("a redirect that leads nowhere".to_owned()))?;
                continue;
            }
            if !status.is_success() {
                return Err(failed(format!("it answers {}", status.as_u16())));
            }
            let kind = answer.headers().get(reqwest::header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            if !kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream") {
                return Err(failed(
                    "it answers with something else than text/event-stream".to_owned(),
                ));
            }
            // None was asked for; read as text it would be noise.
            let encoding = answer.headers().get(reqwest::header::CONTENT_ENCODING);
            if encoding.is_some_and(|encoding| encoding != "identity") {
                return Err(failed("it answers compressed, which it was not asked to".to_owned()));
            }
            return Ok(answer);
        }
        Err(failed(format!("more than {REDIRECTS_MAX} redirects")))
    }

    pub async fn test(&self, source: &Source) -> Tested {
        let (mut events, mut malformed) = (0, 0);
        let format = Format::parse(&source.rules.format).unwrap_or(Format::Generic);
        let outcome = async {
            let opened = self.opened(
                &source.id,
                source.rules.url.as_deref(),
                source.rules.sealed.as_deref(),
            )?;
            let mut answer = self.open(&opened, None).await.map_err(|refusal| match refusal {
                Refusal::NoContent => "it has nothing to say (204)".to_owned(),
                Refusal::Failed(reason) => reason,
            })?;
            let mut decoder = Decoder::new(EVENT_BYTES_MAX, Place::default());
            let listens = async {
                while let Ok(Some(chunk)) = answer.chunk().await {
                    for told in decoder.read(&chunk) {
                        match told {
                            Told::Event(text) if format.decode(&text).is_ok() => events += 1,
                            _ => malformed += 1,
                        }
                    }
                    if events > 0 {
                        return;
                    }
                }
            };
            let _ = timeout(TEST_LISTENS, listens).await;
            Ok::<(), String>(())
        };
        let outcome = outcome.await;
        let ok = outcome.is_ok() && malformed == 0;
        let detail = match outcome {
            Err(reason) => reason,
            Ok(()) if malformed > 0 => "it answers, with events of another format".to_owned(),
            Ok(()) => "it answers".to_owned(),
        };
        Tested { ok, detail, events, malformed }
    }
}

/// The innermost reason, which is what somebody can do something about.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn headers(own: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    if own.len() > HEADERS_MAX {
        return Err(format!("headers: at most {HEADERS_MAX}"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in own {
        let refuse = || format!("headers: {name:?} is no header that may be set");
        let parsed: HeaderName = name.parse().map_err(|_| refuse())?;
        let reserved = [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "accept",
            "last-event-id",
        ];
        if reserved.contains(&parsed.as_str()) || value.len() > HEADER_BYTES_MAX {
            return Err(refuse());
        }
        let mut value: HeaderValue = value.parse().map_err(|_| refuse())?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown_and_comes_back() {
        let hosts = Hosts::parse("telemetry_hosts", &["np.test".to_owned()]).unwrap();
        let remote = Remote::new(hosts.clone(), Some("0123456789abcdef"));
        let id = SourceId::parse("a").unwrap();
        let secrets = Secrets {
            url: "https://np.test/v1/events?token=s3cr3t".to_owned(),
            headers: [("X-API-Key".to_owned(), "k3y".to_owned())].into(),
        };
        let (shown, sealed) = remote.sealed(&id, &secrets).unwrap();
        assert_eq!(shown, "https://np.test/v1/events?***");
        let sealed = sealed.unwrap();
        assert!(!sealed.contains("s3cr3t") && !sealed.contains("k3y"));
        assert!(remote.opened(&id, Some(&shown), Some(&sealed)).unwrap() == secrets);
        let plain = Secrets { url: "https://np.test/v1/events".to_owned(), ..Secrets::default() };
        assert_eq!(remote.sealed(&id, &plain).unwrap(), (plain.url.clone(), None));
        let keyless = Remote::new(hosts, None);
        assert!(keyless.sealed(&id, &plain).is_ok());
        assert!(keyless.sealed(&id, &secrets).unwrap_err().contains("telemetry_key"));
        for bad in
            ["https://u:p@np.test/", "https://other.test/", "np.test", "https://np.test/?***"]
        {
            let bad = Secrets { url: bad.to_owned(), ..Secrets::default() };
            assert!(remote.sealed(&id, &bad).is_err(), "{}", bad.url);
        }
    }
}
