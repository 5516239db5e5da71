//! `tidings check` as somebody runs it: it sees nothing wrong under faults that cost nothing, sees
//! what was planted, and says so when it cannot check.

mod tamper;

use std::cell::Cell;
use std::time::Duration;

use serde_json::Value;
use tamper::{Tamper, tampered};
use tidings::cluster::{Mode, Options};

use crate::commands::{Ran, Running, tidings};
use crate::fleet::{Replica, until};
use crate::harness;
use crate::proxy::Proxy;

/// So long that a run ends because it was told to.
const LONG: &str = "3600";

fn verdict(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{} {}", ran.out, ran.err))
}

fn count(verdict: &Value, figure: &str) -> u64 {
    verdict[figure].as_u64().unwrap_or_else(|| panic!("{figure} in {verdict}"))
}

/// How many messages of runs are in the log; `None` while the database is away.
async fn logged(url: &str) -> Option<i64> {
    let client = harness::connector(url).connect().await.ok()?;
    let rows = "select count(*) from tidings.message where topic like 'check:%'";
    Some(client.query_one(rows, &[]).await.ok()?.get(0))
}

/// Waits until so many more messages were published.
async fn progress(url: &str, more: i64) {
    let before = Cell::new(None);
    until("messages are published", || async {
        let Some(now) = logged(url).await else { return false };
        let begun = before.get().unwrap_or(now);
        before.set(Some(begun));
        now >= begun + more
    })
    .await;
}

