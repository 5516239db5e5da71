//! Gives a session a WebSocket.
//!
//! One task a connection: it reads, writes what the feed hands out, and watches the time. What
//! waits is written together and flushed once; a client that takes nothing from its socket for too
//! long is closed, and until then the session's queue is what bounds its memory.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{SinkExt, Stream, StreamExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::error::{Close, Problem};
use super::limits::FrameRate;
use super::protocol::{
    ClientFrame, Operation, Subscription, cursor_frame, gap_frame, replayed_frame, reset_frame,
    token_expired_frame,
};
use super::query::Query;
use super::session::{Expiry, Health, Reply, Session};
use crate::domain::{Cursor, Principal};
use crate::feed::Item;
use crate::metrics::Code;
use crate::server::ConnectionGuard;
use crate::wake::Gate;

/// The one subprotocol.
const PROTOCOL: &str = "tidings.v1";

/// What one read takes at most, and what an idle socket holds. Clients say little: a longer frame is
/// read in several steps. The default of 128 KiB costs fourteen times the memory.
const READ_BUFFER_BYTES: usize = 1 << 10;

/// What is gathered before it is written. The buffer grows to it when there is much to say.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// How long a client may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a close may take to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How many publishes of one session may be under way; with more, nothing is read from it.
const PUBLISHES_MAX: usize = 32;

pub async fn open(
    State(api): State<Api>,
    guard: Option<Extension<ConnectionGuard>>,
    headers: HeaderMap,
    mut query: Query,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let named = headers.contains_key("authorization") || api.inner.auth.is_dev();
    let token_given = named || query.has("access_token");
    let principal = match token_given {
        true => Some(api.principal(&headers, &mut query).await),
        false => None,
    };
    let cursor = query.take_cursor("cursor");
    let topics = query.take_patterns().into_iter();
    let topics = topics.map(|pattern| Subscription { pattern, cursor: None }).collect();
    query.finish()?;
    let upgrade = upgrade.map_err(|rejection| match rejection {
        WebSocketUpgradeRejection::MethodNotGet(_) => Problem::method(),
        other => {
            Problem::malformed(format!("not the request of a WebSocket: {}", other.body_text()))
        }
    })?;
    let max = api.inner.settings.frame_bytes_max;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES + 4 * api.inner.settings.data_bytes_max.max(max))
        .max_message_size(max)
        .max_frame_size(max);
    Ok(upgrade.on_upgrade(move |socket| {
        let guarded = guard.as_deref().cloned();
        // In one place on the heap: each future that this one is moved into would be as large again.
        let life = Box::pin(Socket::new(api, socket, guarded).run(principal, topics, cursor));
        async move {
            match guard {
                Some(Extension(guard)) => drop(guard.hold(life).await),
                None => life.await,
            }
        }
    }))
}

struct Socket {
    api: Api,
    socket: WebSocket,
    /// Comes when the replica leaves, at a moment of this session's own.
    leaving: Leaving,
    /// Cancelled when the client takes nothing.
    stalled: CancellationToken,
    /// Before all that a live session sees to besides messages.
    beside: Gate,
    rate: FrameRate,
}

type Leaving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a socket ends. `None`: the client has gone.
type End = Option<Close>;

impl Socket {
    fn new(api: Api, socket: WebSocket, guard: Option<ConnectionGuard>) -> Socket {
        let (closing, stalled) = match guard {
            Some(guard) => (guard.closing().clone(), guard.stalled().clone()),
            None => Default::default(),
        };
        let settings = &api.inner.settings;
        let rate = FrameRate::new(settings.frames_per_s_max);
        // At random in the window, so that a replica that leaves does not send all away at once.
        let farewell = settings.farewells.mul_f64(rand::random_range(0.0..1.0));
        let leaving = Box::pin(async move {
            closing.cancelled().await;
            tokio::time::sleep(farewell).await;
        });
        Socket { api, socket, leaving, stalled, beside: Gate::default(), rate }
    }

    async fn run(
        mut self,
        principal: Option<Result<Principal, Problem>>,
        topics: Vec<Subscription>,
        cursor: Option<Cursor>,
    ) {
        // What beginning needs is given back, so that a quiet socket weighs little.
        let begun = Box::pin(self.begin(principal, topics, cursor)).await;
        let end = match begun {
            Ok(session) => self.live(session).await,
            Err(end) => end,
        };
        let code = end.map_or(1006, Close::code);
        self.api.inner.metrics.hub.closed.get_or_create(&Code { code }).inc();
        if end == Some(Close::Asked) {
            let _ = timeout(CLOSE_TIMEOUT, self.drain()).await;
        } else if let Some(close) = end {
            let frame = CloseFrame { code, reason: close.reason().into() };
            let _ = timeout(CLOSE_TIMEOUT, self.say_goodbye(frame)).await;
        }
    }

