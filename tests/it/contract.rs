//! One suite over every store: what the log promises, whoever keeps it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidings::bus::memory::MemoryBus;
use tidings::clock::Clock;
use tidings::domain::{Class, Draft, Pattern, Priority, Seq, Timestamp, Topic, Trace};
use tidings::store::memory::{MemorySettings, MemoryStore};
use tidings::store::{Appended, LogStore, Page, StoreError, Upkeep};

use crate::fleet::until;
use crate::harness;
use crate::proxy::{Proxy, Weather};

const PAGE: Page = Page { messages_max: 100, bytes_max: 1 << 20 };

/// A store to be tested, with what tells the implementations apart.
struct Subject {
    log: Arc<dyn LogStore>,
    upkeep: Arc<dyn Upkeep>,
}

async fn memory() -> Subject {
    let settings = MemorySettings {
        messages_max: 1_000_000,
        bytes_max: 1 << 30,
        items_max: 100_000,
        retention_s: 3600,
        idempotency_s: 86_400,
    };
    let store = MemoryStore::new(settings, Clock::system(), MemoryBus::default());
    Subject { log: Arc::new(store.clone()), upkeep: Arc::new(store) }
}

async fn postgres() -> Subject {
    let store = harness::store(harness::database().await);
    store.settings_store().await.unwrap();
    Subject { log: Arc::new(store.clone()), upkeep: Arc::new(store) }
}

suite! {
    seqs_begin_at_one_and_have_no_gaps
    a_message_is_kept_byte_for_byte
    an_idempotency_key_is_answered_and_not_doubled
    a_batch_may_hold_its_own_duplicates
    a_page_is_bounded_and_says_how_far_it_reaches
    patterns_find_what_they_match_in_order
    an_expired_message_is_applied_but_not_read
    a_moment_is_found
    two_writers_have_one_order
    an_epoch_is_renewed_once
    a_mark_tells_one_log_from_another
    upkeep_of_a_quiet_log_changes_nothing
}

fn draft(topic: &str, data: &str) -> Draft {
    Draft::new(Topic::parse(topic).unwrap(), data)
}

