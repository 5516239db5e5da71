//! Publishing, history and long poll over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout_at};

use super::Api;
use super::error::Problem;
use super::protocol::{PublishedAnswer, PublishedAnswers, publish_body};
use super::query::Query;
use super::session::not_allowed;
use crate::domain::{Cursor, Pattern, PatternSet, Seq, Timestamp, Trace};
use crate::frame::Frame;
use crate::hub::{Hub, Queue};
use crate::server::ConnectionGuard;
use crate::store::task::Snapshot;
use crate::store::{Page, StoreError};

/// How many bytes of messages one page of history holds, at least one message.
const HISTORY_BYTES_MAX: usize = 1 << 20;

/// How many messages a task may have had while it was read: a few a second.
const HISTORY_TASK_MESSAGES: usize = 1_000;

/// How long to wait for the log to reach what was read beside it.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);

pub async fn publish(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    // Not worth reading, however long it is.
    if !principal.may_publish_anything() {
        return Err(Problem::forbidden("the token allows to publish on no topic"));
    }
    let text = api.json(&headers, request).await?;
    let mut drafts = publish_body(&text, api.publish_limits(), &principal)?;
    if let Some(draft) = drafts.iter().find(|draft| !principal.may_publish(&draft.topic)) {
        return Err(not_allowed(&draft.topic));
    }
    if let Some(trace) = traceparent(&headers) {
        for draft in &mut drafts {
            draft.trace.get_or_insert_with(|| trace.clone());
        }
    }
    let topics: Vec<_> = drafts.iter().map(|draft| draft.topic.clone()).collect();
    let published = api.inner.publisher.publish(drafts).await?;
    let answers: Vec<PublishedAnswer> = topics
        .iter()
        .zip(&published)
        .map(|(topic, one)| PublishedAnswer::new(topic, one))
        .collect();
    Ok((StatusCode::CREATED, axum::Json(PublishedAnswers { messages: answers })).into_response())
}

/// Of the whole request, where a message does not name one of its own. Two of them are none.
fn traceparent(headers: &HeaderMap) -> Option<Trace> {
    let mut given = headers.get_all("traceparent").iter();
    let only = given.next().filter(|_| given.next().is_none())?;
    Trace::parse(only.to_str().ok()?)
}

/// One page of what came after a place, waiting for the first message if that was asked for.
pub async fn history(
    State(api): State<Api>,
    guard: Option<Extension<ConnectionGuard>>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let settings = &api.inner.settings;
    let after = query.take_cursor("after");
    let since = query.take("since").and_then(|text| match text.parse::<jiff::Timestamp>() {
        // Before the first message of all there is nothing, however long before.
        Ok(moment) => Some(Timestamp(moment.as_millisecond().max(0))),
        Err(_) => {
            query.refuse("since", "a time such as 2026-11-20T10:00:00Z");
            None
        }
    });
    let limit = query.take_number("limit", 100, 1, settings.history_limit_max as u64);
    let wait_s = query.take_number("wait_s", 0, 0, settings.long_poll_max.as_secs());
    let wanted = query.take_patterns();
    if after.is_some() && since.is_some() {
        query.refuse("since", "either since or after");
    }
    if wanted.is_empty() {
        query.refuse("topic", "is missing: at least one");
    }
    query.finish()?;
    api.may_subscribe(&principal, &wanted).await?;
    // Whoever begins with a task is told how it stands; whoever resumes has been.
    let told = match (&after, &since) {
        (None, None) => api.snapshots(&wanted).await?,
        _ => Vec::new(),
    };
    let patterns: PatternSet = wanted.into_iter().collect();
    api.check_count(patterns.len())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut reader = Reader::begin(&api, patterns, after, since).await?;
    if !told.is_empty() {
        return Ok(reader.page_of_tasks(told).await?.answer());
    }
    let mut page = reader.page(limit).await?;
    if page.frames.is_empty() && wait_s > 0 {
        let deadline = Instant::now() + Duration::from_secs(wait_s);
        let _place = api.enter(&principal)?;
        page = reader.wait(limit, deadline, guard.map(|Extension(guard)| guard)).await?;
    }
    Ok(page.answer())
}

struct Reader<'a> {
    api: &'a Api,
    patterns: PatternSet,
    position: Cursor,
}

struct HistoryPage {
    frames: Vec<Arc<Frame>>,
    cursor: Cursor,
    more: bool,
}

