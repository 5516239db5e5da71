//! Plays the examples, in the order of the document, against replicas of the real binary.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tidings::auth::{TokenRequest, sign};

use super::document::{Example, Failure, Kind, Line};
use super::interface::{Asked, Interface};
use super::{expect, sse, ws};
use crate::fleet::Replica;

const ADMIN: &str = "an-api-key-of-a-server";
const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";

/// What takes longer does not come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A replica and what the examples have learnt from it.
pub struct Stage {
    pub replica: Replica,
    /// What it says of itself.
    pub interface: Interface,
    /// The last cursor that an answer carried.
    pub cursor: String,
    /// The last task that an answer showed, and the last term that was given for one.
    task: String,
    /// The last notice that an answer showed to its sender.
    notice: String,
    term: String,
    /// Whether it was told to leave: a second time would mean at once.
    pub leaving: bool,
}

pub struct Player {
    database_url: String,
    /// By settings.
    stages: BTreeMap<Vec<(String, String)>, Stage>,
    client: reqwest::Client,
}

impl Player {
    pub fn new(database_url: &str) -> Player {
        let client = reqwest::Client::new();
        Player { database_url: database_url.to_owned(), stages: BTreeMap::new(), client }
    }

    pub async fn play(&mut self, example: &Example) -> Result<(), Failure> {
        let key = example.settings.clone();
        if !self.stages.contains_key(&key) {
            let stage = Stage::start(&self.database_url, &key).await;
            self.stages.insert(key.clone(), stage);
        }
        let stage = self.stages.get_mut(&key).unwrap();
        match example.kind {
            Kind::Http => http(stage, &self.client, &example.lines).await,
            Kind::WebSocket => ws::play(stage, &example.lines).await,
            Kind::Sse => sse::play(stage, &self.client, &example.lines).await,
        }
    }

    /// Whatever was played, each replica leaves as it should.
    pub async fn finish(mut self) {
        for (settings, mut stage) in std::mem::take(&mut self.stages) {
            let code = match stage.leaving {
                true => stage.replica.ended().await,
                false => stage.replica.leave().await,
            };
            assert_eq!(code, Some(0), "{settings:?}");
        }
    }
}

impl Stage {
    async fn start(database_url: &str, settings: &[(String, String)]) -> Stage {
        let mut all = vec![
            ("TIDINGS_DEV", "false"),
            ("TIDINGS_API_KEYS", ADMIN),
            ("TIDINGS_JWT_SECRET", SECRET),
            ("TIDINGS_DRAIN_S", "1"),
        ];
        all.extend(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let replica = Replica::start("replica-1", database_url, &all).await;
        let interface = Interface::of(&replica.url).await;
        let (cursor, task, notice, term) = <(String, String, String, String)>::default();
        Stage { replica, interface, cursor, task, notice, term, leaving: false }
    }

    /// Puts in what the braces stand for.
    pub fn filled(&self, text: &str) -> String {
        let now_s = jiff::Timestamp::now().as_second();
        let token = |user: &str, lives_s: i64| {
            let topics = || vec!["order:*".to_owned(), "parcel:*".to_owned()];
            let request = TokenRequest {
                user: user.to_owned(),
                roles: vec!["ops".to_owned()],
                subscribe: topics(),
                publish: topics(),
                expires_at_s: now_s + lives_s,
                issuer: None,
                audience: None,
            };
            sign(&request, SECRET).unwrap()
        };
        text.replace("{admin}", ADMIN)
            .replace("{user}", &token("42", 3600))
            .replace("{other}", &token("43", 3600))
            .replace("{expiring}", &token("42", 3))
            .replace("{expired}", &token("42", -3600))
            .replace("{cursor}", &self.cursor)
            .replace("{task}", &self.task)
            .replace("{notice}", &self.notice)
            .replace("{term}", &self.term)
            .replace("{1 MiB}", &format!("\"{}\"", "x".repeat(1 << 20)))
    }

    pub fn learn(&mut self, value: &Value) {
        if let Some(cursor) = expect::last_cursor(value) {
            self.cursor = cursor;
        }
        if let (Some(id), Some(_)) = (value["id"].as_str(), value.get("attempt")) {
            self.task = id.to_owned();
        }
        if let Some(id) = value["notice"]["id"].as_str() {
            self.notice = id.to_owned();
        }
        if let Some(term) = value["term"].as_u64() {
            self.term = term.to_string();
        }
    }
}

/// A request and the lines of its answer.
pub struct Exchange<'a> {
    pub request: reqwest::RequestBuilder,
    /// As they stand in the request.
    pub method: &'a str,
    pub target: &'a str,
    pub body: String,
    pub answer: &'a [Line],
}