/// Three replicas, a run over them, and everything that happens while one rolls out.
async fn run_under_faults(read_the_database: bool) {
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let (mut fleet, mut listeners) = (Vec::new(), Vec::new());
    for number in 1..=3 {
        let (listener, listen) = Proxy::to_database(&url).await;
        let settings = [
            ("LISTEN_DATABASE_URL", listen.as_str()),
            ("TIDINGS_STATEMENT_TIMEOUT_MS", "2000"),
            ("TIDINGS_HEARTBEAT_S", "1"),
            ("TIDINGS_DRAIN_S", "2"),
        ];
        fleet.push(Replica::start(&format!("replica-{number}"), &url, &settings).await);
        listeners.push(listener);
    }
    let urls: Vec<&str> = fleet.iter().map(|one| one.url.as_str()).collect();
    let urls = urls.join(",");
    let args = ["check", "--json", "--url", &urls, "--seconds", LONG, "--cuts-per-minute", "600"];
    let env: &[(&str, &str)] = if read_the_database { &[("DATABASE_URL", &url)] } else { &[] };
    let checking = Running::start(&args, env);
    progress(&url, 100).await;
    fleet[0].kill().await;
    progress(&url, 100).await;
    fleet[0].start_again().await;
    for listener in &listeners {
        assert!(listener.cut() > 0, "there was a listener to cut");
    }
    progress(&url, 100).await;
    for mode in [Mode::Fast, Mode::Immediate] {
        cluster.stop(mode).unwrap();
        cluster.start_again().unwrap();
        progress(&url, 100).await;
    }
    assert_eq!(fleet[1].leave().await, Some(0));
    fleet[1].start_again().await;
    progress(&url, 100).await;
    checking.signal("-INT");
    let ran = checking.with_input("").await;
    assert_eq!(ran.code, 0, "{} {}", ran.out, ran.err);
    let verdict = verdict(&ran);
    assert_eq!(verdict["verdict"], "good");
    let violations = verdict["violations"].as_object().unwrap();
    assert!(violations.len() == 9 && violations.values().all(|count| count == 0), "{verdict}");
    let figure = |name| count(&verdict, name);
    assert!(figure("accepted") >= 600 && figure("delivered") > figure("accepted"), "{verdict}");
    assert!(figure("cuts") >= 10 && figure("resumes") >= figure("cuts"), "{verdict}");
    assert_eq!((figure("refused"), figure("resets"), figure("gaps")), (0, 0, 0), "{verdict}");
    assert_eq!(logged(&url).await, i64::try_from(figure("logged")).ok());
    let client = harness::connect(&url).await;
    let others = "select count(*) from tidings.message where topic not like 'check:%'";
    assert_eq!(client.query_one(others, &[]).await.unwrap().get::<_, i64>(0), 0);
    let read_from = verdict["log_read_from"].as_str().unwrap();
    assert_eq!(read_from == "the database", read_the_database, "{read_from}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_sees_nothing_wrong_while_replicas_listeners_and_postgres_fail() {
    run_under_faults(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_without_the_database_sees_nothing_wrong_while_they_fail() {
    run_under_faults(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_the_row_that_was_taken_out_of_the_log() {
    let url = harness::database_url().await;
    let replica = Replica::start("one", &url, &[]).await;
    let args = ["check", "--url", &replica.url, "--seconds", LONG, "--clients", "3"];
    let checking = Running::start(&args, &[("DATABASE_URL", &url)]);
    progress(&url, 50).await;
    let client = harness::connect(&url).await;
    let take = "delete from tidings.message where seq = (
        select max(seq) - 20 from tidings.message where topic like 'check:%')";
    assert_eq!(client.execute(take, &[]).await.unwrap(), 1);
    checking.signal("-INT");
    let ran = checking.with_input("").await;
    assert_eq!(ran.code, 1, "{} {}", ran.out, ran.err);
    assert!(ran.out.contains("VERDICT    bad"), "{}", ran.out);
    // It may or may not have been read before it was taken.
    let told = ran.out.contains("gone from it") || ran.out.contains("does not have it");
    assert!(ran.out.contains("lost: message") && told, "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ends_by_itself_when_the_log_begins_anew() {
    let mut replica = Replica::in_memory("one", &[]).await;
    let args = ["check", "--url", &replica.url, "--seconds", LONG, "--json"];
    let checking = Running::start(&args, &[]);
    until("messages are published", async || {
        replica.stats().await["log"]["applied"].as_u64().unwrap() >= 50
    })
    .await;
    replica.kill().await;
    replica.start_again().await;
    let ran = checking.with_input("").await;
    assert_eq!(ran.code, 1, "{} {}", ran.out, ran.err);
    let verdict = verdict(&ran);
    assert_eq!(count(&verdict["violations"], "set_back"), 1, "{verdict}");
    assert!(verdict["examples"].to_string().contains("the log began anew"), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_a_tampered_connection_does() {
    let replica = Replica::in_memory("one", &[("TIDINGS_HEARTBEAT_S", "1")]).await;
    for (tamper, kinds) in [
        (Tamper::Doubles, &["doubled"][..]),
        (Tamper::Swallows, &["lost"]),
        (Tamper::HoldsBack, &["overtaken", "reordered"]),
    ] {
        let url = tampered(&replica.url, tamper).await;
        let args = ["check", "--url", &url, "--via", "ws", "--messages", "300", "--rate", "1000"];
        let more = ["--clients", "3", "--cuts-per-minute", "0", "--json"];
        let ran = tidings(&[&args[..], &more].concat(), &[]).await;
        assert_eq!(ran.code, 1, "{tamper:?}: {} {}", ran.out, ran.err);
        let verdict = verdict(&ran);
        let found: u64 = kinds.iter().map(|kind| count(&verdict["violations"], kind)).sum();
        let all: u64 =
            verdict["violations"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!((verdict["verdict"].as_str(), found, all), (Some("bad"), 1, 1), "{verdict}");
        let example = verdict["examples"][0].as_str().unwrap();
        assert!(example.contains("client") && example.contains("seq"), "{example}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_publishes_as_many_as_it_was_told_by_either_way() {
    let replica = Replica::in_memory("one", &[]).await;
    for via in ["ws", "sse", "ws,sse"] {
        let args = ["check", "--url", &replica.url, "--messages", "500", "--rate", "2000"];
        let more = ["--via", via, "--clients", "4", "--seed", "7", "--topics", "3"];
        let ran = tidings(&[&args[..], &more].concat(), &[]).await;
        assert_eq!(ran.code, 0, "{via}: {} {}", ran.out, ran.err);
        // One more marks the beginning, and one the end.
        assert!(ran.out.contains("502 accepted, 0 refused, 0 unknown"), "{}", ran.out);
        assert!(ran.out.contains("4 clients") && ran.out.contains("seed 7"), "{}", ran.out);
        assert!(ran.out.contains("VERDICT    good"), "{}", ran.out);
        assert!(ran.err.is_empty(), "progress is for terminals: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_returns_2_and_what_to_do_when_it_cannot_check() {
    const KEY: &str = "a-key-for-these-tests-alone";
    const SECRET: &str = "a secret of more than thirty-two bytes";
    let database = harness::database_url().await;
    let other = harness::database_url().await;
    let own = [("TIDINGS_DEV", "false"), ("TIDINGS_API_KEYS", KEY), ("TIDINGS_JWT_SECRET", SECRET)];
    let limit = [("TIDINGS_SESSIONS_MAX", "3")];
    let replica = Replica::start("one", &database, &[&own[..], &limit].concat()).await;
    let url = replica.url.as_str();
    let token = ["token", "--sub", "7", "--topics", "order:*"];
    let token = tidings(&token, &[("TIDINGS_JWT_SECRET", SECRET)]).await;
    let token = token.out.trim();
    let nowhere = "postgres://postgres@127.0.0.1:1/none";
    for (args, sentence) in [
        (vec!["--url", "http://127.0.0.1:1"], "see that a replica answers"),
        (vec!["--url", url], "give an API key or a JWT"),
        (
            vec!["--url", url, "--token", token],
            "must allow publishing on and subscribing to check:*",
        ),
        (
            vec!["--url", url, "--token", KEY, "--database", &other],
            "not the one behind these replicas",
        ),
        (vec!["--url", url, "--token", KEY, "--database", nowhere], "mend --database"),
        (vec!["--url", url, "--token", KEY, "--database", "x"], "--database: "),
        (vec!["--url", url, "--token", KEY, "--clients", "5"], "take fewer --clients"),
        (vec!["--url", url, "--via", "smoke"], "a way is ws or sse"),
        (vec!["--url", "localhost:80"], "http://host:port"),
    ] {
        let ran = tidings(&[&["check", "--timeout-s", "2"], &args[..]].concat(), &[]).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(sentence), "{args:?}: {}", ran.err);
        assert!(!ran.err.contains(KEY), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ends_with_its_token_and_says_that_not_all_was_checked() {
    const SECRET: &str = "a secret of more than thirty-two bytes";
    let own = [("TIDINGS_DEV", "false"), ("TIDINGS_JWT_SECRET", SECRET)];
    let replica = Replica::in_memory("one", &own).await;
    let token = ["token", "--sub", "7", "--topics", "check:*", "--ttl-s", "3"];
    let token = tidings(&token, &[("TIDINGS_JWT_SECRET", SECRET)]).await;
    let args = ["check", "--url", &replica.url, "--token", token.out.trim(), "--seconds", LONG];
    let ran = tidings(&args, &[]).await;
    assert_eq!(ran.code, 2, "{} {}", ran.out, ran.err);
    assert!(ran.out.contains("not checked: ") && ran.out.contains("expired"), "{}", ran.out);
    assert!(ran.out.contains("VERDICT    unknown"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_that_is_told_twice_waits_for_nobody_and_claims_nothing() {
    let url = harness::database_url().await;
    let mut replica = Replica::start("one", &url, &[]).await;
    let args = ["check", "--url", &replica.url, "--seconds", LONG, "--timeout-s", LONG];
    let checking = Running::start(&args, &[]);
    progress(&url, 50).await;
    replica.kill().await;
    let id = checking.id().to_string();
    let mut ending = std::pin::pin!(checking.with_input(""));
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let ran = loop {
        tokio::select! {
            ran = &mut ending => break ran,
            // Two signals that come too close together are one.
            _ = pause.tick() => {
                let _ = std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
            }
        }
    };
    assert_eq!(ran.code, 2, "{} {}", ran.out, ran.err);
    assert!(ran.out.contains("not checked: 20 clients have no connection"), "{}", ran.out);
    assert!(ran.out.contains("VERDICT    unknown"), "{}", ran.out);
}
