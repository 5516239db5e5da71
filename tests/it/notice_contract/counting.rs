//! Receipts that only grow, and counts that follow from them.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tidings::domain::ReceiptState::{Confirmed, Pending, Read, Received, Sent};

use super::*;

pub async fn receipts_only_grow_and_are_counted(subject: Subject) {
    subject.send(&new("n", users(&["1", "2", "3", "4", "5"]))).await;
    for (name, state) in [("1", Sent), ("2", Received), ("3", Read), ("4", Confirmed)] {
        subject.mark(&reader(name, &[]), "n", state).await;
    }
    assert_eq!(subject.tally("n").await.by_state, [1, 1, 1, 1, 1, 0]);
    // Whatever comes late changes nothing.
    for name in ["1", "2", "3", "4"] {
        subject.mark(&reader(name, &[]), "n", Sent).await;
    }
    assert_eq!(subject.tally("n").await.by_state, [1, 1, 1, 1, 1, 0]);
    let of = |state| RecipientFilter { state, after: None };
    let all = subject.notices.recipients(&id("n"), &of(None), 10).await.unwrap();
    let times = |receipt: &tidings::domain::Receipt| {
        [receipt.sent_at, receipt.received_at, receipt.read_at, receipt.confirmed_at]
            .map(|at| at.is_some())
    };
    assert_eq!(times(&all[0]), [true, false, false, false]);
    assert_eq!(times(&all[3]), [true; 4]);
    assert_eq!(times(&all[4]), [false; 4]);
    let read = subject.notices.recipients(&id("n"), &of(Some(Read)), 10).await.unwrap();
    assert_eq!((read.len(), &read[0].user), (1, &user("3")));
}

pub async fn a_notice_that_nobody_received_in_time_is_expired(subject: Subject) {
    subject.send(&NewNotice { expires_in_s: Some(10), ..new("n", users(&["1", "2", "3"])) }).await;
    let (one, two) = (reader("1", &[]), reader("2", &[]));
    subject.mark(&one, "n", Sent).await;
    subject.mark(&two, "n", Received).await;
    let (before, _) = subject.inboxes.lapsed(Timestamp(0)).await.unwrap();
    subject.seconds_pass(11).await;
    assert_eq!(subject.tally("n").await.by_state, [0, 0, 1, 0, 0, 2]);
    assert_eq!(subject.open(&one).await.counts, counts(0, 0));
    assert_eq!(subject.missed(&reader("3", &[])).await, [""; 0]);
    // Too late for who has not had it; who has may still say so.
    subject.mark(&one, "n", Read).await;
    subject.mark(&two, "n", Read).await;
    assert_eq!(subject.tally("n").await.by_state, [0, 0, 0, 1, 0, 2]);
    let since = Timestamp(before.0 - 11_000);
    assert!(subject.inboxes.lapsed(since).await.unwrap().1);
    let (now, _) = subject.inboxes.lapsed(since).await.unwrap();
    assert!(!subject.inboxes.lapsed(now).await.unwrap().1);
}

pub async fn only_the_own_inbox_is_marked(subject: Subject) {
    subject.send(&new("n", users(&["1"]))).await;
    let marked = subject.mark(&reader("2", &["1"]), "n", Confirmed).await;
    assert_eq!((marked.counts, marked.told), (vec![(user("2"), counts(0, 0))], None));
    subject.mark(&reader("2", &[]), "none", Confirmed).await;
    assert_eq!(subject.tally("n").await.by_state, [1, 0, 0, 0, 0, 0]);
}

pub async fn all_of_an_inbox_is_marked_at_once(subject: Subject) {
    subject.send(&new("named", users(&["1", "2"]))).await;
    subject.send(&new("all", Target::All)).await;
    let one = reader("1", &[]);
    let marked =
        subject.inboxes.mark(&[Mark { reader: one.clone(), id: None, state: Read }]).await.unwrap();
    assert_eq!(marked.counts, [(user("1"), counts(0, 2))]);
    let confirmed = Mark { reader: one.clone(), id: None, state: Confirmed };
    assert_eq!(
        subject.inboxes.mark(&[confirmed]).await.unwrap().counts,
        [(user("1"), counts(0, 0))]
    );
    assert_eq!(subject.open(&reader("2", &[])).await.counts, counts(2, 2));
}

pub async fn what_asks_for_no_confirmation_is_read_by_it(subject: Subject) {
    subject.send(&NewNotice { confirm: false, ..new("n", users(&["1"])) }).await;
    let one = reader("1", &[]);
    assert_eq!(subject.open(&one).await.counts, counts(1, 0));
    subject.mark(&one, "n", Confirmed).await;
    assert_eq!(subject.tally("n").await.by_state, [0, 0, 0, 1, 0, 0]);
}

