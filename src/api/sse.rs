//! Gives a session a stream of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::error::{Close, Problem};
use super::protocol::{
    Subscription, cursor_frame, gap_frame, replayed_frame, reset_frame, token_expired_frame,
};
use super::query::Query;
use super::session::{Expiry, Session};
use crate::domain::Cursor;
use crate::feed::Item;
use crate::metrics::Code;
use crate::server::ConnectionGuard;

/// How often a comment keeps proxies from closing a quiet stream.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// How long a browser waits before it comes back by itself; spread, so that a fleet does not return at once.
const RETRY_MS: std::ops::Range<u32> = 500..2_500;

/// What a control frame takes, the longest topic in it apart.
const CONTROL_BYTES: usize = 256;

pub async fn open(
    State(api): State<Api>,
    guard: Option<Extension<ConnectionGuard>>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    let parameter = query.take_cursor("last_event_id");
    let begin = query.take_cursor("cursor");
    let resumed = match headers.get("last-event-id") {
        None => None,
        Some(value) => {
            let cursor = value.to_str().ok().and_then(|text| Cursor::parse(text).ok());
            Some(cursor.ok_or_else(|| Problem::malformed("Last-Event-ID is no cursor"))?)
        }
    };
    let topics = query.take_patterns().into_iter();
    let topics = topics.map(|pattern| Subscription { pattern, cursor: None }).collect();
    query.finish()?;
    let cursor = resumed.or(parameter).or(begin);
    let session = Session::open(&api, principal, topics, cursor).await?;
    let stream = Stream::new(&api, session, guard.map(|Extension(guard)| guard));
    let body = stream::unfold(stream, async |mut stream| {
        let chunk = stream.next().await?;
        Some((Ok::<Bytes, Infallible>(chunk), stream))
    });
    let mut response = Body::from_stream(Box::pin(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would otherwise hold events back until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Stream {
    api: Api,
    session: Session,
    closing: CancellationToken,
    /// Cancelled when the client takes nothing; then nobody asks for the next piece any more.
    stalled: CancellationToken,
    /// Why it ended from our side.
    end: Option<Close>,
    farewell: Duration,
    /// Set when the replica leaves: at this moment the stream ends.
    ends_at: Option<Instant>,
    next_comment: Instant,
    next_cursor: Instant,
    heartbeat: Duration,
    next_expiry: Instant,
    begun: bool,
    items: Vec<Item>,
}

impl Stream {
    fn new(api: &Api, session: Session, guard: Option<ConnectionGuard>) -> Stream {
        let settings = &api.inner.settings;
        let now = Instant::now();
        let (closing, stalled) = match guard {
            Some(guard) => (guard.closing().clone(), guard.stalled().clone()),
            None => Default::default(),
        };
        Stream {
            api: api.clone(),
            session,
            closing,
            stalled,
            end: None,
            farewell: settings.farewells.mul_f64(rand::random_range(0.0..1.0)),
            ends_at: None,
            next_comment: now + COMMENT_EVERY,
            next_cursor: now + settings.heartbeat,
            heartbeat: settings.heartbeat,
            next_expiry: now,
            begun: false,
            items: Vec::new(),
        }
    }

    /// The next piece of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.begun {
            self.begun = true;
            let retry_ms = rand::random_range(RETRY_MS);
            let welcome = event("welcome", &self.session.welcome(None));
            return Some(format!("retry: {retry_ms}\n{welcome}").into());
        }
        loop {
            let leaving = self.ends_at;
            tokio::select! {
                () = self.session.receiving.next(&mut self.items) => {
                    self.session.receiving.sift(&mut self.items).await;
                    // As far as can be known here: the piece goes to the socket next.
                    self.session.receiving.written();
                    if !self.items.is_empty() {
                        return Some(gather(&mut self.items));
                    }
                }
                status = self.session.health.changed() => {
                    return Some(event("status", &status).into());
                }
                () = sleep_until(self.next_cursor) => {
                    self.next_cursor = Instant::now() + self.heartbeat;
                    let cursor = self.session.receiving.feed.cursor();
                    let text = cursor_frame(&cursor);
                    return Some(format!("id: {cursor}\n{}", event("cursor", &text)).into());
                }
                () = sleep_until(self.next_comment) => {
                    self.next_comment = Instant::now() + COMMENT_EVERY;
                    return Some(Bytes::from_static(b":\n\n"));
                }
                () = sleep_until(self.next_expiry) => match self.session.expiry() {
                    Expiry::Expired => return self.ended(Close::Unauthenticated),
                    Expiry::Warn => {
                        self.next_expiry = Instant::now() + Duration::from_secs(1);
                        return Some(event("token_expired", &token_expired_frame()).into());
                    }
                    Expiry::After(after) => self.next_expiry = Instant::now() + after,
                },
                () = self.closing.cancelled(), if leaving.is_none() => {
                    self.ends_at = Some(Instant::now() + self.farewell);
                }
                () = sleep_until(leaving.unwrap_or_else(Instant::now)), if leaving.is_some() => {
                    return self.ended(Close::Leaving);
                }
            }
        }
    }

    fn ended(&mut self, end: Close) -> Option<Bytes> {
        self.end = Some(end);
        None
    }
}

/// Counted as a WebSocket is, though no code goes over the wire.
impl Drop for Stream {
    fn drop(&mut self) {
        let end = if self.stalled.is_cancelled() { Some(Close::TooSlow) } else { self.end };
        let code = end.map_or(1006, Close::code);
        self.api.inner.metrics.hub.closed.get_or_create(&Code { code }).inc();
    }
}

fn event(name: &str, text: &str) -> String {
    format!("event: {name}\ndata: {text}\n\n")
}

/// What is written together, in one piece and as large as it is.
fn gather(items: &mut Vec<Item>) -> Bytes {
    let mut piece = Vec::with_capacity(items.iter().map(weight_bytes).sum());
    for item in items.drain(..) {
        match item {
            Item::Message { frame, cursor: true } => frame.push_event(&mut piece),
            Item::Message { frame, cursor: false } => frame.push_bare_event(&mut piece),
            Item::Replayed { from, to, count } => {
                piece.extend(event("replayed", &replayed_frame(&from, &to, count)).into_bytes());
            }
            Item::Reset { reason, cursor } => {
                piece.extend(format!("id: {cursor}\n").into_bytes());
                piece.extend(event("reset", &reset_frame(reason, &cursor)).into_bytes());
            }
            Item::Gap { topic, dropped } => {
                piece.extend(event("gap", &gap_frame(&topic, dropped)).into_bytes());
            }
        }
    }
    piece.into()
}

/// About what an item takes, so that a piece need not grow as it is written.
fn weight_bytes(item: &Item) -> usize {
    match item {
        Item::Message { frame, .. } => frame.weight_bytes(),
        Item::Replayed { .. } | Item::Reset { .. } | Item::Gap { .. } => CONTROL_BYTES,
    }
}
