//! The settings of the part `logging`.

use serde_json::Value;

use super::client::Socket;
use super::in_memory;

/// Of this a replica says something at the level `debug`.
const TOO_MANY_TOPICS: &str = "topics=a,b,c";

#[tokio::test]
pub(super) async fn what_is_not_asked_for_is_not_logged() {
    let settings = [("topics_per_session_max", "2"), ("log", "info")];
    let mut quiet = in_memory(&settings).await;
    assert_eq!(Socket::open(&quiet, TOO_MANY_TOPICS).await.close_code().await, 4400);
    quiet.signal("-TERM");
    let next = quiet.said("").await;
    assert!(!next.contains("a session was not opened"), "{next}");

    let settings = [("topics_per_session_max", "2"), ("log", "info,tidings::api=debug")];
    let mut loud = in_memory(&settings).await;
    assert_eq!(Socket::open(&loud, TOO_MANY_TOPICS).await.close_code().await, 4400);
    loud.said("a session was not opened").await;
}

#[tokio::test]
pub(super) async fn lines_are_for_people_or_for_machines() {
    // Standard error is no terminal here, so that auto is json.
    for (format, is_json) in [("auto", true), ("json", true), ("human", false)] {
        let mut replica = in_memory(&[("log_format", format), ("drain_s", "0")]).await;
        replica.signal("-TERM");
        let line = replica.said("left").await;
        assert_eq!(serde_json::from_str::<Value>(&line).is_ok(), is_json, "{format}: {line}");
    }
}
