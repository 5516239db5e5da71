//! The settings of the part `feed`.

use tokio::task::JoinSet;

use super::client::{Socket, get, publish};
use super::{Lock, database, in_postgres, number};
use crate::fleet::until;

const READ: &str = "tidings_store_seconds_count{query=\"message_topics\"}";

#[tokio::test]
pub(super) async fn so_many_replays_read_the_database_at_once() {
    let (url, database) = database().await;
    let small = [("ring_messages_max", "16"), ("statement_timeout_ms", "600000")];
    let one = [&small[..], &[("replay_readers_max", "1")]].concat();
    let two = [&small[..], &[("replay_readers_max", "2")]].concat();
    let one = in_postgres("one", &url, &one).await;
    let two = in_postgres("two", &url, &two).await;
    let begin = publish(&one, "a", 40, 10).await;
    until("both have it", async || two.metric("tidings_log_applied_seq").await == 40).await;
    let lock = Lock::take(&url, "tidings.message").await;
    let mut waiting = JoinSet::new();
    for replica in [&one, &two] {
        for _ in 0..4 {
            let address = format!("{}/v1/messages?topic=a&after={begin}", replica.url);
            waiting.spawn(async move { reqwest::get(address).await.unwrap().status() });
        }
    }
    let stuck = async |name: &str| {
        let stuck = format!(
            "select count(*) from pg_stat_activity where application_name = 'tidings/{name}'
             and wait_event_type = 'Lock' and query like '%message_topics%'"
        );
        number(&database, &stuck).await
    };
    until("each reads as often as it may", async || {
        stuck("one").await == 1 && stuck("two").await == 2
    })
    .await;
    assert_eq!(one.metric("tidings_log_readers").await, 1);
    assert_eq!(two.metric("tidings_log_readers").await, 2);
    lock.release().await;
    assert!(waiting.join_all().await.iter().all(|status| *status == 200), "the others had to wait");
}

#[tokio::test]
pub(super) async fn a_replay_is_read_in_pages() {
    let (url, _) = database().await;
    for (messages_max, bytes_max, reads) in
        [("10", "64 MiB", 9), ("10000", "1 KiB", 9), ("10000", "64 MiB", 1)]
    {
        let settings = [
            ("ring_messages_max", "16"),
            ("page_messages_max", messages_max),
            ("page_bytes_max", bytes_max),
        ];
        let replica = in_postgres("one", &url, &settings).await;
        // Ten of them and a little weigh as much as the smaller page.
        let begin = publish(&replica, "a", 100, 110).await;
        let mut socket = Socket::open(&replica, &format!("topics=a&cursor={begin}")).await;
        assert_eq!(socket.frame("replayed").await["count"], 100);
        // The last sixteen are in memory.
        let read = replica.metric(READ).await;
        assert_eq!(read, reads, "{messages_max} messages, {bytes_max}");
        assert_eq!(get(&replica, "/livez").await.status, 200);
    }
}
