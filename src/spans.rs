//! What a collector of OpenTelemetry is told: the way of a traced message through a replica.
//!
//! | span | from | to |
//! |---|---|---|
//! | `publish` | a request's messages are known to be right | it is answered |
//! | `commit` | a batch is given to the store | it is durable, or broke off |
//! | `deliver` | its commit, by the clock of the database | it is in the queues of this replica's sessions |
//!
//! Each is a child of the span that the publisher named, so that nothing but its `traceparent` has to
//! be carried to whoever delivers; a `commit` is a child of its first publisher's, and has links to
//! those of the others. Tidings begins no trace, and records nothing for a publisher that does not.
//!
//! Compiled with the feature `otel` alone. Ended spans wait in a bounded queue for a thread of their
//! own, which sends them; when it is full they are dropped. No message ever waits for a collector.

mod export;

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span as Recorded};

pub use self::export::{Export, SpansError, start};
use crate::domain::{Draft, Message, Timestamp, Trace};

/// Set once, if there is a collector to tell.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Of how many publishers' traces one request or batch tells; the SDK takes as many links.
const TRACES_MAX: usize = 128;

/// Spans that end together.
#[must_use]
pub struct Open(Vec<Recorded>);

/// One for each trace that a request belongs to, mostly one at most.
pub fn publish(drafts: &[Draft]) -> Open {
    let Some(tracer) = TRACER.get() else { return Open(Vec::new()) };
    let begin = |trace: &Trace| {
        let own = drafts.iter().filter(|draft| draft.trace.as_ref() == Some(trace));
        let topic = own.clone().next().map_or("", |draft| draft.topic.as_str());
        let attributes = attributes("send", topic, own.count());
        let span = SpanBuilder::from_name("publish").with_kind(SpanKind::Producer);
        span.with_attributes(attributes).start_with_context(tracer, &under(context(trace)))
    };
    Open(traces(drafts).into_iter().map(begin).collect())
}

/// One, if a message of the batch is traced.
pub fn commit(drafts: &[Draft]) -> Open {
    let Some(tracer) = TRACER.get() else { return Open(Vec::new()) };
    let mut contexts = traces(drafts).into_iter().map(context);
    let Some(first) = contexts.next() else { return Open(Vec::new()) };
    let count = KeyValue::new("messaging.batch.message_count", number(drafts.len()));
    let span = SpanBuilder::from_name("commit")
        .with_attributes([KeyValue::new("messaging.system", "tidings"), count])
        .with_links(contexts.map(Link::with_context).collect());
    Open(vec![span.start_with_context(tracer, &under(first))])
}

impl Open {
    pub fn end<T, E: Display>(self, result: &Result<T, E>) {
        for mut span in self.0 {
            if let Err(error) = result {
                span.set_status(Status::error(error.to_string()));
            }
            span.end();
        }
    }
}

/// These are in the queues of this replica's sessions. `now` is by the clock of the database too.
pub fn delivered(messages: &[Message], now: Timestamp) {
    let Some(tracer) = TRACER.get() else { return };
    for message in messages {
        let Some(trace) = message.trace.as_ref().filter(|trace| trace.is_sampled()) else {
            continue;
        };
        let mut attributes = attributes("deliver", message.topic.as_str(), 1);
        if let Some(seq) = message.seq {
            attributes.push(KeyValue::new("tidings.seq", seq.to_db()));
        }
        SpanBuilder::from_name("deliver")
            .with_kind(SpanKind::Consumer)
            .with_start_time(moment(message.at))
            .with_attributes(attributes)
            .start_with_context(tracer, &under(context(trace)))
            .end_with_timestamp(moment(now.max(message.at)));
    }
}

/// The traces of what is published that are recorded, each once.
fn traces(drafts: &[Draft]) -> Vec<&Trace> {
    let mut traces: Vec<&Trace> = Vec::new();
    for trace in drafts.iter().filter_map(|draft| draft.trace.as_ref()) {
        if traces.len() < TRACES_MAX && trace.is_sampled() && !traces.contains(&trace) {
            traces.push(trace);
        }
    }
    traces
}

fn attributes(operation: &'static str, topic: &str, count: usize) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "tidings"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
        KeyValue::new("messaging.batch.message_count", number(count)),
    ]
}

fn under(parent: SpanContext) -> Context {
    Context::new().with_remote_span_context(parent)
}

fn context(trace: &Trace) -> SpanContext {
    SpanContext::new(
        TraceId::from_hex(trace.trace_id()).unwrap_or(TraceId::INVALID),
        SpanId::from_hex(trace.parent_id()).unwrap_or(SpanId::INVALID),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    )
}

/// A time may come from a notification that anybody sent, and before 1970 there is none.
fn moment(at: Timestamp) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
