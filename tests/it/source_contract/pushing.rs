//! What is pushed waits for whoever reads it, in its order.

use futures_util::future::join_all;
use tidings::store::source::{INBOX_BYTES_MAX, INBOX_MAX, Ingested, Pushed};

use super::*;

/// How many pushes wait for others to end.
async fn waiting(client: &Client) -> i64 {
    // Within a transaction it is looked up once.
    client.batch_execute("select pg_stat_clear_snapshot()").await.unwrap();
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%source_ingest%'";
    number(client, waiting).await
}

fn texts(pushed: &[Pushed]) -> Vec<&str> {
    pushed.iter().map(|pushed| &*pushed.events).collect()
}

impl Subject {
    async fn push(&self, id: &SourceId, events: &str) -> Ingested {
        self.sources.ingest(id, events).await.unwrap()
    }

    async fn waiting(&self, id: &SourceId) -> Vec<Pushed> {
        self.readers.inbox(&[(id.clone(), 0)], 100_000).await.unwrap()
    }
}

pub async fn what_is_pushed_is_read_in_its_order(subject: Subject) {
    let (a, b) = (subject.create("a", &rules()).await, subject.create("b", &rules()).await);
    let c = subject.create("c", &rules()).await;
    for number in 0..6 {
        let of = if number % 2 == 0 { &a } else { &b };
        assert_eq!(subject.push(of, &format!(r#"[{{"n" : {number}}}]"#)).await, Ingested::Done);
    }
    subject.push(&c, "[]").await;
    let both = [(b.clone(), 0), (a.clone(), 0)];
    let all = subject.readers.inbox(&both, 100).await.unwrap();
    let expected: Vec<String> = (0..6).map(|number| format!(r#"[{{"n" : {number}}}]"#)).collect();
    assert_eq!(texts(&all), expected, "as it was pushed, letter for letter");
    assert!(all.is_sorted_by(|one, next| one.number < next.number && one.at <= next.at));
    let first = subject.readers.inbox(&both, 2).await.unwrap();
    assert_eq!(texts(&first), expected[..2]);
    let after = [(a.clone(), all[2].number), (b.clone(), all[1].number)];
    assert_eq!(texts(&subject.readers.inbox(&after, 100).await.unwrap()), expected[3..]);
    let one = [(a.clone(), all[0].number)];
    assert_eq!(
        texts(&subject.readers.inbox(&one, 100).await.unwrap()),
        [&expected[2], &expected[4]]
    );
    assert!(subject.readers.inbox(&[], 100).await.unwrap().is_empty());
    assert!(subject.readers.inbox(&[(id("none"), 0)], 100).await.unwrap().is_empty());
}

pub async fn what_is_pushed_stays_until_it_is_flushed(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let (other, _) = subject.owned("b").await;
    for text in ["[1]", "[2]", "[3]"] {
        subject.push(&id, text).await;
        subject.push(&other, text).await;
    }
    let all = subject.waiting(&id).await;
    // Having been read is not enough, nor is a flush that says nothing of it, or one of an older reader.
    subject.stand(&id, term, 1, SourceStatus::Connected).await;
    let late = Part { inbox: Some(all[2].number), ..Part::new(id.clone(), term - 1, 2) };
    assert_eq!(subject.flush(&late).await, Flushed::Lost);
    assert_eq!(subject.waiting(&id).await, all);
    let part = Part { inbox: Some(all[1].number), ..Part::new(id.clone(), term, 2) };
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    assert_eq!(subject.waiting(&id).await, all[2..]);
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    // Whoever takes it over finds the rest.
    subject.let_leases_run_out().await;
    assert_eq!(subject.held("two 2").await, ["a", "b"]);
    assert_eq!(subject.waiting(&id).await, all[2..]);
    assert_eq!(texts(&subject.waiting(&other).await), ["[1]", "[2]", "[3]"]);
}

pub async fn a_full_inbox_takes_no_more(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    for _ in 0..INBOX_MAX - 2 {
        assert_eq!(subject.push(&id, "[]").await, Ingested::Done);
    }
    let racing = join_all((0..10).map(|_| subject.push(&id, "[]")));
    let outcomes = match &subject.hand {
        Hand::Clock(..) => racing.await,
        // All of them have begun, and then they come one after the other.
        Hand::Database(client) => {
            client.batch_execute("begin; select from tidings.source for update").await.unwrap();
            let mut racing = std::pin::pin!(racing);
            let look = crate::fleet::until("all wait", async || waiting(client).await == 10);
            tokio::select! {
                outcomes = &mut racing => panic!("{outcomes:?}"),
                () = look => {}
            }
            client.batch_execute("commit").await.unwrap();
            racing.await
        }
    };
    let done = outcomes.iter().filter(|outcome| **outcome == Ingested::Done).count();
    let full = outcomes.iter().filter(|outcome| **outcome == Ingested::Full).count();
    assert_eq!((done, full), (2, 8), "{outcomes:?}");
    let waiting = subject.waiting(&id).await;
    assert_eq!(waiting.len(), INBOX_MAX);
    let other = subject.create("b", &rules()).await;
    assert_eq!(subject.push(&other, "[]").await, Ingested::Done);
    let part = Part { inbox: Some(waiting[0].number), ..Part::new(id.clone(), term, 1) };
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    assert_eq!(subject.push(&id, "[]").await, Ingested::Done);
    assert_eq!(subject.push(&id, "[]").await, Ingested::Full);
}

pub async fn what_waits_is_bounded_in_bytes_and_read_in_portions(subject: Subject) {
    let id = subject.create("a", &rules()).await;
    let large = format!("[\"{}\"]", "x".repeat(6 << 20));
    let mut taken = 0;
    while subject.push(&id, &large).await == Ingested::Done {
        taken += 1;
    }
    assert_eq!(taken, INBOX_BYTES_MAX.div_ceil(large.len()));
    let mut after = vec![(id.clone(), 0)];
    for _ in 0..taken {
        let portion = subject.readers.inbox(&after, 100).await.unwrap();
        assert_eq!(portion.len(), 1, "one is more than enough");
        after[0].1 = portion[0].number;
    }
    assert!(subject.readers.inbox(&after, 100).await.unwrap().is_empty());
}

pub async fn who_does_not_push_is_told_why(subject: Subject) {
    let read = subject.create("read", &stream()).await;
    let disabled = SourceRules { enabled: false, ..rules() };
    let off = subject.create("off", &disabled).await;
    let both = subject.create("both", &SourceRules { enabled: false, ..stream() }).await;
    assert_eq!(subject.push(&read, "[]").await, Ingested::Read);
    assert_eq!(subject.push(&both, "[]").await, Ingested::Read);
    assert_eq!(subject.push(&off, "[]").await, Ingested::Disabled);
    assert_eq!(subject.push(&id("none"), "[]").await, Ingested::Absent);
    assert!(subject.sources.change(&off, 1, &rules()).await.unwrap());
    assert_eq!(subject.push(&off, "[]").await, Ingested::Done);
    assert_eq!(subject.waiting(&off).await.len(), 1);
    assert!(subject.sources.delete(&off).await.unwrap());
    assert_eq!(subject.push(&off, "[]").await, Ingested::Absent);
    assert!(subject.waiting(&off).await.is_empty());
}

/// Numbers are given when a batch is pushed, and seen when its transaction ends: without a lock of the source a
/// reader could see the second before the first, and pass over the first for good.
#[tokio::test]
async fn a_push_that_is_not_over_is_not_overtaken() {
    let subject = postgres().await;
    let Hand::Database(client) = &subject.hand else { unreachable!() };
    let id = subject.create("a", &rules()).await;
    let other = subject.create("b", &rules()).await;
    let query = &tidings::store::postgres::query::SOURCE_INGEST;
    client.batch_execute("begin").await.unwrap();
    let max = i64::try_from(INBOX_MAX).unwrap();
    let bytes_max = i64::try_from(INBOX_BYTES_MAX).unwrap();
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [&"a", &"[1]", &max, &bytes_max];
    client.query(query.text, &params).await.unwrap();
    let mut later = std::pin::pin!(subject.push(&id, "[2]"));
    // Others are not held up, and that the later one waits can be seen.
    assert_eq!(subject.push(&other, "[]").await, Ingested::Done);
    let look = crate::fleet::until("it waits", async || waiting(client).await == 1);
    tokio::select! {
        outcome = &mut later => panic!("{outcome:?}, with an older push open"),
        () = look => {}
    }
    assert!(subject.waiting(&id).await.is_empty());
    client.batch_execute("commit").await.unwrap();
    assert_eq!(later.await, Ingested::Done);
    assert_eq!(texts(&subject.waiting(&id).await), ["[1]", "[2]"]);
}
