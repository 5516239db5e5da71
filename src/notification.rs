//! What goes through NOTIFY, encoded and decoded in one place.
//!
//! | text | meaning |
//! |---|---|
//! | `a <epoch> <first> <last> <at_ms> <body>` | these seqs are durable; the body is their messages, or `-` for "read them" |
//! | `s <origin> <at_ms> <body>` | signals; the origin is the replica that has already handed them out |
//! | `o` | a transaction that published from SQL has committed |
//! | `t <id>` | a task wants to be looked at: it may be claimed, or somebody wants something of it |
//! | `v <source>` | a source wants to be looked at: it was changed, or let go |
//! | `i <source>` | something was pushed to a source |
//! | `e <epoch>` | the log has a new epoch |
//! | `p <origin> <number>` | a pulse: a replica listens whether its listener still hears |
//!
//! A body is a JSON array with one array a message: topic, data, kind, class, key, priority, ttl_s,
//! and if there is one its traceparent.
//! It has no seqs: they are not known when it is sent down the connection, before the append has answered.
//! A text has at most 7,999 bytes, so a batch is split at message borders, and what is too large is left to be read.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::{
    Class, Draft, Epoch, Message, Priority, Seq, SourceId, TaskId, Timestamp, Topic, Trace,
};

/// The one channel.
pub const CHANNEL: &str = "tidings";

/// The longest body. The text before it has at most 120 bytes: with signals, whose origin is the name
/// of a replica and a word.
pub const BODY_BYTES_MAX: usize = 7_800;

/// How many notifications one batch may be split into before reading the range is the cheaper way.
const PARTS_MAX: usize = 16;

/// The body that stands for "read them".
const RANGE_ONLY: &str = "-";

#[derive(Debug, PartialEq)]
pub enum Notification {
    Announced(Announcement),
    Signals {
        origin: Arc<str>,
        messages: Vec<Message>,
    },
    OutboxFilled,
    TaskStirred(TaskId),
    /// Whether it is because something was pushed to it.
    SourceStirred(SourceId, bool),
    EpochRenewed,
    Pulse {
        origin: Arc<str>,
        number: u64,
    },
}

/// These seqs are durable, and so is everything below them.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    pub epoch: Epoch,
    pub first: Seq,
    pub last: Seq,
    /// `None` when they are to be read from the store.
    pub messages: Option<Vec<Message>>,
}

/// A piece of a batch that fits into one notification.
#[derive(Debug, PartialEq)]
pub struct Part {
    pub count: i32,
    pub body: String,
}

#[derive(Debug, thiserror::Error)]
#[error("a notification that Tidings did not send, or one of a newer version: {0}")]
pub struct NotificationError(String);

/// Cuts a batch into pieces that fit; neighbours that do not fit become one piece to be read.
pub fn parts(drafts: &[Draft]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for draft in drafts {
        let item = (draft.weight_bytes() <= 2 * BODY_BYTES_MAX).then(|| item(draft));
        match item.filter(|item| item.len() + 2 <= BODY_BYTES_MAX) {
            None => match parts.last_mut() {
                Some(part) if part.body == RANGE_ONLY => part.count += 1,
                _ => parts.push(Part { count: 1, body: RANGE_ONLY.to_owned() }),
            },
            Some(item) => match parts.last_mut() {
                Some(part)
                    if part.body != RANGE_ONLY && part.body.len() + item.len() < BODY_BYTES_MAX =>
                {
                    part.body.pop();
                    part.body.push(',');
                    part.body.push_str(&item);
                    part.body.push(']');
                    part.count += 1;
                }
                _ => parts.push(Part { count: 1, body: format!("[{item}]") }),
            },
        }
        if parts.len() > PARTS_MAX {
            let count = i32::try_from(drafts.len()).unwrap_or(i32::MAX);
            return vec![Part { count, body: RANGE_ONLY.to_owned() }];
        }
    }
    parts
}

/// Whether a signal fits into a notification, with its kind and key as JSON writes them.
pub fn signal_fits(draft: &Draft) -> bool {
    // Most are small, and need not be written out to see it: a byte becomes six at most (`\u0000`).
    6 * draft.weight_bytes() <= BODY_BYTES_MAX || item(draft).len() + 2 <= BODY_BYTES_MAX
}

