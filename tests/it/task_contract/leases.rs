//! Who may work on a task, until when, and what becomes of it when nobody does any more.

use super::*;

pub async fn a_task_is_claimed_once_and_again_when_its_lease_ran_out(subject: Subject) {
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

pub async fn owners_take_turns(subject: Subject) {
    let submit = async |id: &str, owner: &str| {
        let owner = Some(UserId::parse(owner).unwrap());
        subject.submit(&NewTask { owner, ..new_task(id, &["a"]) }).await;
    };
    let holders = std::cell::Cell::new(0);
    let next = async || {
        holders.set(holders.get() + 1);
        let claim = Claim { tasks_max: 1, ..subject.claim_of(&format!("r{}", holders.get())) };
        subject.tasks.claim(&claim).await.unwrap().leases[0].0.to_string()
    };
    for id in ["a1", "a2", "a3", "a4", "a5"] {
        submit(id, "ann").await;
    }
    submit("b1", "ben").await;
    submit("b2", "ben").await;
    let order = [next().await, next().await, next().await, next().await];
    assert_eq!(order, ["a1", "b1", "a2", "b2"]);
    // Whoever comes late is not behind all that waits, and not ahead of what has waited.
    submit("c1", "cid").await;
    submit("b3", "ben").await;
    let order = [next().await, next().await, next().await, next().await, next().await];
    assert_eq!(order, ["a3", "c1", "b3", "a4", "a5"]);
}

pub async fn an_owner_leaves_room_for_another(subject: Subject) {
    let submit = async |id: &str, owner: &str| {
        let owner = Some(UserId::parse(owner).unwrap());
        subject.submit(&NewTask { owner, ..new_task(id, &["a"]) }).await;
    };
    let claim = async |tasks_max| {
        let claim = Claim { tasks_max, ..subject.claim_of("one") };
        subject.tasks.claim(&claim).await.unwrap()
    };
    for number in 0..12 {
        submit(&format!("a{number}"), "ann").await;
    }
    assert_eq!(claim(10).await.leases.len(), 8);
    let claimed = claim(2).await;
    assert_eq!(
        (claimed.leases.len(), claimed.next_due.is_some_and(|due| due.is_zero())),
        (0, false)
    );
    submit("b1", "ben").await;
    let claimed = claim(2).await;
    assert_eq!(claimed.leases.len(), 1);
    assert_eq!(claimed.leases[0].0.as_str(), "b1");
    // Another replica has hands of its own.
    assert_eq!(subject.claim("two").await.leases.len(), 4);
    // And what nobody holds any more is held by nobody.
    subject.let_leases_run_out().await;
    assert_eq!(claim(10).await.leases.len(), 9);
}

pub async fn a_worker_waits_for_what_it_may_have(subject: Subject) {
    let worker = |action: &str, owner: Option<&str>| Claim {
        external: Some((vec![action.into()], owner.map(|owner| UserId::parse(owner).unwrap()))),
        ..subject.claim_of("worker")
    };
    let new = NewTask { external: true, ..new_task("t1", &["a"]) };
    subject.submit(&new).await;
    let other = subject.tasks.claim(&worker("other", None)).await.unwrap();
    assert_eq!((other.leases.len(), other.next_due), (0, None));
    let other = subject.tasks.claim(&worker(&new.action, Some("somebody"))).await.unwrap();
    assert_eq!((other.leases.len(), other.next_due), (0, None));
    assert_eq!(subject.tasks.claim(&worker(&new.action, None)).await.unwrap().leases.len(), 1);
}

pub async fn what_was_in_hand_at_most_once_is_not_let_go_to_others(subject: Subject) {
    let id = subject.submit(&once(new_task("t1", &["a", "b", "c"]))).await;
    let term = subject.claim_one("one").await;
    let mut report = subject.report(&id, term, &[]);
    report.in_flight = Some(vec!["a".into(), "b".into()]);
    subject.tell(&report).await;
    let mut release = subject.report(&id, term, &[("a", None)]);
    release.ending = Ending::Release;
    subject.tell(&release).await;
    let items = subject.tasks.items(&id, &ItemFilter::default(), 10).await.unwrap();
    let errors: Vec<Option<&str>> = items.iter().map(|item| item.error.as_deref()).collect();
    assert_eq!(errors, [None, Some("interrupted"), None]);
    // What it has not begun is for others.
    let term = subject.claim_one("two").await;
    subject.tell(&subject.report(&id, term, &[("c", None)])).await;
    assert_eq!(status(&subject.finish(&id, term).await), TaskStatus::Partial);
}

pub async fn a_report_renews_the_lease_as_it_was_claimed(subject: Subject) {
    let id = subject.submit(&new_task("t1", &["a"])).await;
    let lease = Duration::from_secs(600);
    let claim = Claim { lease, ..subject.claim_of("one") };
    let term = subject.tasks.claim(&claim).await.unwrap().leases[0].1;
    subject.let_leases_run_low().await;
    subject.tell(&subject.report(&id, term, &[])).await;
    let due = subject.claim("two").await.next_due.unwrap();
    assert!(due > Duration::from_secs(590) && due <= lease, "{due:?}");
}

pub async fn a_stale_term_changes_nothing(subject: Subject) {
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

pub async fn a_task_at_most_once_fails_what_was_in_hand(subject: Subject) {
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

pub async fn a_task_that_kills_its_holders_is_interrupted(subject: Subject) {
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

pub async fn what_is_let_go_is_claimed_by_another(subject: Subject) {
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

pub async fn workers_get_the_actions_they_know_of_the_owner_they_may(subject: Subject) {
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

pub async fn a_worker_that_dies_while_cancelling_is_ended_by_a_replica(subject: Subject) {
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
