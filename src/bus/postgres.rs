//! Hears announcements on one dedicated LISTEN connection.
//!
//! ```text
//!            LISTEN, then a pulse heard               lost, or a pulse not heard
//!   Down ───────────────────────────────▶ listening ─────────────────────────────▶ Down
//!     │                                                                              ▲
//!     └── connected, but the first pulse never came: a pooler is in the way ▶ Polling ┘ (tries again)
//! ```
//! A listener may be silent because nothing happens, because its connection is half open, or because
//! a pooler took LISTEN and gave the connection to somebody else. Only a pulse tells: a notification
//! sent on another connection after a while of silence. Every replica hears it, so that a quiet
//! installation sends one pulse an interval, however many replicas it has.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};
use tokio_util::sync::CancellationToken;

use super::{Bus, BusError, BusEvent, BusState};
use crate::domain::{Draft, Timestamp};
use crate::metrics::BusMetrics;
use crate::notification::{self, Notification};
use crate::store::StoreError;
use crate::store::postgres::connect::{Connector, TlsStream, classify, drive};
use crate::store::postgres::database::Database;
use crate::store::postgres::query::{self, Params};

/// How long a pulse may take to come back. Commits of others delay it, lost packets are resent.
const PULSE_TIMEOUT: Duration = Duration::from_secs(2);

/// After how long a pulse that could not be sent is tried again.
const PULSE_RETRY: Duration = Duration::from_millis(500);

/// How long to leave a pooler alone before trying LISTEN again: at first not for long, since a single
/// pulse may also have been lost.
const POLLING_RETRY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(2)..=Duration::from_secs(60);

pub struct PostgresBus {
    /// To the primary itself, not through a transaction pooler.
    connector: Connector,
    /// For what is sent: signals and pulses.
    database: Database,
    /// Tells this replica's signals and pulses from those of others.
    origin: Arc<str>,
    /// After how much silence the listener is asked whether it still hears.
    silence: Duration,
    suspected: Notify,
    pulses: AtomicU64,
    /// How often it has listened.
    lives: AtomicU64,
    metrics: Arc<BusMetrics>,
}

/// Why listening ended.
enum Ended {
    Stopped,
    Lost(String),
    /// The connection is there and hears nothing.
    Unheard,
}

impl PostgresBus {
    pub fn new(
        connector: Connector,
        database: Database,
        origin: &str,
        silence: Duration,
        metrics: Arc<BusMetrics>,
    ) -> PostgresBus {
        PostgresBus {
            connector,
            database,
            origin: origin.into(),
            silence,
            suspected: Notify::new(),
            pulses: AtomicU64::new(0),
            lives: AtomicU64::new(0),
            metrics,
        }
    }

    /// One life of the listening connection. `heard` is set once a pulse has come back.
    async fn life(
        &self,
        events: &mpsc::Sender<BusEvent>,
        stop: &CancellationToken,
        heard: &mut bool,
    ) -> Result<Ended, StoreError> {
        let (client, mut connection) = self.connector.connect_raw().await?;
        listen(&client, &mut connection).await?;
        if self.lives.fetch_add(1, Ordering::Relaxed) > 0 {
            self.metrics.reconnects.inc();
        }
        let mut pulse = Pulse::new();
        pulse.start(self);
        loop {
            // What has come first: while the log took nothing, the time of a pulse may have passed that
            // is back already.
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Ended::Stopped),
                message = poll_fn(|cx| connection.poll_message(cx)) => message,
                () = self.suspected.notified() => { pulse.start(self); continue; }
                waited = pulse.wait(self.silence) => match waited {
                    Waited::Silence => { pulse.start(self); continue; }
                    Waited::Sent(Ok(())) => continue,
                    // No connection was free, or the server is away, of which the log's looks tell: it
                    // says nothing of whether this one hears.
                    Waited::Sent(Err(error)) => {
                        tracing::debug!(%error, "a pulse was not sent; it is tried again");
                        continue;
                    }
                    Waited::Unheard => return Ok(Ended::Unheard),
                },
            };
            match message {
                None => return Ok(Ended::Lost("the server closed it".to_owned())),
                Some(Err(error)) => return Err(classify(&error)),
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    let event = self.understand(notification.payload(), &mut pulse);
                    if pulse.heard && !*heard {
                        *heard = true;
                        if events.send(BusEvent::Listening).await.is_err() {
                            return Ok(Ended::Stopped);
                        }
                    }
                    // What came before LISTEN was trusted is read after it.
                    if let Some(event) = event.filter(|_| *heard)
                        && events.send(event).await.is_err()
                    {
                        return Ok(Ended::Stopped);
                    }
                }
                Some(Ok(_)) => {}
            }
        }
    }

    fn understand(&self, payload: &str, pulse: &mut Pulse) -> Option<BusEvent> {
        pulse.last_heard = Instant::now();
        self.metrics.notifications.inc();
        match notification::parse(payload) {
            Ok(Notification::Announced(announcement)) => Some(BusEvent::Announced(announcement)),
            Ok(Notification::Signals { origin, messages }) => {
                (origin != self.origin).then_some(BusEvent::Signals(messages))
            }
            Ok(Notification::OutboxFilled) => Some(BusEvent::OutboxFilled),
            Ok(Notification::TaskStirred(id)) => Some(BusEvent::TaskStirred(id)),
            Ok(Notification::SourceStirred(id, pushed)) => {
                Some(BusEvent::SourceStirred(id, pushed))
            }
            Ok(Notification::EpochRenewed) => Some(BusEvent::EpochRenewed),
            Ok(Notification::Pulse { origin, number }) => {
                if origin == self.origin {
                    pulse.returned(number);
                }
                None
            }
            Err(error) => {
                self.metrics.malformed.inc();
                tracing::warn!(%error, "not understood");
                None
            }
        }
    }

    fn pulse(&self) -> (u64, BoxFuture<'static, Result<(), StoreError>>) {
        let number = self.pulses.fetch_add(1, Ordering::Relaxed);
        let payloads = vec![notification::pulse(&self.origin, number)];
        let database = self.database.clone();
        let send = async move {
            let params: Params = &[&payloads];
            database.rows(&query::SIGNAL_NOTIFY, params).await.map(drop)
        };
        (number, Box::pin(send))
    }
}

