//! What the server says besides messages.

use serde::Serialize;

use super::fields::Reference;
use crate::api::error::Problem;
use crate::domain::{Cursor, Pattern, Topic};
use crate::feed::ResetReason;
use crate::publish::Published;

/// What became of one message.
#[derive(Serialize)]
pub struct PublishedAnswer {
    topic: String,
    seq: Option<u64>,
    cursor: Option<String>,
    duplicate: bool,
}

/// What became of all messages of a request.
#[derive(Serialize)]
pub struct PublishedAnswers {
    pub messages: Vec<PublishedAnswer>,
}

impl PublishedAnswer {
    pub fn new(topic: &Topic, published: &Published) -> PublishedAnswer {
        PublishedAnswer {
            topic: topic.to_string(),
            seq: published.seq.map(crate::domain::Seq::get),
            cursor: published.cursor.as_ref().map(ToString::to_string),
            duplicate: published.duplicate,
        }
    }
}

pub fn welcome_frame(
    session: &str,
    user: Option<&str>,
    replica: &str,
    topics: &[Pattern],
    cursor: &Cursor,
    heartbeat_s: u64,
    reference: Option<&Reference>,
) -> String {
    #[derive(Serialize)]
    struct Welcome<'a> {
        r#type: &'static str,
        session: &'a str,
        user: Option<&'a str>,
        replica: &'a str,
        topics: Vec<String>,
        cursor: String,
        heartbeat_s: u64,
    }
    let topics = topics.iter().map(ToString::to_string).collect();
    let cursor = cursor.to_string();
    let welcome =
        Welcome { r#type: "welcome", session, user, replica, topics, cursor, heartbeat_s };
    let mut text = json(&welcome);
    if let Some(reference) = reference {
        text.pop();
        text.push_str(&format!(",\"ref\":{}}}", reference.as_json()));
    }
    text
}

pub fn ok_frame(reference: Option<&Reference>, messages: Option<&[PublishedAnswer]>) -> String {
    let messages = messages.map(|messages| format!(",\"messages\":{}", json(&messages)));
    let (reference, messages) = (json_reference(reference), messages.unwrap_or_default());
    format!("{{\"type\":\"ok\",\"ref\":{reference}{messages}}}")
}

pub fn error_frame(reference: Option<&Reference>, problem: &Problem) -> String {
    let (reference, detail) = (json_reference(reference), json(&problem.sentence()));
    let code = problem.name();
    format!("{{\"type\":\"error\",\"ref\":{reference},\"code\":\"{code}\",\"detail\":{detail}}}")
}

pub fn pong_frame(reference: Option<&Reference>) -> String {
    format!("{{\"type\":\"pong\",\"ref\":{}}}", json_reference(reference))
}

pub fn replayed_frame(from: &Cursor, to: &Cursor, count: u64) -> String {
    format!("{{\"type\":\"replayed\",\"from\":\"{from}\",\"to\":\"{to}\",\"count\":{count}}}")
}

pub fn reset_frame(reason: ResetReason, cursor: &Cursor) -> String {
    let reason = reason.as_str();
    format!("{{\"type\":\"reset\",\"reason\":\"{reason}\",\"cursor\":\"{cursor}\"}}")
}

pub fn gap_frame(topic: &Topic, dropped: u64) -> String {
    format!("{{\"type\":\"gap\",\"topic\":\"{topic}\",\"dropped\":{dropped}}}")
}

pub fn cursor_frame(cursor: &Cursor) -> String {
    format!("{{\"type\":\"cursor\",\"cursor\":\"{cursor}\"}}")
}

/// Whether messages still come as they are published, or only once Postgres is back.
pub fn status_frame(degraded: bool) -> String {
    let status = if degraded { "degraded" } else { "ok" };
    format!("{{\"type\":\"status\",\"status\":\"{status}\"}}")
}

pub fn token_expired_frame() -> String {
    "{\"type\":\"token_expired\"}".to_owned()
}

fn json_reference(reference: Option<&Reference>) -> &str {
    reference.map_or("null", Reference::as_json)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists of them always serialise")
}
