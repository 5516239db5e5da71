//! What publishers send, and the frames that everybody gets of it.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings::api::protocol::{PublishLimits, publish_body, publish_message};
use tidings::domain::{Class, Draft, Epoch, Message, Principal, Seq, Timestamp, Trace};
use tidings::frame::Frame;

/// Small, so that small inputs reach them.
const LIMITS: PublishLimits =
    PublishLimits { data_bytes_max: 300, batch_messages_max: 5, ttl_s_max: 3_600 };

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let principal = Principal::server();
    if let Ok(draft) = publish_message(text, LIMITS, &principal) {
        assert_eq!(publish_body(text, LIMITS, &principal), Ok(vec![draft]));
    }
    match publish_body(text, LIMITS, &principal) {
        Err(problem) => {
            let status = problem.status().as_u16();
            assert!([400, 413, 422].contains(&status), "{problem:?}");
            assert!(!problem.sentence().is_empty());
        }
        Ok(drafts) => {
            assert!(drafts.len() <= LIMITS.batch_messages_max);
            for draft in &drafts {
                check_draft(draft, text);
                check_frame(draft);
            }
            let printed: Vec<String> = drafts.iter().map(print).collect();
            let printed = format!(r#"{{"messages":[{}]}}"#, printed.join(","));
            assert_eq!(publish_body(&printed, LIMITS, &principal), Ok(drafts), "{printed}");
        }
    }
}

fn check_draft(draft: &Draft, text: &str) {
    assert!(text.contains(&*draft.data), "data is kept byte for byte");
    assert!(serde_json::from_str::<&RawValue>(&draft.data).is_ok(), "data is JSON");
    assert!(draft.data.len() <= LIMITS.data_bytes_max);
    for word in [&draft.kind, &draft.key].into_iter().flatten() {
        assert!((1..=200).contains(&word.len()) && !word.chars().any(char::is_control));
    }
    assert!(draft.ttl_s.is_none_or(|ttl_s| (1..=LIMITS.ttl_s_max).contains(&ttl_s)));
    assert!(draft.idempotency_key.as_ref().is_none_or(|key| key.starts_with("s ")));
    assert!(draft.class != Class::Signal || draft.data.len() <= 7_000);
}

fn print(draft: &Draft) -> String {
    let mut message = json!({
        "topic": draft.topic.as_str(),
        "kind": draft.kind.as_deref(),
        "class": draft.class.as_str(),
        "key": draft.key.as_deref(),
        "priority": draft.priority.as_str(),
        "ttl_s": draft.ttl_s,
        "idempotency_key": draft.idempotency_key.as_ref().and_then(|key| key.strip_prefix("s ")),
        "traceparent": draft.trace.as_ref().map(Trace::as_str),
    })
    .to_string();
    message.pop();
    message + ",\"data\":" + &draft.data + "}"
}

/// A frame is JSON, with and without its cursor, and says the same as an event.
fn check_frame(draft: &Draft) {
    let seq = (draft.class != Class::Signal).then_some(Seq::MAX);
    let message = Message::from_draft(draft, seq, Timestamp(1_795_168_800_000));
    let frame = Frame::new(&message, &Epoch::parse("k3f9").expect("an epoch"));
    let (text, bare) = (frame.text(), frame.bare_text());
    let cursor = seq.map(|seq| format!("\"cursor\":\"k3f9-{seq}\",")).unwrap_or_default();
    assert_eq!(text.as_str().replacen(&cursor, "", 1), bare.as_str());
    assert!(text.as_str().ends_with(&format!(",\"data\":{}}}", draft.data)));
    let read = |text: &str| serde_json::from_str::<Value>(text);
    // Numbers beyond a `Value`, and halves of letters beyond a `String`, are passed on all the same.
    if read(&draft.data).is_ok() {
        let said = read(&text).expect("a frame is JSON");
        assert_eq!(said["topic"], draft.topic.as_str());
        assert_eq!(said["key"], json!(draft.key.as_deref()));
    }
    let data = |event: &[u8]| -> String {
        let event = std::str::from_utf8(event).expect("an event is text");
        assert!(event.ends_with("\n\n") && !event.trim_end_matches('\n').contains("\n\n"));
        let lines: Vec<&str> =
            event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        lines.join("\n")
    };
    let (mut event, mut bare_event) = (Vec::new(), Vec::new());
    frame.push_event(&mut event);
    frame.push_bare_event(&mut bare_event);
    assert_eq!(unbroken(&data(&event)), unbroken(&text));
    assert_eq!(unbroken(&data(&bare_event)), unbroken(&bare));
    let id = frame.cursor_text().map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
    assert!(event.starts_with(id.as_bytes()) && bare_event.starts_with(b"data: "));
}

/// Line breaks stand between tokens only, and which ones they are says nothing.
fn unbroken(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}
