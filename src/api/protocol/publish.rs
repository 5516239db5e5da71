//! What publishers send.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::fields::{Faults, Fields};
use crate::api::error::Problem;
use crate::domain::{Class, Draft, Principal, Priority, Topic, Trace};

/// A kind, key or idempotency key has at most so many bytes.
const WORD_BYTES_MAX: usize = 200;

/// A signal rides in a notification, whose text has at most 7,999 bytes with everything around it.
const SIGNAL_BYTES_MAX: usize = 7_000;

#[derive(Debug, Clone, Copy)]
pub struct PublishLimits {
    pub data_bytes_max: usize,
    pub batch_messages_max: usize,
    /// A message does not outlive what is kept.
    pub ttl_s_max: u32,
}

/// One message, or a batch of them.
pub fn publish_body(
    text: &str,
    limits: PublishLimits,
    principal: &Principal,
) -> Result<Vec<Draft>, Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    if !fields.has("messages") {
        let draft = message(fields, limits, principal, &mut faults);
        faults.finish()?;
        return Ok(draft.into_iter().collect());
    }
    let messages: Option<Vec<&RawValue>> =
        fields.take_required("messages", "an array of messages", &mut faults);
    fields.finish(&mut faults);
    let messages = messages.unwrap_or_default();
    if messages.len() > limits.batch_messages_max {
        faults.too_large(format!("a batch has at most {} messages", limits.batch_messages_max));
        faults.finish()?;
        return Ok(Vec::new());
    }
    let mut drafts = Vec::with_capacity(messages.len());
    for (place, raw) in messages.iter().enumerate() {
        let at = format!("/messages/{place}");
        match Fields::read(raw.get(), &at) {
            Ok(fields) => drafts.extend(message(fields, limits, principal, &mut faults)),
            Err(_) => faults.malformed(&at, "must be an object"),
        }
    }
    faults.finish()?;
    Ok(drafts)
}

/// The message of a `publish` frame.
pub fn publish_message(
    text: &str,
    limits: PublishLimits,
    principal: &Principal,
) -> Result<Draft, Problem> {
    let mut faults = Faults::default();
    let draft = message(Fields::read(text, "/message")?, limits, principal, &mut faults);
    faults.finish()?;
    draft.ok_or_else(|| Problem::malformed("the message cannot be read"))
}

/// Deeper than many parsers follow, those of its receivers among them.
const DEPTH_MAX: usize = 128;

/// `json` is known to be JSON.
pub(super) fn is_shallow(json: &str) -> bool {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest <= DEPTH_MAX
}

fn message(
    mut fields: Fields<'_>,
    limits: PublishLimits,
    principal: &Principal,
    faults: &mut Faults,
) -> Option<Draft> {
    let topic: Option<String> = fields.take_required("topic", "a string", faults);
    let topic = topic.and_then(|topic| match Topic::parse(&topic) {
        Ok(topic) => Some(topic),
        Err(error) => {
            faults.invalid(&fields.pointer("topic"), error.to_string());
            None
        }
    });
    let data = fields.take_raw("data");
    match data {
        None => faults.malformed(&fields.pointer("data"), "is missing: any JSON"),
        Some(data) if data.len() > limits.data_bytes_max => {
            faults.too_large(format!("data has at most {} bytes", limits.data_bytes_max));
        }
        Some(data) if !is_shallow(data) => {
            faults.invalid(&fields.pointer("data"), format!("is nested deeper than {DEPTH_MAX}"));
        }
        Some(_) => {}
    }
    let class = choice(&mut fields, "class", &Class::ALL.map(|c| (c.as_str(), c)), faults);
    let priorities = Priority::ALL.map(|p| (p.as_str(), p));
    let priority = choice(&mut fields, "priority", &priorities, faults);
    let kind = word(&mut fields, "kind", faults);
    let key = word(&mut fields, "key", faults);
    let idempotency_key = word(&mut fields, "idempotency_key", faults);
    let trace = fields.take_raw("traceparent").and_then(trace);
    let ttl_s: Option<u32> = fields.take("ttl_s", "a number of seconds", faults);
    if ttl_s.is_some_and(|ttl_s| !(1..=limits.ttl_s_max).contains(&ttl_s)) {
        let max = limits.ttl_s_max;
        faults
            .invalid(&fields.pointer("ttl_s"), format!("1 to {max}, for which messages are kept"));
    }
    if class == Some(Class::Signal) && data.is_some_and(|data| data.len() > SIGNAL_BYTES_MAX) {
        let text = "the data of a signal has at most 7000 bytes; publish it as class state";
        faults.too_large(text.to_owned());
    }
    fields.finish(faults);
    Some(Draft {
        topic: topic?,
        data: Arc::from(data?),
        kind,
        class: class.unwrap_or_default(),
        key,
        priority: priority.unwrap_or_default(),
        ttl_s,
        idempotency_key: idempotency_key.map(|key| principal.idempotency_scope(&key)),
        trace,
    })
}

/// Whatever is no traceparent is none.
fn trace(json: &str) -> Option<Trace> {
    Trace::parse(&serde_json::from_str::<String>(json).ok()?)
}