impl<'a> Reader<'a> {
    async fn begin(
        api: &'a Api,
        patterns: PatternSet,
        after: Option<Cursor>,
        since: Option<Timestamp>,
    ) -> Result<Reader<'a>, Problem> {
        let log = &api.inner.log;
        let Some(head) = log.position() else {
            return Err(Problem::unavailable("this replica has not reached the log yet", 1));
        };
        let position = match (after, since) {
            (Some(cursor), _) => {
                let known = cursor.seq <= head.seq || log.reaches(cursor.seq).await;
                if cursor.epoch != head.epoch || !known {
                    return Err(Problem::gone(head));
                }
                cursor
            }
            (None, Some(moment)) => {
                let seq = log.since(moment).await?;
                Cursor::new(head.epoch, seq.min(head.seq))
            }
            (None, None) => head,
        };
        Ok(Reader { api, patterns, position })
    }

    /// Where to go on after what is gone: of the life that the log has now.
    fn oldest(&self) -> Problem {
        let log = &self.api.inner.log;
        let epoch = log.position().map_or_else(|| self.position.epoch.clone(), |now| now.epoch);
        Problem::gone(Cursor::new(epoch, log.oldest().previous()))
    }

    /// Reads on until the page is full or the log is at its end.
    async fn page(&mut self, limit: usize) -> Result<HistoryPage, Problem> {
        let log = &self.api.inner.log;
        let mut frames: Vec<Arc<Frame>> = Vec::new();
        let mut bytes = 0;
        loop {
            // One more than asked for, to see whether there is one.
            let messages_max = limit + 1 - frames.len();
            let bytes_max = HISTORY_BYTES_MAX.saturating_sub(bytes).max(1);
            let page = Page { messages_max, bytes_max };
            if self.position.seq.next() < log.oldest() {
                return Err(self.oldest());
            }
            let read = log.read(&self.patterns, self.position.seq, Seq::MAX, page).await;
            let read = match read {
                Ok(read) if read.epoch == self.position.epoch => read,
                // The log has a new life: only a cursor of that one is good.
                Ok(_) => return Err(log.position().map_or_else(|| self.oldest(), Problem::gone)),
                Err(StoreError::Expired { .. }) => return Err(self.oldest()),
                Err(error) => return Err(error.into()),
            };
            bytes += read.frames.iter().map(|frame| frame.weight_bytes()).sum::<usize>();
            frames.extend(read.frames);
            self.position.seq = self.position.seq.max(read.read_to);
            let ended = log.position().is_none_or(|head| self.position.seq >= head.seq);
            let full = frames.len() > limit || bytes >= HISTORY_BYTES_MAX;
            if full || ended {
                let more = frames.len() > limit || !ended;
                frames.truncate(limit);
                if more && let Some(seq) = frames.last().and_then(|frame| frame.seq) {
                    self.position.seq = seq;
                }
                return Ok(HistoryPage { frames, cursor: self.position.clone(), more });
            }
        }
    }

    /// Tasks as they stand, and what has followed meanwhile. Other topics begin where this ends.
    async fn page_of_tasks(&mut self, told: Vec<Snapshot>) -> Result<HistoryPage, Problem> {
        let log = &self.api.inner.log;
        let furthest = told.iter().map(|one| one.as_of).max().unwrap_or_default();
        // Another replica wrote it, and this one is about to apply it: a cursor before it would
        // lead back.
        self.position = log.reached(furthest, REACH_TIMEOUT).await.ok_or_else(|| {
            Problem::unavailable("this replica has not reached the task's last message yet", 1)
        })?;
        let page = Page { messages_max: HISTORY_TASK_MESSAGES, bytes_max: HISTORY_BYTES_MAX };
        let mut frames = Vec::new();
        for one in told {
            let own = [Pattern::Exact(one.message.topic.clone())].into_iter().collect();
            frames.push(Arc::new(Frame::new(&one.message, &one.epoch)));
            frames.extend(log.read(&own, one.as_of, self.position.seq, page).await?.frames);
        }
        Ok(HistoryPage { frames, cursor: self.position.clone(), more: false })
    }

    /// Waits for the first message. Registers first and reads then, so that none slips by.
    async fn wait(
        &mut self,
        limit: usize,
        deadline: Instant,
        guard: Option<ConnectionGuard>,
    ) -> Result<HistoryPage, Problem> {
        let waiting = Waiting::new(&self.api.inner.hub, &self.patterns);
        let closing = async {
            match &guard {
                Some(guard) => guard.closing().cancelled().await,
                None => std::future::pending().await,
            }
        };
        let mut closing = std::pin::pin!(closing);
        loop {
            match self.page(limit).await {
                Ok(page) if page.frames.is_empty() => {}
                done => return done,
            }
            tokio::select! {
                // While behind, the queue holds nothing and wakes at whatever passes by.
                woken = timeout_at(deadline, waiting.queue.ready()) => if woken.is_err() {
                    return self.page(limit).await;
                },
                () = closing.as_mut() => return self.page(limit).await,
            }
        }
    }
}

/// A place in the hub, given back however the wait ends: clients that go away drop it.
struct Waiting<'a> {
    hub: &'a Hub,
    queue: Arc<Queue>,
    patterns: Vec<Pattern>,
}

impl<'a> Waiting<'a> {
    fn new(hub: &'a Hub, patterns: &PatternSet) -> Waiting<'a> {
        let waiting = Waiting { hub, queue: hub.join(), patterns: patterns.to_vec() };
        for pattern in &waiting.patterns {
            hub.subscribe(&waiting.queue, pattern);
        }
        waiting
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hub.leave(&self.queue, &self.patterns);
    }
}

impl HistoryPage {
    fn answer(&self) -> Response {
        let size: usize = self.frames.iter().map(|frame| frame.text().len() + 1).sum();
        let mut text = String::with_capacity(size + 128);
        text.push_str("{\"messages\":[");
        for (place, frame) in self.frames.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text.push_str(&frame.text());
        }
        text.push_str(&format!("],\"cursor\":\"{}\",\"more\":{}}}", self.cursor, self.more));
        ([(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}
