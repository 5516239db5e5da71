//! Notices over HTTP, for those who send them.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Api;
use super::error::Problem;
use super::protocol::{NoticeLimits, notice_answer, notice_body, receipt_answer, tally_answer};
use super::query::Query;
use crate::domain::{Notice, NoticeId, Principal, ReceiptState, UserId};
use crate::store::notice::{Recalled, RecipientFilter, Resent};

/// How many notices or recipients one page holds at most, and unless it is said.
const PAGE_MAX: u64 = 1_000;
const PAGE: u64 = 100;

pub async fn send(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let principal = api.sender(&headers, &mut query).await?;
    query.finish()?;
    let text = api.json(&headers, request).await?;
    let settings = &api.inner.settings;
    let limits = NoticeLimits {
        users_max: settings.notice_users_max,
        data_bytes_max: settings.data_bytes_max,
        expires_s_max: settings.notice_expires_s_max,
    };
    let new = notice_body(&text, limits, &principal)?;
    let sent = api.inner.notices.send(&new).await?;
    let notice = notice_answer(&api.notice(&sent.id).await?);
    let place = [(header::LOCATION, format!("/v1/notices/{}", sent.id))];
    let answer = Json(json!({ "notice": notice, "duplicate": sent.duplicate }));
    Ok((StatusCode::ACCEPTED, place, answer).into_response())
}

pub async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    api.sender(&headers, &mut query).await?;
    let before = notice_id(&mut query, "before");
    let limit = limit(&mut query);
    query.finish()?;
    // One more than asked for, to see whether there is one.
    let mut notices = api.inner.notices.list(before.as_ref(), limit + 1).await?;
    let more = notices.len() > limit;
    notices.truncate(limit);
    let notices: Vec<Value> = notices.iter().map(|one| Value::Object(notice_answer(one))).collect();
    Ok(Json(json!({ "notices": notices, "more": more })))
}

pub async fn get(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    api.sender(&headers, &mut query).await?;
    query.finish()?;
    let notice = api.notice_of(&id).await?;
    let mut answer = notice_answer(&notice);
    answer.extend(tally_answer(&api.inner.notices.tally(&notice.id).await?));
    Ok(Json(Value::Object(answer)))
}

pub async fn recipients(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    api.sender(&headers, &mut query).await?;
    let state = query.take("state").and_then(|text| match ReceiptState::parse(&text) {
        None => {
            query.refuse("state", "one of the states of a receipt");
            None
        }
        state => state,
    });
    let after = user_id(&mut query, "after");
    let limit = limit(&mut query);
    query.finish()?;
    let notice = api.notice_of(&id).await?;
    let filter = RecipientFilter { state, after };
    let mut found = api.inner.notices.recipients(&notice.id, &filter, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let found: Vec<Value> = found.iter().map(receipt_answer).collect();
    Ok(Json(json!({ "recipients": found, "more": more })))
}

pub async fn resend(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    api.sender(&headers, &mut query).await?;
    query.finish()?;
    let id = NoticeId::parse(&id).ok_or_else(Problem::no_notice)?;
    match api.inner.notices.resend(&id).await? {
        Resent::Absent => Err(Problem::no_notice()),
        Resent::Refused => {
            Err(Problem::conflict("the notice has run out or was recalled: send a new one"))
        }
        Resent::Done(due) => {
            let notice = notice_answer(&api.notice(&id).await?);
            let answer = Json(json!({ "notice": notice, "due": due }));
            Ok((StatusCode::ACCEPTED, answer).into_response())
        }
    }
}

pub async fn recall(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    api.sender(&headers, &mut query).await?;
    query.finish()?;
    let id = NoticeId::parse(&id).ok_or_else(Problem::no_notice)?;
    match api.inner.notices.recall(&id).await? {
        Recalled::Absent => Err(Problem::no_notice()),
        Recalled::Done(_) => Ok(Json(json!({ "notice": notice_answer(&api.notice(&id).await?) }))),
    }
}

pub(super) fn limit(query: &mut Query) -> usize {
    usize::try_from(query.take_number("limit", PAGE, 1, PAGE_MAX)).unwrap_or(usize::MAX)
}

pub(super) fn notice_id(query: &mut Query, name: &'static str) -> Option<NoticeId> {
    let id = NoticeId::parse(&query.take(name)?);
    if id.is_none() {
        query.refuse(name, "the id of a notice");
    }
    id
}

pub(super) fn user_id(query: &mut Query, name: &'static str) -> Option<UserId> {
    match UserId::parse(&query.take(name)?) {
        Ok(user) => Some(user),
        Err(error) => {
            query.refuse(name, error.to_string());
            None
        }
    }
}

impl Api {
    /// Somebody who may send notices, and see what became of them.
    async fn sender(&self, headers: &HeaderMap, query: &mut Query) -> Result<Principal, Problem> {
        let principal = self.principal(headers, query).await?;
        if principal.admin {
            return Ok(principal);
        }
        Err(Problem::forbidden("notices are sent and looked after by admins and API keys"))
    }

    async fn notice(&self, id: &NoticeId) -> Result<Notice, Problem> {
        self.inner.notices.get(id).await?.ok_or_else(Problem::no_notice)
    }

    async fn notice_of(&self, id: &str) -> Result<Notice, Problem> {
        self.notice(&NoticeId::parse(id).ok_or_else(Problem::no_notice)?).await
    }
}