    /// Sends the close and waits for the client's, so that what was sent before arrives.
    async fn say_goodbye(&mut self, frame: CloseFrame) -> Result<(), axum::Error> {
        self.socket.send(Message::Close(Some(frame))).await?;
        self.drain().await;
        Ok(())
    }

    /// Reads to the end. The answer to a client's close is written by reading on.
    async fn drain(&mut self) {
        while let Some(Ok(_)) = self.socket.recv().await {}
    }

    /// Finds out who it is, by the request or by its first frame, and opens the session.
    async fn begin(
        &mut self,
        principal: Option<Result<Principal, Problem>>,
        mut topics: Vec<Subscription>,
        mut cursor: Option<Cursor>,
    ) -> Result<Session, End> {
        let closed = |problem: Problem| {
            tracing::debug!(reason = problem.sentence(), "a session was not opened");
            Some(Close::from(&problem))
        };
        let mut reference = None;
        let principal = match principal {
            Some(principal) => principal.map_err(closed)?,
            None => {
                let text = self.hello().await?;
                let frame = ClientFrame::read(&text).map_err(closed)?;
                let Operation::Hello { token, topics: wanted, cursor: own } =
                    frame.operation.map_err(closed)?
                else {
                    return Err(Some(Close::Unauthenticated));
                };
                reference = frame.reference;
                topics.extend(wanted);
                cursor = own.or(cursor);
                let authenticated = self.api.inner.auth.authenticate(token.as_deref(), None).await;
                authenticated.map_err(|error| closed(Problem::unauthenticated(&error)))?
            }
        };
        let opened = Session::open(&self.api, principal, topics, cursor).await;
        let session = opened.map_err(closed)?;
        self.send(session.welcome(reference.as_ref())).await?;
        Ok(session)
    }

    async fn hello(&mut self) -> Result<Utf8Bytes, End> {
        let deadline = Instant::now() + HELLO_TIMEOUT;
        loop {
            let received = tokio::select! {
                received = timeout_at(deadline, self.socket.recv()) => received,
                () = self.leaving.as_mut() => return Err(Some(Close::Leaving)),
            };
            match received {
                Err(_) => return Err(Some(Close::Unauthenticated)),
                Ok(received) => match self.understand(received) {
                    Received::Text(text) => return Ok(text),
                    Received::Other => {}
                    Received::End(end) => return Err(end),
                },
            }
        }
    }

