//! What is kept of a task, what is said of it, and how it is found again.

use super::*;

/// What is said of a task that nobody has claimed, its times apart; no list is ever null.
const PENDING: &str = r#"{"action":"cordon","attempt":1,"cancelled":0,"concurrency":10,"created_at":null,"current":0,"error":null,"failed":0,"failed_items":[],"finished_at":null,"id":"t1","in_flight":[],"message":null,"owner":"42","progress":0,"replica":null,"seq":1,"started_at":null,"status":"pending","succeeded":0,"succeeded_items":[],"total":2,"truncated":false,"updated_at":null}"#;

/// And of one with a report that finished some of it.
const RUNNING: &str = r#"{"action":"cordon","attempt":1,"cancelled":0,"concurrency":10,"created_at":null,"current":2,"error":null,"failed":1,"failed_items":[{"error":"no such node","name":"a"}],"finished_at":null,"id":"t1","in_flight":["c"],"message":null,"owner":"42","progress":66.66,"replica":"one","seq":5,"started_at":null,"status":"running","succeeded":1,"succeeded_items":["b"],"total":3,"truncated":false,"updated_at":null}"#;

/// How each way of ending is said, without times and places.
const LAST_WORDS: &[(&str, &str)] = &[
    (
        "completed",
        r#"{"action":"cordon","attempt":1,"cancelled":0,"concurrency":10,"created_at":"at","current":1,"error":null,"failed":0,"failed_items":[],"finished_at":"at","id":"completed","in_flight":[],"message":null,"owner":"42","progress":100,"replica":"one","seq":null,"started_at":"at","status":"completed","succeeded":1,"succeeded_items":[],"total":1,"truncated":false,"updated_at":"at"}"#,
    ),
    (
        "partial",
        r#"{"action":"cordon","attempt":1,"cancelled":0,"concurrency":10,"created_at":"at","current":2,"error":null,"failed":1,"failed_items":[{"error":"no such node","name":"b"}],"finished_at":"at","id":"partial","in_flight":[],"message":null,"owner":"42","progress":100,"replica":"one","seq":null,"started_at":"at","status":"partial","succeeded":1,"succeeded_items":[],"total":2,"truncated":false,"updated_at":"at"}"#,
    ),
    (
        "failed",
        r#"{"action":"cordon","attempt":1,"cancelled":0,"concurrency":10,"created_at":"at","current":1,"error":null,"failed":1,"failed_items":[{"error":"no such node","name":"a"}],"finished_at":"at","id":"failed","in_flight":[],"message":null,"owner":"42","progress":100,"replica":"one","seq":null,"started_at":"at","status":"failed","succeeded":0,"succeeded_items":[],"total":1,"truncated":false,"updated_at":"at"}"#,
    ),
    (
        "cancelled",
        r#"{"action":"cordon","attempt":1,"cancelled":1,"concurrency":10,"created_at":"at","current":0,"error":null,"failed":0,"failed_items":[],"finished_at":"at","id":"cancelled","in_flight":[],"message":null,"owner":"42","progress":0,"replica":null,"seq":null,"started_at":null,"status":"cancelled","succeeded":0,"succeeded_items":[],"total":1,"truncated":false,"updated_at":"at"}"#,
    ),
    (
        "interrupted",
        r#"{"action":"cordon","attempt":1,"cancelled":1,"concurrency":10,"created_at":"at","current":0,"error":"those who worked on it died one after the other","failed":0,"failed_items":[],"finished_at":"at","id":"interrupted","in_flight":[],"message":null,"owner":"42","progress":0,"replica":"one","seq":null,"started_at":"at","status":"interrupted","succeeded":0,"succeeded_items":[],"total":1,"truncated":false,"updated_at":"at"}"#,
    ),
];

pub async fn a_task_is_kept_with_its_items_and_said_once_per_topic(subject: Subject) {
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
    assert_eq!(document.to_string(), PENDING);
    assert_eq!(subject.tasks.get(&TaskId::parse("t2").unwrap()).await.unwrap(), None);
}

pub async fn a_task_is_submitted_once_per_key(subject: Subject) {
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

pub async fn the_newest_tasks_come_first_page_by_page(subject: Subject) {
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

pub async fn items_come_in_their_order_page_by_page(subject: Subject) {
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

pub async fn a_report_books_items_counters_and_one_message(subject: Subject) {
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
    assert_eq!(data.to_string(), RUNNING);
    assert_eq!(subject.said("user:42").await, said);
    // Nothing new, nothing to say.
    let renewal = Report { results: Vec::new(), ..report };
    assert_eq!(told(&subject.tell(&renewal).await), None);
    assert_eq!(subject.said("task:t1").await.len(), 3);
}

pub async fn last_words_are_said_alike_everywhere(subject: Subject) {
    let submit = async |id: &str, names: &[&str]| subject.submit(&new_task(id, names)).await;
    for (id, results) in [
        ("completed", &[("a", None)][..]),
        ("partial", &[("a", None), ("b", Some("no such node"))]),
        ("failed", &[("a", Some("no such node"))]),
    ] {
        let names: Vec<&str> = results.iter().map(|(name, _)| *name).collect();
        let id = submit(id, &names).await;
        let term = subject.claim_one("one").await;
        subject.tell(&subject.report(&id, term, results)).await;
        subject.finish(&id, term).await;
    }
    let id = submit("cancelled", &["a"]).await;
    subject.tasks.grant(&id, Wish::Cancel).await.unwrap();
    submit("interrupted", &["a"]).await;
    for _ in 0..3 {
        subject.claim_one("one").await;
        subject.let_leases_run_out().await;
    }
    assert_eq!(subject.claim("one").await.leases, []);
    for (id, golden) in LAST_WORDS {
        let said = subject.said(&format!("task:{id}")).await;
        let (kind, mut data) = said.last().cloned().unwrap();
        assert_eq!(kind, "task.finished", "{id}");
        // When it was, and where it stands in the log, is another test's.
        data["seq"] = Value::Null;
        for field in ["created_at", "started_at", "updated_at", "finished_at"] {
            if data[field].is_string() {
                data[field] = "at".into();
            }
        }
        assert_eq!(data.to_string(), *golden, "{id}");
    }
}

pub async fn a_report_told_twice_changes_nothing_more(subject: Subject) {
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

pub async fn an_attempt_ends_once_and_its_counts_say_how(subject: Subject) {
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

pub async fn a_task_that_cannot_be_run_fails_with_its_reason(subject: Subject) {
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

pub async fn a_snapshot_is_what_the_last_message_said(subject: Subject) {
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
        let head = subject.log.head().await.unwrap();
        assert_eq!((snapshot.epoch, snapshot.as_of), (head.epoch, head.seq));
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

pub async fn a_task_that_ended_long_ago_is_removed(subject: Subject) {
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

pub async fn a_hundred_thousand_items_are_one_statement(subject: Subject) {
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
