//! What sources say, decoded: `generic` is our own form, `nodepass` that of a NodePass master.
//!
//! Nothing that comes from outside is trusted: unknown fields and nulls are passed over, what is too
//! large or of another type is refused with a word that says what.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::domain::telemetry::{GAUGE_MAX, INSTANCE_BYTES_MAX, METRIC_BYTES_MAX, METRICS_MAX};
use crate::domain::{Event, EventKind, Timestamp};
use crate::store::source::{facts_value, gauges_value};
use crate::store::task::time_text;

/// The longest line of a log; what is longer is cut.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// What the facts of one instance may weigh.
const FACTS_BYTES_MAX: usize = 8 << 10;

/// The instance by which a NodePass master keeps its own key; nobody is to see it.
const KEY_HOLDER: &str = "********";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Generic,
    NodePass,
}

impl Format {
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Generic => "generic",
            Format::NodePass => "nodepass",
        }
    }

    pub fn parse(text: &str) -> Option<Format> {
        [Format::Generic, Format::NodePass].into_iter().find(|format| format.as_str() == text)
    }

    /// An event, or what is wrong with the text.
    pub fn decode(self, text: &str) -> Result<Event, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            format!("not JSON: line {} column {}", error.line(), error.column())
        })?;
        self.event(&value)
    }

    pub fn event(self, value: &Value) -> Result<Event, String> {
        let fields = value.as_object().ok_or("not an object")?;
        match self {
            Format::Generic => generic(fields),
            Format::NodePass => nodepass(fields),
        }
    }
}

fn kind(fields: &Map<String, Value>) -> Result<EventKind, String> {
    let text = fields.get("type").and_then(Value::as_str);
    let kind = text.and_then(EventKind::parse);
    kind.ok_or_else(|| "type: initial, create, update, delete, shutdown or log".to_owned())
}

fn time(value: Option<&Value>) -> Option<Timestamp> {
    let at: jiff::Timestamp = value?.as_str()?.parse().ok()?;
    Some(Timestamp(at.as_millisecond()))
}

fn line(text: &str) -> Arc<str> {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Neither a file nor a database takes one within text.
    text[..end].replace('\0', "\u{fffd}").into()
}

/// A fact as text, as it will be read again.
fn fact(value: &Value) -> String {
    let text = value.to_string();
    if text.contains("\\u0000") { without_nul(value).to_string() } else { text }
}

fn without_nul(value: &Value) -> Value {
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    match value {
        Value::String(text) => clean(text).into(),
        Value::Array(all) => all.iter().map(without_nul).collect(),
        Value::Object(all) => {
            all.iter().map(|(name, value)| (clean(name), without_nul(value))).collect()
        }
        _ => value.clone(),
    }
}

fn instance(value: Option<&Value>) -> Result<Option<Arc<str>>, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let good = |text: &&str| {
        (1..=INSTANCE_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
    };
    let text = value.as_str().filter(good);
    let refuse = || format!("instance: 1 to {INSTANCE_BYTES_MAX} bytes without control characters");
    text.map(|text| Some(text.into())).ok_or_else(refuse)
}

fn metrics<T>(
    fields: &Map<String, Value>,
    name: &str,
    what: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<Arc<str>, T>, String> {
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else {
        return Ok(BTreeMap::new());
    };
    let entries = value.as_object().ok_or_else(|| format!("{name}: an object"))?;
    if entries.len() > METRICS_MAX {
        return Err(format!("{name}: at most {METRICS_MAX}"));
    }
    let mut read_ones = BTreeMap::new();
    for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-/".contains(&byte);
        if !(1..=METRIC_BYTES_MAX).contains(&key.len()) || !key.bytes().all(word) {
            return Err(format!(
                "{name}: a name is 1 to {METRIC_BYTES_MAX} of A-Z a-z 0-9 _ . : / -"
            ));
        }
        let value = read(value).ok_or_else(|| format!("{name}/{key}: {what}"))?;
        read_ones.insert(key.as_str().into(), value);
    }
    Ok(read_ones)
}

fn gauge(value: &Value) -> Option<f64> {
    value.as_f64().filter(|value| value.abs() <= GAUGE_MAX)
}

fn generic(fields: &Map<String, Value>) -> Result<Event, String> {
    let facts = metrics(fields, "static", "a value", |value| Some(Arc::<str>::from(fact(value))))?;
    if facts.iter().map(|(name, fact)| name.len() + fact.len()).sum::<usize>() > FACTS_BYTES_MAX {
        return Err(format!("static: at most {FACTS_BYTES_MAX} bytes"));
    }
    let event = Event {
        at: time(fields.get("at")),
        facts,
        gauges: metrics(fields, "gauges", "a number, 1e290 at most", gauge)?,
        counters: metrics(fields, "counters", "a whole number from 0 to 2^64-1", Value::as_u64)?,
        text: fields.get("text").and_then(Value::as_str).map(line),
        ..Event::new(kind(fields)?, instance(fields.get("instance"))?)
    };
    let twice = event.gauges.keys().find(|name| event.counters.contains_key(*name));
    match twice {
        Some(name) => Err(format!("{name} is a gauge and a counter")),
        None => Ok(event),
    }
}

