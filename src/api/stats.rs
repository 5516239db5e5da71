//! One page for people.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

use super::Api;
use super::error::Problem;
use super::query::Query;
use crate::domain::Timestamp;
use crate::frame::push_time;
use crate::logging;
use crate::notices;
use crate::store::presence::PresentReplica;

fn time(at: Timestamp) -> String {
    let mut text = String::new();
    push_time(&mut text, at);
    text
}

/// The states of receipts that are counted as they are reached.
const MARKED: [&str; 4] = ["sent", "received", "read", "confirmed"];

fn by_label<const N: usize>(
    count: impl Fn(&'static str) -> u64,
    labels: [&'static str; N],
) -> Value {
    labels.iter().map(|label| ((*label).to_owned(), Value::from(count(label)))).collect()
}

/// Counts every answer, whoever gives it.
pub async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    api.inner.metrics.api.answer(answer.status().as_u16());
    answer
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
    // The page is for when something is wrong: without Postgres it says what this replica knows.
    let replicas = api.inner.presence.replicas().await.ok().map(|replicas| {
        let one = |replica: &PresentReplica| {
            json!({
                "name": &*replica.name,
                "version": &*replica.version,
                "since": time(replica.since),
                "user_sessions": replica.sessions,
            })
        };
        replicas.iter().map(one).collect::<Vec<Value>>()
    });
    let mut stats = api.stats();
    stats["replicas"] = json!(replicas);
    Ok(Json(stats))
}

impl Api {
    /// What this replica knows of itself.
    pub(super) fn stats(&self) -> Value {
        let inner = &self.inner;
        let metrics = &inner.metrics;
        let position = inner.log.position();
        let listener = *inner.log.state().borrow();
        let rates = metrics.rate().map(|rate| {
            json!({
                "window_s": rate.window.as_secs(),
                "published_per_s": rounded(rate.published_per_s),
                "delivered_per_s": rounded(rate.delivered_per_s),
                "messages_per_batch": rounded(rate.messages_per_batch),
                "answered_per_s": rounded(rate.answered_per_s),
                "failed_per_s": rounded(rate.failed_per_s),
                "delivery_p50_ms": rate.delivery_p50_ms.map(rounded),
                "delivery_p99_ms": rate.delivery_p99_ms.map(rounded),
            })
        });
        let last_error =
            logging::last_error().map(|error| json!({"at": time(error.at), "what": error.what}));
        json!({
            "replica": inner.settings.replica,
            "version": env!("CARGO_PKG_VERSION"),
            "demo": inner.settings.demo,
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
            "notices": {
                "sent": metrics.notices.sent.get(),
                "handed": by_label(|way| metrics.notices.handed.get_or_create(&way.into()).get(), notices::WAYS),
                "marks": by_label(|state| metrics.notices.marks.get_or_create(&state.into()).get(), MARKED),
                "readers": metrics.notices.readers.get(),
                "waiting": metrics.notices.waiting.get(),
            },
            "presence": {
                "sessions": metrics.presence.sessions.get(),
                "reaped": metrics.presence.reaped.get(),
            },
            "telemetry": inner.telemetry.stats(),
            "recovery": {
                "outbox_relayed": metrics.recovery.outbox_relayed.get(),
                "outbox_oldest_s": metrics.recovery.outbox_oldest_seconds.get(),
                "partitions_dropped": metrics.recovery.partitions_dropped.get(),
            },
        })
    }
}
