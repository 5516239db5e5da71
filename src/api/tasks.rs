//! Tasks over HTTP: for those who submit and watch them, and for workers.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::Api;
use super::error::{FieldError, Problem};
use super::protocol::{
    TaskLimits, WORD, claim_body, is_word, item_answer, report_body, task_answer, task_body,
};
use super::query::Query;
use crate::domain::{ItemStatus, Principal, Task, TaskId, TaskStatus, UserId};
use crate::server::ConnectionGuard;
use crate::store::task::{
    Claim, Ending, Granted, ItemFilter, Report, Reported, TaskFilter, WORD_PAUSE, Which, Wish,
};
use crate::tasks::acts_as_server;

/// How many tasks or items one page holds at most, and unless it is said.
const PAGE_MAX: u64 = 1_000;
const PAGE: u64 = 100;

/// How long a report waits for its turn, if many are sent at once.
const TURN_WAIT: Duration = Duration::from_secs(5);

pub async fn submit(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    let text = api.json(&headers, request).await?;
    let settings = &api.inner.settings;
    let limits = TaskLimits {
        items_max: settings.task_items_max,
        concurrency_max: settings.task_concurrency_max,
    };
    let tasks = &api.inner.tasks;
    let mut for_admins = false;
    let new = task_body(&text, limits, &principal, |executor| {
        for_admins = acts_as_server(executor);
        if for_admins && !principal.admin { Ok(false) } else { tasks.is_external(executor) }
    })?;
    if !principal.admin && new.owner != principal.user {
        return Err(Problem::forbidden("the token does not allow tasks of other owners"));
    }
    if !principal.admin && for_admins {
        let detail =
            "this executor acts in the server's name: only an admin or an API key submits it";
        return Err(Problem::forbidden(detail));
    }
    let (task, duplicate) = tasks.submit(&new).await?;
    let mut answer = task_answer(&task);
    answer.insert("duplicate".to_owned(), duplicate.into());
    let place = [(header::LOCATION, format!("/v1/tasks/{}", task.id))];
    Ok((StatusCode::ACCEPTED, place, Json(Value::Object(answer))).into_response())
}

pub async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let status = query.take("status").and_then(|text| match TaskStatus::parse(&text) {
        None => {
            query.refuse("status", "one of the statuses of a task");
            None
        }
        status => status,
    });
    let owner = query.take("owner").and_then(|text| match UserId::parse(&text) {
        Ok(owner) => Some(owner),
        Err(error) => {
            query.refuse("owner", error.to_string());
            None
        }
    });
    let after = query.take("after").and_then(|text| match TaskId::parse(&text) {
        None => {
            query.refuse("after", "the id of a task");
            None
        }
        after => after,
    });
    let action = word(&mut query, "action");
    let limit = limit(&mut query);
    query.finish()?;
    if !principal.admin && owner.is_some() && owner != principal.user {
        return Err(Problem::forbidden("the token does not allow tasks of other owners"));
    }
    let owner = if principal.admin { owner } else { principal.user };
    let filter = TaskFilter { owner, status, action, after };
    // One more than asked for, to see whether there is one.
    let mut tasks = api.inner.tasks.list(&filter, limit + 1).await?;
    let more = tasks.len() > limit;
    tasks.truncate(limit);
    let tasks: Vec<Value> = tasks.iter().map(|task| Value::Object(task_answer(task))).collect();
    Ok(Json(json!({ "tasks": tasks, "more": more })))
}

pub async fn get(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    let task = api.own_task(&principal, &id).await?;
    Ok(Json(Value::Object(task_answer(&task))))
}

pub async fn items(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let which = match query.take("status") {
        None => Which::All,
        Some(text) => match ItemStatus::parse(&text) {
            Some(status) => Which::Only(status),
            None if text == "unfinished" => Which::Unfinished,
            None => {
                query.refuse("status", "one of the statuses of an item, or unfinished");
                Which::All
            }
        },
    };
    let after = word(&mut query, "after");
    let limit = limit(&mut query);
    query.finish()?;
    let task = api.own_task(&principal, &id).await?;
    let filter = ItemFilter { which, after };
    let mut items = api.inner.tasks.items(&task.id, &filter, limit + 1).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let items: Vec<Value> = items.iter().map(item_answer).collect();
    Ok(Json(json!({ "items": items, "more": more })))
}

macro_rules! wishes {
    ($($name:ident = $wish:ident;)*) => {$(
        pub async fn $name(
            State(api): State<Api>,
            Path(id): Path<String>,
            headers: HeaderMap,
            query: Query,
        ) -> Result<Response, Problem> {
            api.wish(&headers, query, &id, Wish::$wish).await
        }
    )*};
}

wishes! {
    cancel = Cancel;
    pause = Pause;
    resume = Resume;
    retry = Retry;
}

