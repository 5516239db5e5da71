//! `tidings task`: submitted, shown, changed and watched from a shell.

use super::*;
use crate::commands::{Ran, Running, loses_answers, said, tidings};
use crate::harness;

async fn on(url: &str, args: &[&str]) -> Ran {
    tidings(&[&["task"], args].concat(), &[("TIDINGS_URL", url)]).await
}

async fn submitted(url: &str, args: &[&str]) -> String {
    let ran = on(url, &[&["run"], args].concat()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.out.trim().to_owned()
}

fn field(line: &str, place: usize) -> &str {
    line.split('\t').nth(place).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_submitted_shown_and_changed_from_a_shell() {
    let replica = Replica::in_memory("cli", QUICK).await;
    let url = replica.url.as_str();
    let args = ["cordon", "a", "--file", "-", "--executor", "external", "--owner", "42"];
    let more = ["--concurrency", "3", "--meta", r#"{"why":"x"}"#, "--idempotency-key", "k"];
    let all = [&["task", "run"], &args[..], &more].concat();
    let lines = "b\n\n {\"name\":\"c\",\"data\":{\"pool\":1}}\n";
    let first = Running::start(&all, &[("TIDINGS_URL", url)]).with_input(lines).await;
    assert_eq!(first.code, 0, "{}", first.err);
    let id = first.out.trim();
    let again = Running::start(&all, &[("TIDINGS_URL", url)]).with_input(lines).await;
    assert_eq!(again.out.trim(), format!("{id}\tduplicate"));
    let kept = task(url, id).await;
    assert_eq!((&kept["total"], &kept["concurrency"]), (&json!(3), &json!(3)));
    assert_eq!((&kept["meta"], &kept["owner"]), (&json!({"why": "x"}), &json!("42")));
    assert_eq!(on(url, &["items", id]).await.out, "a\tpending\t\nb\tpending\t\nc\tpending\t\n");
    let items = on(url, &["items", id, "--json"]).await.out;
    let third: Value = serde_json::from_str(items.lines().nth(2).unwrap()).unwrap();
    assert_eq!(third["data"], json!({"pool": 1}));

    let other = submitted(url, &["try", "x", "--executor", "external"]).await;
    let listed = on(url, &["list"]).await.out;
    let ids: Vec<&str> = listed.lines().map(|line| field(line, 0)).collect();
    assert_eq!(ids, [other.as_str(), id], "the newest first");
    let filtered = on(url, &["list", "--action", "cordon", "--owner", "42", "--json"]).await.out;
    assert_eq!(serde_json::from_str::<Value>(&filtered).unwrap()["id"], *id);
    assert_eq!(on(url, &["list", "--limit", "1"]).await.out.lines().count(), 1);

    for (wish, status) in [("pause", "paused"), ("resume", "pending"), ("cancel", "cancelled")] {
        let ran = on(url, &[wish, id]).await;
        assert_eq!((ran.code, field(&ran.out, 1)), (0, status), "{}", ran.err);
    }
    let refused = on(url, &["pause", id]).await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(said(&refused.err).contains("is cancelled and cannot be paused"), "{}", refused.err);
    let shown = on(url, &["show", id]).await.out;
    assert!(shown.contains("status    cancelled") && shown.contains("3 cancelled"), "{shown}");
    let retried = on(url, &["retry", id, "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&retried.out).unwrap()["attempt"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_whose_answer_is_lost_is_there_once() {
    let replica = Replica::in_memory("cli", QUICK).await;
    let lossy = loses_answers(replica.url.strip_prefix("http://").unwrap()).await;
    let both = format!("http://{lossy},{}", replica.url);
    let ran = on(&both, &["run", "try", "a", "--executor", "external"]).await;
    assert!(ran.code == 0 && ran.out.trim().ends_with("\tduplicate"), "{} {}", ran.out, ran.err);
    assert_eq!(on(&replica.url, &["list"]).await.out.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_longer_than_a_page_is_listed_whole() {
    let replica = Replica::in_memory("cli", QUICK).await;
    let lines: String = (0..2_500).map(|number| format!("node-{number}\n")).collect();
    let args = ["task", "run", "cordon", "--executor", "external", "--file", "-"];
    let ran = Running::start(&args, &[("TIDINGS_URL", &replica.url)]).with_input(&lines).await;
    let items = on(&replica.url, &["items", ran.out.trim()]).await.out;
    let names: String = items.lines().map(|line| format!("{}\n", field(line, 0))).collect();
    assert_eq!(names, lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_ends_as_the_task_ended() {
    let replica = Replica::in_memory("cli", QUICK).await;
    let url = replica.url.as_str();
    for (executor, code, last) in [
        (r#"{"type":"simulate","delay_ms":20}"#, 0, "completed 3/3 (100 %)"),
        (r#"{"type":"simulate","fail":["a"]}"#, 3, "partial 3/3 (100 %), 1 failed"),
        (r#"{"type":"simulate","fail_rate":1}"#, 4, "failed 3/3 (100 %), 3 failed"),
    ] {
        let ran = on(url, &["run", "try", "a", "b", "c", "--executor", executor, "--watch"]).await;
        assert_eq!((ran.code, ran.out.lines().last()), (code, Some(last)), "{}", ran.err);
        assert_eq!(ran.err.contains("a: simulated failure"), code != 0, "{}", ran.err);
        // Who comes later is told the same.
        let id = ran.out.lines().next().unwrap();
        let late = on(url, &["watch", id]).await;
        assert_eq!((late.code, late.out.trim()), (code, last));
    }
    let id = submitted(url, &["try", "a", "--executor", "external"]).await;
    let mut watch = Running::start(&["task", "watch", &id, "--json"], &[("TIDINGS_URL", url)]);
    assert!(watch.stdout().await.contains(r#""status":"pending""#));
    wish(url, &id, "cancel").await;
    assert!(watch.stdout().await.contains(r#""status":"cancelled""#));
    assert_eq!(watch.ended().await.0, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_returns_2_and_what_is_not_there_1() {
    for (args, sentence) in [
        (vec!["watch", "NO"], "an id is what"),
        (vec!["run", "a", "--executor", "simulate"], "at least one item"),
        (vec!["run", "a", "b", "--executor", "{"], "--executor is no JSON object"),
        (vec!["run", "a", "b", "b", "--executor", "simulate"], "it comes twice"),
        (vec!["run", "a", "b"], "--executor"),
        (vec!["run", "a", "b", "--executor", "simulate", "--meta", "7"], "--meta"),
        (vec!["run", "a", "--executor", "simulate", "--file", "/none"], "--file /none"),
        (vec!["show"], "<ID>"),
    ] {
        let ran = on("http://127.0.0.1:1", &args).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(sentence), "{args:?}: {}", ran.err);
    }
    let replica = Replica::in_memory("cli", QUICK).await;
    for args in [["show", "none"], ["watch", "none"], ["cancel", "none"], ["items", "none"]] {
        let ran = on(&replica.url, &args).await;
        assert_eq!((ran.code, ran.err.contains("(404)")), (1, true), "{args:?}: {}", ran.err);
    }
    let refused = on(&replica.url, &["run", "a", "b", "--executor", "dance"]).await;
    assert!(refused.code == 1 && refused.err.contains("/executor"), "{}", refused.err);
    let ran = on("http://127.0.0.1:1", &["watch", "a", "--timeout-s", "1"]).await;
    assert!(ran.code == 1 && ran.err.contains("gave up after 1 s"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_goes_on_when_its_replica_dies_and_tells_how_it_ended() {
    let url = harness::database_url().await;
    let mut fleet = fleet(&url, 2, &[]).await;
    let id = submit(&fleet[0].url, &simulated(150, 100)).await;
    // Whoever runs it dies, and it is the one that is watched.
    let name = until_running(&fleet, &id).await.name.clone();
    let place = fleet.iter().position(|replica| replica.name == name).unwrap();
    let both = format!("{},{}", fleet[place].url, fleet[1 - place].url);
    let mut watch = Running::start(&["task", "watch", &id], &[("TIDINGS_URL", &both)]);
    let mut lines = vec![watch.stdout().await];
    fleet[place].kill().await;
    watch.says("trying again").await;
    while !lines.last().unwrap().starts_with("completed") {
        lines.push(watch.stdout().await);
    }
    assert_eq!(lines.last().unwrap(), "completed 150/150 (100 %)");
    let current =
        |line: &String| -> u64 { line.split([' ', '/']).nth(1).unwrap().parse().unwrap() };
    assert!(lines.is_sorted_by_key(current), "{lines:?}");
    assert_eq!(watch.ended().await.0, Some(0));
}
