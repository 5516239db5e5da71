//! `GET /openapi.json`: the interface, for machines.
//!
//! Each part of it stands in a file of its own beside this one, which has `paths` and `schemas`; they
//! are put together once. The tests compare the paths with the router, and every request and answer
//! of docs/protocol.md with the schemas.

use std::sync::OnceLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// What everything else refers to, then one file for each subject.
const PARTS: &[(&str, &str)] = &[
    ("base", include_str!("openapi/base.yaml")),
    ("messages", include_str!("openapi/messages.yaml")),
    ("frames", include_str!("openapi/frames.yaml")),
    ("tasks", include_str!("openapi/tasks.yaml")),
    ("notices", include_str!("openapi/notices.yaml")),
    ("telemetry", include_str!("openapi/telemetry.yaml")),
    ("operations", include_str!("openapi/operations.yaml")),
];

pub async fn document() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    // Whatever is wrong with the files is found by the test below, not by whoever asks.
    let text = TEXT.get_or_init(|| assemble().map(|value| value.to_string()).unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

fn assemble() -> Result<Value, String> {
    let mut whole = Map::new();
    for (name, text) in PARTS {
        let part: Map<String, Value> =
            serde_yaml_ng::from_str(text).map_err(|error| format!("{name}: {error}"))?;
        merge(&mut whole, part).map_err(|twice| format!("{name}: {twice} is there already"))?;
    }
    whole.insert("openapi".to_owned(), json!("3.1.0"));
    if let Some(info) = whole.get_mut("info").and_then(Value::as_object_mut) {
        info.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    }
    Ok(Value::Object(whole))
}

/// Objects grow into one another; of anything else there is one.
fn merge(whole: &mut Map<String, Value>, part: Map<String, Value>) -> Result<(), String> {
    for (key, value) in part {
        match (whole.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(value)) => merge(known, value)?,
            (Some(_), _) => return Err(key),
            (None, value) => drop(whole.insert(key, value)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a value, wherever it stands.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_parts_fit_together_and_what_they_refer_to_is_there() {
        let whole = assemble().unwrap();
        let mut found = Vec::new();
        references(&whole, &mut found);
        assert!(found.len() > 100);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("nothing is fetched");
            assert!(whole.pointer(pointer).is_some(), "there is no {reference}");
        }
        let schemas = whole.pointer("/components/schemas").and_then(Value::as_object).unwrap();
        let text = whole.to_string();
        for name in schemas.keys() {
            assert!(text.contains(&format!("schemas/{name}\"")), "nobody refers to {name}");
        }
    }

    #[test]
    fn nothing_is_said_twice() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let mut whole = object(json!({"paths": {"/a": 1}}));
        merge(&mut whole, object(json!({"paths": {"/b": 2}}))).unwrap();
        assert_eq!(Value::Object(whole.clone()), json!({"paths": {"/a": 1, "/b": 2}}));
        assert_eq!(merge(&mut whole, object(json!({"paths": {"/a": 3}}))), Err("/a".to_owned()));
    }
}
