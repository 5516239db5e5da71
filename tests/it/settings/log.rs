//! The settings of the part `log`.

use super::client::{get, publish};
use super::{database, in_memory, in_postgres, number, until_live};
use crate::fleet::until;

#[tokio::test]
pub(super) async fn what_the_ring_forgot_is_read_from_the_store() {
    const BYTES: usize = 60_000;
    for (key, value, kept) in [("ring_messages_max", "16", 16), ("ring_bytes_max", "1 MiB", 17)] {
        let replica = in_memory(&[(key, value)]).await;
        let begin = publish(&replica, "a", 40, BYTES).await;
        let (epoch, _) = begin.split_once('-').unwrap();
        assert_eq!(replica.metric("tidings_log_ring_messages").await, kept, "{key}");
        let read = async |after: u64| {
            let path = format!("/v1/messages?topic=a&after={epoch}-{after}&limit=2");
            assert_eq!(get(&replica, &path).await.json()["messages"][0]["seq"], after + 1);
        };
        read(40 - kept).await;
        assert_eq!(replica.metric("tidings_log_read_total{way=\"store\"}").await, 0, "{key}");
        read(40 - kept - 1).await;
        assert!(replica.metric("tidings_log_read_total{way=\"store\"}").await > 0, "{key}");
    }
}

#[tokio::test]
pub(super) async fn what_was_not_announced_is_found_by_the_tick() {
    let (url, database) = database().await;
    let rare = [("tick_ms", "60000"), ("polling_tick_ms", "60000")];
    let rare = in_postgres("rare", &url, &rare).await;
    let often = in_postgres("often", &url, &[("tick_ms", "100")]).await;
    until_live(&often).await;
    // As a replica does that dies before it has told the others.
    let append = "select count(*) from tidings.log_append(
        array['a'], array['1'], array[null], array[0::smallint], array[null],
        array[1::smallint], array[null::integer], null)";
    number(&database, append).await;
    until("the tick has found it", async || often.metric("tidings_log_applied_seq").await == 1)
        .await;
    assert_eq!(often.metric("tidings_log_announced_total{way=\"tick\"}").await, 1);
    let ticks = "tidings_log_wakes_total{why=\"tick\"}";
    until("it ticks on", async || often.metric(ticks).await > 20).await;
    assert!(rare.metric(ticks).await <= 3);
}
