//! One suite over every store of tasks: what is promised of a task, whoever keeps it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidings::bus::memory::MemoryBus;
use tidings::clock::{Clock, TestClock};
use tidings::domain::{
    Counts, ItemResult, ItemStatus, Seq, Task, TaskId, TaskRules, TaskStatus, Timestamp, UserId,
};
use tidings::notification::Announcement;
use tidings::store::memory::{MemorySettings, MemoryStore};
use tidings::store::task::{
    Claim, Claimed, Ending, Granted, ItemFilter, NewTask, Report, Reported, TaskFilter, TaskStore,
    Which, Wish,
};
use tidings::store::{LogStore, Page};

use crate::harness;

const LEASE: Duration = Duration::from_secs(30);

/// A store to be tested, and the hand that makes leases run out.
struct Subject {
    tasks: Arc<dyn TaskStore>,
    log: Arc<dyn LogStore>,
    hand: Hand,
}

enum Hand {
    Clock(TestClock),
    Database(tokio_postgres::Client),
}

async fn memory() -> Subject {
    let settings = MemorySettings {
        messages_max: 1_000_000,
        bytes_max: 1 << 30,
        retention_s: 3600,
        idempotency_s: 86_400,
    };
    let (clock, hand) = Clock::test(Timestamp(1_795_168_800_000));
    let store = MemoryStore::new(settings, clock, MemoryBus::default());
    Subject { tasks: Arc::new(store.clone()), log: Arc::new(store), hand: Hand::Clock(hand) }
}