/// The notifications that carry signals. One that fits into none is left out, so that it costs
/// nobody else theirs: its publisher was refused.
pub fn signals(origin: &str, at: Timestamp, drafts: &[Draft]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let head = format!("s {origin} {} ", at.0);
    for draft in drafts {
        let item = item(draft);
        if item.len() + 2 > BODY_BYTES_MAX {
            continue;
        }
        match texts.last_mut() {
            Some(text) if text.len() - head.len() + item.len() < BODY_BYTES_MAX => {
                text.pop();
                text.push(',');
                text.push_str(&item);
                text.push(']');
            }
            _ => texts.push(format!("{head}[{item}]")),
        }
    }
    texts
}

/// The announcement of a range that is to be read.
pub fn range(epoch: &str, first: Seq, last: Seq, at_ms: i64) -> String {
    format!("a {epoch} {first} {last} {at_ms} {RANGE_ONLY}")
}

/// The announcements of a batch whose place in the log is known.
pub fn announcements(epoch: &Epoch, first: Seq, at: Timestamp, drafts: &[Draft]) -> Vec<String> {
    let mut first = first;
    let mut texts = Vec::new();
    for part in parts(drafts) {
        let next = first.plus(u64::try_from(part.count).unwrap_or(0));
        texts.push(format!("a {epoch} {first} {} {} {}", next.previous(), at.0, part.body));
        first = next;
    }
    texts
}

pub fn stirred(id: &TaskId) -> String {
    format!("t {id}")
}

pub fn source_stirred(id: &SourceId, pushed: bool) -> String {
    let letter = if pushed { 'i' } else { 'v' };
    format!("{letter} {id}")
}

pub fn pulse(origin: &str, number: u64) -> String {
    format!("p {origin} {number}")
}

pub fn parse(text: &str) -> Result<Notification, NotificationError> {
    let refuse = || NotificationError(text.chars().take(80).collect());
    let (letter, rest) = text.split_once(' ').unwrap_or((text, ""));
    match letter {
        "a" => announcement(rest).map(Notification::Announced).ok_or_else(refuse),
        "s" => signal_messages(rest).ok_or_else(refuse),
        "t" => TaskId::parse(rest).map(Notification::TaskStirred).ok_or_else(refuse),
        "v" | "i" => match SourceId::parse(rest) {
            Some(id) => Ok(Notification::SourceStirred(id, letter == "i")),
            None => Err(refuse()),
        },
        "o" => Ok(Notification::OutboxFilled),
        "e" => Ok(Notification::EpochRenewed),
        "p" => {
            let (origin, number) = rest.split_once(' ').ok_or_else(refuse)?;
            let number = number.parse().map_err(|_| refuse())?;
            Ok(Notification::Pulse { origin: origin.into(), number })
        }
        _ => Err(refuse()),
    }
}

fn item(draft: &Draft) -> String {
    let text = |part: &Option<Arc<str>>| match part {
        Some(text) => serde_json::Value::from(&**text).to_string(),
        None => "null".to_owned(),
    };
    let ttl_s = draft.ttl_s.map_or_else(|| "null".to_owned(), |ttl_s| ttl_s.to_string());
    let mut item = format!(
        "[\"{}\",{},{},{},{},{},{ttl_s}",
        draft.topic,
        draft.data,
        text(&draft.kind),
        draft.class.to_db(),
        text(&draft.key),
        draft.priority.to_db(),
    );
    if let Some(trace) = &draft.trace {
        item.push_str(",\"");
        item.push_str(trace.as_str());
        item.push('"');
    }
    item.push(']');
    item
}

#[derive(Deserialize)]
struct Item<'a>(
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] &'a RawValue,
    #[serde(borrow)] Option<Cow<'a, str>>,
    i16,
    #[serde(borrow)] Option<Cow<'a, str>>,
    i16,
    Option<u32>,
    #[serde(borrow, default)] Option<Cow<'a, str>>,
);

