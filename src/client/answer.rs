//! What a server answers that did not do it: whether to come back, when, and why in a sentence.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::RETRY_AFTER_MAX;
use crate::domain::Cursor;

/// Why something was not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// Saying it again would not help.
    Never(String),
    /// It cannot be as things stand.
    Conflict(String),
    /// The cursor cannot be honoured; here is one that can.
    Gone(Cursor),
    Later {
        reason: String,
        retry_after: Option<Duration>,
    },
}

impl Undone {
    pub(super) fn later(reason: impl Into<String>) -> Undone {
        Undone::Later { reason: reason.into(), retry_after: None }
    }

    /// Of an answer that is no success.
    pub(super) fn answered(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Undone {
        let gone = (status == StatusCode::GONE).then(|| serde_json::from_slice::<Gone>(body).ok());
        if let Some(cursor) = gone.flatten().and_then(|gone| Cursor::parse(&gone.cursor).ok()) {
            return Undone::Gone(cursor);
        }
        let sentence = match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => problem.sentence(),
            // Somebody in between, whose page is of no use here.
            Err(_) => status.canonical_reason().unwrap_or("an unknown status").to_owned(),
        };
        let reason = format!("{sentence} ({})", status.as_u16());
        // The last two are what balancers say of a replica that is away.
        match status.as_u16() {
            408 | 429 | 502 | 503 | 504 => {
                Undone::Later { reason, retry_after: retry_after(headers) }
            }
            409 => Undone::Conflict(reason),
            300..400 => Undone::Never(format!("{reason}; give the address that it leads to")),
            _ => Undone::Never(reason),
        }
    }
}

/// In seconds only: a date would need two clocks that agree, and our server sends none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// RFC 9457.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

/// What a 410 has besides.
#[derive(Deserialize)]
struct Gone {
    cursor: String,
}

#[derive(Deserialize)]
struct FieldError {
    pointer: String,
    detail: String,
}

impl Problem {
    fn sentence(&self) -> String {
        let fields: Vec<String> = self
            .errors
            .iter()
            .map(|error| format!("{}: {}", error.pointer, error.detail))
            .collect();
        if fields.is_empty() { self.detail.clone() } else { fields.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_tell_whether_to_come_back() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, 7.into());
        for status in [408, 429, 502, 503, 504] {
            let status = StatusCode::from_u16(status).unwrap();
            let Undone::Later { retry_after, .. } = Undone::answered(status, &headers, b"") else {
                panic!("{status}");
            };
            assert_eq!(retry_after, Some(Duration::from_secs(7)));
        }
        for status in [301, 400, 401, 403, 404, 410, 413, 422, 500] {
            let status = StatusCode::from_u16(status).unwrap();
            let undone = Undone::answered(status, &headers, b"<html>");
            assert!(matches!(undone, Undone::Never(_)), "{status}");
        }
    }

    #[test]
    fn a_server_cannot_send_us_away_for_ever() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, 1_000_000.into());
        assert_eq!(retry_after(&headers), Some(RETRY_AFTER_MAX));
        headers.insert(header::RETRY_AFTER, "Fri, 01 Jan 2038 00:00:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }

    #[test]
    fn a_cursor_that_is_gone_comes_with_one_to_go_on_from() {
        let gone = |body: &[u8]| Undone::answered(StatusCode::GONE, &HeaderMap::new(), body);
        let cursor = Cursor::parse("k3f9-7").unwrap();
        assert_eq!(gone(br#"{"detail":"it is","cursor":"k3f9-7"}"#), Undone::Gone(cursor));
        assert!(matches!(gone(br#"{"detail":"it is","cursor":"7"}"#), Undone::Never(_)));
    }

    #[test]
    fn a_problem_becomes_a_sentence() {
        let body = br#"{"detail":"some fields","errors":[{"pointer":"/topic","detail":"bad"}]}"#;
        let undone = Undone::answered(StatusCode::UNPROCESSABLE_ENTITY, &HeaderMap::new(), body);
        assert_eq!(undone, Undone::Never("/topic: bad (422)".to_owned()));
    }
}
