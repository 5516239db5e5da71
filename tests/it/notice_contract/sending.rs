//! What is kept of a notice, and what is said of it.

use serde_json::json;
use tidings::domain::{Class, Priority};

use super::*;

pub async fn a_notice_to_named_users_has_a_row_and_a_message_for_each(subject: Subject) {
    let notice = NewNotice { expires_in_s: Some(60), ..new("n", users(&["2", "1"])) };
    let sent = subject.send(&notice).await;
    assert_eq!(sent.recipients, Some(2));
    let told = sent.told.unwrap();
    let said = subject.said("notice").await;
    assert_eq!(told.messages.unwrap(), said);
    assert_eq!(topics(&said), ["user:2", "user:1"]);
    for message in &said {
        assert_eq!((message.class, message.priority), (Class::Event, Priority::High));
        assert_eq!(message.key.as_deref(), Some("n"));
        assert_eq!(message.expires_at.unwrap().0 - message.at.0, 60_000);
        let data = data(message);
        assert!(
            message.data.contains(r#""data":{"why" : "é"}"#),
            "byte for byte: {}",
            message.data
        );
        assert_eq!(data["title"], "Main\"tenance");
        assert_eq!(data["priority"], "high");
        assert_eq!(data["confirm"], true);
        assert!(data["expires_at"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(subject.tally("n").await.by_state, [2, 0, 0, 0, 0, 0]);
    // Whoever comes finds the message where it stands in the log.
    for (name, message) in [("2", &said[0]), ("1", &said[1])] {
        let opened = subject.open(&reader(name, &[])).await;
        let Delivery { message: missed, sending, .. } = &opened.missed[0];
        assert_eq!(
            (missed.seq, &missed.topic, &missed.data, *sending),
            (message.seq, &message.topic, &message.data, 1)
        );
        assert_eq!(opened.counts, counts(1, 1));
    }
    assert_eq!(subject.missed(&reader("3", &[])).await, [""; 0]);
}

pub async fn a_notice_to_everybody_is_one_row_and_one_message(subject: Subject) {
    let sent = subject.send(&new("n", Target::All)).await;
    assert_eq!(sent.recipients, None);
    assert_eq!(topics(&subject.said("notice").await), ["broadcast"]);
    assert_eq!(subject.tally("n").await.total(), 0);
    let opened = subject.open(&reader("1", &[])).await;
    assert_eq!(opened.missed[0].message.topic.as_str(), "broadcast");
    assert_eq!(subject.tally("n").await.by_state, [1, 0, 0, 0, 0, 0]);
    // Who is told of it before anything of it was written down.
    subject.mark(&reader("2", &[]), "n", ReceiptState::Sent).await;
    assert_eq!(subject.tally("n").await.by_state, [1, 1, 0, 0, 0, 0]);
}

pub async fn a_notice_to_roles_is_one_message_a_role(subject: Subject) {
    subject.send(&new("n", roles(&["dev", "ops"]))).await;
    let said = subject.said("notice").await;
    assert_eq!(topics(&said), ["role:dev", "role:ops"]);
    let opened = subject.open(&reader("1", &["other", "ops"])).await;
    assert_eq!((opened.missed.len(), opened.missed[0].message.seq), (1, said[1].seq));
    assert_eq!(opened.missed[0].message.topic.as_str(), "role:ops");
    assert_eq!(subject.open(&reader("2", &["ops", "dev"])).await.missed.len(), 1);
    assert_eq!(subject.missed(&reader("3", &["opsy"])).await, [""; 0]);
    // Once it is in an inbox it stays there, whatever becomes of the role.
    assert_eq!(subject.missed(&reader("1", &[])).await, ["n"]);
    subject.mark(&reader("4", &["none"]), "n", ReceiptState::Read).await;
    assert_eq!(subject.tally("n").await.total(), 2);
}

pub async fn who_is_left_out_finds_nothing(subject: Subject) {
    for (name, target) in [("all", Target::All), ("ops", roles(&["ops"]))] {
        subject.send(&NewNotice { except: vec![user("3")], ..new(name, target) }).await;
    }
    let three = reader("3", &["ops"]);
    assert_eq!(subject.missed(&three).await, [""; 0]);
    subject.mark(&three, "all", ReceiptState::Read).await;
    assert_eq!(subject.tally("all").await.total(), 0);
    assert_eq!(subject.missed(&reader("4", &["ops"])).await, ["all", "ops"]);
}

pub async fn a_notice_is_sent_once_per_key(subject: Subject) {
    let key = Some("s k".into());
    let first = NewNotice { idempotency_key: key.clone(), ..new("one", users(&["1", "2"])) };
    subject.send(&first).await;
    let again = NewNotice { idempotency_key: key, ..new("two", Target::All) };
    let sent = subject.notices.send(&again).await.unwrap();
    assert!(sent.duplicate && sent.told.is_none());
    assert_eq!((sent.id, sent.recipients), (id("one"), Some(2)));
    assert_eq!(subject.said("notice").await.len(), 2);
    assert!(subject.notices.get(&id("two")).await.unwrap().is_none());
}

pub async fn ten_thousand_named_users_are_one_statement(subject: Subject) {
    let names: Vec<UserId> = (0..10_000).map(|number| user(&format!("u{number}"))).collect();
    let sent = subject.send(&new("n", Target::Users(names))).await;
    assert_eq!(sent.recipients, Some(10_000));
    assert_eq!(subject.tally("n").await.of(ReceiptState::Pending), 10_000);
    let mut after = None;
    for page in 0..10 {
        let filter = RecipientFilter { state: Some(ReceiptState::Pending), after };
        let found = subject.notices.recipients(&id("n"), &filter, 1_000).await.unwrap();
        assert_eq!(found.len(), 1_000, "page {page}");
        assert!(found.is_sorted_by(|one, next| one.user < next.user));
        after = found.last().map(|receipt| receipt.user.clone());
    }
}

pub async fn the_newest_notices_come_first_page_by_page(subject: Subject) {
    for name in ["a", "b", "c"] {
        subject.send(&new(name, Target::All)).await;
    }
    let names =
        |notices: Vec<Notice>| notices.into_iter().map(|n| n.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(subject.notices.list(None, 2).await.unwrap()), ["c", "b"]);
    assert_eq!(names(subject.notices.list(Some(&id("b")), 2).await.unwrap()), ["a"]);
    assert_eq!(names(subject.notices.list(Some(&id("none")), 2).await.unwrap()), [""; 0]);
    let one = reader("1", &[]);
    let shown: Vec<String> =
        subject.inbox(&one).await.iter().map(|one| one.id.to_string()).collect();
    assert_eq!(shown, ["c", "b", "a"]);
    subject.mark(&one, "b", ReceiptState::Read).await;
    let filter = InboxFilter { unread: true, before: Some(id("c")) };
    let left = subject.inboxes.inbox(&one, &filter, 10).await.unwrap();
    assert_eq!((left.len(), &left[0].id), (1, &id("a")));
}

pub async fn a_recalled_notice_goes_from_every_inbox_and_is_told_once(subject: Subject) {
    for (name, target, told) in [
        ("named", users(&["1", "2"]), &["user:1", "user:2"][..]),
        ("all", Target::All, &["broadcast"]),
        ("roles", roles(&["ops"]), &["role:ops"]),
    ] {
        let one = reader("1", &["ops"]);
        subject.send(&new(name, target)).await;
        assert_eq!(subject.open(&one).await.counts, counts(1, 1), "{name}");
        subject.mark(&one, name, ReceiptState::Received).await;
        let Recalled::Done(Some(announced)) = subject.notices.recall(&id(name)).await.unwrap()
        else {
            panic!()
        };
        let said = subject.said("notice.recalled").await;
        let said: Vec<Message> =
            said.into_iter().filter(|one| one.key.as_deref() == Some(name)).collect();
        assert_eq!(topics(&said), told);
        assert_eq!(announced.messages.unwrap(), said);
        assert_eq!(data(&said[0]), json!({"id": name}));
        assert_eq!(subject.open(&one).await.counts, counts(0, 0), "{name}");
        assert_eq!(subject.inbox(&one).await, []);
        // Its receipts stay, and grow no more.
        subject.mark(&one, name, ReceiptState::Read).await;
        assert_eq!(subject.tally(name).await.of(ReceiptState::Received), 1);
        assert!(subject.get(name).await.recalled_at.is_some());
        assert_eq!(subject.notices.recall(&id(name)).await.unwrap(), Recalled::Done(None));
    }
    assert_eq!(subject.notices.recall(&id("none")).await.unwrap(), Recalled::Absent);
}

pub async fn a_notice_that_is_too_old_is_removed(subject: Subject) {
    let day = Duration::from_secs(86_400);
    subject.send(&new("old", users(&["1"]))).await;
    subject.send(&NewNotice { expires_in_s: Some(400_000), ..new("kept", Target::All) }).await;
    assert_eq!(subject.notices.expire(day).await.unwrap(), 0);
    subject.seconds_pass(86_500).await;
    assert_eq!(subject.notices.expire(day).await.unwrap(), 1);
    assert!(subject.notices.get(&id("old")).await.unwrap().is_none());
    assert_eq!(subject.missed(&reader("1", &[])).await, ["kept"]);
    assert_eq!(subject.tally("old").await.total(), 0);
}