impl Item<'_> {
    fn message(self, seq: Option<Seq>, at: Timestamp) -> Option<Message> {
        let draft = Draft {
            topic: Topic::parse(&self.0).ok()?,
            data: self.1.get().into(),
            kind: self.2.map(|kind| kind.as_ref().into()),
            // As when it is read from the table: a newer version may know more of them.
            class: match seq {
                Some(_) => Class::from_db(self.3).unwrap_or_default(),
                None => Class::Signal,
            },
            key: self.4.map(|key| key.as_ref().into()),
            priority: Priority::from_db(self.5).unwrap_or_default(),
            ttl_s: self.6,
            idempotency_key: None,
            trace: self.7.and_then(|text| Trace::parse(&text)),
        };
        Some(Message::from_draft(&draft, seq, at))
    }
}

fn announcement(rest: &str) -> Option<Announcement> {
    let mut words = rest.splitn(5, ' ');
    let epoch = Epoch::parse(words.next()?).ok()?;
    let first = Seq::new(words.next()?.parse().ok()?)?;
    let last = Seq::new(words.next()?.parse().ok()?)?;
    let at = Timestamp(words.next()?.parse().ok()?);
    let body = words.next()?;
    if first == Seq::ZERO || last < first {
        return None;
    }
    if body == RANGE_ONLY {
        return Some(Announcement { epoch, first, last, messages: None });
    }
    let items: Vec<Item> = serde_json::from_str(body).ok()?;
    if items.len() as u64 != last.distance_from(first) + 1 {
        return None;
    }
    let messages = items
        .into_iter()
        .zip(first.get()..)
        .map(|(item, number)| item.message(Seq::new(number), at))
        .collect::<Option<Vec<_>>>()?;
    Some(Announcement { epoch, first, last, messages: Some(messages) })
}

