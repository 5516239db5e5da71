//! The settings of the part `bus`.

use serde_json::json;

use super::{database, in_postgres};
use crate::fleet::until;
use crate::harness;

#[tokio::test]
pub(super) async fn without_listen_the_head_is_polled() {
    let (url, _) = database().await;
    // LISTEN is accepted there, and nothing is heard: as it is behind a transaction pooler.
    let elsewhere = harness::empty_database_url();
    let deaf = [("listen_database_url", elsewhere.as_str()), ("tick_ms", "60000")];
    let often = [&deaf[..], &[("polling_tick_ms", "20")]].concat();
    let rarely = [&deaf[..], &[("polling_tick_ms", "60000")]].concat();
    let (often, rarely) =
        tokio::join!(in_postgres("often", &url, &often), in_postgres("rarely", &url, &rarely));
    assert_eq!(often.readyz().await["listener"], "polling");
    let other = in_postgres("other", &url, &[]).await;
    other.publish(&json!({"topic": "a", "data": 1})).await;
    until("it was found", async || often.metric("tidings_log_applied_seq").await == 1).await;
    let ticks = "tidings_log_wakes_total{why=\"tick\"}";
    until("it polls on", async || often.metric(ticks).await > 20).await;
    assert!(rarely.metric(ticks).await <= 3);
}

#[tokio::test]
pub(super) async fn a_quiet_listener_is_tried_by_a_pulse() {
    let heard = "tidings_bus_notifications_total";
    // Each in a database of its own: everybody hears everybody's pulses.
    let often = in_postgres("often", &database().await.0, &[("pulse_s", "1")]).await;
    let rarely = in_postgres("rarely", &database().await.0, &[("pulse_s", "3600")]).await;
    until("it has heard itself some times", async || often.metric(heard).await > 3).await;
    // The one by which it knew that it listens; on a bad day that took two.
    assert!(rarely.metric(heard).await <= 2);
}
