//! Cursors that nobody gave out.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidings::domain::Cursor;

use super::{goes_on, replica};
use crate::client;

const NONE: &[&str] = &[
    "0",
    "-",
    "-1",
    "e",
    "e-",
    "e-+1",
    "e-01",
    "e-1.0",
    "e-1e3",
    "e--1",
    "E-1",
    "e_1",
    "e-1-1",
    "e-x",
    "e-9007199254740992",
    "e-18446744073709551616",
    "abcdefghijklmnopq-1",
    "e-%20",
    "é-1",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_no_cursor_is_malformed_wherever_it_stands() {
    let replica = replica("", &[]).await;
    let http = reqwest::Client::new();
    for text in NONE {
        for (path, name) in [
            ("/v1/messages?topic=a", "after"),
            ("/v1/sse?topics=a", "last_event_id"),
            ("/v1/sse?topics=a", "cursor"),
        ] {
            let target = format!("{path}&{name}={text}");
            let carrier = client::Carrier::Nothing;
            let answer = client::ask(&replica.url, "GET", &target, None, carrier, "").await;
            assert_eq!(answer.status, 400, "{target}");
            assert!(answer.text.contains(&format!("\"pointer\":\"/{name}\"")), "{}", answer.text);
        }
        let request = http.get(format!("{}/v1/sse", replica.url)).header("last-event-id", *text);
        assert_eq!(request.send().await.unwrap().status(), 400, "{text}");
        let target = format!("/v1/ws?cursor={text}");
        assert!(client::connect(&replica.url, &target, &[]).await.is_err(), "{text}");
    }
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_log_or_from_the_future_is_answered_with_one_to_go_on_from() {
    let replica = replica("", &[]).await;
    let published = replica.publish(&json!({"topic": "a", "data": 1})).await;
    let head = published["messages"][0]["cursor"].as_str().unwrap().to_owned();
    let epoch = head.split('-').next().unwrap();
    for cursor in [
        "zzzz-0".to_owned(),
        "zzzz-1".to_owned(),
        format!("{epoch}-9007199254740991"),
        format!("{epoch}-2"),
    ] {
        let target = format!("/v1/messages?topic=a&after={cursor}");
        let carrier = client::Carrier::Nothing;
        let answer = client::ask(&replica.url, "GET", &target, None, carrier, "").await;
        assert_eq!(answer.status, 410, "{cursor}");
        let said: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(said["cursor"], head);
        let target = format!("/v1/ws?topics=a&cursor={cursor}");
        let mut socket = client::connect(&replica.url, &target, &[]).await.unwrap();
        assert_eq!(socket.frame().await["type"], "welcome");
        assert_eq!(
            socket.frame().await,
            json!({"type": "reset", "reason": "epoch", "cursor": head})
        );
    }
    goes_on(replica).await;
}

proptest! {
    #[test]
    fn what_reads_as_a_cursor_is_written_the_same(text in "[a-z0-9]{0,18}-[-+ 0-9a]{0,20}") {
        if let Ok(cursor) = Cursor::parse(&text) {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }

    #[test]
    fn no_text_breaks_the_reader_of_cursors(text in "\\PC{0,60}") {
        let _ = Cursor::parse(&text);
        let _ = Cursor::parse(&format!("e-{text}"));
        let _ = Cursor::parse(&format!("{text}-1"));
    }

    #[test]
    fn every_place_in_a_log_reads_back(epoch in "[a-z0-9]{1,16}", seq in 0_u64..(1 << 53)) {
        let text = format!("{epoch}-{seq}");
        prop_assert_eq!(Cursor::parse(&text).unwrap().to_string(), text);
    }
}