/// The name of each field of a NodePass instance, and ours.
const COUNTERS: [(&str, &str); 4] =
    [("tcprx", "tcp_rx"), ("tcptx", "tcp_tx"), ("udprx", "udp_rx"), ("udptx", "udp_tx")];
const GAUGES: [(&str, &str); 4] =
    [("pool", "pool"), ("ping", "ping_ms"), ("tcps", "tcps"), ("udps", "udps")];
const FACTS: [&str; 7] = ["alias", "type", "status", "url", "config", "restart", "mode"];

fn nodepass(fields: &Map<String, Value>) -> Result<Event, String> {
    let kind = kind(fields)?;
    let at = time(fields.get("time"));
    let Some(told) = fields.get("instance").and_then(Value::as_object) else {
        // A master that shuts down, or one without instances.
        let event = Event { at, ..Event::new(kind, None) };
        let whole = matches!(kind, EventKind::Shutdown | EventKind::Initial);
        return if whole { Ok(event) } else { Err("instance: an object".to_owned()) };
    };
    let name = instance(told.get("id"))?;
    if name.as_deref() == Some(KEY_HOLDER) {
        // Its url is the key. That it is listed says that the list begins, and no more.
        let kind = if kind == EventKind::Initial { kind } else { EventKind::Log };
        return Ok(Event { at, ..Event::new(kind, None) });
    }
    if name.is_none() && kind != EventKind::Shutdown {
        return Err("instance/id: is missing".to_owned());
    }
    // An instance that starts prints its URL.
    let text = fields.get("logs").and_then(Value::as_str);
    let text = text.map(|text| line(&without_passwords(text)));
    let mut event = Event { at, text, ..Event::new(kind, name) };
    for field in FACTS {
        // A url names its password where others name a user: `server://password@host`.
        let value = told.get(field).filter(|value| !value.is_null());
        let Some(value) = value else { continue };
        let text = match told.get(field).and_then(Value::as_str) {
            Some(text) if matches!(field, "url" | "config") => {
                fact(&without_passwords(text).into())
            }
            _ => fact(value),
        };
        if text.len() <= FACTS_BYTES_MAX / FACTS.len() {
            event.facts.insert(field.into(), text.into());
        }
    }
    for (theirs, ours) in COUNTERS {
        if let Some(value) = told.get(theirs).and_then(Value::as_u64) {
            event.counters.insert(ours.into(), value);
        }
    }
    for (theirs, ours) in GAUGES {
        if let Some(value) = told.get(theirs).and_then(gauge) {
            event.gauges.insert(ours.into(), value);
        }
    }
    Ok(event)
}

/// A text in whose URLs no passwords are shown.
fn without_passwords(text: &str) -> String {
    let ends = |letter: char| letter.is_whitespace() || "/?#\"'<>".contains(letter);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, place) = rest.split_at(at + 3);
        shown.push_str(scheme);
        let end = place.find(ends).unwrap_or(place.len());
        rest = match place[..end].rfind('@') {
            Some(at) => {
                shown.push_str("***");
                &place[at..]
            }
            None => place,
        };
    }
    shown.push_str(rest);
    shown
}

