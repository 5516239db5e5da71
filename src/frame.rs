//! A message encoded once, and shared by all who receive it.
//!
//! Only the text with the cursor is kept, since nearly everybody gets that one, and since what waits
//! somewhere weighs what it says it weighs. Whoever needs another form makes it as it is sent.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;

use crate::domain::notice::{COUNTS, NOTICE, RECALLED};
use crate::domain::{Class, Epoch, Message, Priority, Seq, Timestamp, Topic};

/// What a frame weighs beside its text: itself, its places in ring and queues.
const OVERHEAD_BYTES: usize = 256;

/// What a message is about that sessions treat in a way of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Anything,
    Notice,
    Recall,
    Counts,
}

impl About {
    fn of(message: &Message) -> About {
        match message.kind.as_deref() {
            Some(NOTICE) => About::Notice,
            Some(RECALLED) => About::Recall,
            Some(COUNTS) => About::Counts,
            _ => About::Anything,
        }
    }
}

#[derive(Debug)]
pub struct Frame {
    pub seq: Option<Seq>,
    pub topic: Topic,
    pub class: Class,
    pub about: About,
    pub priority: Priority,
    pub key: Option<Arc<str>>,
    pub expires_at: Option<Timestamp>,
    text: Utf8Bytes,
    /// Where in the text the member `cursor` stands; empty when there is none.
    cursor: std::ops::Range<usize>,
}

impl Frame {
    pub fn new(message: &Message, epoch: &Epoch) -> Frame {
        let (text, cursor) = encode(message, epoch);
        Frame::with(message, text, cursor)
    }

    /// A message out of its turn, for who has missed it: it says so, and has no cursor.
    pub fn replay(message: &Message) -> Frame {
        let epoch = Epoch::parse("replay").expect("the word is made of lower-case letters");
        let (mut text, cursor) = encode(message, &epoch);
        text.replace_range(cursor, "");
        text.pop();
        text.push_str(",\"replay\":true}");
        Frame::with(message, text, 0..0)
    }

    fn with(message: &Message, text: String, cursor: std::ops::Range<usize>) -> Frame {
        Frame {
            seq: message.seq,
            topic: message.topic.clone(),
            class: message.class,
            about: About::of(message),
            priority: message.priority,
            key: message.key.clone(),
            expires_at: message.expires_at,
            text: text.into(),
            cursor,
        }
    }

    /// The JSON, with its cursor if it has one. Cloning it copies nothing.
    pub fn text(&self) -> Utf8Bytes {
        self.text.clone()
    }

    /// The JSON without a cursor, for a frame that overtakes others.
    pub fn bare_text(&self) -> Utf8Bytes {
        if self.cursor.is_empty() {
            return self.text();
        }
        let (before, after) = self.around_cursor();
        [before, after].concat().into()
    }

    /// Appends it as a server-sent event, with its cursor as the id.
    pub fn push_event(&self, out: &mut Vec<u8>) {
        if let Some(cursor) = self.cursor_text() {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(cursor.as_bytes());
            out.push(b'\n');
        }
        push_data(out, &[&self.text]);
    }

    /// Appends it as a server-sent event that leaves the client's last id as it is.
    pub fn push_bare_event(&self, out: &mut Vec<u8>) {
        let (before, after) = self.around_cursor();
        push_data(out, &[before, after]);
    }

    fn around_cursor(&self) -> (&str, &str) {
        let text = self.text.as_str();
        (&text[..self.cursor.start], &text[self.cursor.end..])
    }

    pub fn cursor_text(&self) -> Option<&str> {
        // `"cursor":"k3f9-1042",`
        let member = self.text.as_str().get(self.cursor.clone())?;
        member.strip_prefix(CURSOR_OPEN)?.strip_suffix("\",")
    }

    /// What it weighs where buffers are bounded in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.text.len() + OVERHEAD_BYTES
    }
}

const CURSOR_OPEN: &str = "\"cursor\":\"";

/// What a `traceparent` takes in a frame, with its name.
const TRACE_BYTES: usize = 75;

fn encode(message: &Message, epoch: &Epoch) -> (String, std::ops::Range<usize>) {
    // Everything but topic, kind, key and data has at most 250 bytes.
    let mut text = String::with_capacity(
        message.data.len()
            + message.topic.as_str().len()
            + message.kind.as_ref().map_or(0, |kind| kind.len())
            + message.key.as_ref().map_or(0, |key| key.len())
            + message.trace.as_ref().map_or(0, |_| TRACE_BYTES)
            + 250,
    );
    // Writing to a string does not fail. A topic is made of characters that JSON takes as they are.
    let _ = write!(text, "{{\"type\":\"message\",\"topic\":\"{}\",\"seq\":", message.topic);
    let _ = match message.seq {
        Some(seq) => write!(text, "{seq},"),
        None => write!(text, "null,"),
    };
    let start = text.len();
    if let Some(seq) = message.seq {
        let _ = write!(text, "{CURSOR_OPEN}{epoch}-{seq}\",");
    }
    let cursor = start..text.len();
    text.push_str("\"kind\":");
    push_string(&mut text, message.kind.as_deref());
    let _ = write!(text, ",\"class\":\"{}\",\"key\":", message.class.as_str());
    push_string(&mut text, message.key.as_deref());
    let _ = write!(text, ",\"priority\":\"{}\",\"at\":\"", message.priority.as_str());
    push_time(&mut text, message.at);
    if let Some(trace) = &message.trace {
        let _ = write!(text, "\",\"traceparent\":\"{trace}");
    }
    let _ = write!(text, "\",\"data\":{}}}", message.data);
    (text, cursor)
}