pub fn exchange<'a>(
    stage: &Stage,
    client: &reqwest::Client,
    lines: &'a [Line],
) -> Result<Exchange<'a>, Failure> {
    let middle = lines.iter().position(|line| line.text == "---");
    let middle = middle.ok_or_else(|| Failure::new(&lines[0], "no --- before the answer"))?;
    let (asked, answer) = (&lines[..middle], &lines[middle + 1..]);
    let (method, path) = asked[0]
        .text
        .split_once(' ')
        .ok_or_else(|| Failure::new(&asked[0], "not `METHOD path`"))?;
    let url = format!("{}{}", stage.replica.url, stage.filled(path));
    let mut request = client.request(method.parse().unwrap(), url);
    let end = asked.iter().position(|line| line.text.is_empty()).unwrap_or(asked.len());
    for line in &asked[1..end] {
        let (name, value) =
            line.text.split_once(": ").ok_or_else(|| Failure::new(line, "not `Name: value`"))?;
        request = request.header(name, stage.filled(value));
    }
    let mut filled = String::new();
    if let Some(body) = asked.get(end + 1..) {
        let body: Vec<&str> = body.iter().map(|line| line.text.as_str()).collect();
        filled = stage.filled(&body.join("\n"));
        request = request.body(filled.clone());
    }
    Ok(Exchange { request, method, target: path, body: filled, answer })
}

async fn http(stage: &mut Stage, client: &reqwest::Client, lines: &[Line]) -> Result<(), Failure> {
    let Exchange { request, method, target, body: asked, answer } = exchange(stage, client, lines)?;
    let sent = request.timeout(PATIENCE).send().await;
    let response = sent.map_err(|error| Failure::new(&lines[0], format!("no answer: {error}")))?;
    let (first, rest) =
        answer.split_first().ok_or_else(|| Failure::new(&lines[0], "no status after ---"))?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.text().await;
    let body = body.map_err(|error| Failure::new(first, format!("no body: {error}")))?;
    let content = headers.get("content-type").map_or("", |value| value.to_str().unwrap());
    let told = Asked { method, target, body: &asked, status, content, answer: &body };
    stage
        .interface
        .check(&told)
        .map_err(|wrong| Failure::new(&lines[0], format!("not as /openapi.json says: {wrong}")))?;
    let status = status.to_string();
    if status != first.text {
        let expected = &first.text;
        return Err(Failure::new(first, format!("{expected} expected, {status} came: {body}")));
    }
    let is_header = |line: &&Line| {
        line.text
            .split_once(": ")
            .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-'))
    };
    let count = rest.iter().take_while(is_header).count();
    let (shown, bodies) = rest.split_at(count);
    for line in shown {
        let (name, value) = line.text.split_once(": ").unwrap();
        let came = headers.get(name).map_or("nothing", |value| value.to_str().unwrap());
        expect::text(line, value, came)?;
    }
    for line in bodies {
        if line.text.starts_with('{') {
            let value = expect::json(line, &line.text, &body)?;
            stage.learn(&value);
        } else if !body.lines().any(|own| expect::text(line, &line.text, own).is_ok()) {
            return Err(Failure::new(line, format!("no line {} in\n{body}", line.text)));
        }
    }
    Ok(())
}
