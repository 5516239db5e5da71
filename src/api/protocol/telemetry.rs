//! What is said of sources: a source, changes to it, what is pushed to it, and what is shown of it.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fields::{Faults, Fields};
use crate::api::error::{FieldError, Problem};
use crate::domain::SourceId;
use crate::domain::telemetry::rollup::{Course, Growth};
use crate::store::source::{Source, TrendPoint};
use crate::store::task::time_text;
use crate::telemetry::format::Format;

/// How many events one request may push.
const PUSHED_MAX: usize = 1_000;

/// The longest URL.
const URL_BYTES_MAX: usize = 2_000;

const NAME: &str = "1 to 100 of the characters A-Z a-z 0-9 _ . : @ -";

/// What a user says of a source; what is `None` was not said.
#[derive(Default)]
pub struct SourceBody {
    pub url: Option<Option<String>>,
    pub format: Option<Format>,
    pub headers: Option<BTreeMap<String, String>>,
    pub enabled: Option<bool>,
}

pub fn source_id(text: &str) -> Result<SourceId, Problem> {
    SourceId::parse(text).ok_or_else(Problem::no_source)
}

/// A new source.
pub fn source_body(text: &str) -> Result<(SourceId, SourceBody), Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    let name: Option<String> = fields.take_required("name", "a string", &mut faults);
    let id = name.and_then(|name| {
        let id = SourceId::parse(&name);
        if id.is_none() {
            faults.invalid("/name", NAME);
        }
        id
    });
    let body = rules(&mut fields, &mut faults);
    fields.finish(&mut faults);
    faults.finish()?;
    let id = id.ok_or_else(|| Problem::malformed("the source cannot be read"))?;
    Ok((id, body))
}

/// A change to one.
pub fn source_change(text: &str) -> Result<SourceBody, Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    let body = rules(&mut fields, &mut faults);
    fields.finish(&mut faults);
    faults.finish()?;
    Ok(body)
}

fn rules(fields: &mut Fields<'_>, faults: &mut Faults) -> SourceBody {
    let url = fields.has("url").then(|| fields.take::<String>("url", "a string", faults));
    if url.as_ref().and_then(Option::as_ref).is_some_and(|url| url.len() > URL_BYTES_MAX) {
        faults.invalid("/url", format!("at most {URL_BYTES_MAX} bytes"));
    }
    let format: Option<String> = fields.take("format", "generic or nodepass", faults);
    let format = format.and_then(|text| {
        let format = Format::parse(&text);
        if format.is_none() {
            faults.invalid("/format", "generic or nodepass");
        }
        format
    });
    let headers = fields.take("headers", "an object of strings", faults);
    let enabled = fields.take("enabled", "true or false", faults);
    SourceBody { url, format, headers, enabled }
}

/// A source as it is shown: of its headers the names.
pub fn source_answer(source: &Source) -> Value {
    json!({
        "id": source.id.as_str(),
        "name": source.id.as_str(),
        "url": source.rules.url.as_deref(),
        "format": &*source.rules.format,
        "headers": source.rules.headers.iter().map(|name| &**name).collect::<Vec<&str>>(),
        "enabled": source.rules.enabled,
        "status": source.status.as_str(),
        "detail": source.detail.as_deref(),
        "replica": source.replica.as_deref(),
        "revision": source.revision,
        "created_at": time_text(source.created_at),
        "updated_at": time_text(source.updated_at),
        "seen_at": source.seen_at.map(time_text),
    })
}

/// What is pushed: the source, and its events as they came, each of them understood.
pub fn ingest_body(text: &str) -> Result<(String, String, usize), Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    let source: Option<String> = fields.take_required("source", "a string", &mut faults);
    let events: Option<&RawValue> =
        fields.take_required("events", "an array of events", &mut faults);
    fields.finish(&mut faults);
    let parsed: Option<Vec<Value>> = events.and_then(|raw| {
        let parsed = serde_json::from_str(raw.get()).ok();
        if parsed.is_none() {
            faults.malformed("/events", "must be an array of events");
        }
        parsed
    });
    if parsed.as_ref().is_some_and(|events| events.len() > PUSHED_MAX) {
        faults.too_large(format!("a request has at most {PUSHED_MAX} events"));
    } else {
        for (place, event) in parsed.iter().flatten().enumerate() {
            if let Err(reason) = Format::Generic.event(event) {
                faults.malformed(&format!("/events/{place}"), reason);
            }
        }
    }
    faults.finish()?;
    let (Some(source), Some(parsed)) = (source, parsed) else {
        return Err(Problem::malformed("the events cannot be read"));
    };
    Ok((source, Value::Array(parsed.clone()).to_string(), parsed.len()))
}

pub fn invalid(pointer: &str, detail: impl Into<String>) -> Problem {
    Problem::invalid(vec![FieldError::new(pointer, detail)])
}

/// A number as JSON readers take it: what is beyond them as its digits.
fn whole(number: u128) -> Value {
    u64::try_from(number).map_or_else(|_| number.to_string().into(), Value::from)
}

/// One point; an empty bucket has nulls. Which of the two a metric is, its points say.
pub fn point_answer(at: &str, point: TrendPoint, is_gauge: bool) -> Value {
    match (point.growth, point.course) {
        (Some(Growth { sum, min, max, samples }), _) => {
            json!({"at": at, "sum": whole(sum), "min": min, "max": max, "samples": samples})
        }
        (None, Some(Course { sum, min, max, samples })) => {
            json!({"at": at, "avg": sum / samples.max(1) as f64, "min": min, "max": max, "samples": samples})
        }
        (None, None) => {
            let name = if is_gauge { "avg" } else { "sum" };
            json!({"at": at, name: null, "min": null, "max": null, "samples": 0})
        }
    }
}
