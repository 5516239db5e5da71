//! The own inbox over HTTP, and who is there.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::Api;
use super::error::Problem;
use super::notices::{limit, notice_id, user_id};
use super::protocol::{acknowledge_body, counts_answer, entry_answer, present_answer};
use super::query::Query;
use crate::domain::notice::role_topic;
use crate::domain::{Pattern, Principal, ReceiptState, Topic};
use crate::store::notice::{InboxFilter, Reader};

pub async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let reader = api.reader(&headers, &mut query).await?;
    let unread = match query.take("state").as_deref() {
        None | Some("all") => false,
        Some("unread") => true,
        Some(_) => {
            query.refuse("state", "unread or all");
            false
        }
    };
    let before = notice_id(&mut query, "before");
    let limit = limit(&mut query);
    query.finish()?;
    let filter = InboxFilter { unread, before };
    // One more than asked for, to see whether there is one.
    let mut entries = api.inner.notices.inbox(&reader, &filter, limit + 1).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let entries: Vec<Value> = entries.iter().map(entry_answer).collect();
    Ok(Json(json!({ "notices": entries, "more": more })))
}

pub async fn counts(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let reader = api.reader(&headers, &mut query).await?;
    query.finish()?;
    Ok(Json(counts_answer(api.inner.notices.counts(&reader).await?)))
}

macro_rules! acknowledgements {
    ($($name:ident = $state:ident;)*) => {$(
        pub async fn $name(
            State(api): State<Api>,
            headers: HeaderMap,
            query: Query,
            request: Request,
        ) -> Result<Json<Value>, Problem> {
            api.acknowledge(&headers, query, request, ReceiptState::$state).await
        }
    )*};
}

acknowledgements! {
    received = Received;
    read = Read;
    confirmed = Confirmed;
}

/// Who is on a topic.
pub async fn presence(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let topic = match query.take("topic").as_deref().map(Topic::parse) {
        Some(Ok(topic)) => Some(topic),
        Some(Err(error)) => {
            query.refuse("topic", error.to_string());
            None
        }
        None => {
            query.refuse("topic", "is missing: a topic");
            None
        }
    };
    let after = user_id(&mut query, "after");
    let limit = limit(&mut query);
    query.finish()?;
    // That one hears a topic oneself says nothing about who may know of the others: `broadcast` is everybody's.
    let pattern = topic.clone().map(Pattern::Exact);
    let granted = |pattern: &Pattern| principal.subscribe.iter().any(|own| own.covers(pattern));
    if !principal.admin && !pattern.as_ref().is_some_and(granted) {
        return Err(Problem::forbidden("the token does not allow to know who is on this topic"));
    }
    api.present(topic.as_ref(), after.as_ref(), limit).await
}

pub async fn online(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let after = user_id(&mut query, "after");
    let limit = limit(&mut query);
    query.finish()?;
    if !principal.admin {
        return Err(Problem::forbidden("who is online is for admins and API keys"));
    }
    api.present(None, after.as_ref(), limit).await
}

/// Whose inbox a principal reads: its own, or none.
pub fn reader_of(principal: &Principal) -> Option<Reader> {
    let roles = principal.roles.iter().filter(|role| role_topic(role).is_some()).cloned();
    Some(Reader { user: principal.user.clone()?, roles: roles.collect() })
}

impl Api {
    async fn reader(&self, headers: &HeaderMap, query: &mut Query) -> Result<Reader, Problem> {
        reader_of(&self.principal(headers, query).await?).ok_or_else(no_inbox)
    }

    async fn acknowledge(
        &self,
        headers: &HeaderMap,
        mut query: Query,
        request: Request,
        state: ReceiptState,
    ) -> Result<Json<Value>, Problem> {
        let reader = self.reader(headers, &mut query).await?;
        query.finish()?;
        let ids = acknowledge_body(&self.json(headers, request).await?)?;
        Ok(Json(counts_answer(self.inner.notices.acknowledge(&reader, ids, state).await?)))
    }

    async fn present(
        &self,
        topic: Option<&Topic>,
        after: Option<&crate::domain::UserId>,
        limit: usize,
    ) -> Result<Json<Value>, Problem> {
        let mut users = self.inner.presence.users(topic, after, limit + 1).await?;
        let more = users.len() > limit;
        users.truncate(limit);
        let users: Vec<Value> = users.iter().map(present_answer).collect();
        Ok(Json(json!({ "users": users, "more": more })))
    }
}

pub fn no_inbox() -> Problem {
    Problem::forbidden("an API key has no inbox: a user's token has")
}
