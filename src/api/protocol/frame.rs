//! What clients send over a WebSocket.

use serde_json::value::RawValue;

use super::fields::{Faults, Fields, Reference};
use super::notice::notice_ids;
use crate::api::error::Problem;
use crate::domain::{Cursor, NoticeId, Pattern, ReceiptState};

/// A frame, with what its answer repeats.
#[derive(Debug, PartialEq)]
pub struct ClientFrame<'a> {
    pub reference: Option<Reference>,
    pub operation: Result<Operation<'a>, Problem>,
}

#[derive(Debug, PartialEq)]
pub enum Operation<'a> {
    Hello {
        token: Option<String>,
        topics: Vec<Subscription>,
        cursor: Option<Cursor>,
    },
    Subscribe {
        topics: Vec<Subscription>,
    },
    Unsubscribe {
        patterns: Vec<Pattern>,
    },
    /// The message as it stands in the frame.
    Publish {
        message: &'a str,
    },
    Auth {
        token: String,
    },
    /// How far notices have come with this user.
    Acknowledge {
        ids: Vec<NoticeId>,
        state: ReceiptState,
    },
    Ping,
}

/// A topic that is asked for, with a cursor of its own or that of the frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub pattern: Pattern,
    pub cursor: Option<Cursor>,
}

impl ClientFrame<'_> {
    /// An error only when the text is no JSON object at all; everything else can be answered.
    pub fn read(text: &str) -> Result<ClientFrame<'_>, Problem> {
        let mut fields = Fields::read(text, "")?;
        let mut faults = Faults::default();
        let reference = fields.take_reference(&mut faults);
        let operation = operation(fields, &mut faults);
        let operation = faults
            .finish()
            .and_then(|()| operation.ok_or_else(|| Problem::malformed("the frame cannot be read")));
        Ok(ClientFrame { reference, operation })
    }
}

fn operation<'a>(mut fields: Fields<'a>, faults: &mut Faults) -> Option<Operation<'a>> {
    let op: String = fields.take_required("op", "a string", faults)?;
    let operation = match op.as_str() {
        "hello" => Some(Operation::Hello {
            token: fields.take("token", "a string", faults),
            cursor: cursor(&mut fields, faults),
            topics: subscriptions(&mut fields, faults, false),
        }),
        "subscribe" => {
            let common = cursor(&mut fields, faults);
            let mut topics = subscriptions(&mut fields, faults, true);
            for topic in &mut topics {
                topic.cursor = topic.cursor.take().or_else(|| common.clone());
            }
            Some(Operation::Subscribe { topics })
        }
        "unsubscribe" => {
            let topics = subscriptions(&mut fields, faults, true);
            let patterns = topics.into_iter().map(|topic| topic.pattern).collect();
            Some(Operation::Unsubscribe { patterns })
        }
        "publish" => {
            let message = fields.take_raw("message");
            if message.is_none() {
                faults.malformed("/message", "is missing: a message");
            }
            message.map(|message| Operation::Publish { message })
        }
        "auth" => {
            fields.take_required("token", "a string", faults).map(|token| Operation::Auth { token })
        }
        "received" | "read" | "confirmed" => {
            let ids = notice_ids(&mut fields, faults);
            ReceiptState::parse(&op).map(|state| Operation::Acknowledge { ids, state })
        }
        "ping" => Some(Operation::Ping),
        _ => {
            let known =
                "hello, subscribe, unsubscribe, publish, received, read, confirmed, auth, ping";
            faults.malformed("/op", format!("must be one of {known}"));
            return None;
        }
    };
    fields.finish(faults);
    operation
}

