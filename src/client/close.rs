//! What a close says: whether to come back, and when.

use std::time::Duration;

use serde::Deserialize;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::RETRY_AFTER_MAX;
use super::answer::Undone;

/// What follows from a close of the server. Codes that nobody has told us of are tried again:
/// whatever stands between may close as it likes.
pub(super) fn read(frame: Option<&CloseFrame>) -> Undone {
    let Some(frame) = frame else { return Undone::later("the connection was closed") };
    let sentence = match u16::from(frame.code) {
        1000 => "the session was ended",
        1001 | 1012 => "the replica leaves",
        1013 => "the replica asks to try again later",
        4400 => return Undone::Never("the server did not understand us (4400)".to_owned()),
        4401 => return Undone::Never("the token is missing, wrong or expired (4401)".to_owned()),
        4403 => return Undone::Never("the token does not allow these topics (4403)".to_owned()),
        4408 => "we took too long to read",
        4409 => "a limit of sessions is reached",
        4413 => return Undone::Never("a frame of ours was too large (4413)".to_owned()),
        4429 => "we sent too many frames",
        _ => "the connection was closed",
    };
    let reason = format!("{sentence} ({})", u16::from(frame.code));
    Undone::Later { reason, retry_after: retry_after(&frame.reason) }
}

fn retry_after(reason: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Reason {
        retry_after_ms: u64,
    }
    let reason: Reason = serde_json::from_str(reason).ok()?;
    Some(Duration::from_millis(reason.retry_after_ms).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, reason: &str) -> Undone {
        read(Some(&CloseFrame { code: code.into(), reason: reason.into() }))
    }

    #[test]
    fn codes_that_will_not_change_are_not_tried_again() {
        for code in [4400, 4401, 4403, 4413] {
            assert!(matches!(closed(code, ""), Undone::Never(_)), "{code}");
        }
        for code in [1000, 1001, 1011, 1012, 1013, 4408, 4409, 4429, 4999] {
            assert!(matches!(closed(code, ""), Undone::Later { .. }), "{code}");
        }
        assert!(matches!(read(None), Undone::Later { .. }));
    }

    #[test]
    fn the_server_says_when_to_come_back() {
        let wait = |reason| match closed(1012, reason) {
            Undone::Later { retry_after, .. } => retry_after,
            undone => panic!("{undone:?}"),
        };
        assert_eq!(wait(r#"{"retry_after_ms":1500}"#), Some(Duration::from_millis(1500)));
        assert_eq!(wait(r#"{"retry_after_ms":99999999999}"#), Some(RETRY_AFTER_MAX));
        for reason in ["", "later", "{}", r#"{"retry_after_ms":-1}"#] {
            assert_eq!(wait(reason), None, "{reason}");
        }
    }
}