async fn postgres() -> Subject {
    let connector = harness::database().await;
    let client = connector.connect().await.unwrap();
    let store = harness::store(connector);
    store.settings_store().await.unwrap();
    Subject { tasks: Arc::new(store.clone()), log: Arc::new(store), hand: Hand::Database(client) }
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod over_memory {
            $(#[tokio::test] async fn $test() { super::$test(super::memory().await).await; })*
        }
        mod over_postgres {
            $(#[tokio::test] async fn $test() { super::$test(super::postgres().await).await; })*
        }
    };
}

suite! {
    a_task_is_kept_with_its_items_and_said_once_per_topic
    a_task_is_submitted_once_per_key
    the_newest_tasks_come_first_page_by_page
    items_come_in_their_order_page_by_page
    a_task_is_claimed_once_and_again_when_its_lease_ran_out
    a_report_books_items_counters_and_one_message
    a_report_told_twice_changes_nothing_more
    a_stale_term_changes_nothing
    an_attempt_ends_once_and_its_counts_say_how
    a_task_that_cannot_be_run_fails_with_its_reason
    what_nobody_holds_is_cancelled_at_once
    what_somebody_holds_is_cancelled_by_its_holder
    a_paused_task_is_given_to_nobody_until_it_is_resumed
    a_holder_may_go_on_when_its_task_is_resumed
    a_retry_runs_what_failed_or_was_cancelled
    a_task_at_most_once_fails_what_was_in_hand
    a_task_that_kills_its_holders_is_interrupted
    what_is_let_go_is_claimed_by_another
    workers_get_the_actions_they_know_of_the_owner_they_may
    a_worker_that_dies_while_cancelling_is_ended_by_a_replica
    a_snapshot_is_what_the_last_message_said
    a_task_that_ended_long_ago_is_removed
    a_hundred_thousand_items_are_one_statement
}

fn new_task(id: &str, names: &[&str]) -> NewTask {
    NewTask {
        id: TaskId::parse(id).unwrap(),
        action: "cordon".into(),
        owner: Some(UserId::parse("42").unwrap()),
        external: false,
        executor: r#"{"type":"simulate"}"#.into(),
        meta: r#"{"why" : "é"}"#.into(),
        rules: TaskRules {
            concurrency: 10,
            retries: 2,
            item_timeout: Duration::from_secs(30),
            at_most_once: false,
        },
        idempotency_key: None,
        items: names.iter().map(|name| ((*name).into(), None)).collect(),
    }
}

fn once(mut task: NewTask) -> NewTask {
    task.rules.at_most_once = true;
    task
}

fn external(mut task: NewTask) -> NewTask {
    task.external = true;
    task
}

impl Subject {
    async fn submit(&self, task: &NewTask) -> TaskId {
        let submitted = self.tasks.submit(task).await.unwrap();
        assert!(!submitted.duplicate);
        submitted.id
    }

    async fn task(&self, id: &TaskId) -> Task {
        self.tasks.get(id).await.unwrap().unwrap()
    }

    fn claim_of(&self, holder: &str) -> Claim {
        Claim {
            holder: holder.into(),
            lease: LEASE,
            tasks_max: 10,
            takeovers_max: 2,
            external: None,
        }
    }

    async fn claim(&self, holder: &str) -> Claimed {
        self.tasks.claim(&self.claim_of(holder)).await.unwrap()
    }

    /// The term of the one task that is due.
    async fn claim_one(&self, holder: &str) -> i64 {
        let claimed = self.claim(holder).await;
        assert_eq!(claimed.leases.len(), 1, "{claimed:?}");
        claimed.leases[0].1
    }

    fn report(&self, id: &TaskId, term: i64, results: &[(&str, Option<&str>)]) -> Report {
        let result = |(name, error): &(&str, Option<&str>)| ItemResult {
            name: (*name).into(),
            error: error.map(Into::into),
        };
        Report {
            id: id.clone(),
            term,
            lease: LEASE,
            results: results.iter().map(result).collect(),
            in_flight: None,
            ending: Ending::GoesOn,
        }
    }

    async fn tell(&self, report: &Report) -> Reported {
        self.tasks.report(report).await.unwrap()
    }

    async fn finish(&self, id: &TaskId, term: i64) -> Reported {
        let ending = Ending::Finish(None);
        self.tell(&Report { ending, ..self.report(id, term, &[]) }).await
    }

    async fn let_leases_run_out(&self) {
        match &self.hand {
            Hand::Clock(hand) => hand.shift_ms(60_000),
            Hand::Database(client) => {
                let past = "update tidings.task set due_at = clock_timestamp() - interval '1 s' where held";
                client.batch_execute(past).await.unwrap();
            }
        }
    }

    /// What was said on a topic: kinds, with their data.
    async fn said(&self, topic: &str) -> Vec<(String, Value)> {
        let page = Page { messages_max: 1_000, bytes_max: 1 << 30 };
        let head = self.log.head().await.unwrap().seq;
        let found = self.log.range(Seq::ZERO, head, page).await.unwrap();
        assert_eq!(found.read_to, head);
        let own = found.messages.iter().filter(|message| message.topic.as_str() == topic);
        own.map(|message| {
            let data: Value = serde_json::from_str(&message.data).unwrap();
            let task = data["id"].as_str().unwrap();
            assert_eq!(message.key.as_deref(), Some(task));
            (message.kind.as_deref().unwrap().to_owned(), data)
        })
        .collect()
    }

    async fn finished(&self, id: &TaskId) -> Vec<Value> {
        let said = self.said(id.topic().as_str()).await;
        let finished = said.iter().filter(|(kind, _)| kind == "task.finished");
        let finished: Vec<Value> = finished.map(|(_, data)| data.clone()).collect();
        if !finished.is_empty() {
            assert_eq!(said.last().unwrap().0, "task.finished", "something after the last word");
        }
        finished
    }
}

fn told(reported: &Reported) -> Option<&Announcement> {
    match reported {
        Reported::Done { told, .. } => told.as_ref(),
        other => panic!("{other:?}"),
    }
}

fn status(reported: &Reported) -> TaskStatus {
    match reported {
        Reported::Done { status, .. } => *status,
        other => panic!("{other:?}"),
    }
}

fn stop(reported: &Reported) -> bool {
    match reported {
        Reported::Done { stop, .. } => *stop,
        other => panic!("{other:?}"),
    }
}

async fn a_task_is_kept_with_its_items_and_said_once_per_topic(subject: Subject) {
    let mut new = new_task("t1", &["a", "b"]);
    new.items[1].1 = Some(r#"{"pool" : "x"}"#.into());
    let submitted = subject.tasks.submit(&new).await.unwrap();
    let told = submitted.told.unwrap();
    assert_eq!((told.first.get(), told.last.get()), (1, 2));
    let task = subject.task(&new.id).await;
    assert_eq!(task.status, TaskStatus::Pending);
    assert_eq!(task.counts, Counts { total: 2, ..Counts::default() });
    assert_eq!((&*task.action, &*task.meta), ("cordon", r#"{"why" : "é"}"#));
    assert_eq!((task.rules, task.attempt, task.seq.get()), (new.rules, 1, 1));
    let items = subject.tasks.items(&new.id, &ItemFilter::default(), 10).await.unwrap();
    assert_eq!(items[1].data.as_deref(), Some(r#"{"pool" : "x"}"#));
    assert_eq!(items[0].status, ItemStatus::Pending);
    let said = subject.said("task:t1").await;
    assert_eq!(said.len(), 1);
    assert_eq!(said, subject.said("user:42").await);
    let mut document = said[0].1.clone();
    for time in ["created_at", "updated_at"] {
        let text = document[time].take();
        assert!(text.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{text}");
        assert_eq!(text.as_str().unwrap().len(), "2026-11-20T10:00:00.000Z".len());
    }
    insta::assert_snapshot!("task_progress", document);
    assert_eq!(subject.tasks.get(&TaskId::parse("t2").unwrap()).await.unwrap(), None);
}

async fn a_task_is_submitted_once_per_key(subject: Subject) {
    let keyed =
        |id| NewTask { idempotency_key: Some("u 42 k".into()), ..new_task(id, &["a", "b"]) };
    subject.submit(&keyed("t1")).await;
    let again = subject.tasks.submit(&keyed("t2")).await.unwrap();
    assert!(again.duplicate && again.told.is_none());
    assert_eq!(again.id.as_str(), "t1");
    let both = [keyed("t3"), keyed("t4")];
    let racing = futures_util::future::join_all(both.iter().map(|new| subject.tasks.submit(new)));
    for submitted in racing.await {
        assert_eq!(submitted.unwrap().id.as_str(), "t1");
    }
    assert_eq!(subject.tasks.list(&TaskFilter::default(), 10).await.unwrap().len(), 1);
}

async fn the_newest_tasks_come_first_page_by_page(subject: Subject) {
    for number in 0..5 {
        let mut new = new_task(&format!("t{number}"), &["a"]);
        new.owner = Some(UserId::parse(if number % 2 == 0 { "1" } else { "2" }).unwrap());
        new.action = if number < 3 { "drain".into() } else { "cordon".into() };
        subject.submit(&new).await;
    }
    let list = async |filter: TaskFilter, limit| {
        let tasks = subject.tasks.list(&filter, limit).await.unwrap();
        tasks.iter().map(|task| task.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(TaskFilter::default(), 2).await, ["t4", "t3"]);
    let after = TaskId::parse("t3");
    assert_eq!(list(TaskFilter { after, ..TaskFilter::default() }, 9).await, ["t2", "t1", "t0"]);
    let owner = UserId::parse("1").ok();
    let own = TaskFilter { owner, ..TaskFilter::default() };
    assert_eq!(list(own.clone(), 9).await, ["t4", "t2", "t0"]);
    let drains = TaskFilter { action: Some("drain".into()), ..own };
    assert_eq!(list(drains, 9).await, ["t2", "t0"]);
    let running = TaskFilter { status: Some(TaskStatus::Running), ..TaskFilter::default() };
    assert_eq!(list(running, 9).await, Vec::<String>::new());
}

async fn items_come_in_their_order_page_by_page(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["z", "a", "m", "b"])).await;
    let term = subject.claim_one("one").await;
    let mut report = subject.report(&id, term, &[("a", None), ("m", Some("broken"))]);
    report.in_flight = Some(vec!["b".into()]);
    subject.tell(&report).await;
    let list = async |which, after: Option<&str>, limit| {
        let filter = ItemFilter { which, after: after.map(Into::into) };
        let items = subject.tasks.items(&id, &filter, limit).await.unwrap();
        let shown = items.iter().map(|item| format!("{} {}", item.name, item.status.as_str()));
        shown.collect::<Vec<_>>().join(", ")
    };
    let all = "z pending, a succeeded, m failed, b running";
    assert_eq!(list(Which::All, None, 9).await, all);
    assert_eq!(list(Which::All, Some("a"), 1).await, "m failed");
    assert_eq!(list(Which::Only(ItemStatus::Running), None, 9).await, "b running");
    assert_eq!(list(Which::Only(ItemStatus::Pending), None, 9).await, "z pending");
    assert_eq!(list(Which::Unfinished, None, 9).await, "z pending, b running");
    assert_eq!(list(Which::Unfinished, Some("z"), 9).await, "b running");
    assert_eq!(list(Which::All, Some("b"), 9).await, "");
}

async fn a_task_is_claimed_once_and_again_when_its_lease_ran_out(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a"])).await;
    let claimed = subject.claim("one").await;
    assert_eq!(claimed.leases, [(id.clone(), 1)]);
    assert!(claimed.next_due.is_some_and(|due| due > Duration::from_secs(20)), "{claimed:?}");
    let task = subject.task(&id).await;
    assert_eq!((task.status, task.replica.as_deref()), (TaskStatus::Running, Some("one")));
    assert!(task.started_at.is_some());
    assert_eq!(subject.claim("two").await.leases, []);
    subject.let_leases_run_out().await;
    assert_eq!(subject.claim("two").await.leases, [(id.clone(), 2)]);
    assert_eq!(subject.task(&id).await.replica.as_deref(), Some("two"));
    assert_eq!(subject.said("task:t1").await.len(), 3);
}

async fn a_report_books_items_counters_and_one_message(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b", "c"])).await;
    let term = subject.claim_one("one").await;
    let mut report = subject.report(&id, term, &[("b", None), ("a", Some("no such node"))]);
    report.in_flight = Some(vec!["c".into()]);
    let reported = subject.tell(&report).await;
    assert_eq!((status(&reported), stop(&reported)), (TaskStatus::Running, false));
    assert!(told(&reported).is_some());
    let task = subject.task(&id).await;
    let counts = Counts { total: 3, succeeded: 1, failed: 1, cancelled: 0 };
    assert_eq!((task.counts, &*task.in_flight[0]), (counts, "c"));
    let said = subject.said("task:t1").await;
    assert_eq!(said.len(), 3);
    let mut data = said[2].1.clone();
    for time in ["created_at", "updated_at", "started_at"] {
        assert!(data[time].take().is_string());
    }
    insta::assert_snapshot!("task_progress_running", data);
    assert_eq!(subject.said("user:42").await, said);
    // Nothing new, nothing to say.
    let renewal = Report { results: Vec::new(), ..report };
    assert_eq!(told(&subject.tell(&renewal).await), None);
    assert_eq!(subject.said("task:t1").await.len(), 3);
}

async fn a_report_told_twice_changes_nothing_more(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b"])).await;
    let term = subject.claim_one("one").await;
    let report = subject.report(&id, term, &[("a", None)]);
    subject.tell(&report).await;
    let again = subject.tell(&subject.report(&id, term, &[("a", Some("late"))])).await;
    assert_eq!(told(&again), None);
    let report =
        Report { ending: Ending::Finish(None), ..subject.report(&id, term, &[("b", None)]) };
    subject.tell(&report).await;
    assert_eq!(status(&subject.tell(&report).await), TaskStatus::Completed);
    assert_eq!(subject.finished(&id).await.len(), 1);
    let counts = Counts { total: 2, succeeded: 2, failed: 0, cancelled: 0 };
    assert_eq!(subject.task(&id).await.counts, counts);
}

async fn a_stale_term_changes_nothing(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b"])).await;
    let stale = subject.claim_one("one").await;
    subject.let_leases_run_out().await;
    let term = subject.claim_one("two").await;
    let before = subject.task(&id).await;
    for ending in [Ending::GoesOn, Ending::Release, Ending::Finish(None)] {
        let mut report = subject.report(&id, stale, &[("a", None)]);
        report.ending = ending;
        assert_eq!(subject.tell(&report).await, Reported::Fenced);
    }
    assert_eq!(subject.task(&id).await, before);
    subject.tell(&subject.report(&id, term, &[("a", None), ("b", None)])).await;
    subject.finish(&id, term).await;
    assert_eq!(subject.finish(&id, stale).await, Reported::Fenced);
    let late = subject.report(&id, term, &[("a", Some("late"))]);
    assert_eq!(subject.tell(&late).await, Reported::Fenced);
    assert_eq!(subject.finished(&id).await.len(), 1);
    let absent = TaskId::parse("none").unwrap();
    assert_eq!(subject.finish(&absent, 1).await, Reported::Absent);
}

async fn an_attempt_ends_once_and_its_counts_say_how(subject: Subject) {
    for (number, results, expected) in [
        (1, [("a", None), ("b", None)], TaskStatus::Completed),
        (2, [("a", None), ("b", Some("no"))], TaskStatus::Partial),
        (3, [("a", Some("no")), ("b", Some("no"))], TaskStatus::Failed),
    ] {
        let id = subject.submit(&new_task(&format!("t{number}"), &["a", "b"])).await;
        let term = subject.claim_one("one").await;
        let ending = Ending::Finish(None);
        let report = Report { ending, ..subject.report(&id, term, &results) };
        assert_eq!(status(&subject.tell(&report).await), expected);
        let task = subject.task(&id).await;
        assert_eq!(task.status, expected);
        assert!(task.finished_at.is_some() && task.in_flight.is_empty());
        let finished = subject.finished(&id).await;
        assert_eq!(finished.len(), 1);
        assert_eq!(finished[0]["progress"], 100);
        assert_eq!(finished[0]["truncated"], false);
        let failed = finished[0]["failed_items"].as_array().unwrap();
        assert_eq!(failed.len(), usize::try_from(task.counts.failed).unwrap());
        assert_eq!(subject.claim("two").await.leases, []);
    }
}

async fn a_task_that_cannot_be_run_fails_with_its_reason(subject: Subject) {
    let names: Vec<String> = (0..1_500).map(|number| format!("node-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = subject.submit(&new_task("t1", &names)).await;
    let term = subject.claim_one("one").await;
    let ending = Ending::Finish(Some("the host is not allowed".into()));
    subject.tell(&Report { ending, ..subject.report(&id, term, &[]) }).await;
    let task = subject.task(&id).await;
    assert_eq!((task.status, task.counts.failed), (TaskStatus::Failed, 1_500));
    assert_eq!(task.error.as_deref(), Some("the host is not allowed"));
    let finished = subject.finished(&id).await;
    assert_eq!(finished[0]["failed_items"].as_array().unwrap().len(), 1_000);
    assert_eq!(finished[0]["truncated"], true);
}

async fn what_nobody_holds_is_cancelled_at_once(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b"])).await;
    assert!(matches!(
        subject.tasks.grant(&id, Wish::Cancel).await.unwrap(),
        Granted::Done(Some(_))
    ));
    let task = subject.task(&id).await;
    assert_eq!((task.status, task.counts.cancelled), (TaskStatus::Cancelled, 2));
    assert_eq!(subject.tasks.grant(&id, Wish::Cancel).await.unwrap(), Granted::Done(None));
    assert_eq!(subject.tasks.grant(&id, Wish::Pause).await.unwrap(), Granted::Refused);
    assert_eq!(subject.tasks.grant(&id, Wish::Resume).await.unwrap(), Granted::Refused);
    assert_eq!(subject.finished(&id).await.len(), 1);
    assert_eq!(subject.claim("one").await.leases, []);
    let absent = TaskId::parse("none").unwrap();
    for wish in [Wish::Cancel, Wish::Pause, Wish::Resume, Wish::Retry] {
        assert_eq!(subject.tasks.grant(&absent, wish).await.unwrap(), Granted::Absent);
    }
}

async fn what_somebody_holds_is_cancelled_by_its_holder(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b", "c"])).await;
    let term = subject.claim_one("one").await;
    subject.tasks.grant(&id, Wish::Cancel).await.unwrap();
    let task = subject.task(&id).await;
    assert_eq!((task.status, task.message.is_some()), (TaskStatus::Running, true));
    let reported = subject.tell(&subject.report(&id, term, &[("a", None)])).await;
    assert!(stop(&reported));
    assert_eq!(subject.tasks.grant(&id, Wish::Cancel).await.unwrap(), Granted::Done(None));
    assert_eq!(subject.tasks.grant(&id, Wish::Pause).await.unwrap(), Granted::Refused);
    assert_eq!(status(&subject.finish(&id, term).await), TaskStatus::Cancelled);
    let counts = Counts { total: 3, succeeded: 1, failed: 0, cancelled: 2 };
    let task = subject.task(&id).await;
    assert_eq!((task.counts, task.message), (counts, None));
    assert_eq!(subject.finished(&id).await.len(), 1);
}

async fn a_paused_task_is_given_to_nobody_until_it_is_resumed(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b"])).await;
    subject.tasks.grant(&id, Wish::Pause).await.unwrap();
    assert_eq!(subject.tasks.grant(&id, Wish::Pause).await.unwrap(), Granted::Done(None));
    assert_eq!(subject.claim("one").await.leases, []);
    subject.tasks.grant(&id, Wish::Resume).await.unwrap();
    assert_eq!(subject.task(&id).await.status, TaskStatus::Pending);
    subject.claim_one("one").await;
    // Its holder dies while it is paused: nobody gets it, and nothing is lost.
    subject.tasks.grant(&id, Wish::Pause).await.unwrap();
    subject.let_leases_run_out().await;
    assert_eq!(subject.claim("two").await.leases, []);
    assert_eq!(subject.claim("two").await.next_due, None);
    subject.tasks.grant(&id, Wish::Resume).await.unwrap();
    assert_eq!(subject.claim_one("two").await, 2);
}

async fn a_holder_may_go_on_when_its_task_is_resumed(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b"])).await;
    let term = subject.claim_one("one").await;
    subject.tasks.grant(&id, Wish::Pause).await.unwrap();
    let reported = subject.tell(&subject.report(&id, term, &[("a", None)])).await;
    assert_eq!((status(&reported), stop(&reported)), (TaskStatus::Paused, true));
    subject.tasks.grant(&id, Wish::Resume).await.unwrap();
    assert_eq!(subject.claim("two").await.leases, []);
    let reported = subject.tell(&subject.report(&id, term, &[])).await;
    assert_eq!((status(&reported), stop(&reported)), (TaskStatus::Running, false));
    assert_eq!(subject.task(&id).await.counts.current(), 1);
}

async fn a_retry_runs_what_failed_or_was_cancelled(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b", "c"])).await;
    let term = subject.claim_one("one").await;
    assert_eq!(subject.tasks.grant(&id, Wish::Retry).await.unwrap(), Granted::Refused);
    subject.tell(&subject.report(&id, term, &[("a", None), ("b", Some("no"))])).await;
    subject.tasks.grant(&id, Wish::Cancel).await.unwrap();
    subject.finish(&id, term).await;
    subject.tasks.grant(&id, Wish::Retry).await.unwrap();
    let task = subject.task(&id).await;
    let counts = Counts { total: 3, succeeded: 1, failed: 0, cancelled: 0 };
    assert_eq!((task.status, task.attempt, task.counts), (TaskStatus::Pending, 2, counts));
    assert_eq!((task.finished_at, task.started_at), (None, None));
    let term = subject.claim_one("two").await;
    let unfinished = ItemFilter { which: Which::Unfinished, after: None };
    let left = subject.tasks.items(&id, &unfinished, 10).await.unwrap();
    let left: Vec<&str> = left.iter().map(|item| &*item.name).collect();
    assert_eq!(left, ["b", "c"]);
    subject.tell(&subject.report(&id, term, &[("b", None), ("c", None)])).await;
    assert_eq!(status(&subject.finish(&id, term).await), TaskStatus::Completed);
    let finished = subject.finished(&id).await;
    let attempts: Vec<&Value> = finished.iter().map(|data| &data["attempt"]).collect();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(subject.tasks.grant(&id, Wish::Retry).await.unwrap(), Granted::Refused);
}

async fn a_task_at_most_once_fails_what_was_in_hand(subject: Subject) {
    let id = subject.submit(&once(new_task("t1", &["a", "b", "c", "d"]))).await;
    let term = subject.claim_one("one").await;
    let mut report = subject.report(&id, term, &[("a", None)]);
    report.in_flight = Some(vec!["a".into(), "b".into()]);
    subject.tell(&report).await;
    subject.let_leases_run_out().await;
    let term = subject.claim_one("two").await;
    let items = subject.tasks.items(&id, &ItemFilter::default(), 10).await.unwrap();
    let errors: Vec<Option<&str>> = items.iter().map(|item| item.error.as_deref()).collect();
    assert_eq!(errors, [None, Some("interrupted"), None, None]);
    subject.tell(&subject.report(&id, term, &[("c", None), ("d", None)])).await;
    assert_eq!(status(&subject.finish(&id, term).await), TaskStatus::Partial);
}

async fn a_task_that_kills_its_holders_is_interrupted(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b", "c"])).await;
    // Whoever finishes something may die as often as it likes.
    for item in ["a", "b"] {
        subject.let_leases_run_out().await;
        let term = subject.claim_one("one").await;
        subject.tell(&subject.report(&id, term, &[(item, None)])).await;
    }
    for _ in 0..2 {
        subject.let_leases_run_out().await;
        subject.claim_one("one").await;
    }
    subject.let_leases_run_out().await;
    assert_eq!(subject.claim("two").await.leases, []);
    let task = subject.task(&id).await;
    assert_eq!((task.status, task.counts.cancelled), (TaskStatus::Interrupted, 1));
    assert!(task.error.is_some());
    assert_eq!(subject.finished(&id).await.len(), 1);
    subject.tasks.grant(&id, Wish::Retry).await.unwrap();
    subject.claim_one("two").await;
}

async fn what_is_let_go_is_claimed_by_another(subject: Subject) {
    let id = subject.submit(&once(new_task("t1", &["a", "b"]))).await;
    let term = subject.claim_one("one").await;
    let mut report = subject.report(&id, term, &[("a", None)]);
    report.ending = Ending::Release;
    assert_eq!(status(&subject.tell(&report).await), TaskStatus::Pending);
    assert_eq!(status(&subject.tell(&report).await), TaskStatus::Pending);
    assert_eq!(subject.claim_one("two").await, 2);
    assert_eq!(subject.task(&id).await.counts.current(), 1);
    assert_eq!(subject.tell(&report).await, Reported::Fenced);
}

async fn workers_get_the_actions_they_know_of_the_owner_they_may(subject: Subject) {
    let id = subject.submit(&external(new_task("t1", &["a", "b"]))).await;
    assert_eq!(subject.claim("replica").await.leases, []);
    let ask = async |actions: &[&str], owner: Option<&str>| {
        let actions = actions.iter().map(|action| (*action).into()).collect();
        let owner = owner.map(|owner| UserId::parse(owner).unwrap());
        let claim = Claim { external: Some((actions, owner)), ..subject.claim_of("w1") };
        subject.tasks.claim(&claim).await.unwrap().leases
    };
    assert_eq!(ask(&["drain"], None).await, []);
    assert_eq!(ask(&["drain", "cordon"], Some("41")).await, []);
    assert_eq!(ask(&["drain", "cordon"], Some("42")).await, [(id.clone(), 1)]);
    let reported = subject.tell(&subject.report(&id, 1, &[("a", None), ("x", None)])).await;
    assert_eq!(reported, Reported::Unknown(vec!["x".to_owned()]));
    assert_eq!(subject.task(&id).await.counts.current(), 0);
    subject.tell(&subject.report(&id, 1, &[("a", None)])).await;
    assert_eq!(status(&subject.finish(&id, 1).await), TaskStatus::Partial);
    let items = subject.tasks.items(&id, &ItemFilter::default(), 10).await.unwrap();
    assert_eq!(items[1].error.as_deref(), Some("not reported"));
}

async fn a_worker_that_dies_while_cancelling_is_ended_by_a_replica(subject: Subject) {
    let id = subject.submit(&external(new_task("t1", &["a"]))).await;
    let external = Some((vec!["cordon".into()], None));
    let claim = Claim { external, ..subject.claim_of("w1") };
    assert_eq!(subject.tasks.claim(&claim).await.unwrap().leases.len(), 1);
    subject.tasks.grant(&id, Wish::Cancel).await.unwrap();
    assert_eq!(subject.claim("replica").await.leases, []);
    subject.let_leases_run_out().await;
    assert_eq!(subject.claim("replica").await.leases, []);
    assert_eq!(subject.task(&id).await.status, TaskStatus::Cancelled);
    assert_eq!(subject.finished(&id).await.len(), 1);
}

async fn a_snapshot_is_what_the_last_message_said(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a", "b"])).await;
    let term = subject.claim_one("one").await;
    for (name, error) in [("a", None), ("b", Some("no"))] {
        let mut report = subject.report(&id, term, &[(name, error)]);
        if name == "b" {
            report.ending = Ending::Finish(None);
        }
        subject.tell(&report).await;
        let snapshot = subject.tasks.snapshot(&id).await.unwrap().unwrap();
        let task = subject.task(&id).await;
        assert_eq!(snapshot.message.seq, Some(task.seq));
        assert_eq!(snapshot.epoch, subject.log.head().await.unwrap().epoch);
        let mark = subject.log.mark(task.seq).await.unwrap().unwrap();
        assert_eq!(mark.topic, id.topic());
        let (kind, mut last) = subject.said("task:t1").await.pop().unwrap();
        assert_eq!(snapshot.message.kind.as_deref(), Some(&*kind));
        let mut data: Value = serde_json::from_str(&snapshot.message.data).unwrap();
        // What was new with the last message is no news to somebody who begins.
        assert_eq!(data["succeeded_items"].take(), Value::Array(Vec::new()));
        last["succeeded_items"].take();
        assert_eq!(data, last);
    }
    let absent = TaskId::parse("none").unwrap();
    assert_eq!(subject.tasks.snapshot(&absent).await.unwrap(), None);
}

async fn a_task_that_ended_long_ago_is_removed(subject: Subject) {
    let ended = subject.submit(&new_task("t1", &["a"])).await;
    subject.tasks.grant(&ended, Wish::Cancel).await.unwrap();
    let open = subject.submit(&new_task("t2", &["a"])).await;
    let hour = Duration::from_secs(3_600);
    assert_eq!(subject.tasks.expire(hour).await.unwrap(), 0);
    match &subject.hand {
        Hand::Clock(hand) => hand.shift_ms(3_601_000),
        Hand::Database(client) => {
            let long_ago = "update tidings.task set finished_at = finished_at - interval '3601 s'";
            client.batch_execute(long_ago).await.unwrap();
        }
    }
    assert_eq!(subject.tasks.expire(hour).await.unwrap(), 1);
    assert_eq!(subject.tasks.get(&ended).await.unwrap(), None);
    let items = subject.tasks.items(&ended, &ItemFilter::default(), 10).await.unwrap();
    assert_eq!(items, []);
    assert!(subject.tasks.get(&open).await.unwrap().is_some());
}

async fn a_hundred_thousand_items_are_one_statement(subject: Subject) {
    let names: Vec<String> = (0..100_000).map(|number| format!("node-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = subject.submit(&new_task("t1", &names)).await;
    assert_eq!(subject.task(&id).await.counts.total, 100_000);
    let term = subject.claim_one("one").await;
    let results: Vec<(&str, Option<&str>)> = names[..1_000].iter().map(|n| (*n, None)).collect();
    subject.tell(&subject.report(&id, term, &results)).await;
    let task = subject.task(&id).await;
    assert_eq!((task.counts.succeeded, task.counts.progress_hundredths()), (1_000, 100));
    assert_eq!(status(&subject.finish(&id, term).await), TaskStatus::Partial);
}