fn choice<T: Copy>(
    fields: &mut Fields<'_>,
    name: &str,
    known: &[(&'static str, T)],
    faults: &mut Faults,
) -> Option<T> {
    let text = fields.take::<String>(name, "a string", faults)?;
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        faults.malformed(&fields.pointer(name), format!("must be one of {}", names.join(", ")));
    }
    found
}

fn word(fields: &mut Fields<'_>, name: &str, faults: &mut Faults) -> Option<Arc<str>> {
    let text = fields.take::<String>(name, "a string", faults)?;
    if text.is_empty() || text.len() > WORD_BYTES_MAX || text.chars().any(char::is_control) {
        faults.invalid(&fields.pointer(name), "1 to 200 bytes without control characters");
        return None;
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PublishLimits =
        PublishLimits { data_bytes_max: 100, batch_messages_max: 3, ttl_s_max: 3600 };

    fn read(text: &str) -> Result<Vec<Draft>, Problem> {
        publish_body(text, LIMITS, &Principal::server())
    }

    #[test]
    fn data_stays_byte_for_byte() {
        let drafts = read("{\"topic\":\"a\",\"data\": {\"b\" : 1.50,\n\"b\":2} }").unwrap();
        assert_eq!(&*drafts[0].data, "{\"b\" : 1.50,\n\"b\":2}");
        assert_eq!(&*read(r#"{"topic":"a","data":null}"#).unwrap()[0].data, "null");
    }

    #[test]
    fn every_fault_is_told_with_its_place_and_kind() {
        let long = format!("\"{}\"", "x".repeat(101));
        for (text, status, pointers) in [
            ("", 400, vec![]),
            ("[]", 400, vec![]),
            ("{\"topic\":\"a\"", 400, vec![]),
            ("{}", 400, vec!["/topic", "/data"]),
            (r#"{"topic":null,"data":1}"#, 400, vec!["/topic"]),
            (r#"{"topic":7,"data":1}"#, 400, vec!["/topic"]),
            (r#"{"topic":"a","data":1,"x/y":1}"#, 400, vec!["/x~1y"]),
            (r#"{"topic":"a","data":1,"class":"loud"}"#, 400, vec!["/class"]),
            (r#"{"topic":"a","data":1,"ttl_s":"1"}"#, 400, vec!["/ttl_s"]),
            (r#"{"topic":"a","data":1,"ttl_s":-1}"#, 400, vec!["/ttl_s"]),
            (r#"{"topic":"a","data":1,"ttl_s":0}"#, 422, vec!["/ttl_s"]),
            (r#"{"topic":"a","data":1,"ttl_s":3601}"#, 422, vec!["/ttl_s"]),
            (r#"{"topic":"a b","data":1}"#, 422, vec!["/topic"]),
            (r#"{"topic":"a*","data":1}"#, 422, vec!["/topic"]),
            (r#"{"topic":"a","data":1,"kind":""}"#, 422, vec!["/kind"]),
            (r#"{"topic":"a","data":1,"key":"\u0000"}"#, 422, vec!["/key"]),
            (&format!(r#"{{"topic":"a","data":{long}}}"#), 413, vec![]),
            (r#"{"messages":7}"#, 400, vec!["/messages"]),
            (r#"{"messages":[7]}"#, 400, vec!["/messages/0"]),
            (r#"{"messages":[],"topic":"a"}"#, 400, vec!["/topic"]),
            (r#"{"messages":[{"topic":"a","data":1},{"data":1}]}"#, 400, vec!["/messages/1/topic"]),
            (r#"{"messages":[{},{},{},{}]}"#, 413, vec![]),
        ] {
            let problem = read(text).expect_err(text);
            assert_eq!(problem.status().as_u16(), status, "{text}");
            for pointer in pointers {
                assert!(
                    problem.sentence().contains(&format!("{pointer}: ")),
                    "{text}: {problem:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_traceparent_is_left_out() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = |json: &str| {
            let text = format!(r#"{{"topic":"a","data":1,"traceparent":{json}}}"#);
            read(&text).expect(json)[0].trace.clone()
        };
        assert_eq!(read(&format!("\"{good}\"")).unwrap().as_str(), good);
        let upper = format!("\"{}\"", good.to_uppercase());
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for odd in ["null", "7", "{}", "\"\"", "\"00\"", "\"\\ud83d\\ude00\"", &upper, &deep] {
            assert_eq!(read(odd), None);
        }
    }

    #[test]
    fn of_very_many_faults_the_first_are_told() {
        let fields: Vec<String> = (0..10_000).map(|number| format!("\"x{number}\":1")).collect();
        let text = format!("{{{}}}", fields.join(","));
        let problem = read(&text).unwrap_err();
        assert_eq!(problem.status().as_u16(), 400);
        assert!(problem.sentence().starts_with("/topic: "));
        assert_eq!(problem.sentence().split("; ").count(), 50);
    }

    #[test]
    fn a_null_is_the_same_as_nothing() {
        let text = r#"{"topic":"a","data":1,"kind":null,"class":null,"key":null,"priority":null,"ttl_s":null,"idempotency_key":null}"#;
        assert_eq!(read(text).unwrap(), read(r#"{"topic":"a","data":1}"#).unwrap());
        assert_eq!(read(r#"{"messages":[]}"#).unwrap(), []);
    }

    #[test]
    fn a_deep_document_is_refused_and_nothing_breaks() {
        let deep = format!(r#"{{"topic":"a","data":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
        assert!(read(&deep).is_ok());
        let nested = |depth| format!("{}1{}", "[{\"a\":".repeat(depth / 2), "}]".repeat(depth / 2));
        assert!(is_shallow(&nested(DEPTH_MAX)) && !is_shallow(&nested(DEPTH_MAX + 2)));
        assert!(is_shallow(&format!(r#"["{}\"["]"#, "[{".repeat(200))), "a text is no nest");
        let bomb = format!(r#"{{"topic":"a","data":{}"#, "[".repeat(100_000));
        assert_eq!(read(&bomb).unwrap_err().status().as_u16(), 400);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,200}") {
            let _ = read(&text);
            let _ = read(&format!(r#"{{"topic":"a","data":{text}}}"#));
            let _ = read(&format!(r#"{{"messages":[{text}]}}"#));
        }
    }
}