pub async fn whoever_acts_is_told_its_counts_and_nobody_else(subject: Subject) {
    subject.send(&new("n", users(&["1", "2", "3"]))).await;
    let marks = [
        mark(&reader("3", &[]), "n", Sent),
        mark(&reader("2", &[]), "n", Read),
        mark(&reader("1", &[]), "n", Confirmed),
        mark(&reader("1", &[]), "n", Read),
    ];
    let before = subject.log.head().await.unwrap().seq;
    let marked = subject.inboxes.mark(&marks).await.unwrap();
    let expected =
        [(user("1"), counts(0, 0)), (user("2"), counts(0, 1)), (user("3"), counts(1, 1))];
    assert_eq!(marked.counts, expected);
    let said = subject.said("inbox.counts").await;
    assert_eq!(topics(&said), ["user:1", "user:2"]);
    assert_eq!(&*said[1].data, r#"{"unread":0,"unconfirmed":1}"#);
    assert_eq!(marked.told.unwrap().messages.unwrap(), said);
    assert!(marked.as_of >= before);
    // Told twice it is said once.
    assert_eq!(subject.inboxes.mark(&marks).await.unwrap().told, None);
    assert_eq!(subject.said("inbox.counts").await.len(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Send { target: usize, confirm: bool, expires: bool },
    Mark { reader: usize, notice: usize, state: usize },
    All { reader: usize, state: usize },
    Recall { notice: usize },
    Time,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..4_usize, any::<bool>(), any::<bool>())
            .prop_map(|(target, confirm, expires)| Step::Send { target, confirm, expires }),
        6 => (0..3_usize, 0..8_usize, 1..5_usize)
            .prop_map(|(reader, notice, state)| Step::Mark { reader, notice, state }),
        1 => (0..3_usize, 2..5_usize).prop_map(|(reader, state)| Step::All { reader, state }),
        1 => (0..8_usize).prop_map(|notice| Step::Recall { notice }),
        1 => Just(Step::Time),
    ]
}

/// What a reader has of a notice, kept by a hand that knows nothing of stores.
#[derive(Clone, Copy)]
struct Own {
    there: bool,
    confirm: bool,
    expires: bool,
    live: bool,
    state: ReceiptState,
}

/// Whoever counts by hand comes to the same.
pub async fn counts_never_drift_whatever_happens(subject: Subject) {
    let readers = [reader("0", &[]), reader("1", &["ops"]), reader("2", &["ops", "dev"])];
    let has = [[true, true, true], [false, true, true], [true, false, true], [false, true, false]];
    let mut runner = TestRunner::deterministic();
    let mut books: Vec<[Own; 3]> = Vec::new();
    for _ in 0..6 {
        let steps = prop::collection::vec(step(), 30).new_tree(&mut runner).unwrap().current();
        // Notices of this round, from here on.
        let first = books.len();
        for step in steps {
            match step.clone() {
                Step::Send { target, confirm, expires } => {
                    let to = match target {
                        0 => Target::All,
                        1 => roles(&["ops", "dev"]),
                        2 => users(&["0", "2"]),
                        _ => users(&["1"]),
                    };
                    let name = format!("n{}", books.len());
                    let expires_in_s = expires.then_some(100);
                    subject.send(&NewNotice { confirm, expires_in_s, ..new(&name, to) }).await;
                    books.push([0, 1, 2].map(|reader| Own {
                        there: has[target][reader],
                        confirm,
                        expires,
                        live: true,
                        state: Pending,
                    }));
                }
                Step::Mark { reader, notice, state } => {
                    let state = ReceiptState::ALL[state];
                    subject.mark(&readers[reader], &format!("n{}", first + notice), state).await;
                    if let Some(own) = books.get_mut(first + notice) {
                        grow(&mut own[reader], state);
                    }
                }
                Step::All { reader, state } => {
                    let state = ReceiptState::ALL[state];
                    let all = Mark { reader: readers[reader].clone(), id: None, state };
                    subject.inboxes.mark(&[all]).await.unwrap();
                    books.iter_mut().for_each(|own| grow(&mut own[reader], state));
                }
                Step::Recall { notice } => {
                    subject.notices.recall(&id(&format!("n{}", first + notice))).await.unwrap();
                    for own in books.get_mut(first + notice).into_iter().flatten() {
                        own.live = false;
                    }
                }
                Step::Time => {
                    subject.seconds_pass(101).await;
                    books.iter_mut().flatten().for_each(|own| own.live &= !own.expires);
                }
            }
            for (number, reader) in readers.iter().enumerate() {
                let live =
                    || books.iter().map(|own| own[number]).filter(|own| own.there && own.live);
                let unread = live().filter(|own| own.state < Read).count() as u64;
                let unconfirmed =
                    live().filter(|own| own.confirm && own.state < Confirmed).count() as u64;
                let counted = subject.open(reader).await.counts;
                assert_eq!(counted, counts(unread, unconfirmed), "{number} after {step:?}");
            }
        }
    }
}

fn grow(own: &mut Own, to: ReceiptState) {
    if own.there && own.live {
        own.state = own.state.grown(to, own.confirm);
    }
}