    async fn live(&mut self, mut session: Session) -> End {
        let settings = &self.api.inner.settings;
        let heartbeat = settings.heartbeat;
        let stalled = self.stalled.clone();
        // Even an answer to a ping may find no room.
        let mut stalled = pin!(stalled.cancelled());
        let mut statuses = pin!(statuses(session.health.clone()));
        let mut next_heartbeat = pin!(sleep_until(Instant::now() + heartbeat));
        let mut next_expiry = pin!(sleep_until(Instant::now()));
        // What wakes a session is mostly a message; the others are asked when they did.
        let reading = Gate::default();
        let mut publishes = FuturesUnordered::new();
        let mut items = Vec::new();
        let mut last_heard = Instant::now();
        loop {
            tokio::select! {
                received = poll_fn(|cx| reading.poll(cx, |cx| self.socket.poll_next_unpin(cx))),
                    if publishes.len() < PUBLISHES_MAX =>
                {
                    last_heard = Instant::now();
                    match self.understand(received) {
                        Received::Other => {}
                        Received::End(end) => return end,
                        Received::Text(text) => match Box::pin(session.receive(&text)).await {
                            Reply::Frame(text) => if let Err(end) = self.send(text).await { return end },
                            Reply::Renewed(text) => {
                                next_expiry.as_mut().reset(Instant::now());
                                self.beside.open();
                                if let Err(end) = self.send(text).await { return end }
                            }
                            Reply::Later(answer) => publishes.push(answer),
                            Reply::Close(close) => return Some(close),
                        }
                    }
                }
                () = session.receiving.next(&mut items) => {
                    session.receiving.sift(&mut items).await;
                    if let Err(end) = self.write(&mut items).await { return end }
                    session.receiving.written();
                }
                Some(answer) = publishes.next() => {
                    // As long as it waits for answers it is not read from, so it cannot be heard.
                    last_heard = Instant::now();
                    if let Err(end) = self.send(answer).await { return end }
                }
                aside = poll_fn(|cx| self.beside.poll(cx, |cx| {
                    if let Poll::Ready(Some(status)) = statuses.as_mut().poll_next(cx) {
                        return Poll::Ready(Aside::Status(status));
                    }
                    // One by one: what was found ready is not asked again before it was seen to.
                    if next_heartbeat.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Aside::Heartbeat);
                    }
                    if next_expiry.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Aside::Expiry);
                    }
                    if self.leaving.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Aside::End(Close::Leaving));
                    }
                    stalled.as_mut().poll(cx).map(|()| Aside::End(Close::TooSlow))
                })) => match aside {
                    Aside::Status(status) => {
                        if let Err(end) = self.send(status).await { return end }
                    }
                    Aside::Heartbeat => {
                        // Three were sent, and the last one had a whole heartbeat to be answered.
                        let silence = heartbeat * 7 / 2;
                        if publishes.len() < PUBLISHES_MAX && last_heard.elapsed() > silence {
                            // It answered neither pings nor anything else.
                            return Some(Close::TooSlow);
                        }
                        next_heartbeat.as_mut().reset(Instant::now() + heartbeat);
                        let cursor = cursor_frame(&session.receiving.feed.cursor());
                        let beat = [Message::Text(cursor.into()), Message::Ping(bytes::Bytes::new())];
                        if let Err(end) = self.send_all(beat).await { return end }
                    }
                    Aside::Expiry => {
                        let after = match session.expiry() {
                            Expiry::Expired => return Some(Close::Unauthenticated),
                            Expiry::Warn => {
                                if let Err(end) = self.send(token_expired_frame()).await { return end }
                                Duration::from_secs(1)
                            }
                            Expiry::After(after) => after,
                        };
                        next_expiry.as_mut().reset(Instant::now() + after);
                    }
                    Aside::End(close) => return Some(close),
                }
            }
        }
    }

    fn understand(&self, received: Option<Result<Message, axum::Error>>) -> Received {
        match received {
            // Pings cost us as much as frames do.
            Some(Ok(_)) if !self.rate.allows_one() => Received::End(Some(Close::TooManyFrames)),
            None => Received::End(None),
            Some(Ok(Message::Close(_))) => Received::End(Some(Close::Asked)),
            Some(Ok(Message::Text(text))) => Received::Text(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Received::Other,
            Some(Ok(Message::Binary(_))) => Received::End(Some(Close::Malformed)),
            Some(Err(error)) => Received::End(broken(error)),
        }
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        self.send_all([Message::Text(text.into())]).await
    }

    async fn write(&mut self, items: &mut Vec<Item>) -> Result<(), End> {
        self.send_all(items.drain(..).map(message)).await
    }

    /// Writes all of it and flushes once. A client that takes nothing for too long is let go, and one
    /// that takes nothing when the replica leaves is not waited for.
    async fn send_all(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), End> {
        let Socket { socket, stalled, leaving, beside, .. } = self;
        let writing = async {
            for message in messages {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        tokio::select! {
            // Mostly it is written at once, and nobody else needs to be asked.
            biased;
            written = writing => written.map_err(|_: axum::Error| None),
            () = stalled.cancelled() => Err(Some(Close::TooSlow)),
            // Asked here it wakes this task, and no more the gate that it stands behind elsewhere.
            () = poll_fn(|cx| {
                beside.open();
                leaving.as_mut().poll(cx)
            }) => Err(Some(Close::Leaving)),
        }
    }
}

/// What a session sees to besides messages.
enum Aside {
    Status(String),
    Heartbeat,
    Expiry,
    End(Close),
}

/// What is to be told of the log, when it is.
fn statuses(health: Health) -> impl Stream<Item = String> {
    stream::unfold(health, |mut health| async { Some((health.changed().await, health)) })
}

enum Received {
    Text(Utf8Bytes),
    /// Pings and pongs, which the library answers.
    Other,
    End(End),
}

/// What a client did that its socket cannot go on after.
fn broken(error: axum::Error) -> End {
    use tokio_tungstenite::tungstenite::Error;
    match error.into_inner().downcast::<Error>().map(|error| *error) {
        Ok(Error::Capacity(_)) => Some(Close::FrameTooLarge),
        Ok(Error::Utf8(_) | Error::Protocol(_)) => Some(Close::Malformed),
        _ => None,
    }
}

fn message(item: Item) -> Message {
    Message::Text(match item {
        Item::Message { frame, cursor: true } => frame.text(),
        Item::Message { frame, cursor: false } => frame.bare_text(),
        Item::Replayed { from, to, count } => replayed_frame(&from, &to, count).into(),
        Item::Reset { reason, cursor } => reset_frame(reason, &cursor).into(),
        Item::Gap { topic, dropped } => gap_frame(&topic, dropped).into(),
    })
}
