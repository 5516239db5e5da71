//! Frames of clients.

use serde_json::{Map, Value, json};
use tidings::api::protocol::{ClientFrame, Operation, Subscription, error_frame};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(ClientFrame { reference, operation }) = ClientFrame::read(text) else {
        let object = serde_json::from_str::<Map<String, Value>>(text);
        assert!(object.is_err(), "whatever is an object can be answered");
        return;
    };
    if let Some(reference) = &reference {
        let value: Value = serde_json::from_str(reference.as_json()).unwrap_or_default();
        // A number may be beyond what a `Value` can hold, and half a letter beyond a `String`.
        assert!(value.is_string() || value.is_number() || value.is_null());
        assert!(reference.as_json().len() <= 100);
    }
    match operation {
        Ok(operation) => {
            let printed = print(&operation);
            let again = ClientFrame::read(&printed).map(|frame| frame.operation);
            assert_eq!(again, Ok(Ok(operation)), "{printed}");
        }
        Err(problem) => {
            assert!((400..500).contains(&problem.status().as_u16()), "{problem:?}");
            let answer = error_frame(None, &problem);
            let said: Value = serde_json::from_str(&answer).expect("an answer is JSON");
            assert_eq!(said["code"], problem.name());
            // Names of fields come back, escaped; of the rest of the frame nothing does.
            assert!(answer.len() <= (8 << 10) + 12 * text.len(), "{} bytes", answer.len());
        }
    }
}

fn print(operation: &Operation<'_>) -> String {
    let topics = |topics: &[Subscription]| -> Value {
        let one = |topic: &Subscription| match &topic.cursor {
            Some(cursor) => {
                json!({"topic": topic.pattern.to_string(), "cursor": cursor.to_string()})
            }
            None => json!(topic.pattern.to_string()),
        };
        topics.iter().map(one).collect()
    };
    let frame = match operation {
        Operation::Hello { token, topics: wanted, cursor } => {
            let cursor = cursor.as_ref().map(ToString::to_string);
            json!({"op": "hello", "token": token, "topics": topics(wanted), "cursor": cursor})
        }
        Operation::Subscribe { topics: wanted } => {
            json!({"op": "subscribe", "topics": topics(wanted)})
        }
        Operation::Unsubscribe { patterns } => {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            json!({"op": "unsubscribe", "topics": patterns})
        }
        // As it came: nothing in it may be written in another way.
        Operation::Publish { message } => {
            return format!(r#"{{"op":"publish","message":{message}}}"#);
        }
        Operation::Auth { token } => json!({"op": "auth", "token": token}),
        Operation::Acknowledge { ids, state } => {
            let ids: Vec<&str> = ids.iter().map(tidings::domain::NoticeId::as_str).collect();
            json!({"op": state.as_str(), "ids": ids})
        }
        Operation::Ping => json!({"op": "ping"}),
    };
    frame.to_string()
}