#[async_trait]
impl Bus for PostgresBus {
    async fn listen(&self, events: mpsc::Sender<BusEvent>, stop: CancellationToken) {
        let backoffs = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times();
        let mut backoff = backoffs.build();
        let mut polling_retry = *POLLING_RETRY.start();
        loop {
            let mut heard = false;
            let ended = self.life(&events, &stop, &mut heard).await;
            if heard {
                backoff = backoffs.build();
                polling_retry = *POLLING_RETRY.start();
            }
            let (state, pause) = match ended {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Unheard) if !heard => {
                    tracing::warn!(
                        "LISTEN is accepted and nothing is heard: a transaction pooler is in the way; \
                         give LISTEN_DATABASE_URL the address of Postgres itself. Polling until then"
                    );
                    let retry = polling_retry;
                    polling_retry = (retry * 2).min(*POLLING_RETRY.end());
                    (BusState::Polling, retry)
                }
                ended => {
                    let reason = match ended {
                        Ok(Ended::Lost(reason)) => reason,
                        Ok(_) => "its pulse did not come back".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    tracing::warn!(reason, "the listener was lost; reconnecting");
                    (BusState::Down, backoff.next().unwrap_or(Duration::from_secs(5)))
                }
            };
            if events.send(BusEvent::Deaf(state)).await.is_err() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    async fn signal(&self, drafts: &[Draft], at: Timestamp) -> Result<(), BusError> {
        let payloads = notification::signals(&self.origin, at, drafts);
        let params: Params = &[&payloads];
        let sent = self.database.rows(&query::SIGNAL_NOTIFY, params).await;
        sent.map(drop).map_err(|error| BusError(error.to_string()))
    }

    fn suspect(&self) {
        self.suspected.notify_one();
    }
}

/// LISTEN, while driving the connection that answers.
async fn listen(
    client: &Client,
    connection: &mut Connection<Socket, TlsStream>,
) -> Result<(), StoreError> {
    let text = format!("listen {}", notification::CHANNEL);
    let both = drive(connection, client.batch_execute(&text));
    match timeout(PULSE_TIMEOUT * 2, both).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable("LISTEN was not answered".to_owned())),
    }
}

/// The question to oneself whether the listener still hears.
struct Pulse {
    last_heard: Instant,
    sending: Option<BoxFuture<'static, Result<(), StoreError>>>,
    /// The pulse that is on its way, and until when it must be back.
    awaited: Option<(u64, Instant)>,
    /// When one that could not be sent is tried again.
    retry_at: Option<Instant>,
    heard: bool,
}

enum Waited {
    Silence,
    Sent(Result<(), StoreError>),
    Unheard,
}

impl Pulse {
    fn new() -> Pulse {
        let last_heard = Instant::now();
        Pulse { last_heard, sending: None, awaited: None, retry_at: None, heard: false }
    }

    fn start(&mut self, bus: &PostgresBus) {
        if self.awaited.is_none() {
            let (number, sending) = bus.pulse();
            self.retry_at = None;
            self.sending = Some(sending);
            self.awaited = Some((number, Instant::now() + PULSE_TIMEOUT));
        }
    }

    fn returned(&mut self, number: u64) {
        if self.awaited.is_some_and(|(awaited, _)| awaited == number) {
            self.awaited = None;
            self.heard = true;
        }
    }

    /// Cancel-safe: what is on its way is kept across calls.
    async fn wait(&mut self, silence: Duration) -> Waited {
        if let Some(sending) = &mut self.sending {
            let sent = sending.await;
            self.sending = None;
            if sent.is_err() {
                self.awaited = None;
                self.retry_at = Some(Instant::now() + PULSE_RETRY);
                return Waited::Sent(sent);
            }
            // The time to come back counts from when it was sent; it may be back already.
            self.awaited = self.awaited.map(|(number, _)| (number, Instant::now() + PULSE_TIMEOUT));
            return Waited::Sent(sent);
        }
        let Some((_, until)) = self.awaited else {
            sleep_until(self.retry_at.unwrap_or(self.last_heard + silence)).await;
            return Waited::Silence;
        };
        sleep_until(until).await;
        Waited::Unheard
    }
}
