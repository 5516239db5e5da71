//! Sources over HTTP: who may change them, push to them, and see what they tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::Api;
use super::error::Problem;
use super::protocol::{
    SourceBody, ingest_body, invalid, point_answer, source_answer, source_body, source_change,
    source_id,
};
use super::query::Query;
use crate::domain::{Pattern, Principal, SourceId, Timestamp};
use crate::store::source::{Created, Ingested, LogFilter, Source, SourceRules, TrendQuery};
use crate::store::task::time_text;
use crate::telemetry::format::Format;
use crate::telemetry::trend::{Step, buckets, default_span_ms, level};
use crate::telemetry::{Secrets, Telemetry};

const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1_000;

pub async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    admins_only(&principal)?;
    let text = api.json(&headers, request).await?;
    let (id, body) = source_body(&text)?;
    let telemetry = &api.inner.telemetry;
    let rules = rules(telemetry, &id, body, None)?;
    match telemetry.create(&id, &rules).await? {
        Created::Done => {}
        Created::Known => return Err(Problem::conflict("there is a source of that name")),
        Created::Full => {
            return Err(Problem::too_many("there are as many sources as there may be"));
        }
    }
    let source = api.source(&id).await?;
    let place = [(header::LOCATION, format!("/v1/sources/{id}"))];
    Ok((StatusCode::CREATED, place, Json(source_answer(&source))).into_response())
}

pub async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let after = query.take("after").and_then(|text| {
        let id = SourceId::parse(&text);
        if id.is_none() {
            query.refuse("after", "the name of a source");
        }
        id
    });
    let limit = limit(&mut query);
    query.finish()?;
    let mut sources = api.inner.telemetry.list(after.as_ref(), limit + 1).await?;
    let more = sources.len() > limit;
    sources.truncate(limit);
    // Who may not see one of them is not told that it is there.
    let seen = sources.iter().filter(|source| may_see(&principal, &source.id));
    let seen: Vec<Value> = seen.map(source_answer).collect();
    let next = sources.last().filter(|_| more).map(|last| last.id.as_str());
    Ok(Json(json!({ "sources": seen, "more": more, "after": next })))
}

pub async fn get(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    let id = seen(&principal, &id)?;
    Ok(Json(source_answer(&api.source(&id).await?)))
}

pub async fn change(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    admins_only(&principal)?;
    let text = api.json(&headers, request).await?;
    let id = source_id(&id)?;
    let body = source_change(&text)?;
    let telemetry = &api.inner.telemetry;
    let source = api.source(&id).await?;
    let rules = rules(telemetry, &id, body, Some(&source))?;
    if !telemetry.change(&id, source.revision, &rules).await? {
        return Err(Problem::conflict("somebody else has changed the source: look again"));
    }
    Ok(Json(source_answer(&api.source(&id).await?)))
}

pub async fn delete(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<StatusCode, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    admins_only(&principal)?;
    let id = source_id(&id)?;
    if api.inner.telemetry.delete(&id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::no_source())
    }
}

pub async fn test(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    admins_only(&principal)?;
    let source = api.source(&source_id(&id)?).await?;
    if source.rules.url.is_none() {
        return Err(Problem::conflict("the source pushes: there is nothing to connect to"));
    }
    let tested = api.inner.telemetry.test(&source).await;
    Ok(Json(json!({
        "ok": tested.ok, "detail": tested.detail, "events": tested.events, "malformed": tested.malformed,
    })))
}

pub async fn ingest(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    let text = api.json(&headers, request).await?;
    let (source, events, count) = ingest_body(&text)?;
    let id = source_id(&source)?;
    if !principal.may_publish(&id.topic()) {
        return Err(Problem::forbidden(format!("the token does not allow to push to {id}")));
    }
    match api.inner.telemetry.ingest(&id, &events).await? {
        Ingested::Done => {}
        Ingested::Absent => return Err(Problem::no_source()),
        Ingested::Disabled => return Err(Problem::conflict("the source is disabled")),
        Ingested::Read => {
            return Err(Problem::conflict("the source has a url: it is read, and does not push"));
        }
        Ingested::Full => {
            return Err(Problem::too_many(
                "more was pushed than has been taken in; try again shortly",
            ));
        }
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "source": id.as_str(), "events": count })))
        .into_response())
}