/// An event in our own form, as it is kept.
pub fn document(event: &Event, at: Timestamp) -> String {
    let mut document = Map::new();
    document.insert("type".to_owned(), event.kind.as_str().into());
    if let Some(instance) = &event.instance {
        document.insert("instance".to_owned(), (&**instance).into());
    }
    document.insert("at".to_owned(), time_text(at).into());
    if !event.facts.is_empty() {
        document.insert("static".to_owned(), facts_value(&event.facts));
    }
    if !event.gauges.is_empty() {
        document.insert("gauges".to_owned(), gauges_value(&event.gauges));
    }
    if !event.counters.is_empty() {
        let counters = event.counters.iter().map(|(name, value)| (name.to_string(), json!(value)));
        document.insert("counters".to_owned(), Value::Object(counters.collect()));
    }
    if let Some(text) = &event.text {
        document.insert("text".to_owned(), (&**text).into());
    }
    Value::Object(document).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_generic_event_is_read_and_written() {
        let text = r#"{"type":"update","instance":"i-1","at":"2026-11-21T10:00:00.000Z",
            "static":{"region":"eu","tags":[1,{"a":null}]},"gauges":{"ping_ms":12.5,"none":null},
            "counters":{"tcp_rx":18446744073709551615},"text":null,"whatever":[1]}"#;
        let event = Format::Generic.decode(text).unwrap();
        assert_eq!(event.counters["tcp_rx"], u64::MAX);
        assert_eq!(event.gauges.len(), 1);
        assert_eq!(&*event.facts["tags"], r#"[1,{"a":null}]"#);
        let at = event.at.unwrap();
        assert_eq!(Format::Generic.decode(&document(&event, at)).unwrap(), event);
    }

    #[test]
    fn what_is_no_generic_event_says_why() {
        for (text, why) in [
            ("7", "not an object"),
            ("{", "not JSON"),
            (r#"{"type":"news"}"#, "type:"),
            (r#"{"type":"update","instance":7}"#, "instance:"),
            (r#"{"type":"update","instance":""}"#, "instance:"),
            (r#"{"type":"update","instance":"a\u0000"}"#, "instance:"),
            (r#"{"type":"update","counters":{"a":-1}}"#, "counters/a:"),
            (r#"{"type":"update","counters":{"a":1.5}}"#, "counters/a:"),
            (r#"{"type":"update","counters":{"a":18446744073709551616}}"#, "counters/a:"),
            (r#"{"type":"update","gauges":{"a b":1}}"#, "gauges:"),
            (r#"{"type":"update","gauges":[]}"#, "gauges:"),
            (r#"{"type":"update","gauges":{"a":1},"counters":{"a":1}}"#, "a is a gauge"),
        ] {
            let error = Format::Generic.decode(text).unwrap_err();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_instance_of_nodepass_is_read_in_our_words() {
        let text = r#"{"type":"update","time":"2026-11-21T18:00:00.123+08:00","instance":{
            "id":"860e24a3","alias":"edge","type":"client","status":"running",
            "url":"client://secret@:3004/:3008?log=debug","restart":true,"meta":{"peer":{}},"mode":1,
            "ping":12,"pool":null,"tcps":3,"udps":0,"tcprx":100,"tcptx":200,"udprx":0,"udptx":null}}"#;
        let event = Format::NodePass.decode(text).unwrap();
        assert_eq!(event.instance.as_deref(), Some("860e24a3"));
        assert_eq!(event.at, Some(Timestamp(1_795_255_200_123)));
        assert_eq!(
            event.counters,
            [("tcp_rx".into(), 100), ("tcp_tx".into(), 200), ("udp_rx".into(), 0)].into()
        );
        assert_eq!(
            event.gauges,
            [("ping_ms".into(), 12.0), ("tcps".into(), 3.0), ("udps".into(), 0.0)].into()
        );
        assert_eq!(&*event.facts["url"], r#""client://***@:3004/:3008?log=debug""#);
        assert_eq!(&*event.facts["restart"], "true");
    }

    #[test]
    fn the_holder_of_the_key_is_seen_by_nobody() {
        for (kind, read) in [("initial", EventKind::Initial), ("update", EventKind::Log)] {
            let text = format!(r#"{{"type":"{kind}","instance":{{"id":"********","url":"k3y"}}}}"#);
            let event = Format::NodePass.decode(&text).unwrap();
            assert_eq!(event, Event::new(read, None));
        }
    }

    #[test]
    fn a_master_that_shuts_down_names_no_instance() {
        for text in [r#"{"type":"shutdown","time":"x","instance":null}"#, r#"{"type":"shutdown"}"#]
        {
            let event = Format::NodePass.decode(text).unwrap();
            assert_eq!(event, Event::new(EventKind::Shutdown, None));
        }
        assert!(Format::NodePass.decode(r#"{"type":"update"}"#).is_err());
        assert!(Format::NodePass.decode(r#"{"type":"update","instance":{}}"#).is_err());
    }

    #[test]
    fn a_log_keeps_its_line_and_no_more() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        let text = json!({"type": "log", "instance": {"id": "a"}, "logs": long}).to_string();
        let event = Format::NodePass.decode(&text).unwrap();
        assert_eq!(event.text.unwrap().len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn urls_are_kept_without_their_passwords_wherever_they_stand() {
        for (text, shown) in [
            ("server://k3y@:1/:2?a=b@c", "server://***@:1/:2?a=b@c"),
            (
                "up: server://k3y@h/x and \"client://a:k3y@h\"",
                "up: server://***@h/x and \"client://***@h\"",
            ),
            ("server://k3y@more@h", "server://***@h"),
            ("http://h/@x a@b ://", "http://h/@x a@b ://"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_from_outside_panics(text in "\\PC{0,200}", structured in any::<bool>()) {
            let text = if structured { format!("{{\"type\":\"update\",\"instance\":{text}}}") } else { text };
            let _ = Format::Generic.decode(&text);
            let _ = Format::NodePass.decode(&text);
        }
    }
}
