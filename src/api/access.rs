//! Who asks, and from which page.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::Api;
use super::error::{FieldError, Problem};
use super::limits::{OriginPolicy, Place};
use super::query::Query;
use crate::domain::{Pattern, PatternSet, Principal, TaskId};
use crate::store::task::Snapshot;

/// For how long a browser may remember what it was told of an origin.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Refuses requests from pages that are not allowed, before anything else is looked at.
pub async fn check_origin(State(api): State<Api>, request: Request, next: Next) -> Response {
    if api.inner.settings.origins.allows(request.headers()) {
        next.run(request).await
    } else {
        let detail =
            "pages of this origin may not use this server; see the setting allowed_origins";
        Problem::forbidden(detail).into_response()
    }
}

/// What a browser must be told before it lets a page of another origin read an answer.
pub fn cors(policy: &OriginPolicy) -> CorsLayer {
    let policy = policy.clone();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| policy.lists(origin)))
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([header::RETRY_AFTER])
        .max_age(PREFLIGHT_AGE)
}

impl Api {
    /// Whom a request speaks for: by its header, or by the parameter `access_token`.
    pub async fn principal(
        &self,
        headers: &HeaderMap,
        query: &mut Query,
    ) -> Result<Principal, Problem> {
        let parameter = query.take("access_token");
        let user = query.take("user");
        let token = match headers.get(header::AUTHORIZATION) {
            None => parameter,
            Some(value) => Some(bearer(value)?),
        };
        let auth = &self.inner.auth;
        if user.is_some() && !auth.is_dev() {
            return Err(Problem::malformed("the parameter user counts in dev mode only"));
        }
        auth.authenticate(token.as_deref(), user.as_deref())
            .await
            .map_err(|error| Problem::unauthenticated(&error))
    }

    /// The patterns that were asked for, if the principal may have them, and its own topics.
    pub async fn patterns(
        &self,
        principal: &Principal,
        wanted: Vec<Pattern>,
    ) -> Result<PatternSet, Problem> {
        self.may_subscribe(principal, &wanted).await?;
        let own = principal.own_topics().into_iter().map(Pattern::Exact);
        let patterns: PatternSet = own.chain(wanted).collect();
        self.check_count(patterns.len())?;
        Ok(patterns)
    }

    /// Refuses what the principal may not have.
    pub async fn may_subscribe(
        &self,
        principal: &Principal,
        wanted: &[Pattern],
    ) -> Result<(), Problem> {
        for pattern in wanted {
            if !self.may_follow(principal, pattern).await? {
                let detail = format!("the token does not allow to subscribe to {pattern}");
                return Err(Problem::forbidden(detail));
            }
        }
        Ok(())
    }

    /// What the token allows, and the tasks that belong to its user.
    pub async fn may_follow(
        &self,
        principal: &Principal,
        pattern: &Pattern,
    ) -> Result<bool, Problem> {
        if principal.may_subscribe(pattern) {
            return Ok(true);
        }
        let (Some(user), Some(id)) = (&principal.user, task_of(pattern)) else { return Ok(false) };
        let task = self.inner.tasks.get(&id).await?;
        Ok(task.is_some_and(|task| task.owner.as_ref() == Some(user)))
    }

    /// How the tasks among these topics stand.
    pub async fn snapshots(&self, wanted: &[Pattern]) -> Result<Vec<Snapshot>, Problem> {
        let mut found = Vec::new();
        for id in wanted.iter().filter_map(task_of) {
            found.extend(self.inner.tasks.snapshot(&id).await?);
        }
        Ok(found)
    }

    pub fn check_count(&self, topics: usize) -> Result<(), Problem> {
        let max = self.inner.settings.topics_per_session_max;
        if topics > max {
            let error = FieldError::new("/topics", format!("a session has at most {max}"));
            return Err(Problem::invalid(vec![error]));
        }
        Ok(())
    }

    /// A place among the sessions, until it is dropped.
    pub fn enter(&self, principal: &Principal) -> Result<Place, Problem> {
        let settings = &self.inner.settings;
        let (all_max, user_max) = (settings.sessions_max, settings.sessions_per_user_max);
        self.inner.limits.enter(principal.user.as_ref(), all_max, user_max)
    }
}

/// The task whose topic is asked for.
pub fn task_of(pattern: &Pattern) -> Option<TaskId> {
    match pattern {
        Pattern::Exact(topic) => TaskId::of_topic(topic),
        Pattern::Prefix(_) => None,
    }
}

fn bearer(value: &HeaderValue) -> Result<String, Problem> {
    let text = value.to_str().ok();
    let token = text.and_then(|text| text.split_once(' ')).and_then(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    token.ok_or_else(|| Problem::malformed("Authorization must be `Bearer <token>`"))
}
