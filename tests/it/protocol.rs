//! `docs/protocol.md` is true: every example in it is replayed against a running server, and
//! nothing that the server can say is missing from it.

mod document;
mod expect;
mod interface;
mod player;
mod sse;
mod ws;

use std::collections::BTreeSet;

use self::document::{Example, Kind};
use self::player::Player;
use crate::harness;

/// Between two quotes after each `marker`: enough for source that is known.
fn quoted<'a>(text: &'a str, marker: &str) -> BTreeSet<&'a str> {
    let after = text.split(marker).skip(1);
    after.filter_map(|rest| rest.split('"').nth(1)).collect()
}

async fn replay(database_url: &str) {
    let examples = document::examples();
    assert!(examples.len() > 30, "only {} examples were found", examples.len());
    let mut player = Player::new(database_url);
    let mut wrong = Vec::new();
    for example in &examples {
        if let Err(failure) = player.play(example).await {
            wrong.push(failure.to_string());
        }
    }
    player.finish().await;
    assert!(wrong.is_empty(), "{} examples fail\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_protocol_holds_in_memory() {
    replay("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_protocol_holds_on_postgres() {
    replay(&harness::database_url().await).await;
}

/// `GET /v1/messages` and the like, as they stand in the router.
pub fn endpoints() -> BTreeSet<(String, String)> {
    let source = include_str!("../../src/api.rs");
    let mut found = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        // Up to the next route; what follows the last one names no method.
        let path = route.split('"').nth(1).unwrap().replace("{*", "{");
        let handlers = route.split(")\n").next().unwrap();
        let marks = [
            ("GET", &["get(", "any("][..]),
            ("POST", &["post("]),
            ("PATCH", &["patch("]),
            ("DELETE", &["delete("]),
        ];
        for (method, marks) in marks {
            if marks.iter().any(|mark| handlers.contains(mark)) {
                found.insert((method.to_owned(), path.clone()));
            }
        }
    }
    found
}

fn requested(example: &Example) -> Vec<(String, String)> {
    let path = |target: &str| {
        let path = target.split('?').next().unwrap();
        let path = path.replace("main.js", "{path}");
        let path = path.replace("{task}", "{id}").replace("{notice}", "{id}");
        path.replace("edge-1", "{id}").replace("i-9", "{instance}")
    };
    let words = |line: &str| {
        let mut words = line.split(' ');
        (words.next().unwrap().to_owned(), words.next().map(path).unwrap_or_default())
    };
    match example.kind {
        Kind::Http | Kind::Sse => vec![words(&example.lines[0].text)],
        Kind::WebSocket => {
            let connects =
                example.lines.iter().filter_map(|line| line.text.strip_prefix("connect "));
            connects.map(|target| ("GET".to_owned(), path(target))).collect()
        }
    }
}

#[test]
fn every_endpoint_has_an_example() {
    let shown: BTreeSet<_> = document::examples().iter().flat_map(requested).collect();
    let endpoints = endpoints();
    assert!(endpoints.len() >= 8, "the router was not understood: {endpoints:?}");
    let missing: Vec<_> = endpoints.difference(&shown).collect();
    assert!(missing.is_empty(), "docs/protocol.md shows nothing of {missing:?}");
}

#[test]
fn every_frame_has_an_example() {
    let examples = document::examples();
    let shown = |mark: char, text: &str| {
        examples.iter().flat_map(|example| &example.lines).any(|line| {
            // A server-sent event or an answer has no arrow.
            (line.text.starts_with(mark) || mark == '<' && !line.text.starts_with('>'))
                && line.text.contains(text)
        })
    };
    let answers = include_str!("../../src/api/protocol/answer.rs");
    let mut types: BTreeSet<&str> = BTreeSet::from(["message"]);
    for rest in
        answers.split("{{\\\"type\\\":\\\"").chain(answers.split("{\\\"type\\\":\\\"")).skip(1)
    {
        types.extend(rest.split("\\\"").next());
    }
    types.extend(quoted(answers, "r#type: "));
    types.retain(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    assert!(types.len() >= 10, "the frames were not understood: {types:?}");
    // These take a client that is slower, or a Postgres that is further, than an example can be.
    for name in ["gap", "status"] {
        let row = format!("`{{\"type\":\"{name}\",");
        assert!(types.remove(name) && document::TEXT.contains(&row), "no row of the frame {name}");
    }
    for name in types {
        assert!(shown('<', &format!("\"type\":\"{name}\"")), "no example of the frame {name}");
    }
    let frames = include_str!("../../src/api/protocol/frame.rs");
    let known = frames.split("let known =").nth(1).unwrap().split('"').nth(1).unwrap();
    for name in known.split(", ") {
        assert!(shown('>', &format!("\"op\":\"{name}\"")), "no example of the operation {name}");
    }
}

#[test]
fn every_problem_and_every_close_code_is_told() {
    let errors = include_str!("../../src/api/error.rs");
    let mut names = BTreeSet::new();
    for rest in errors.split("Problem::new(StatusCode::").skip(1) {
        names.extend(rest.split('"').nth(1));
    }
    assert!(names.len() >= 10, "the problems were not understood: {names:?}");
    for name in names {
        assert!(document::TEXT.contains(&format!("| `{name}` |")), "no row for {name}");
    }
    let codes = errors.split("pub const fn code").nth(1).unwrap().split("pub fn").next().unwrap();
    let codes: BTreeSet<&str> =
        codes.split("=> ").skip(1).filter_map(|rest| rest.split(',').next()).collect();
    assert!(codes.len() >= 10, "the close codes were not understood: {codes:?}");
    for code in codes {
        let told = document::TEXT.lines().any(|line| {
            let first = line.strip_prefix("| ").and_then(|line| line.split(" |").next());
            first.is_some_and(|cell| cell.split(", ").any(|one| one == code))
        });
        assert!(told, "no row for the close code {code}");
    }
}

#[test]
fn the_document_says_how_many_seconds_and_bytes_as_the_settings_do() {
    let text = document::TEXT;
    for (key, shown) in [
        ("data_bytes_max", "256 KiB"),
        ("batch_messages_max", "1000"),
        ("heartbeat_s", "15"),
        ("stall_s", "30"),
        ("history_limit_max", "1000"),
        ("long_poll_s_max", "60"),
        ("body_bytes_max", "8 MiB"),
        ("body_timeout_s", "60"),
        ("header_timeout_s", "75"),
        ("topics_per_session_max", "100"),
        ("frames_per_s_max", "50"),
        ("task_items_max", "100000"),
        ("task_concurrency_max", "200"),
        ("notice_users_max", "10000"),
        ("sessions_max", "20000"),
        ("sessions_per_user_max", "100"),
        ("connections_max", "24000"),
    ] {
        let setting = tidings::config::SETTINGS.iter().find(|setting| setting.key == key).unwrap();
        assert_eq!(setting.default, Some(shown), "{key}: the document says {shown}");
        let told = |line: &str| {
            line.split_once(&format!("`{key}`")).is_some_and(|(_, rest)| rest.contains(shown))
        };
        assert!(text.lines().any(told), "{key}: {shown} is not told");
    }
}
