//! Cursors, as clients hand them back.

use tidings::domain::{Cursor, Epoch, Seq};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = Cursor::parse(text);
    assert_eq!(parsed.is_ok(), is_cursor(text), "{text:?}");
    let Ok(cursor) = parsed else { return };
    assert_eq!(cursor.to_string(), text, "a cursor has one spelling");
    let Cursor { epoch, seq } = cursor;
    assert_eq!(Epoch::parse(epoch.as_str()).as_ref(), Ok(&epoch));
    assert!(seq <= Seq::MAX && Seq::new(seq.get()) == Some(seq));
    assert_eq!(Seq::from_db(seq.to_db()), seq);
    if seq > Seq::ZERO {
        assert_eq!(seq.previous().next(), seq);
        assert_eq!(seq.distance_from(seq.previous()), 1);
    }
    assert_eq!(seq.distance_from(Seq::ZERO), seq.get());
}

/// The rule again, as one would say it.
fn is_cursor(text: &str) -> bool {
    let Some((epoch, number)) = text.split_once('-') else { return false };
    let is_epoch = (1..=16).contains(&epoch.len())
        && epoch.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9'));
    let is_number = (1..=16).contains(&number.len())
        && number.chars().all(|c| c.is_ascii_digit())
        && (number == "0" || !number.starts_with('0'))
        && number.parse::<u64>().is_ok_and(|number| number < 1 << 53);
    is_epoch && is_number
}
