//! What users of Tidings see: HTTP, WebSocket, server-sent events.
//!
//! Handlers here check, ask the parts, and write down the answer; nothing is decided in them that a
//! part could decide. `session` is one connected client without a socket, `ws` and `sse` give it one.

pub mod error;
pub mod limits;
pub mod protocol;

mod access;
mod body;
mod console;
mod health;
mod inbox;
mod messages;
mod notices;
mod openapi;
mod query;
mod receiving;
mod replicas;
mod session;
mod settings;
mod sse;
mod stats;
mod tasks;
mod telemetry;
mod ws;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};
use tokio::sync::watch;

use self::limits::{Limits, OriginPolicy};
pub use self::replicas::Roll;
use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::feed::{Feed, FeedError, Start};
use crate::hub::Hub;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::presence::Presence;
use crate::publish::Publisher;
use crate::store::Page;
use crate::supervise::Shutdown;
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;

#[derive(Debug, Clone)]
pub struct ApiSettings {
    pub replica: String,
    pub origins: OriginPolicy,
    pub data_bytes_max: usize,
    pub batch_messages_max: usize,
    pub body_bytes_max: usize,
    pub frame_bytes_max: usize,
    pub frames_per_s_max: u32,
    pub sessions_max: usize,
    pub sessions_per_user_max: usize,
    pub topics_per_session_max: usize,
    pub history_limit_max: usize,
    pub long_poll_max: Duration,
    pub body_timeout: Duration,
    pub heartbeat: Duration,
    /// Over how long the closes of a leaving replica are spread, from when its listener is closed.
    pub farewells: Duration,
    pub retention_s: u32,
    pub notice_users_max: usize,
    pub notice_expires_s_max: u32,
    pub task_items_max: usize,
    pub task_concurrency_max: u32,
    pub page: Page,
    /// Whether it can be told to die.
    pub demo: bool,
    /// What is in force, without secrets.
    pub effective: Vec<Setting>,
}

/// A setting as it is shown.
#[derive(Debug, Clone)]
pub struct Setting {
    pub part: &'static str,
    pub key: &'static str,
    /// `None`: it is set, and secret.
    pub value: Option<String>,
    pub source: String,
    pub default: Option<&'static str>,
    pub help: &'static str,
}

/// Whether the schema is what this version needs; written by `app`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaCheck {
    Unknown,
    Right,
    Behind,
}

/// A cheap handle on everything that handlers need.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

pub struct Inner {
    pub settings: ApiSettings,
    pub auth: Authenticator,
    pub log: Log,
    pub hub: Hub,
    pub publisher: Publisher,
    pub tasks: Tasks,
    pub notices: Notices,
    pub presence: Presence,
    pub telemetry: Telemetry,
    pub metrics: Metrics,
    pub clock: Clock,
    pub shutdown: Shutdown,
    pub schema: watch::Receiver<SchemaCheck>,
    pub limits: Limits,
    pub started: tokio::time::Instant,
    pub roll: Roll,
}

impl Api {
    pub fn new(inner: Inner) -> Api {
        Api { inner: Arc::new(inner) }
    }

    async fn feed(
        &self,
        patterns: crate::domain::PatternSet,
        start: Start,
    ) -> Result<Feed, FeedError> {
        let inner = &self.inner;
        let page = inner.settings.page;
        Feed::open(inner.log.clone(), inner.hub.clone(), page, patterns, start).await
    }

    /// Everything but what belongs to operations.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/messages", post(messages::publish).get(messages::history))
            .route("/v1/ws", any(ws::open))
            .route("/v1/sse", get(sse::open))
            .route("/v1/tasks", post(tasks::submit).get(tasks::list))
            .route("/v1/tasks/claim", post(tasks::claim))
            .route("/v1/tasks/{id}", get(tasks::get))
            .route("/v1/tasks/{id}/items", get(tasks::items))
            .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
            .route("/v1/tasks/{id}/pause", post(tasks::pause))
            .route("/v1/tasks/{id}/resume", post(tasks::resume))
            .route("/v1/tasks/{id}/retry", post(tasks::retry))
            .route("/v1/tasks/{id}/report", post(tasks::report))
            .route("/v1/tasks/{id}/finish", post(tasks::finish))
            .route("/v1/notices", post(notices::send).get(notices::list))
            .route("/v1/notices/{id}", get(notices::get).delete(notices::recall))
            .route("/v1/notices/{id}/recipients", get(notices::recipients))
            .route("/v1/notices/{id}/resend", post(notices::resend))
            .route("/v1/inbox", get(inbox::list))
            .route("/v1/inbox/counts", get(inbox::counts))
            .route("/v1/inbox/received", post(inbox::received))
            .route("/v1/inbox/read", post(inbox::read))
            .route("/v1/inbox/confirmed", post(inbox::confirmed))
            .route("/v1/presence", get(inbox::presence))
            .route("/v1/users/online", get(inbox::online))
            .route("/v1/sources", post(telemetry::create).get(telemetry::list))
            .route(
                "/v1/sources/{id}",
                get(telemetry::get).patch(telemetry::change).delete(telemetry::delete),
            )
            .route("/v1/sources/{id}/test", post(telemetry::test))
            .route("/v1/sources/{id}/instances", get(telemetry::instances))
            .route("/v1/instances/{id}/{instance}", get(telemetry::instance))
            .route("/v1/ingest", post(telemetry::ingest))
            .route("/v1/dashboard", get(telemetry::dashboard))
            .route("/v1/trends", get(telemetry::trends))
            .route("/v1/logs", get(telemetry::logs))
            .route("/v1/stats", get(stats::page))
            .route("/v1/replicas", get(replicas::list))
            .route("/v1/settings", get(settings::list))
            .route("/v1/demo/kill", post(replicas::kill))
            .route("/", get(console::index))
            .route("/console/{*path}", get(console::file))
            .route("/openapi.json", get(openapi::document))
            .method_not_allowed_fallback(error::method_not_allowed)
            .fallback(error::not_found)
            .layer(DefaultBodyLimit::max(self.inner.settings.body_bytes_max))
            .layer(from_fn_with_state(self.clone(), access::check_origin))
            // Outermost: a preflight has no route, and a refusal too is to be read by the page.
            .layer(access::cors(&self.inner.settings.origins))
            .layer(from_fn_with_state(self.clone(), stats::count))
            .with_state(self.clone())
    }

    /// Health and metrics, where they listen apart.
    pub fn ops_router(&self) -> Router {
        self.ops_routes().fallback(error::not_found)
    }

    /// Both under one address.
    pub fn whole_router(&self) -> Router {
        self.router().merge(self.ops_routes())
    }

    fn ops_routes(&self) -> Router {
        Router::new()
            .route("/livez", get(health::live))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(health::metrics))
            .method_not_allowed_fallback(error::method_not_allowed)
            .with_state(self.clone())
    }
}
