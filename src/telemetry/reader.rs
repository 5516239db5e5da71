//! Reads one source for as long as it is held: connects, reads, and comes back.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::books::Outcome;
use super::format::Format;
use super::remote::{ENDLESS_BYTES, EVENT_BYTES_MAX, Refusal, Secrets};
use super::stream::{Decoder, Place, Told};
use crate::domain::{Event, SourceId, SourceStatus, Timestamp};
use crate::store::source::SourceLease;

/// How long to leave a source alone that cannot be read: from this to that.
const RETRY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(30);

/// Why a connection ended.
enum Ended {
    /// It is not ours any more.
    NotOurs,
    Stopped,
    Lost(String),
}

/// Reads until stopped, or until the source says that there is nothing more.
pub async fn read(shared: Arc<Shared>, lease: SourceLease, stop: CancellationToken) {
    let backoffs = ExponentialBuilder::default()
        .with_min_delay(*RETRY.start())
        .with_max_delay(*RETRY.end())
        .with_jitter()
        .without_max_times();
    let mut backoff = backoffs.build();
    let mut place = Place { last_id: lease.last_event_id.clone(), retry_ms: None };
    let opened = shared.remote.opened(&lease.id, lease.url.as_deref(), lease.sealed.as_deref());
    let secrets = match opened {
        Ok(secrets) => secrets,
        Err(reason) => {
            shared.stand(&lease.id, SourceStatus::Failing, Some(reason));
            return;
        }
    };
    loop {
        let mut told = 0_u64;
        let once = connection(&shared, &lease, &secrets, &mut place, &mut told);
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = once => ended,
        };
        shared.interrupted(&lease.id);
        match ended {
            Ended::NotOurs => return,
            Ended::Stopped => {
                let detail = "it answered 204, which asks not to come back".to_owned();
                shared.stand(&lease.id, SourceStatus::Stopped, Some(detail));
                return;
            }
            Ended::Lost(reason) => {
                tracing::debug!(source = %lease.id, reason, "a source cannot be read; trying again");
                shared.metrics.telemetry.reconnects.inc();
                shared.stand(&lease.id, SourceStatus::Failing, Some(reason));
            }
        }
        if told > 0 {
            backoff = backoffs.build();
        }
        let pause = backoff.next().unwrap_or(*RETRY.end());
        // What the source asks for, spread so that a fleet does not return at once.
        let asked = Duration::from_millis(place.retry_ms.unwrap_or(0));
        let pause = pause.max(asked.mul_f64(rand::random_range(1.0..1.2)));
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

async fn connection(
    shared: &Shared,
    lease: &SourceLease,
    secrets: &Secrets,
    place: &mut Place,
    told: &mut u64,
) -> Ended {
    let mut answer = match shared.remote.open(secrets, place.last_id.as_deref()).await {
        Ok(answer) => answer,
        Err(Refusal::NoContent) => return Ended::Stopped,
        Err(Refusal::Failed(reason)) => return Ended::Lost(reason),
    };
    shared.stand(&lease.id, SourceStatus::Connected, None);
    let format = Format::parse(&lease.format).unwrap_or(Format::Generic);
    let mut decoder = Decoder::new(EVENT_BYTES_MAX, place.clone());
    // Whoever sends bytes and ends no line says nothing either.
    let mut heard = (Instant::now(), 0);
    let silent = || Ended::Lost("it has been silent for too long: no line has ended".to_owned());
    loop {
        let chunk = match timeout_at(heard.0 + shared.settings.silence, answer.chunk()).await {
            Err(_) => return silent(),
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ended::Lost("it closed the stream".to_owned()),
            Ok(Err(_)) => return Ended::Lost("the stream broke off".to_owned()),
        };
        let all = decoder.read(&chunk);
        if heard.1 == decoder.lines() && heard.0.elapsed() >= shared.settings.silence {
            return silent();
        }
        if decoder.open_bytes() > ENDLESS_BYTES {
            let reason = format!("an event of it does not end within {} MiB", ENDLESS_BYTES >> 20);
            return Ended::Lost(reason);
        }
        for one in all {
            *told += 1;
            let Told::Event(text) = one else {
                shared.ignored("too_large");
                continue;
            };
            match format.decode(&text) {
                Err(reason) => {
                    tracing::debug!(source = %lease.id, reason, "an event is not understood");
                    shared.ignored("malformed");
                }
                Ok(event) => {
                    if !shared.apply(&lease.id, lease.term, &event, shared.log.now()).await {
                        return Ended::NotOurs;
                    }
                }
            }
        }
        if decoder.place != *place {
            place.clone_from(&decoder.place);
            shared.note_place(&lease.id, place);
        }
        if heard.1 != decoder.lines() {
            // What it took to find room is not the source's silence.
            heard = (Instant::now(), decoder.lines());
        }
    }
}

impl Shared {
    /// Takes an event into memory, as soon as there is room. False if the source is not ours any more.
    pub(super) async fn apply(
        &self,
        id: &SourceId,
        term: i64,
        event: &Event,
        now: Timestamp,
    ) -> bool {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Registered first, so that no room is missed between the look and the wait.
            room.as_mut().enable();
            let outcome = self.books.lock().apply(id, term, event, now);
            match outcome {
                Outcome::NotOurs => return false,
                Outcome::Wait => {
                    self.flush.notify_one();
                    room.await;
                }
                Outcome::Taken(taken) => {
                    self.metrics.telemetry.events.inc();
                    if let Some(ignored) = taken.ignored {
                        self.ignored(ignored.as_str());
                        return true;
                    }
                    if taken.line_dropped {
                        self.ignored("log");
                    }
                    self.metrics.telemetry.thinned.inc_by(taken.thinned_minutes);
                    let full = self.books.lock().buffer.len() >= self.settings.batch_events;
                    if taken.urgent || full {
                        self.flush.notify_one();
                    }
                    self.show.notify_one();
                    return true;
                }
            }
        }
    }

    pub(super) fn stand(&self, id: &SourceId, status: SourceStatus, detail: Option<String>) {
        let urgent = self.books.lock().own(id).is_some_and(|own| own.stand(status, detail));
        if urgent {
            self.flush.notify_one();
        }
    }

    fn interrupted(&self, id: &SourceId) {
        if let Some(own) = self.books.lock().own(id) {
            own.inventory.interrupted();
        }
    }

    fn note_place(&self, id: &SourceId, place: &Place) {
        if let Some(own) = self.books.lock().own(id) {
            own.note_place(place.last_id.clone());
        }
    }

    pub(super) fn ignored(&self, reason: &'static str) {
        self.metrics.telemetry.ignored.get_or_create(&reason.into()).inc();
    }
}
