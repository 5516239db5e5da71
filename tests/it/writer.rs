//! The writer of the log in Postgres: what it does when the log is not what it was.
//! With faults at every step it is tried in `tests/sim/writer.rs`.

use std::time::Duration;

use tidings::domain::{Draft, Seq, Timestamp, Topic};
use tidings::metrics::Metrics;
use tidings::store::postgres::connect::Connector;
use tidings::store::{Appended, LogStore, LogWriter, StoreError};

use crate::harness;

fn draft(data: &str) -> Draft {
    Draft::new(Topic::parse("a").unwrap(), data)
}

fn seqs(appended: &Appended) -> Vec<u64> {
    appended.placed.iter().map(|placed| placed.seq.get()).collect()
}

async fn write(writer: &mut dyn LogWriter, data: &str) -> Result<Appended, StoreError> {
    writer.write(&[draft(data)], Box::new(())).await
}

/// As after a failover to a standby that had not heard of the last two batches.
async fn set_back(connector: &Connector) {
    let client = connector.connect().await.unwrap();
    client
        .batch_execute(
            "update tidings.log set head = 1; delete from tidings.message where seq > 1;
             update tidings.writer set batch = 1, first_seq = 1",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_log_that_was_set_back_gives_nobody_the_seqs_of_another_batch() {
    let connector = harness::database().await;
    let store = harness::store(connector.clone());
    let mut writer = store.writer().await.unwrap();
    for data in ["1", "2", "3"] {
        write(&mut *writer, data).await.unwrap();
    }
    let before = store.head().await.unwrap().epoch;
    set_back(&connector).await;
    assert_eq!(writer.recover(&[draft("4")]).await, Ok(None));
    assert_ne!(store.head().await.unwrap().epoch, before, "its cursors are good no more");
    let appended = write(&mut *writer, "4").await.unwrap();
    assert_eq!(seqs(&appended), [2]);
    assert_ne!(appended.epoch, before);
}

#[tokio::test]
async fn a_log_that_was_set_back_is_noticed_by_the_next_batch_too() {
    let connector = harness::database().await;
    let store = harness::store(connector.clone());
    let mut writer = store.writer().await.unwrap();
    for data in ["1", "2", "3"] {
        write(&mut *writer, data).await.unwrap();
    }
    let before = store.head().await.unwrap().epoch;
    set_back(&connector).await;
    // The connection did not break: the append finds another batch in the slot.
    assert_eq!(write(&mut *writer, "4").await, Err(StoreError::Fenced));
    let appended = write(&mut *writer, "4").await.unwrap();
    assert_eq!(seqs(&appended), [2]);
    assert_ne!(appended.epoch, before, "its cursors are good no more");
}

#[tokio::test]
async fn the_time_of_messages_never_goes_back() {
    let connector = harness::database().await;
    let store = harness::store(connector.clone());
    let mut writer = store.writer().await.unwrap();
    let first = write(&mut *writer, "1").await.unwrap();
    // As on a server whose clock is an hour behind that of the one before it.
    let client = connector.connect().await.unwrap();
    client
        .batch_execute(
            "update tidings.log set newest = newest + interval '1 hour';
             update tidings.message set at = at + interval '1 hour'",
        )
        .await
        .unwrap();
    let later = Timestamp(first.at.0 + 3_600_000);
    assert_eq!(write(&mut *writer, "2").await.unwrap().at, later);
    let keyed = Draft { idempotency_key: Some("k".into()), ..draft("3") };
    assert_eq!(writer.write(&[keyed], Box::new(())).await.unwrap().at, later);
    assert_eq!(store.since(later).await.unwrap(), Seq::ZERO);
    assert_eq!(store.since(Timestamp(later.0 + 1)).await.unwrap(), Seq::new(3).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_another_isolation_takes_batches_of_many_writers() {
    let url = harness::database_url().await;
    let client = harness::connect(&url).await;
    client
        .batch_execute(
            "do $$ begin
                execute format('alter database %I set default_transaction_isolation = serializable', current_database());
            end $$",
        )
        .await
        .unwrap();
    let store = harness::store(harness::connector(&url));
    store.settings_store().await.unwrap();
    let lane = async || {
        let mut writer = store.writer().await.unwrap();
        for number in 0..50 {
            write(&mut *writer, &number.to_string()).await.unwrap();
        }
    };
    tokio::join!(lane(), lane(), lane());
    assert_eq!(store.head().await.unwrap().seq, Seq::new(150).unwrap());
}

#[tokio::test]
async fn what_a_replica_could_not_read_cannot_be_stored() {
    let client = harness::database().await.connect().await.unwrap();
    client.batch_execute("select tidings.partition_make(1)").await.unwrap();
    let good = [("a", 0, 1), ("a:b/c.d-e_f@1", 1, 2)];
    let bad = [
        ("a b", 0, 1),
        ("", 0, 1),
        ("\u{e9}", 0, 1),
        ("a", 2, 1),
        ("a", -1, 1),
        ("a", 0, 3),
        ("a", 0, -1),
    ];
    for (topic, class, priority) in bad.into_iter().chain(good) {
        let takes = good.contains(&(topic, class, priority));
        for insert in [
            format!(
                "insert into tidings.message (seq, at, class, priority, topic, data) values (1, now(), {class}, {priority}, '{topic}', '1')"
            ),
            format!(
                "insert into tidings.outbox (class, priority, topic, data) values ({class}, {priority}, '{topic}', '1')"
            ),
        ] {
            let taken = client.batch_execute(&format!("begin; {insert}")).await;
            client.batch_execute("rollback").await.unwrap();
            assert_eq!(taken.is_ok(), takes, "{insert}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_called_a_busy_pool() {
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://postgres@{}/postgres", silent.local_addr().unwrap());
    let metrics = Metrics::new();
    let mut settings = harness::settings();
    settings.pool.wait = Duration::from_millis(100);
    let connector = harness::connector(&url);
    let store =
        tidings::store::postgres::PostgresStore::new(connector, settings, metrics.store.clone());
    let told = store.head().await.unwrap_err().to_string();
    assert!(told.contains("connecting took too long"), "{told}");
    assert!(metrics.encode().contains("tidings_store_pool_waits_total 0\n"));
}

#[tokio::test]
async fn every_statement_of_a_writer_is_timed() {
    let metrics = Metrics::new();
    let store = tidings::store::postgres::PostgresStore::new(
        harness::database().await,
        harness::settings(),
        metrics.store.clone(),
    );
    let mut writer = store.writer().await.unwrap();
    write(&mut *writer, "1").await.unwrap();
    writer.recover(&[draft("2")]).await.unwrap();
    let page = metrics.encode();
    for query in ["log_append", "log_barrier", "writer_claim", "writer_recover"] {
        let counted = format!("tidings_store_seconds_count{{query=\"{query}\"}} 1\n");
        assert!(page.contains(&counted), "{query} in\n{page}");
    }
}
