//! What somebody wants of a task: to cancel, pause, resume and retry it.

use super::*;

pub async fn what_nobody_holds_is_cancelled_at_once(subject: Subject) {
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

pub async fn what_somebody_holds_is_cancelled_by_its_holder(subject: Subject) {
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

pub async fn a_paused_task_is_given_to_nobody_until_it_is_resumed(subject: Subject) {
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

pub async fn a_holder_may_go_on_when_its_task_is_resumed(subject: Subject) {
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

pub async fn a_retry_runs_what_failed_or_was_cancelled(subject: Subject) {
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

pub async fn its_owner_finds_a_notice_of_each_attempt_if_that_is_wished(subject: Subject) {
    let mut wished = new_task("t1", &["a", "b"]);
    wished.rules.notice = true;
    let id = subject.submit(&wished).await;
    assert!(subject.task(&id).await.rules.notice);
    let without = subject.submit(&new_task("t2", &["a"])).await;
    subject.tasks.grant(&without, Wish::Cancel).await.unwrap();
    assert_eq!(subject.missed().await, []);
    let claimed = subject.claim("one").await;
    let results = [("a", None), ("b", Some("no"))];
    let ending = Ending::Finish(None);
    let last = Report { ending, ..subject.report(&id, claimed.leases[0].1, &results) };
    let told = told(&subject.tell(&last).await).cloned().unwrap().messages.unwrap();
    subject.tell(&last).await;
    subject.tasks.grant(&id, Wish::Retry).await.unwrap();
    subject.tasks.grant(&id, Wish::Cancel).await.unwrap();
    let missed = subject.missed().await;
    let names: Vec<&str> = missed.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(names, ["task-t1-1", "task-t1-2"], "once an attempt");
    // It was said in the same transaction, after the last word about the task.
    let said = told.iter().find(|one| one.kind.as_deref() == Some("notice")).unwrap();
    assert_eq!((Some(said), said), (told.last(), &missed[0].message));
    let data: Value = serde_json::from_str(&said.data).unwrap();
    assert_eq!(data["title"], "cordon: partial");
    assert_eq!(data["content"], "1 of 2 succeeded, 1 failed, 0 cancelled");
    let expected = serde_json::json!({
        "task": "t1", "action": "cordon", "status": "partial", "attempt": 1,
        "total": 2, "succeeded": 1, "failed": 1, "cancelled": 0,
    });
    assert_eq!(data["data"], expected);
    let data: Value = serde_json::from_str(&missed[1].message.data).unwrap();
    assert_eq!(data["title"], "cordon: cancelled");
    assert_eq!(subject.finished(&id).await.len(), 2);
}
