//! One page for people.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::Api;
use super::error::Problem;
use super::query::Query;
use crate::domain::Timestamp;
use crate::frame::push_time;
use crate::logging;

fn time(at: Timestamp) -> String {
    let mut text = String::new();
    push_time(&mut text, at);
    text
}

/// A tenth is as exact as anybody reads it.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

pub async fn page(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    if !principal.admin {
        return Err(Problem::forbidden("the statistics are for admins and API keys"));
    }
    let inner = &api.inner;
    let metrics = &inner.metrics;
    let position = inner.log.position();
    let listener = *inner.log.state().borrow();
    let rates = metrics.rate().map(|rate| {
        json!({
            "window_s": rate.window.as_secs(),
            "published_per_s": rounded(rate.published_per_s),
            "delivered_per_s": rounded(rate.delivered_per_s),
            "messages_per_batch": rounded(rate.messages_per_batch),
        })
    });
    let last_error =
        logging::last_error().map(|error| json!({"at": time(error.at), "what": error.what}));
    Ok(Json(json!({
        "replica": inner.settings.replica,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": inner.started.elapsed().as_secs(),
        "draining": inner.shutdown.draining.is_cancelled(),
        "listener": listener.as_str(),
        "rates": rates,
        "last_error": last_error,
        "bus": {
            "notifications": metrics.bus.notifications.get(),
            "reconnects": metrics.bus.reconnects.get(),
            "malformed": metrics.bus.malformed.get(),
        },
        "sessions": inner.hub.sessions(),
        "connections": metrics.server.connections.get(),
        "subscriptions": metrics.hub.subscriptions.get(),
        "log": {
            "epoch": position.as_ref().map(|cursor| cursor.epoch.to_string()),
            "applied": position.as_ref().map(|cursor| cursor.seq.get()),
            "oldest": inner.log.oldest().get(),
            "behind": metrics.log.behind.get(),
            "ring_messages": metrics.log.ring_messages.get(),
            "ring_bytes": metrics.log.ring_bytes.get(),
            "holes": metrics.log.holes.get(),
            "epochs": metrics.log.epochs.get(),
        },
        "publish": {
            "messages": metrics.publish.messages.get(),
            "duplicates": metrics.publish.duplicates.get(),
            "retried_batches": metrics.publish.retried.get(),
            "batches": metrics.publish.batches.get(),
            "last_commit": inner.publisher.last_commit().map(time),
            "waiting": inner.publisher.waiting(),
            "waiting_bytes": inner.publisher.waiting_bytes(),
            "store_away": inner.publisher.troubled(),
        },
        "hub": {
            "deliveries": metrics.hub.deliveries.get(),
            "coalesced": metrics.hub.coalesced.get(),
            "dropped_signals": metrics.hub.dropped_signals.get(),
            "behind": metrics.hub.behind.get(),
        },
        "tasks": {
            "running": metrics.tasks.running.get(),
            "claimed": metrics.tasks.claimed.get(),
            "lost": metrics.tasks.lost.get(),
            "reports": metrics.tasks.reports.get(),
        },
        "telemetry": inner.telemetry.stats(),
        "recovery": {
            "outbox_relayed": metrics.recovery.outbox_relayed.get(),
            "outbox_oldest_s": metrics.recovery.outbox_oldest_seconds.get(),
            "partitions_dropped": metrics.recovery.partitions_dropped.get(),
        },
    })))
}
