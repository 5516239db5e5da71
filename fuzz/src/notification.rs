//! Texts on the channel: whoever may use the database may send them.

use tidings::domain::{Class, Draft, Message, Seq, Timestamp};
use tidings::notification::{self, Notification};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match notification::parse(text) {
        Err(error) => assert!(error.to_string().len() <= 80 * 4 + 100, "an error stays short"),
        Ok(Notification::Announced(read)) => {
            assert!(read.first.get() >= 1 && read.first <= read.last);
            let Some(messages) = &read.messages else { return };
            let count = messages.len() as u64;
            assert_eq!(count, read.last.distance_from(read.first) + 1);
            for (message, number) in messages.iter().zip(read.first.get()..) {
                assert_eq!(message.seq.map(Seq::get), Some(number));
            }
            again(messages);
        }
        Ok(Notification::Signals { messages, .. }) => {
            assert!(messages.iter().all(|message| message.seq.is_none()));
            again(&messages);
        }
        Ok(Notification::Pulse { origin, number }) => {
            let written = notification::pulse(&origin, number);
            let read = notification::parse(&written).expect("what was written is read");
            assert_eq!(read, Notification::Pulse { origin, number });
        }
        Ok(Notification::TaskStirred(id)) => assert_eq!(text, format!("t {id}")),
        Ok(Notification::SourceStirred(id, pushed)) => {
            assert_eq!(text, format!("{} {id}", if pushed { "i" } else { "v" }));
        }
        Ok(Notification::OutboxFilled | Notification::EpochRenewed) => {}
    }
}

/// What was read is written and read again, by whichever way it fits.
fn again(messages: &[Message]) {
    let Some(at) = messages.first().map(|message| message.at) else { return };
    let drafts: Vec<Draft> = messages.iter().map(|message| drafted(message, at)).collect();
    if !drafts.iter().all(notification::signal_fits) {
        return;
    }
    let texts = notification::signals("r", at, &drafts);
    let mut read = Vec::new();
    for text in texts {
        match notification::parse(&text) {
            Ok(Notification::Signals { messages, .. }) => read.extend(messages),
            other => panic!("what was written is read: {other:?}"),
        }
    }
    let unnumbered =
        |message: &Message| Message { seq: None, class: Class::Signal, ..message.clone() };
    assert_eq!(read, messages.iter().map(unnumbered).collect::<Vec<_>>());
}

fn drafted(message: &Message, at: Timestamp) -> Draft {
    let mut draft = Draft::new(message.topic.clone(), message.data.clone());
    draft.kind = message.kind.clone();
    draft.class = Class::Signal;
    draft.key = message.key.clone();
    draft.priority = message.priority;
    draft.trace = message.trace.clone();
    // Rounded up: a time near the last one is cut short.
    let lives_s = message.expires_at.map(|end| end.0.abs_diff(at.0).div_ceil(1_000));
    draft.ttl_s = lives_s.and_then(|lives_s| u32::try_from(lives_s).ok());
    draft
}
