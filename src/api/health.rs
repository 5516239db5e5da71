//! What probes ask.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Api, SchemaCheck};
use crate::bus::BusState;

/// The process answers. It says nothing of Postgres: restarting a replica mends no database.
pub async fn live() -> Response {
    Json(json!({ "status": "live" })).into_response()
}

/// Whether this replica may take traffic: the log was reached, its listener hears or polls, it does not leave.
pub async fn ready(State(api): State<Api>) -> Response {
    let inner = &api.inner;
    let listener = *inner.log.state().borrow();
    let schema = *inner.schema.borrow();
    let draining = inner.shutdown.draining.is_cancelled();
    let hears = matches!(listener, BusState::Live | BusState::Polling | BusState::CatchingUp);
    let reached = inner.log.position().is_some();
    let is_ready = hears && reached && schema == SchemaCheck::Right && !draining;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "status": if is_ready { "ready" } else { "not_ready" },
        "replica": inner.settings.replica,
        "listener": listener.as_str(),
        "schema": match schema {
            SchemaCheck::Unknown => "unknown",
            SchemaCheck::Right => "right",
            SchemaCheck::Behind => "behind",
        },
        "draining": draining,
        "log_reached": reached,
        // A warning, and no reason to send clients elsewhere: the buffer is there to be filled.
        "telemetry": inner.telemetry.warning(),
    });
    (status, Json(body)).into_response()
}

pub async fn metrics(State(api): State<Api>) -> Response {
    let metrics = &api.inner.metrics;
    let publisher = &api.inner.publisher;
    let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.publish.intake_messages.set(gauge(publisher.waiting()));
    metrics.publish.intake_bytes.set(gauge(publisher.waiting_bytes()));
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content)], metrics.encode()).into_response()
}