fn cursor(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Cursor> {
    let text: String = fields.take("cursor", "a cursor", faults)?;
    match Cursor::parse(&text) {
        Ok(cursor) => Some(cursor),
        Err(error) => {
            faults.malformed(&fields.pointer("cursor"), error.to_string());
            None
        }
    }
}

fn subscriptions(
    fields: &mut Fields<'_>,
    faults: &mut Faults,
    required: bool,
) -> Vec<Subscription> {
    let what = "an array of topics";
    let topics: Option<Vec<&RawValue>> = match required {
        true => fields.take_required("topics", what, faults),
        false => fields.take("topics", what, faults),
    };
    let one = |(place, raw): (usize, &RawValue)| subscription(raw.get(), place, faults);
    topics.unwrap_or_default().into_iter().enumerate().filter_map(one).collect()
}

fn subscription(text: &str, place: usize, faults: &mut Faults) -> Option<Subscription> {
    let at = format!("/topics/{place}");
    let (topic, cursor) = if text.starts_with('{') {
        let mut fields = Fields::read(text, &at).ok()?;
        let topic: Option<String> = fields.take_required("topic", "a string", faults);
        let cursor = cursor(&mut fields, faults);
        fields.finish(faults);
        (topic?, cursor)
    } else {
        match serde_json::from_str::<String>(text) {
            Ok(topic) => (topic, None),
            Err(_) => {
                faults.malformed(&at, "must be a topic, or an object with topic and cursor");
                return None;
            }
        }
    };
    match Pattern::parse(&topic) {
        Ok(pattern) => Some(Subscription { pattern, cursor }),
        Err(error) => {
            faults.invalid(&at, error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_read_as_the_protocol_says() {
        let read = |text| ClientFrame::read(text).unwrap();
        assert_eq!(read(r#"{"op":"ping"}"#).operation, Ok(Operation::Ping));
        assert_eq!(read(r#"{"op":"ping","ref":"a\"b"}"#).reference.unwrap().as_json(), r#""a\"b""#);
        let frame = read(
            r#"{"op":"subscribe","topics":["a",{"topic":"b*","cursor":"e-5"}],"cursor":"e-7"}"#,
        );
        let Ok(Operation::Subscribe { topics }) = frame.operation else { panic!() };
        let shown: Vec<String> = topics
            .iter()
            .map(|t| format!("{} {}", t.pattern, t.cursor.as_ref().unwrap()))
            .collect();
        assert_eq!(shown, ["a e-7", "b* e-5"]);
        let frame = read(r#"{"op":"publish","message":{"topic":"a", "data":1}}"#);
        assert_eq!(
            frame.operation,
            Ok(Operation::Publish { message: r#"{"topic":"a", "data":1}"# })
        );
    }

    #[test]
    fn faults_are_answered_and_rubbish_is_not() {
        for text in ["", "7", "[]", "null", "{", "\"op\""] {
            assert!(ClientFrame::read(text).is_err(), "{text}");
        }
        for (text, name) in [
            ("{}", "malformed"),
            (r#"{"op":7}"#, "malformed"),
            (r#"{"op":"dance"}"#, "malformed"),
            (r#"{"op":"ping","x":1}"#, "malformed"),
            (r#"{"op":"ping","ref":{}}"#, "malformed"),
            (r#"{"op":"subscribe"}"#, "malformed"),
            (r#"{"op":"subscribe","topics":"a"}"#, "malformed"),
            (r#"{"op":"subscribe","topics":[7]}"#, "malformed"),
            (r#"{"op":"subscribe","topics":["a"],"cursor":"x"}"#, "malformed"),
            (r#"{"op":"subscribe","topics":["a b"]}"#, "invalid"),
            (r#"{"op":"publish"}"#, "malformed"),
            (r#"{"op":"auth"}"#, "malformed"),
        ] {
            let problem = ClientFrame::read(text).unwrap().operation.expect_err(text);
            assert_eq!(problem.name(), name, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,200}") {
            let _ = ClientFrame::read(&text);
            let _ = ClientFrame::read(&format!(r#"{{"op":{text}}}"#));
            let _ = ClientFrame::read(&format!(r#"{{"op":"subscribe","topics":[{text}]}}"#));
        }
    }
}