fn keyed(data: &str, key: &str) -> Draft {
    Draft { idempotency_key: Some(key.into()), ..draft("a", data) }
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

async fn append(log: &dyn LogStore, drafts: &[Draft]) -> Appended {
    log.writer().await.unwrap().write(drafts, Box::new(())).await.unwrap()
}

fn seqs(appended: &Appended) -> Vec<u64> {
    appended.placed.iter().map(|placed| placed.seq.get()).collect()
}

async fn seqs_begin_at_one_and_have_no_gaps(subject: Subject) {
    let mut writer = subject.log.writer().await.unwrap();
    let mut next = 1;
    for size in [1, 3, 1, 50] {
        let drafts: Vec<Draft> = (0..size).map(|number| draft("a", &number.to_string())).collect();
        let appended = writer.write(&drafts, Box::new(())).await.unwrap();
        assert_eq!(seqs(&appended), (next..next + size).collect::<Vec<_>>());
        assert_eq!(appended.first, seq(next));
        next += size;
    }
    let head = subject.log.head().await.unwrap();
    assert_eq!((head.seq.get(), head.oldest.get()), (next - 1, 1));
    subject.log.barrier().await.unwrap();
}

async fn a_message_is_kept_byte_for_byte(subject: Subject) {
    let mut full = draft("order:7", "{ \"step\" :\t\"päckt 😀 \\u0000\",\n\"n\": 1.50e3 }");
    full.kind = Some("shipped".into());
    full.key = Some("k\"ey".into());
    full.class = Class::State;
    full.priority = Priority::High;
    full.ttl_s = Some(60);
    full.trace = Trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let large = draft("large", &format!("\"{}\"", "é".repeat(100_000)));
    let drafts = [full, large];
    let appended = append(&*subject.log, &drafts).await;
    let found = subject.log.range(Seq::ZERO, seq(2), PAGE).await.unwrap();
    assert_eq!(found.messages, appended.messages(&drafts));
    assert_eq!(found.read_to, seq(2));
}

async fn an_idempotency_key_is_answered_and_not_doubled(subject: Subject) {
    let first = append(&*subject.log, &[keyed("1", "k"), draft("a", "2")]).await;
    let again = append(&*subject.log, &[draft("a", "3"), keyed("other", "k")]).await;
    assert_eq!(seqs(&first), [1, 2]);
    assert_eq!(seqs(&again), [3, 1]);
    let duplicates: Vec<bool> = again.placed.iter().map(|placed| placed.duplicate).collect();
    assert_eq!(duplicates, [false, true]);
    assert_eq!(subject.log.head().await.unwrap().seq, seq(3));
    assert_eq!(again.messages(&[draft("a", "3"), keyed("other", "k")]).len(), 1);
}

async fn a_batch_may_hold_its_own_duplicates(subject: Subject) {
    let batch =
        [keyed("1", "k"), keyed("2", "k"), keyed("3", "l"), draft("a", "4"), keyed("5", "l")];
    let appended = append(&*subject.log, &batch).await;
    assert_eq!(seqs(&appended), [1, 1, 2, 3, 2]);
    let again = append(&*subject.log, &batch[..1]).await;
    assert_eq!((seqs(&again), again.fresh()), (vec![1], 0));
    assert_eq!(subject.log.head().await.unwrap().seq, seq(3));
}

async fn a_page_is_bounded_and_says_how_far_it_reaches(subject: Subject) {
    let drafts: Vec<Draft> = (0..20).map(|_| draft("a", &format!("\"{:0100}\"", 0))).collect();
    append(&*subject.log, &drafts).await;
    let few = Page { messages_max: 7, bytes_max: 1 << 20 };
    let found = subject.log.range(seq(3), seq(20), few).await.unwrap();
    assert_eq!((found.messages.len(), found.read_to), (7, seq(10)));
    let small = Page { messages_max: 100, bytes_max: 250 };
    let found = subject.log.range(seq(3), seq(20), small).await.unwrap();
    assert_eq!((found.messages.len(), found.read_to), (3, seq(6)));
    let tiny = Page { messages_max: 100, bytes_max: 1 };
    let found = subject.log.range(seq(3), seq(20), tiny).await.unwrap();
    assert_eq!((found.messages.len(), found.read_to), (1, seq(4)));
    let found = subject.log.range(seq(17), seq(19), PAGE).await.unwrap();
    assert_eq!((found.messages.len(), found.read_to), (2, seq(19)));
}

async fn patterns_find_what_they_match_in_order(subject: Subject) {
    let topics = ["a", "order:1", "order:2", "orders", "a", "b", "order:1", "Order:1"];
    let drafts: Vec<Draft> = topics.iter().map(|topic| draft(topic, "1")).collect();
    append(&*subject.log, &drafts).await;
    let find = async |patterns: &[&str], page: Page| {
        let patterns: Vec<Pattern> = patterns.iter().map(|p| Pattern::parse(p).unwrap()).collect();
        let found = subject.log.matching(&patterns, Seq::ZERO, seq(8), page).await.unwrap();
        let seqs: Vec<u64> = found.messages.iter().map(|m| m.seq.unwrap().get()).collect();
        (seqs, found.read_to.get())
    };
    assert_eq!(find(&["a"], PAGE).await, (vec![1, 5], 8));
    assert_eq!(find(&["a", "b", "a"], PAGE).await, (vec![1, 5, 6], 8));
    assert_eq!(find(&["order:*"], PAGE).await, (vec![2, 3, 7], 8));
    assert_eq!(find(&["order:*", "order:1", "b"], PAGE).await, (vec![2, 3, 6, 7], 8));
    assert_eq!(find(&["*"], PAGE).await, ((1..=8).collect(), 8));
    assert_eq!(find(&["none"], PAGE).await, (vec![], 8));
    let two = Page { messages_max: 2, bytes_max: 1 << 20 };
    assert_eq!(find(&["a", "order:*"], two).await, (vec![1, 2], 2));
    assert_eq!(find(&["a", "b"], two).await, (vec![1, 5], 5));
}

async fn an_expired_message_is_applied_but_not_read(subject: Subject) {
    let mut short = draft("a", "1");
    short.ttl_s = Some(1);
    append(&*subject.log, &[short, draft("a", "2")]).await;
    let patterns = [Pattern::parse("a").unwrap()];
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let found = subject.log.matching(&patterns, Seq::ZERO, seq(2), PAGE).await.unwrap();
        if found.messages.len() == 1 {
            assert_eq!(found.messages[0].seq, Some(seq(2)));
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "it does not expire");
        tokio::task::yield_now().await;
    }
    assert_eq!(subject.log.range(Seq::ZERO, seq(2), PAGE).await.unwrap().messages.len(), 2);
}

