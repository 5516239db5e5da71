//! Batches of drafts, split into notifications and put together again.
//!
//! A line is a draft: topic, class, priority, kind, key, ttl_s, how often the data is repeated, and
//! the data, with `|` between. So few bytes make messages of every size.

use tidings::domain::{Class, Draft, Message, Priority, Seq, Timestamp, Topic};
use tidings::notification::{self, Announcement, Notification};

/// Postgres takes no longer text.
const TEXT_BYTES_MAX: usize = 7_999;

/// The longest words of a head, so that whatever fits with them fits with all.
const EPOCH: &str = "abcdefghijklmnop";
const ORIGIN: &str = "a-name-of-a-replica-that-is-as-long-as-the-settings-will-take-it";

const DRAFTS_MAX: usize = 64;
const DATA_BYTES_MAX: usize = 40_000;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let drafts: Vec<Draft> = text.split('\n').filter_map(draft).take(DRAFTS_MAX).collect();
    check_parts(&drafts);
    check_signals(&drafts);
}

fn draft(line: &str) -> Option<Draft> {
    let mut fields = line.splitn(8, '|');
    let mut draft = Draft::new(Topic::parse(fields.next()?).ok()?, "");
    draft.class = Class::from_db(fields.next()?.parse().ok()?)?;
    draft.priority = Priority::from_db(fields.next()?.parse().ok()?)?;
    let word = |text: &str| (!text.is_empty()).then(|| text.chars().take(200).collect::<String>());
    draft.kind = word(fields.next()?).map(Into::into);
    draft.key = word(fields.next()?).map(Into::into);
    draft.ttl_s = fields.next()?.parse().ok();
    let repeat = fields.next()?.parse::<usize>().ok()?;
    let data = fields.next()?;
    let repeat = repeat.min(DATA_BYTES_MAX / data.len().max(1));
    draft.data = serde_json::Value::from(data.repeat(repeat)).to_string().into();
    Some(draft)
}

fn check_parts(drafts: &[Draft]) {
    let parts = notification::parts(drafts);
    let at = Timestamp(i64::MIN / 2);
    // The last one has the highest number there is.
    let mut first = Seq::MAX.get() + 1 - drafts.len() as u64;
    let mut left = drafts;
    for part in &parts {
        let count = usize::try_from(part.count).expect("a part has messages");
        assert!(count > 0 && count <= left.len(), "parts are of the batch");
        let last = first + count as u64 - 1;
        let text = format!("a {EPOCH} {first} {last} {} {}", at.0, part.body);
        assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes", text.len());
        let Ok(Notification::Announced(read)) = notification::parse(&text) else {
            panic!("what was written is read: {text}");
        };
        let (now, later) = left.split_at(count);
        let Announcement { epoch, first: read_first, last: read_last, messages } = read;
        let read = (epoch.as_str(), read_first.get(), read_last.get());
        assert_eq!(read, (EPOCH, first, last));
        match messages {
            Some(messages) => assert_eq!(messages, made_of(now, Some(first), at)),
            None => assert!(parts.len() == 1 || now.iter().any(|draft| draft.data.len() > 6_000)),
        }
        (first, left) = (last + 1, later);
    }
    assert!(left.is_empty(), "every message is in a part");
    if let Some(range) = Seq::new(1).filter(|_| !drafts.is_empty()) {
        let text = notification::range(EPOCH, range, Seq::MAX, at.0);
        assert!(matches!(notification::parse(&text), Ok(Notification::Announced(_))));
    }
}

fn check_signals(drafts: &[Draft]) {
    let at = Timestamp(i64::MIN / 2);
    // One that does not fit is refused when it is published.
    let signal = |draft: &Draft| Draft { class: Class::Signal, ..draft.clone() };
    let drafts: Vec<Draft> = drafts.iter().map(signal).collect();
    let (fit, unfit): (Vec<Draft>, Vec<Draft>) =
        drafts.iter().cloned().partition(notification::signal_fits);
    assert!(unfit.iter().all(|draft| 6 * draft.weight_bytes() > 6_000), "small ones fit");
    let texts = notification::signals(ORIGIN, at, &drafts);
    let mut read = Vec::new();
    for text in &texts {
        assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes", text.len());
        let Ok(Notification::Signals { origin, messages }) = notification::parse(text) else {
            panic!("what was written is read: {text}");
        };
        assert_eq!(&*origin, ORIGIN);
        assert!(!messages.is_empty());
        read.extend(messages);
    }
    assert_eq!(read, made_of(&fit, None, at));
}

fn made_of(drafts: &[Draft], first: Option<u64>, at: Timestamp) -> Vec<Message> {
    let seq = |place: usize| first.and_then(|first| Seq::new(first + place as u64));
    let message = |(place, draft)| Message::from_draft(draft, seq(place), at);
    drafts.iter().enumerate().map(message).collect()
}
