//! `tidings work`: commands for items, whatever they do and whatever happens to the worker.

use std::path::PathBuf;

use super::*;
use crate::commands::{Running, kill, tidings};
use crate::harness;

/// What the commands of a test wrote, a line each.
struct Notes {
    path: PathBuf,
}

impl Notes {
    fn new() -> Notes {
        let name = format!("tidings-test-{}", uuid::Uuid::now_v7().simple());
        Notes { path: std::env::temp_dir().join(name) }
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|own| *own == line).count()
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn external(names: &[&str], changes: Value) -> Value {
    let body = json!({"items": names, "executor": {"type": "external"}});
    but(but(simulated(1, 0), body), changes)
}

/// A worker that runs a text in a shell, which may write to `$NOTES`.
fn worker(urls: &str, notes: &Notes, args: &[&str], script: &str) -> Running {
    let path = std::env::var("PATH").unwrap();
    let notes = notes.path.to_str().unwrap();
    let env = [("TIDINGS_URL", urls), ("NOTES", notes), ("PATH", &path), ("TIDINGS_TOKEN", "t")];
    let own = ["work", "--action", "cordon", "--shell"];
    Running::start(&[&own, args, &["--", script]].concat(), &env)
}

/// Whether a process has ended, though nobody may have asked how.
fn is_gone(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.contains(") Z ") || !kill("-0", process)
}

/// An error of each item that failed.
async fn errors(url: &str, id: &str) -> HashMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let failed = items(url, id, "failed").await;
    failed.iter().map(|item| (text(&item["name"]), text(&item["error"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_run_for_each_item_and_its_exit_code_says_how_it_went() {
    let replica = Replica::in_memory("work", QUICK).await;
    let notes = Notes::new();
    let script = r#"
        echo "$TIDINGS_ACTION $TIDINGS_ITEM ${TIDINGS_DATA-none} $TIDINGS_ATTEMPT ${TIDINGS_TOKEN-hidden}" >> "$NOTES"
        case $TIDINGS_ITEM in
            bad) echo first >&2; echo 'no such node' >&2; exit 3;;
            hangs) echo waiting >&2; sleep 600 & echo "$$ $!" >> "$NOTES"; wait;;
            loud) yes 'a line of a complaint' | head -c 8000000 >&2; yes | head -c 8000000; exit 1;;
            leaves) sleep 5 & exit 4;;
            dies) kill -9 $$;;
        esac"#;
    let _worker = worker(&replica.url, &notes, &["--worker", "w1"], script);
    let body = external(
        &["good", "bad", "hangs", "loud", "leaves", "dies", "x; touch /none"],
        json!({"item_timeout_s": 3}),
    );
    let id = submit(&replica.url, &body).await;
    let ended = until_final(&replica.url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("partial"), &json!(2)), "{ended}");
    assert_eq!(ended["replica"], "w1");
    let errors = errors(&replica.url, &id).await;
    assert_eq!(errors["bad"], "exit code 3: first\nno such node");
    assert_eq!(errors["hangs"], "it took longer than 3s: waiting");
    assert_eq!(errors["dies"], "killed by signal 9");
    assert_eq!(errors["leaves"], "exit code 4", "whatever it left behind");
    let loud = &errors["loud"];
    assert!(loud.starts_with("exit code 1: a line of a complaint\n") && loud.len() < 500, "{loud}");
    let lines = notes.lines();
    assert!(lines.contains(&"cordon good none 1 hidden".to_owned()), "{lines:?}");
    // What hung is gone, and what it had started with it.
    let hung = lines.iter().find(|line| line.chars().all(|c| c.is_ascii_digit() || c == ' '));
    for process in hung.unwrap().split(' ') {
        let process = process.parse().unwrap();
        until("it is gone", async || is_gone(process)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_an_argument_and_its_data_a_variable() {
    let replica = Replica::in_memory("work", QUICK).await;
    let notes = Notes::new();
    let path = std::env::var("PATH").unwrap();
    let file = notes.path.to_str().unwrap();
    let env = [("TIDINGS_URL", replica.url.as_str()), ("PATH", &path)];
    let script = r#"printf '%s|%s\n' "$1" "$TIDINGS_DATA" >> "$0""#;
    let args = ["work", "--action", "cordon", "--", "sh", "-c", script, file, "{item}"];
    let _worker = Running::start(&args, &env);
    let items = json!([{"name": "$(touch x) 'a'", "data": {"pool": "b"}}, "-rf"]);
    let id = submit(&replica.url, &external(&[], json!({"items": items}))).await;
    until_final(&replica.url, &id).await;
    assert_eq!(notes.lines(), [r#"$(touch x) 'a'|{"pool":"b"}"#]);
    assert!(errors(&replica.url, &id).await["-rf"].contains("option"));
    for (args, sentence) in [
        (vec!["work", "--action", "a"], "<COMMAND>"),
        (vec!["work", "--", "true"], "--action"),
        (vec!["work", "--action", "a", "--", "{item}"], "may not name the program"),
        (vec!["work", "--action", "a", "--shell", "--", "echo {item}"], "$TIDINGS_ITEM"),
    ] {
        let ran = tidings(&args, &[]).await;
        assert!(ran.code == 2 && ran.err.contains(sentence), "{args:?}: {}", ran.err);
    }
    let ran = tidings(&["work", "--action", "a", "--", "none"], &[("TIDINGS_URL", "http://a b")]);
    assert_eq!(ran.await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_killed_and_another_one_finishes() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 2, &[]).await;
    let both = urls(&fleet).join(",");
    let notes = Notes::new();
    let script = r#"echo "$TIDINGS_ITEM" >> "$NOTES"; sleep 0.1"#;
    let args = ["--lease-s", "2", "--concurrency", "3", "--worker"];
    let first = worker(&both, &notes, &[&args[..], &["w1"]].concat(), script);
    let names = names(40);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = submit(&fleet[0].url, &external(&names, json!({}))).await;
    let some = |task: &Value| task["replica"] == "w1" && task["current"].as_u64() > Some(3);
    until_task(&fleet[0].url, &id, "the first one works", some).await;
    let _second = worker(&both, &notes, &[&args[..], &["w2"]].concat(), script);
    first.signal("-KILL");
    let ended = until_final(&fleet[0].url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(40)));
    assert_eq!(ended["replica"], "w2");
    for name in names {
        assert!((1..=2).contains(&notes.count(name)), "{name}");
    }
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_at_most_once_is_run_by_one_worker_only() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 1, &[]).await;
    let notes = Notes::new();
    let script = r#"echo "$TIDINGS_ITEM" >> "$NOTES"; sleep 0.1"#;
    let first = worker(&fleet[0].url, &notes, &["--lease-s", "1", "--worker", "w1"], script);
    let names = names(60);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let changes = json!({"at_most_once": true, "concurrency": 5});
    let id = submit(&fleet[0].url, &external(&names, changes)).await;
    let some = |task: &Value| task["current"].as_u64() > Some(3);
    until_task(&fleet[0].url, &id, "the first one works", some).await;
    first.signal("-KILL");
    let _second = worker(&fleet[0].url, &notes, &["--worker", "w2"], script);
    until_final(&fleet[0].url, &id).await;
    assert!(names.iter().all(|name| notes.count(name) <= 1), "{:?}", notes.lines());
    let errors = errors(&fleet[0].url, &id).await;
    assert!(!errors.is_empty() && errors.len() <= 5, "{errors:?}");
    assert!(errors.values().all(|error| error == "interrupted"), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_leave_finishes_what_is_in_hand_and_lets_go_of_the_rest() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 1, &[]).await;
    let notes = Notes::new();
    let script = r#"echo "$TIDINGS_ITEM" >> "$NOTES"; sleep 0.3; echo "done" >> "$NOTES""#;
    let args = ["--lease-s", "3600", "--concurrency", "2", "--worker"];
    let first = worker(&fleet[0].url, &notes, &[&args[..], &["w1"]].concat(), script);
    let names = names(12);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = submit(&fleet[0].url, &external(&names, json!({}))).await;
    until("some are in hand", async || notes.lines().len() > 3).await;
    first.signal("-TERM");
    let (code, said) = first.ended().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("let go of, it is pending"), "{said}");
    let begun = notes.lines();
    assert_eq!(notes.count("done") * 2, begun.len(), "what was begun is finished: {begun:?}");
    let left = task(&fleet[0].url, &id).await;
    assert_eq!(left["current"].as_u64(), Some(notes.count("done") as u64), "and told");
    // Long before the lease would run out.
    let _second = worker(&fleet[0].url, &notes, &[&args[..], &["w2"]].concat(), script);
    let ended = until_final(&fleet[0].url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(12)));
    assert!(names.iter().all(|name| notes.count(name) == 1), "{:?}", notes.lines());
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_twice_ends_at_once_with_its_commands() {
    let replica = Replica::in_memory("work", QUICK).await;
    let notes = Notes::new();
    let mut worker = worker(&replica.url, &notes, &[], r#"echo $$ >> "$NOTES"; sleep 600"#);
    submit(&replica.url, &external(&["a"], json!({"item_timeout_s": 3600}))).await;
    until("it runs", async || !notes.lines().is_empty()).await;
    worker.signal("-INT");
    worker.says("a second signal ends it now").await;
    worker.signal("-TERM");
    assert_eq!(worker.ended().await.0, Some(130));
    let process = notes.lines()[0].parse().unwrap();
    until("the command is gone", async || is_gone(process)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_when_its_task_is_paused_or_cancelled() {
    let replica = Replica::in_memory("work", QUICK).await;
    let url = replica.url.as_str();
    let notes = Notes::new();
    let script = r#"echo "$TIDINGS_ITEM" >> "$NOTES"; sleep 0.1"#;
    let args = ["--lease-s", "2", "--concurrency", "1"];
    let mut worker = worker(url, &notes, &args, script);
    let names = names(200);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = submit(url, &external(&names, json!({}))).await;
    let some = |task: &Value| task["current"].as_u64() > Some(2);
    until_task(url, &id, "it works", some).await;
    wish(url, &id, "pause").await;
    worker.says("let go of, it is paused").await;
    let begun = notes.lines().len() as u64;
    assert_eq!(task(url, &id).await["current"], begun, "nothing is lost and nothing has failed");
    wish(url, &id, "resume").await;
    let more = |task: &Value| task["current"].as_u64() > Some(begun + 2);
    until_task(url, &id, "it goes on", more).await;
    wish(url, &id, "cancel").await;
    worker.says("let go of, it is cancelled").await;
    let ended = until_final(url, &id).await;
    assert_eq!(ended["status"], "cancelled");
    assert_eq!(ended["succeeded"], notes.lines().len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_term_is_over_stops_its_commands_and_claims_again() {
    let url = harness::database_url().await;
    let fleet = fleet(&url, 1, &[]).await;
    let notes = Notes::new();
    let args = ["--lease-s", "1", "--worker"];
    let script = r#"echo $$ >> "$NOTES"; sleep 600"#;
    let mut frozen = worker(&fleet[0].url, &notes, &[&args[..], &["w1"]].concat(), script);
    let changes = json!({"item_timeout_s": 3600});
    let id = submit(&fleet[0].url, &external(&["a"], changes)).await;
    until("it runs", async || !notes.lines().is_empty()).await;
    frozen.signal("-STOP");
    let _other = worker(&fleet[0].url, &Notes::new(), &[&args[..], &["w2"]].concat(), "sleep 2");
    let taken = |task: &Value| task["replica"] == "w2";
    until_task(&fleet[0].url, &id, "another one takes it over", taken).await;
    frozen.signal("-CONT");
    frozen.says("claim again").await;
    let process = notes.lines()[0].parse().unwrap();
    until("its command is gone", async || is_gone(process)).await;
    let ended = until_final(&fleet[0].url, &id).await;
    assert_eq!((&ended["status"], &ended["replica"]), (&json!("completed"), &json!("w2")));
    books_are_right(&harness::connect(&url).await, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_when_its_replica_is_back_what_was_done_meanwhile() {
    let url = harness::database_url().await;
    let mut fleet = fleet(&url, 1, &[]).await;
    let notes = Notes::new();
    let script = r#"echo "$TIDINGS_ITEM" >> "$NOTES"; sleep 0.2"#;
    let _worker = worker(&fleet[0].url, &notes, &["--lease-s", "120"], script);
    let names = names(40);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = submit(&fleet[0].url, &external(&names, json!({"concurrency": 4}))).await;
    until("some are in hand", async || notes.lines().len() > 4).await;
    fleet[0].kill().await;
    let before = notes.lines().len();
    until("it goes on", async || notes.lines().len() > before + 8).await;
    fleet[0].start_again().await;
    let ended = until_final(&fleet[0].url, &id).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&json!("completed"), &json!(40)));
    assert!(names.iter().all(|name| notes.count(name) == 1), "{:?}", notes.lines());
}