fn push_string(text: &mut String, value: Option<&str>) {
    match value {
        None => text.push_str("null"),
        Some(value) => text.push_str(&serde_json::Value::from(value).to_string()),
    }
}

/// RFC 3339 in UTC with milliseconds.
pub fn push_time(text: &mut String, at: Timestamp) {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    let _ = write!(text, "{at:.3}");
}

/// JSON may have line breaks between its tokens; a server-sent event may not have them in a line.
fn push_data(out: &mut Vec<u8>, pieces: &[&str]) {
    const DATA: &[u8] = b"data: ";
    out.extend_from_slice(DATA);
    for piece in pieces {
        let mut lines = piece.split(['\n', '\r']);
        out.extend_from_slice(lines.next().unwrap_or_default().as_bytes());
        // Of a break made of two characters one makes no line of its own.
        for line in lines.filter(|line| !line.is_empty()) {
            out.push(b'\n');
            out.extend_from_slice(DATA);
            out.extend_from_slice(line.as_bytes());
        }
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Draft, Trace};

    fn message(data: &str) -> Message {
        let mut draft = Draft::new(Topic::parse("order:7").unwrap(), data);
        draft.kind = Some("ship\"ped".into());
        // 2026-11-20T10:00:00.000Z
        Message::from_draft(&draft, Seq::new(1042), Timestamp(1_795_168_800_000))
    }

    fn frame(data: &str) -> Frame {
        Frame::new(&message(data), &Epoch::parse("k3f9").unwrap())
    }

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_frame_is_written_as_the_protocol_says() {
        let frame = frame(r#"{"step" : "é"}"#);
        assert_eq!(
            frame.text().as_str(),
            r#"{"type":"message","topic":"order:7","seq":1042,"cursor":"k3f9-1042","kind":"ship\"ped","class":"event","key":null,"priority":"normal","at":"2026-11-20T10:00:00.000Z","data":{"step" : "é"}}"#
        );
        assert_eq!(
            frame.bare_text().as_str(),
            r#"{"type":"message","topic":"order:7","seq":1042,"kind":"ship\"ped","class":"event","key":null,"priority":"normal","at":"2026-11-20T10:00:00.000Z","data":{"step" : "é"}}"#
        );
        assert_eq!(frame.cursor_text(), Some("k3f9-1042"));
    }

    #[test]
    fn a_frame_names_the_trace_of_its_message_if_there_is_one() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let traced = Message { trace: Trace::parse(text), ..message("1") };
        let frame = Frame::new(&traced, &Epoch::parse("k3f9").unwrap());
        let bare = self::frame("1")
            .text()
            .replace(",\"data\":1}", &format!(",\"traceparent\":\"{text}\",\"data\":1}}"));
        assert_eq!(frame.text().as_str(), bare);
    }

    #[test]
    fn a_replay_says_so_and_has_no_cursor() {
        let message = Message { kind: Some("notice".into()), ..message("1") };
        let replay = Frame::replay(&message);
        let epoch = Epoch::parse("k3f9").unwrap();
        let bare = Frame::new(&message, &epoch).bare_text();
        assert_eq!(
            replay.text().as_str(),
            bare.replace("\"data\":1}", "\"data\":1,\"replay\":true}")
        );
        assert_eq!((replay.about, replay.cursor_text()), (About::Notice, None));
        assert_eq!(replay.text(), replay.bare_text());
    }

    #[test]
    fn a_signal_has_no_seq_and_no_cursor() {
        let signal = Message { seq: None, class: Class::Signal, ..message("1") };
        let frame = Frame::new(&signal, &Epoch::parse("k3f9").unwrap());
        assert!(
            frame.text().starts_with(r#"{"type":"message","topic":"order:7","seq":null,"kind""#)
        );
        assert_eq!(frame.cursor_text(), None);
        assert_eq!(frame.text(), frame.bare_text());
        assert_eq!(written(|out| frame.push_event(out)), written(|out| frame.push_bare_event(out)));
        assert!(written(|out| frame.push_event(out)).starts_with("data: {"));
    }

    #[test]
    fn line_breaks_between_tokens_become_lines_of_an_event() {
        let frame = frame("[1,\n2,\r\n3,\r4]");
        let sse = written(|out| frame.push_event(out));
        let mut lines = sse.lines();
        assert_eq!(lines.next(), Some("id: k3f9-1042"));
        assert!(lines.next().unwrap().ends_with("\"data\":[1,"));
        assert_eq!(lines.next(), Some("data: 2,"));
        assert_eq!(lines.next(), Some("data: 3,"));
        assert_eq!(lines.next(), Some("data: 4]}"));
        assert!(sse.ends_with("}\n\n"));
        let bare = written(|out| frame.push_bare_event(out));
        assert_eq!(
            bare,
            sse.replacen("id: k3f9-1042\n", "", 1).replacen("\"cursor\":\"k3f9-1042\",", "", 1)
        );
    }
}