async fn a_moment_is_found(subject: Subject) {
    let first = append(&*subject.log, &[draft("a", "1"), draft("a", "2")]).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let second = loop {
        let appended = append(&*subject.log, &[draft("a", "3")]).await;
        if appended.at > first.at {
            break appended;
        }
        assert!(tokio::time::Instant::now() < deadline);
    };
    let since = async |at: i64| subject.log.since(Timestamp(at)).await.unwrap();
    assert_eq!(since(0).await, Seq::ZERO);
    assert!(since(second.at.0).await >= seq(2));
    assert!(since(second.at.0).await < second.first);
    let head = subject.log.head().await.unwrap();
    assert_eq!(since(head.now.0 + 60_000).await, head.seq);
}

async fn two_writers_have_one_order(subject: Subject) {
    let write = async |name: &str| {
        let mut writer = subject.log.writer().await.unwrap();
        let mut had = Vec::new();
        for number in 0..50 {
            let drafts = [draft(name, &number.to_string()), draft(name, &number.to_string())];
            had.extend(seqs(&writer.write(&drafts, Box::new(())).await.unwrap()));
        }
        writer.release().await;
        had
    };
    let (a, b, c) = tokio::join!(write("a"), write("b"), write("c"));
    for one in [&a, &b, &c] {
        assert!(one.is_sorted());
    }
    let mut all = [a, b, c].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=300).collect::<Vec<_>>());
    let page = Page { messages_max: 1_000, bytes_max: 1 << 20 };
    let found = subject.log.range(Seq::ZERO, seq(300), page).await.unwrap();
    assert!(found.messages.iter().map(|message| message.at).is_sorted());
}

async fn an_epoch_is_renewed_once(subject: Subject) {
    let old = subject.log.head().await.unwrap().epoch;
    subject.log.epoch_renew(&old).await.unwrap();
    let new = subject.log.head().await.unwrap().epoch;
    assert_ne!(old, new);
    subject.log.epoch_renew(&old).await.unwrap();
    assert_eq!(subject.log.head().await.unwrap().epoch, new);
}

async fn a_mark_tells_one_log_from_another(subject: Subject) {
    let appended = append(&*subject.log, &[draft("a", "1"), draft("b", "2")]).await;
    let mark = subject.log.mark(seq(2)).await.unwrap().unwrap();
    assert_eq!((mark.at, mark.topic.as_str()), (appended.at, "b"));
    assert_eq!(subject.log.mark(seq(3)).await.unwrap(), None);
    assert_eq!(subject.log.mark(Seq::ZERO).await.unwrap(), None);
}

async fn upkeep_of_a_quiet_log_changes_nothing(subject: Subject) {
    append(&*subject.log, &[keyed("1", "k")]).await;
    assert_eq!(subject.upkeep.outbox_relay().await.unwrap(), None);
    assert_eq!(subject.upkeep.outbox_oldest().await.unwrap(), None);
    subject.upkeep.partition_ahead().await.unwrap();
    assert_eq!(subject.upkeep.partition_expire().await.unwrap(), []);
    assert_eq!(subject.upkeep.idempotency_expire().await.unwrap(), 0);
    assert_eq!(append(&*subject.log, &[keyed("1", "k")]).await.fresh(), 0);
}

#[tokio::test]
async fn memory_forgets_the_oldest_and_says_so() {
    let settings = MemorySettings {
        messages_max: 10,
        bytes_max: 1 << 20,
        items_max: 100_000,
        retention_s: 3600,
        idempotency_s: 86_400,
    };
    let store = MemoryStore::new(settings, Clock::system(), MemoryBus::default());
    let drafts: Vec<Draft> = (0..25).map(|_| draft("a", "1")).collect();
    append(&store, &drafts).await;
    assert_eq!(store.head().await.unwrap().oldest, seq(16));
    let expired = Err(StoreError::Expired { oldest: seq(16) });
    assert_eq!(store.range(seq(14), seq(25), PAGE).await, expired);
    assert_eq!(store.range(seq(15), seq(25), PAGE).await.unwrap().messages.len(), 10);
}

