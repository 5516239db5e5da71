//! Compares what came with what the document shows.

use serde_json::Value;
use tidings::domain::Cursor;

use super::document::{Failure, Line};

/// Fails with each place that differs, and with all that came.
pub fn json(line: &Line, expected: &str, came: &str) -> Result<Value, Failure> {
    let pattern: Value = serde_json::from_str(&with_quotes(expected))
        .map_err(|error| Failure::new(line, format!("the document's JSON: {error}")))?;
    let value: Value = serde_json::from_str(came)
        .map_err(|error| Failure::new(line, format!("no JSON: {error}\n  came {came}")))?;
    let mut differences = Vec::new();
    compare(&pattern, Some(&value), "", &mut differences);
    if differences.is_empty() {
        return Ok(value);
    }
    let differences = differences.join("\n  ");
    Err(Failure::new(line, format!("{differences}\n  expected {expected}\n  came     {came}")))
}

pub fn text(line: &Line, expected: &str, came: &str) -> Result<(), Failure> {
    if matches(expected, came) {
        return Ok(());
    }
    Err(Failure::new(line, format!("\n  expected {expected}\n  came     {came}")))
}

/// `<seq>` that stands where JSON has a number becomes a string, so that the rest can be parsed.
fn with_quotes(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    let (mut inside, mut before) = (false, ' ');
    for letter in text.chars() {
        if letter == '"' && before != '\\' {
            inside = !inside;
        }
        match letter {
            '<' if !inside => quoted.push_str("\"<"),
            '>' if !inside => quoted.push_str(">\""),
            other => quoted.push(other),
        }
        before = letter;
    }
    quoted
}

fn compare(pattern: &Value, came: Option<&Value>, at: &str, differences: &mut Vec<String>) {
    let Some(came) = came else {
        differences.push(format!("{at} is missing"));
        return;
    };
    match (pattern, came) {
        // An answer may hold more fields than are shown.
        (Value::Object(pattern), Value::Object(own)) => {
            for (name, pattern) in pattern {
                compare(pattern, own.get(name), &format!("{at}/{name}"), differences);
            }
        }
        (Value::Array(pattern), Value::Array(own)) => {
            if pattern.len() != own.len() {
                let (expected, came) = (pattern.len(), own.len());
                differences.push(format!("{at}: {expected} expected, {came} came"));
            }
            for (place, (pattern, own)) in pattern.iter().zip(own).enumerate() {
                compare(pattern, Some(own), &format!("{at}/{place}"), differences);
            }
        }
        (Value::String(name), came) if is_placeholder(name) => {
            if !stands_for(name, came) {
                differences.push(format!("{at}: {name} expected, {came} came"));
            }
        }
        (Value::String(pattern), Value::String(own)) if matches(pattern, own) => {}
        (pattern, came) if pattern == came => {}
        (pattern, came) => differences.push(format!("{at}: {pattern} expected, {came} came")),
    }
}

fn is_placeholder(text: &str) -> bool {
    text.starts_with('<') && text.ends_with('>')
}

fn stands_for(placeholder: &str, value: &Value) -> bool {
    match placeholder {
        "<any>" => true,
        "<number>" => value.is_number(),
        "<seq>" => value.as_u64().is_some_and(|seq| (1..1 << 53).contains(&seq)),
        "<cursor>" => value.as_str().is_some_and(|text| Cursor::parse(text).is_ok()),
        "<time>" => value.as_str().is_some_and(is_time),
        _ => false,
    }
}

/// RFC 3339 in UTC with milliseconds, and nothing else.
fn is_time(text: &str) -> bool {
    text.len() == "2026-11-20T10:00:00.000Z".len()
        && text.ends_with('Z')
        && text.as_bytes()[19] == b'.'
        && text.parse::<jiff::Timestamp>().is_ok()
}

/// A line of text, or a header, in which placeholders stand for some of it.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('<') else { return pattern == text };
    let Some((name, after)) = rest.split_once('>') else { return pattern == text };
    let Some(text) = text.strip_prefix(before) else { return false };
    let fits = |end: &usize| {
        let (found, left) = text.split_at(*end);
        let value = found.parse::<f64>().map_or_else(|_| Value::from(found), Value::from);
        stands_for(&format!("<{name}>"), &value) && matches(after, left)
    };
    (0..=text.len()).filter(|end| text.is_char_boundary(*end)).any(|end| fits(&end))
}

/// The last cursor that it carries, wherever it stands.
pub fn last_cursor(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => {
            let inner = fields.values().filter_map(last_cursor).next_back();
            fields.get("cursor").and_then(Value::as_str).map(str::to_owned).or(inner)
        }
        Value::Array(values) => values.iter().filter_map(last_cursor).next_back(),
        _ => None,
    }
}

#[test]
fn a_comparison_finds_what_differs_and_says_where() {
    let line = Line { number: 7, text: String::new() };
    let expected = r#"{"a":[{"seq":<seq>,"at":"<time>"}],"b":"<cursor>","c":<any>,"d":"<x"}"#;
    let good =
        r#"{"a":[{"seq":1,"at":"2026-11-20T10:00:00.000Z"}],"b":"e-0","c":{},"d":"<x","e":1}"#;
    assert!(json(&line, expected, good).is_ok());
    for (bad, said) in [
        (good.replace(":1,", ":0,"), "/a/0/seq: <seq> expected, 0 came"),
        (good.replace(".000Z", "Z"), "/a/0/at: <time> expected"),
        (good.replace("e-0", "e"), "/b: <cursor> expected"),
        (good.replace("\"c\"", "\"C\""), "/c is missing"),
        (good.replace("<x", "x"), "/d: \"<x\" expected, \"x\" came"),
        (good.replace("[{", "[1,{"), "/a: 1 expected, 2 came"),
        ("{".to_owned(), "no JSON"),
    ] {
        let failure = json(&line, expected, &bad).expect_err(&bad).to_string();
        assert!(failure.starts_with("docs/protocol.md:7: "), "{failure}");
        assert!(failure.contains(said), "{failure} does not say {said}");
    }
    assert!(matches("a <number> b", "a 12.5 b") && !matches("a <number> b", "a x b"));
    assert_eq!(
        last_cursor(&serde_json::json!({"m": [{"cursor": "a-1"}, {"cursor": null}]})),
        Some("a-1".into())
    );
}