pub async fn instances(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let after = query.take("after");
    let limit = limit(&mut query);
    query.finish()?;
    let id = seen(&principal, &id)?;
    let telemetry = &api.inner.telemetry;
    let found = telemetry.instances(&id, after.as_deref(), limit).await?;
    if found.instances.is_empty() {
        api.source(&id).await?;
    }
    Ok(Json(json!({ "instances": found.instances, "more": found.more })))
}

pub async fn instance(
    State(api): State<Api>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    let id = seen(&principal, &id)?;
    let found = api.inner.telemetry.instance(&id, &name).await?;
    found.map(Json).ok_or_else(Problem::no_instance)
}

pub async fn dashboard(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let source = query.take("source");
    query.finish()?;
    let of = match source {
        Some(source) => Some(vec![seen(&principal, &source)?]),
        None if principal.admin => None,
        None => return Err(Problem::forbidden("the token allows single sources only: name one")),
    };
    let found = api.inner.telemetry.dashboard(of.as_deref()).await?;
    let counters: BTreeMap<String, Value> = found
        .counters
        .into_iter()
        .map(|(name, (total, hour))| (name, json!({ "total": total, "last_hour": hour })))
        .collect();
    Ok(Json(json!({
        "sources": found.sources, "instances": found.instances, "counters": counters,
    })))
}

pub async fn trends(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let telemetry = &api.inner.telemetry;
    let source = required(&mut query, "source");
    let metric = name(&mut query, "metric");
    if metric.is_none() {
        query.refuse("metric", "is missing");
    }
    let instance = name(&mut query, "instance");
    let step = query.take("step").unwrap_or_else(|| "1m".to_owned());
    let step = Step::parse(&step).unwrap_or_else(|| {
        query.refuse("step", "1m, 1h or 1d");
        Step::Minute
    });
    let zone = query.take("tz").unwrap_or_else(|| "UTC".to_owned());
    let zone = TimeZone::get(&zone).unwrap_or_else(|_| {
        query.refuse("tz", "the name of a time zone such as Europe/Berlin");
        TimeZone::UTC
    });
    let now = telemetry.now();
    let to = moment(&mut query, "to").unwrap_or(now);
    let from = moment(&mut query, "from").unwrap_or(Timestamp(to.0 - default_span_ms(step)));
    query.finish()?;
    let source = seen(&principal, &source)?;
    if from >= to {
        return Err(invalid("/from", "must be before to"));
    }
    let buckets = buckets(from, to, step, &zone)
        .ok_or_else(|| invalid("/step", "too many points: take a longer step or a shorter time"))?;
    let query = TrendQuery {
        source: source.clone(),
        instance,
        metric: metric.unwrap_or_default(),
        level: level(&buckets, now),
        buckets,
    };
    let points = telemetry.trend(&query).await?;
    let is_gauge = points.iter().any(|point| point.course.is_some());
    let point =
        |((at, _), point): (&(Timestamp, _), &_)| point_answer(&time_text(*at), *point, is_gauge);
    let points: Vec<Value> = query.buckets.iter().zip(&points).map(point).collect();
    Ok(Json(json!({ "points": points })))
}

pub async fn logs(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let source = required(&mut query, "source");
    let instance = name(&mut query, "instance");
    let before = query.take("before").and_then(|text| match text.parse::<i64>() {
        Ok(number) if number > 0 => Some(number),
        _ => {
            query.refuse("before", "the id of a line");
            None
        }
    });
    let limit = limit(&mut query);
    query.finish()?;
    let source = seen(&principal, &source)?;
    let filter = LogFilter { source: source.clone(), instance, before };
    let mut lines = api.inner.telemetry.logs(&filter, limit + 1).await?;
    let more = lines.len() > limit;
    lines.truncate(limit);
    let line = |(number, line): &(i64, crate::store::source::LogLine)| {
        json!({
            "id": number, "source": source.as_str(), "instance": line.instance.as_deref(),
            "at": time_text(line.at), "text": &*line.text,
        })
    };
    Ok(Json(json!({ "logs": lines.iter().map(line).collect::<Vec<Value>>(), "more": more })))
}