#[tokio::test]
async fn memory_remembers_no_more_idempotency_keys_than_messages() {
    let settings = MemorySettings {
        messages_max: 10,
        bytes_max: 1 << 20,
        items_max: 100_000,
        retention_s: 3600,
        idempotency_s: 86_400,
    };
    let store = MemoryStore::new(settings, Clock::system(), MemoryBus::default());
    for number in 0..25 {
        append(&store, &[keyed("1", &format!("k{number}"))]).await;
    }
    assert_eq!(append(&store, &[keyed("1", "k24")]).await.fresh(), 0);
    assert_eq!(append(&store, &[keyed("1", "k15")]).await.fresh(), 0);
    assert_eq!(append(&store, &[keyed("1", "k14")]).await.fresh(), 1);
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_when_they_are_too_old() {
    let store = harness::store_with(harness::database().await, |settings| {
        settings.partition_rows = 100;
        settings.retention_s = 0;
    });
    store.settings_store().await.unwrap();
    let drafts: Vec<Draft> = (0..250).map(|_| draft("a", "1")).collect();
    append(&store, &drafts).await;
    store.partition_ahead().await.unwrap();
    assert_eq!(store.partition_expire().await.unwrap(), [seq(1), seq(101)]);
    // They are not kept any more from this moment on, though they are still there.
    assert_eq!(store.head().await.unwrap().oldest, seq(201));
    let expired = Err(StoreError::Expired { oldest: seq(201) });
    assert_eq!(store.range(seq(50), seq(250), PAGE).await, expired);
    assert_eq!(store.partition_drop(seq(1)).await.unwrap(), 100);
    assert_eq!(store.partition_drop(seq(1)).await.unwrap(), 0);
    assert_eq!(store.partition_expire().await.unwrap(), [seq(101)], "until it is dropped");
    assert_eq!(store.partition_drop(seq(101)).await.unwrap(), 100);
    // The one that is being written stays.
    assert_eq!(store.partition_expire().await.unwrap(), []);
    let found = store.range(seq(200), seq(250), PAGE).await.unwrap();
    assert_eq!(found.messages.len(), 50);
}

#[tokio::test]
async fn a_batch_that_never_arrived_is_written_again() {
    let connector = harness::database().await;
    let store = harness::store(connector.clone());
    let mut writer = store.writer().await.unwrap();
    let first = [draft("a", "1"), draft("a", "2")];
    writer.write(&first, Box::new(())).await.unwrap();
    // As after a connection that broke before the append arrived.
    let second = [draft("a", "3")];
    assert_eq!(writer.recover(&second).await.unwrap(), None);
    // The slot goes on where it was, under a new fence.
    let appended = writer.write(&second, Box::new(())).await.unwrap();
    assert_eq!(seqs(&appended), [3]);
    assert_eq!(store.head().await.unwrap().seq, seq(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_was_lost_is_found_and_not_doubled() {
    let direct = harness::database_url().await;
    let (proxy, url) = Proxy::to_database(&direct).await;
    let store = harness::store(harness::connector(&url));
    let witness = harness::store(harness::connector(&direct));
    let head = async || witness.head().await.unwrap().seq;
    let mut writer = store.writer().await.unwrap();
    for round in 0..20 {
        writer.write(&[draft("a", "1")], Box::new(())).await.unwrap();
        let before = head().await;
        let batch = [keyed("2", &format!("key {round}")), draft("a", "3"), draft("b", "4")];
        proxy.weather(Weather::AnswersLost);
        // It may be that it waits for the answer to its last announcement, and that this one is lost.
        let committed = until("it is committed", async || head().await > before);
        let cut = async {
            let committed = tokio::time::timeout(Duration::from_secs(2), committed).await.is_ok();
            proxy.cut();
            committed
        };
        let (written, committed) = tokio::join!(writer.write(&batch, Box::new(())), cut);
        assert!(matches!(written, Err(StoreError::Unavailable(_))), "{written:?}");
        proxy.weather(Weather::Fair);
        let found = writer.recover(&batch).await.unwrap();
        if !committed {
            assert_eq!(found, None);
            continue;
        }
        let found = found.expect("it was committed, so it is found");
        let first = before.next();
        assert_eq!(seqs(&found), [first.get(), first.get() + 1, first.get() + 2]);
        assert_eq!(head().await, before.plus(3), "nothing was written again");
        let kept = witness.range(before, head().await, PAGE).await.unwrap();
        assert_eq!(kept.messages, found.messages(&batch));
        // The slot goes on after it.
        let next = writer.write(&[draft("a", "5")], Box::new(())).await.unwrap();
        assert_eq!(seqs(&next), [before.get() + 4]);
        return;
    }
    panic!("no batch was committed whose answer was lost");
}

#[tokio::test]
async fn memory_answers_before_anything_can_be_lost() {
    let Subject { log, .. } = memory().await;
    let mut writer = log.writer().await.unwrap();
    let batch = [draft("a", "1"), draft("a", "2")];
    let answer = writer.write(&batch, Box::new(())).now_or_never();
    assert_eq!(seqs(&answer.expect("it waits for nothing").unwrap()), [1, 2]);
    // So a batch that has no answer was never written.
    assert_eq!(writer.recover(&[draft("a", "3")]).await.unwrap(), None);
    assert_eq!(log.head().await.unwrap().seq, seq(2));
}

#[tokio::test]
async fn a_writer_whose_slot_was_taken_writes_nothing_and_gets_another() {
    let connector = harness::database().await;
    let store = harness::store(connector.clone());
    let mut writer = store.writer().await.unwrap();
    writer.write(&[draft("a", "1")], Box::new(())).await.unwrap();
    let client = connector.connect().await.unwrap();
    client
        .batch_execute("update tidings.writer set fence = fence + 1, replica = 'thief'")
        .await
        .unwrap();
    let refused = writer.write(&[draft("a", "2")], Box::new(())).await;
    assert_eq!(refused, Err(StoreError::Fenced));
    assert_eq!(store.head().await.unwrap().seq, seq(1));
    let appended = writer.write(&[draft("a", "2")], Box::new(())).await.unwrap();
    assert_eq!(seqs(&appended), [2]);
}

#[tokio::test]
async fn publishing_from_sql_is_relayed_in_order_after_the_commit() {
    let connector = harness::database().await;
    let store = harness::store(connector.clone());
    let client = connector.connect().await.unwrap();
    client
        .batch_execute(
            "begin;
             select tidings.publish('a', '1');
             select tidings.publish(topic => 'b', data => '{\"x\" :  2}', kind => 'k', idempotency_key => 'i');
             select tidings.publish('b', '3', idempotency_key => 'i');",
        )
        .await
        .unwrap();
    assert_eq!(store.outbox_relay().await.unwrap(), None);
    client
        .batch_execute("commit; begin; select tidings.publish('a', '4'); rollback")
        .await
        .unwrap();
    let relayed = store.outbox_relay().await.unwrap().unwrap();
    assert_eq!((relayed.taken, relayed.range), (3, Some((seq(1), seq(2)))));
    assert_eq!(store.outbox_relay().await.unwrap(), None);
    let found = store.range(Seq::ZERO, seq(2), PAGE).await.unwrap();
    assert_eq!(&*found.messages[1].data, "{\"x\" :  2}");
    assert_eq!(found.messages[1].kind.as_deref(), Some("k"));
}

#[tokio::test]
async fn publishing_from_sql_refuses_what_http_refuses() {
    let client = harness::database().await.connect().await.unwrap();
    for call in [
        "select tidings.publish('a b', '1')",
        "select tidings.publish('', '1')",
        "select tidings.publish(repeat('a', 201), '1')",
        "select tidings.publish(null, '1')",
        "select tidings.publish('a', null)",
        "select tidings.publish('a', 'not json')",
        "select tidings.publish('a', '1', class => 'x')",
        "select tidings.publish('a', '1', class => null)",
        "select tidings.publish('a', '1', priority => 'x')",
        "select tidings.publish('a', '1', ttl_s => 0)",
        "select tidings.publish('a', '1', kind => repeat('k', 201))",
        "select tidings.publish('a', to_json(repeat('x', 300000)))",
        "select tidings.publish('a', to_json(repeat('x', 8000)), class => 'signal')",
    ] {
        assert!(client.batch_execute(call).await.is_err(), "{call}");
    }
    let left: i64 =
        client.query_one("select count(*) from tidings.outbox", &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
}
