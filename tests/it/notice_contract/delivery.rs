//! What comes when a session opens, and again when nobody acknowledged it.

use tidings::domain::ReceiptState::{Received, Sent as WasSent};

use super::*;

const GRACE: Duration = Duration::from_secs(30);

pub async fn due(subject: &Subject, replica: &str, names: &[&str]) -> Vec<(String, String)> {
    let users: Vec<UserId> = names.iter().map(|name| user(name)).collect();
    let of = Redelivery { replica, users: &users, grace: GRACE, tries_max: 3, rows_max: 100 };
    let found = subject.inboxes.due(&of).await.unwrap();
    found.into_iter().map(|(user, one)| (user.to_string(), one.id.to_string())).collect()
}

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(user, id)| ((*user).to_owned(), (*id).to_owned())).collect()
}

pub async fn what_was_missed_comes_oldest_first_and_not_all_of_it(subject: Subject) {
    let one = reader("1", &[]);
    subject.send(&new("old", users(&["1"]))).await;
    subject.seconds_pass(1_000).await;
    for name in ["a", "b", "c", "d"] {
        subject.send(&new(name, users(&["1", "2"]))).await;
    }
    let names =
        |opened: &Opened| opened.missed.iter().map(|one| one.id.to_string()).collect::<Vec<_>>();
    for (max, age_s, expected, left_out) in [
        (100, 10_000, &["old", "a", "b", "c", "d"][..], 0),
        (100, 500, &["a", "b", "c", "d"], 1),
        (2, 10_000, &["c", "d"], 3),
        (0, 10_000, &[], 5),
    ] {
        let replays = Replays { max, age: Duration::from_secs(age_s) };
        let both = [reader("3", &[]), one.clone()];
        let opened = subject.inboxes.open(&both, replays).await.unwrap();
        assert_eq!((names(&opened[0]), opened[0].left_out), (vec![], 0));
        assert_eq!(
            (names(&opened[1]), opened[1].left_out),
            (expected.iter().map(|n| (*n).to_owned()).collect(), left_out)
        );
        assert_eq!(opened[1].counts, counts(5, 5));
    }
}

pub async fn what_was_received_is_not_missed(subject: Subject) {
    let one = reader("1", &[]);
    subject.send(&new("a", Target::All)).await;
    subject.send(&new("b", users(&["1"]))).await;
    subject.mark(&one, "a", WasSent).await;
    assert_eq!(subject.missed(&one).await, ["a", "b"]);
    subject.mark(&one, "a", Received).await;
    assert_eq!(subject.missed(&one).await, ["b"]);
}

pub async fn what_nobody_acknowledged_is_due_to_those_who_are_connected(subject: Subject) {
    subject.send(&new("n", users(&["1", "2", "3"]))).await;
    subject.mark(&reader("1", &[]), "n", WasSent).await;
    subject.mark(&reader("3", &[]), "n", Received).await;
    assert_eq!(due(&subject, "a", &["1", "2", "3"]).await, []);
    subject.seconds_pass(31).await;
    assert_eq!(due(&subject, "a", &["1", "3", "4"]).await, pairs(&[("1", "n")]));
    assert_eq!(due(&subject, "a", &["1", "3"]).await, []);
    assert_eq!(due(&subject, "b", &["2"]).await, pairs(&[("2", "n")]));
    subject.notices.recall(&id("n")).await.unwrap();
    subject.seconds_pass(1_000).await;
    assert_eq!(due(&subject, "a", &["1", "2"]).await, []);
}

pub async fn what_was_left_out_when_a_session_opened_is_not_redelivered(subject: Subject) {
    for name in ["a", "b", "c"] {
        subject.send(&new(name, users(&["1"]))).await;
    }
    let replays = Replays { max: 1, age: Duration::from_secs(10_000) };
    let opened = subject.inboxes.open(&[reader("1", &[])], replays).await.unwrap();
    assert_eq!((opened[0].missed.len(), opened[0].left_out), (1, 2));
    subject.seconds_pass(31).await;
    assert_eq!(due(&subject, "a", &["1"]).await, pairs(&[("1", "c")]));
}

pub async fn within_a_round_every_replica_carries_it_once(subject: Subject) {
    subject.send(&new("n", users(&["1"]))).await;
    subject.seconds_pass(31).await;
    for replica in ["a", "b"] {
        assert_eq!(due(&subject, replica, &["1"]).await, pairs(&[("1", "n")]), "{replica}");
        assert_eq!(due(&subject, replica, &["1"]).await, [], "{replica}");
    }
    assert_eq!(due(&subject, "a", &["1"]).await, []);
}

pub async fn each_round_waits_twice_as_long_and_they_end(subject: Subject) {
    subject.send(&new("n", users(&["1"]))).await;
    for wait_s in [30, 60, 120] {
        subject.seconds_pass(wait_s - 5).await;
        assert_eq!(due(&subject, "a", &["1"]).await, [], "before {wait_s} s");
        subject.seconds_pass(6).await;
        assert_eq!(due(&subject, "a", &["1"]).await, pairs(&[("1", "n")]), "after {wait_s} s");
    }
    // As long as the last round lasts the others carry it too, and nobody afterwards.
    assert_eq!(due(&subject, "b", &["1"]).await, pairs(&[("1", "n")]));
    subject.seconds_pass(100_000).await;
    for replica in ["a", "c", "a"] {
        assert_eq!(due(&subject, replica, &["1"]).await, []);
    }
    assert_eq!(subject.missed(&reader("1", &[])).await, ["n"], "it stays in the inbox");
    assert_eq!(subject.notices.resend(&id("n")).await.unwrap(), Resent::Done(1));
    assert_eq!(due(&subject, "c", &["1"]).await, pairs(&[("1", "n")]));
}

pub async fn a_resent_notice_is_due_to_those_who_have_not_received_it(subject: Subject) {
    subject.send(&NewNotice { expires_in_s: Some(1_000), ..new("n", users(&["1", "2"])) }).await;
    subject.mark(&reader("1", &[]), "n", WasSent).await;
    subject.mark(&reader("2", &[]), "n", Received).await;
    assert_eq!(subject.notices.resend(&id("n")).await.unwrap(), Resent::Done(1));
    assert_eq!(due(&subject, "a", &["1", "2"]).await, pairs(&[("1", "n")]));
    let opened = subject.open(&reader("1", &[])).await;
    assert_eq!(opened.missed[0].sending, 2);
    assert_eq!(subject.tally("n").await.by_state, [0, 1, 1, 0, 0, 0], "what was sent stays so");
    assert_eq!(subject.notices.resend(&id("none")).await.unwrap(), Resent::Absent);
    subject.seconds_pass(1_001).await;
    assert_eq!(subject.notices.resend(&id("n")).await.unwrap(), Resent::Refused);
}
