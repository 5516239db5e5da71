//! The settings of the part `memory`.

use super::client::{get, publish};
use super::in_memory;
use crate::fleet::until;

#[tokio::test]
pub(super) async fn what_memory_does_not_keep_is_gone() {
    for (key, value, bytes, kept) in
        [("memory_messages_max", "16", 10, 16), ("memory_bytes_max", "1 MiB", 100_000, 10)]
    {
        let replica = in_memory(&[(key, value), ("tick_ms", "100")]).await;
        let begin = publish(&replica, "a", 40, bytes).await;
        let gone = format!("/v1/messages?topic=a&after={begin}");
        until("it is known what is gone", async || get(&replica, &gone).await.status == 410).await;
        let answer = get(&replica, &gone).await;
        let cursor = answer.is_problem(410).json()["cursor"].as_str().unwrap().to_owned();
        let good = get(&replica, &format!("/v1/messages?topic=a&after={cursor}")).await;
        assert_eq!(good.json()["messages"].as_array().unwrap().len(), kept, "{key}");
    }
}