fn limit(query: &mut Query) -> usize {
    usize::try_from(query.take_number("limit", PAGE, 1, PAGE_MAX)).unwrap_or(usize::MAX)
}

fn required(query: &mut Query, name: &str) -> String {
    let text = query.take(name);
    if text.is_none() {
        query.refuse(name, "is missing");
    }
    text.unwrap_or_default()
}

/// What is called so, if there is such a thing: no database takes every text.
fn name(query: &mut Query, field: &str) -> Option<Arc<str>> {
    let text = query.take(field)?;
    if text.chars().any(char::is_control) {
        query.refuse(field, "a name without control characters");
    }
    Some(text.into())
}

fn moment(query: &mut Query, name: &str) -> Option<Timestamp> {
    let text = query.take(name)?;
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Some(Timestamp(at.as_millisecond())),
        Err(_) => {
            query.refuse(name, "a time such as 2026-11-21T10:00:00Z");
            None
        }
    }
}

fn admins_only(principal: &Principal) -> Result<(), Problem> {
    if principal.admin {
        return Ok(());
    }
    Err(Problem::forbidden("sources are changed by an admin or an API key"))
}

fn may_see(principal: &Principal, id: &SourceId) -> bool {
    principal.may_subscribe(&Pattern::Exact(id.topic()))
}

/// The source, if the principal may follow its topic.
fn seen(principal: &Principal, text: &str) -> Result<SourceId, Problem> {
    let id = source_id(text)?;
    if may_see(principal, &id) {
        return Ok(id);
    }
    Err(Problem::forbidden(format!("the token does not allow to see the source {id}")))
}

/// What is to be kept of a source: what was said, and of the rest what was.
fn rules(
    telemetry: &Telemetry,
    id: &SourceId,
    body: SourceBody,
    before: Option<&Source>,
) -> Result<SourceRules, Problem> {
    let format = body.format.map(Format::as_str).or(before.map(|source| &*source.rules.format));
    let format: Arc<str> = format.unwrap_or(Format::Generic.as_str()).into();
    let enabled = body.enabled.unwrap_or(before.is_none_or(|source| source.rules.enabled));
    let pushes = match &body.url {
        Some(url) => url.is_none(),
        None => before.is_none_or(|source| source.rules.url.is_none()),
    };
    if pushes && &*format != Format::Generic.as_str() {
        return Err(invalid("/format", "what is pushed is generic"));
    }
    let untouched = body.url.is_none() && body.headers.is_none();
    if let Some(source) = before.filter(|_| untouched) {
        return Ok(SourceRules { format, enabled, ..source.rules.clone() });
    }
    // Secrets that cannot be opened any more are given again, all of them or none.
    let known = match before.filter(|_| body.url.is_none() || body.headers.is_none()) {
        Some(source) => telemetry.secrets(source).map_err(|reason| invalid("", reason))?,
        None => Secrets::default(),
    };
    let url = match body.url {
        Some(url) => url,
        None => before.and_then(|source| source.rules.url.as_ref()).map(|_| known.url.clone()),
    };
    let headers = body.headers.unwrap_or(known.headers);
    let Some(url) = url else {
        if !headers.is_empty() {
            return Err(invalid(
                "/headers",
                "a source without a url pushes, and is sent no headers",
            ));
        }
        let (url, sealed) = (None, None);
        return Ok(SourceRules { format, url, sealed, headers: Vec::new(), enabled });
    };
    let names: Vec<Arc<str>> = headers.keys().map(|name| name.as_str().into()).collect();
    let secrets = Secrets { url, headers };
    let (url, sealed) = telemetry.sealed(id, &secrets).map_err(|reason| {
        let pointer = if reason.starts_with("headers") { "/headers" } else { "/url" };
        invalid(pointer, reason)
    })?;
    let (url, sealed) = (Some(url.into()), sealed.map(Arc::from));
    Ok(SourceRules { format, url, sealed, headers: names, enabled })
}

impl Api {
    async fn source(&self, id: &SourceId) -> Result<Source, Problem> {
        self.inner.telemetry.get(id).await?.ok_or_else(Problem::no_source)
    }
}