fn signal_messages(rest: &str) -> Option<Notification> {
    let mut words = rest.splitn(3, ' ');
    let origin = words.next()?.into();
    let at = Timestamp(words.next()?.parse().ok()?);
    let items: Vec<Item> = serde_json::from_str(words.next()?).ok()?;
    let messages =
        items.into_iter().map(|item| item.message(None, at)).collect::<Option<Vec<_>>>()?;
    Some(Notification::Signals { origin, messages })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(topic: &str, data: &str) -> Draft {
        Draft::new(Topic::parse(topic).unwrap(), data)
    }

    fn read_back(parts: &[Part]) -> Vec<Option<Vec<Message>>> {
        let mut first = 1;
        let mut read = Vec::new();
        for part in parts {
            let last = first + u64::try_from(part.count).unwrap() - 1;
            let text = format!("a e {first} {last} 5 {}", part.body);
            assert!(text.len() < 8000);
            let Notification::Announced(announcement) = parse(&text).unwrap() else { panic!() };
            read.push(announcement.messages);
            first = last + 1;
        }
        read
    }

    #[test]
    fn a_message_too_large_for_a_notification_is_left_to_be_read() {
        let large = format!("\"{}\"", "x".repeat(9_000));
        let drafts = [draft("a", "1"), draft("b", &large), draft("c", &large), draft("d", "2")];
        let parts = parts(&drafts);
        assert_eq!(parts.iter().map(|part| part.count).collect::<Vec<_>>(), [1, 2, 1]);
        let read = read_back(&parts);
        assert!(read[0].is_some() && read[1].is_none() && read[2].is_some());
        assert_eq!(read[2].as_ref().unwrap()[0].seq.unwrap().get(), 4);
    }

    #[test]
    fn a_batch_of_very_many_parts_is_read_as_one_range() {
        let data = format!("\"{}\"", "x".repeat(5_000));
        let drafts: Vec<Draft> = (0..PARTS_MAX + 1).map(|_| draft("a", &data)).collect();
        assert_eq!(parts(&drafts), [Part { count: 17, body: "-".to_owned() }]);
    }

    #[test]
    fn what_is_no_notification_is_refused() {
        for text in [
            "",
            "x",
            "a",
            "a e 1 2 3",
            "a e 2 1 0 -",
            "a e 0 0 0 -",
            "a E 1 1 0 -",
            "a e 1 1 0 [",
            "a e 1 1 0 []",
            "a e 1 1 0 [[\"a b\",1,null,0,null,1,null]]",
            "s",
            "s r 1 {}",
            "t",
            "t A B",
            "p",
            "p r x",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_only_a_newer_version_knows_is_an_event_of_normal_priority() {
        let text = "a e 1 1 0 [[\"a\",1,null,9,null,9,null]]";
        let Notification::Announced(heard) = parse(text).unwrap() else { panic!() };
        let message = &heard.messages.unwrap()[0];
        assert_eq!((message.class, message.priority), (Class::Event, Priority::Normal));
        let text = "s r 1 [[\"a\",1,null,9,null,1,null]]";
        let Notification::Signals { messages, .. } = parse(text).unwrap() else { panic!() };
        assert_eq!(messages[0].class, Class::Signal);
    }

    #[test]
    fn a_signal_that_fits_into_no_notification_costs_nobody_else_theirs() {
        let mut large = draft("b", &"1".repeat(7_000));
        large.key = Some("\u{1}".repeat(200).into());
        assert!(!signal_fits(&large));
        large.key = Some("k".repeat(200).into());
        assert!(signal_fits(&large));
        large.key = Some("\u{1}".repeat(200).into());
        let texts = signals("r", Timestamp(1), &[draft("a", "1"), large, draft("c", "2")]);
        assert_eq!(texts, ["s r 1 [[\"a\",1,null,0,null,1,null],[\"c\",2,null,0,null,1,null]]"]);
    }

    #[test]
    fn a_trace_goes_along_and_costs_nothing_where_there_is_none() {
        let trace = Trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let mut traced = draft("a", "1");
        traced.trace = trace.clone();
        let parts = parts(&[draft("a", "1"), traced.clone()]);
        let text = trace.as_ref().unwrap().as_str();
        let expected =
            format!("[[\"a\",1,null,0,null,1,null],[\"a\",1,null,0,null,1,null,\"{text}\"]]");
        assert_eq!(parts[0].body, expected);
        let messages = read_back(&parts).remove(0).unwrap();
        assert_eq!((messages[0].trace.clone(), &messages[1].trace), (None, &trace));
        traced.class = Class::Signal;
        let texts = signals("r", Timestamp(1), &[traced]);
        let Notification::Signals { messages, .. } = parse(&texts[0]).unwrap() else { panic!() };
        assert_eq!(messages[0].trace, trace);
    }

    #[test]
    fn what_is_no_trace_costs_no_message() {
        for odd in ["null", "\"\"", "\"00-0-0-01\""] {
            let text = format!("a e 1 1 0 [[\"a\",1,null,0,null,1,null,{odd}]]");
            let Notification::Announced(heard) = parse(&text).unwrap() else { panic!() };
            assert_eq!(heard.messages.unwrap()[0].trace, None);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_published_is_read_back_or_left_to_be_read(
            sizes in prop::collection::vec(0usize..4_000, 1..40),
            kind in ".{0,20}",
        ) {
            let drafts: Vec<Draft> = sizes.iter().map(|size| {
                let mut draft = draft("order:7", &format!("[\"{}\", 1 ]", "é".repeat(*size)));
                draft.kind = Some(kind.as_str().into());
                draft
            }).collect();
            let parts = parts(&drafts);
            let count: i32 = parts.iter().map(|part| part.count).sum();
            prop_assert_eq!(usize::try_from(count).unwrap(), drafts.len());
            let mut at = 0;
            for (messages, part) in read_back(&parts).into_iter().zip(&parts) {
                for message in messages.into_iter().flatten() {
                    let index = usize::try_from(message.seq.unwrap().get()).unwrap() - 1;
                    prop_assert_eq!(&message.data, &drafts[index].data);
                    prop_assert_eq!(&message.kind, &drafts[index].kind);
                }
                at += part.count;
            }
            prop_assert_eq!(at, count);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
            let _ = parse(&format!("a e 1 1 0 {text}"));
            let _ = parse(&format!("s r 1 {text}"));
        }
    }
}