/// A task for a worker, or 204 when there is none within the time it waits.
pub async fn claim(
    State(api): State<Api>,
    guard: Option<Extension<ConnectionGuard>>,
    headers: HeaderMap,
    mut query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    let text = api.json(&headers, request).await?;
    let wanted = claim_body(&text, api.inner.settings.long_poll_max)?;
    let tasks = &api.inner.tasks;
    let owner = if principal.admin { None } else { principal.user };
    let claim = Claim {
        holder: wanted.worker,
        lease: wanted.lease,
        tasks_max: 1,
        takeovers_max: tasks.takeovers_max(),
        external: Some((wanted.actions, owner)),
    };
    let closing = guard.map(|Extension(guard)| guard.closing().clone()).unwrap_or_default();
    let claimed = tasks.claim(&claim, Instant::now() + wanted.wait, &closing).await?;
    let Some((id, term)) = claimed else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let unfinished = ItemFilter { which: Which::Unfinished, after: None };
    let page = usize::try_from(PAGE_MAX).unwrap_or(usize::MAX);
    let (task, items) = match (api.task(&id).await, tasks.items(&id, &unfinished, page).await) {
        (Ok(task), Ok(items)) => (task, items),
        (task, items) => {
            // Nobody will hear of this lease: for others it need not run out first.
            let ending = Ending::Release;
            let report = Report { id, term, results: Vec::new(), in_flight: None, ending };
            drop(tasks.report(&report).await);
            let told = task.err().or(items.err().map(Problem::from));
            return Err(told.unwrap_or_else(Problem::no_task));
        }
    };
    let mut answer = task_answer(&task);
    answer.insert("term".to_owned(), term.into());
    answer.insert("lease_s".to_owned(), wanted.lease.as_secs().into());
    answer.insert("items".to_owned(), items.iter().map(item_answer).collect());
    answer.insert("more".to_owned(), (items.len() == page).into());
    Ok(Json(Value::Object(answer)).into_response())
}

pub async fn report(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Query,
    request: Request,
) -> Result<Json<Value>, Problem> {
    api.reported(&headers, query, &id, request, false).await
}

pub async fn finish(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Query,
    request: Request,
) -> Result<Json<Value>, Problem> {
    api.reported(&headers, query, &id, request, true).await
}

fn word(query: &mut Query, name: &'static str) -> Option<Arc<str>> {
    let text = query.take(name)?;
    if !is_word(&text) {
        query.refuse(name, WORD);
    }
    Some(text.into())
}

fn limit(query: &mut Query) -> usize {
    usize::try_from(query.take_number("limit", PAGE, 1, PAGE_MAX)).unwrap_or(usize::MAX)
}

/// Where a report names an item.
fn place_of(report: &Report, name: &str) -> String {
    let result = report.results.iter().position(|result| &*result.name == name);
    let in_hand = report.in_flight.iter().flatten().position(|own| &**own == name);
    match (result, in_hand) {
        (Some(place), _) => format!("/results/{place}/item"),
        (None, Some(place)) => format!("/in_flight/{place}"),
        (None, None) => String::new(),
    }
}

impl Api {
    async fn task(&self, id: &TaskId) -> Result<Task, Problem> {
        self.inner.tasks.get(id).await?.ok_or_else(Problem::no_task)
    }

    /// The task, if the principal may see and change it.
    async fn own_task(&self, principal: &Principal, id: &str) -> Result<Task, Problem> {
        let id = TaskId::parse(id).ok_or_else(Problem::no_task)?;
        let task = self.task(&id).await?;
        if principal.admin || (task.owner.is_some() && task.owner == principal.user) {
            return Ok(task);
        }
        Err(Problem::forbidden("the task belongs to somebody else"))
    }

    async fn wish(
        &self,
        headers: &HeaderMap,
        mut query: Query,
        id: &str,
        wish: Wish,
    ) -> Result<Response, Problem> {
        let principal = self.principal(headers, &mut query).await?;
        query.finish()?;
        let task = self.own_task(&principal, id).await?;
        match self.inner.tasks.grant(&task.id, wish).await? {
            Granted::Done(_) => {}
            Granted::Absent => return Err(Problem::no_task()),
            Granted::Refused => {
                let status = self.task(&task.id).await?.status.as_str();
                let wish = match wish {
                    Wish::Cancel => "cancelled",
                    Wish::Pause => "paused",
                    Wish::Resume => "resumed",
                    Wish::Retry => {
                        "retried: retry runs what failed or was cancelled, once it has ended"
                    }
                };
                return Err(Problem::conflict(format!(
                    "the task is {status} and cannot be {wish}"
                )));
            }
        }
        let answer = Value::Object(task_answer(&self.task(&task.id).await?));
        Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
    }

    async fn reported(
        &self,
        headers: &HeaderMap,
        mut query: Query,
        id: &str,
        request: Request,
        finishes: bool,
    ) -> Result<Json<Value>, Problem> {
        let principal = self.principal(headers, &mut query).await?;
        query.finish()?;
        let text = self.json(headers, request).await?;
        let task = self.own_task(&principal, id).await?;
        if self.inner.tasks.is_external(&task.executor) != Ok(true) {
            return Err(Problem::conflict(
                "the task is run by the server: nobody else reports on it",
            ));
        }
        let report = report_body(&text, &task.id, finishes)?;
        // A worker that reports without a pause has its pace from here.
        let since_ms = u64::try_from(self.inner.log.now().0 - task.updated_at.0).unwrap_or(0);
        let mut pause = WORD_PAUSE.saturating_sub(Duration::from_millis(since_ms));
        let deadline = Instant::now() + TURN_WAIT;
        let reported = loop {
            if !finishes {
                sleep(pause).await;
            }
            match self.inner.tasks.report(&report).await? {
                Reported::Early if Instant::now() < deadline => pause = WORD_PAUSE,
                reported => break reported,
            }
        };
        match reported {
            Reported::Early => Err(Problem::too_many("too many reports of one task at once")),
            Reported::Done { stop, .. } => {
                let mut answer: Map<String, Value> = task_answer(&self.task(&task.id).await?);
                answer.insert("stop".to_owned(), stop.into());
                Ok(Json(Value::Object(answer)))
            }
            Reported::Absent => Err(Problem::no_task()),
            Reported::Fenced => {
                Err(Problem::conflict("the lease of this term is over: claim again"))
            }
            Reported::Unknown(names) => {
                let fault = |name: &String| {
                    let detail = format!("{name} is no item of this task");
                    FieldError::new(place_of(&report, name), detail)
                };
                Err(Problem::invalid(names.iter().map(fault).collect()))
            }
        }
    }
}
