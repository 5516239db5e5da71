//! Every number that Tidings shows, declared here and nowhere else.
//!
//! Names follow the parts: `tidings_<part>_<what>`. No label ever carries a user, a topic or a
//! task, so the count of series is bounded by this file.

mod latency;
mod rates;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use self::latency::{Latency, latency};
use self::rates::{Counts, Rates};
pub use self::rates::{EVERY as RATES_EVERY, Rate};

/// A cheap handle on all metrics, and the page that shows them.
#[derive(Clone)]
pub struct Metrics {
    pub publish: Arc<PublishMetrics>,
    pub log: Arc<LogMetrics>,
    pub bus: Arc<BusMetrics>,
    pub hub: Arc<HubMetrics>,
    pub store: Arc<StoreMetrics>,
    pub recovery: Arc<RecoveryMetrics>,
    pub tasks: Arc<TaskMetrics>,
    pub notices: Arc<NoticeMetrics>,
    pub presence: Arc<PresenceMetrics>,
    pub api: Arc<ApiMetrics>,
    pub telemetry: Arc<TelemetryMetrics>,
    pub server: Arc<ServerMetrics>,
    pub supervise: Arc<SuperviseMetrics>,
    /// From when a message was given its number, just before its commit, to the queues of this
    /// replica's sessions.
    pub delivery_seconds: Latency,
    rates: Arc<Rates>,
    registry: Arc<Registry>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("tidings");
        let delivery_seconds = Latency::default();
        let metrics = Metrics {
            publish: Arc::new(PublishMetrics::new(&mut registry)),
            log: Arc::new(LogMetrics::new(&mut registry)),
            bus: Arc::new(BusMetrics::new(&mut registry)),
            hub: Arc::new(HubMetrics::new(&mut registry)),
            store: Arc::new(StoreMetrics::new(&mut registry)),
            recovery: Arc::new(RecoveryMetrics::new(&mut registry)),
            tasks: Arc::new(TaskMetrics::new(&mut registry)),
            notices: Arc::new(NoticeMetrics::new(&mut registry)),
            presence: Arc::new(PresenceMetrics::new(&mut registry)),
            api: Arc::new(ApiMetrics::new(&mut registry)),
            telemetry: Arc::new(TelemetryMetrics::new(&mut registry)),
            server: Arc::new(ServerMetrics::new(&mut registry)),
            supervise: Arc::new(SuperviseMetrics::new(&mut registry)),
            delivery_seconds: delivery_seconds.clone(),
            rates: Arc::default(),
            registry: Arc::default(),
        };
        let help = "From when a message was given its number to the queues of the sessions, its flush included";
        registry.register("delivery_seconds", help, delivery_seconds.histogram);
        Metrics { registry: Arc::new(registry), ..metrics }
    }

    /// Notes down what rates are taken of; to be called each `RATES_EVERY`.
    pub fn note_rates(&self) {
        self.rates.note(self.counts());
    }

    pub fn rate(&self) -> Option<Rate> {
        self.rates.now(self.counts())
    }

    fn counts(&self) -> Counts {
        Counts {
            published: self.publish.messages.get(),
            delivered: self.hub.deliveries.get(),
            batches: self.publish.batches.get(),
            answered: self.api.answered(),
            failed: self.api.failed(),
            latency: self.delivery_seconds.buckets(),
        }
    }

    /// The page in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut page = String::new();
        if encode(&mut page, &self.registry).is_err() {
            // Writing to a string does not fail; a page without its end is refused by a scraper.
            page.clear();
            let _ = writeln!(page, "# the metrics could not be written");
        }
        page
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// One label with words from the source code: `Label::from("inline")` makes no new series by input.
macro_rules! label {
    ($($name:ident { $field:ident })*) => {$(
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
        pub struct $name {
            $field: &'static str,
        }
        impl From<&'static str> for $name {
            fn from($field: &'static str) -> $name {
                $name { $field }
            }
        }
    )*};
}

label! {
    Reason { reason }
    Way { way }
    Why { why }
    State { state }
    Query { query }
    Name { name }
    Status { status }
}

/// How a connection ended, by close code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct Code {
    pub code: u16,
}

/// Declares the metrics of one part: field, type, name without `tidings_`, and what it counts.
/// A counter's name gets its `_total` from the encoder.
macro_rules! part {
    ($(#[$doc:meta])* $part:ident {
        $($field:ident: $kind:ty $(= $make:expr)?, $name:literal, $help:literal;)*
    }) => {
        $(#[$doc])*
        pub struct $part {
            $(#[doc = $help] pub $field: $kind,)*
        }
        impl $part {
            fn new(registry: &mut Registry) -> $part {
                let part = $part { $($field: part!(@make $($make)?),)* };
                $(registry.register($name, $help, part.$field.clone());)*
                part
            }
        }
    };
    (@make $make:expr) => { $make };
    (@make) => { Default::default() };
}

part! {
    /// Taking messages in and writing them in batches.
    PublishMetrics {
        messages: Counter, "publish_messages",
            "Messages that were committed for publishers, without duplicates and signals";
        signals: Counter, "publish_signals", "Signals that were accepted";
        batch_messages: Histogram = sizes(), "publish_batch_messages",
            "Messages in one committed batch, duplicates among them";
        batches: Counter, "publish_batches", "Batches that were committed";
        refused: Family<Reason, Counter>, "publish_refused", "Publish requests that were refused";
        intake_messages: Gauge, "publish_intake_messages", "Messages that wait for their batch";
        intake_bytes: Gauge, "publish_intake_bytes", "What the waiting messages weigh";
        duplicates: Counter, "publish_duplicates", "Messages answered with an earlier result";
        retried: Counter, "publish_retried", "Batches written again, having broken off without being committed";
        recovered: Counter, "publish_recovered",
            "Batches that broke off and turned out to be committed";
    }
}

part! {
    /// The replica's own place in the log.
    LogMetrics {
        applied_seq: Gauge, "log_applied_seq", "The last seq that this replica has applied";
        announced: Family<Way, Counter>, "log_announced",
            "Announcements, by the way they came: `own` batches, `inline` with their messages, as a `range` to be read, or none in time and found by the `tick`";
        behind: Gauge, "log_behind", "How many messages the log was ahead when it was last looked at";
        holes: Counter, "log_holes", "Ranges whose announcement did not come and had to be read";
        ring_messages: Gauge, "log_ring_messages", "Messages kept in memory for replay";
        ring_bytes: Gauge, "log_ring_bytes", "What the messages kept in memory weigh";
        wakes: Family<Why, Counter>, "log_wakes", "Why the log's loop woke";
        epochs: Counter, "log_epochs", "Times that the log no longer continued what was read";
        read: Family<Way, Counter>, "log_read", "Messages read for sessions, by where they were found";
        readers: Gauge, "log_readers", "Sessions that read the store now";
        resets: Family<Reason, Counter>, "log_resets", "Cursors that could not be honoured";
    }
}

part! {
    /// Hearing of new messages.
    BusMetrics {
        state: Family<State, Gauge>, "bus_state", "1 for the state that the bus is in";
        reconnects: Counter, "bus_reconnects", "Times that the listener listened again";
        notifications: Counter, "bus_notifications", "Notifications that were heard";
        malformed: Counter, "bus_malformed", "Notifications that could not be read";
    }
}

part! {
    /// Sessions and what goes to them.
    HubMetrics {
        sessions: Gauge, "hub_sessions", "Sessions that are open";
        subscriptions: Gauge, "hub_subscriptions", "Subscriptions of all open sessions";
        deliveries: Counter, "hub_deliveries", "Frames of messages handed to sessions";
        coalesced: Counter, "hub_coalesced", "State and signal frames replaced by newer ones";
        dropped_signals: Counter, "hub_dropped_signals", "Signals dropped by full queues";
        behind: Counter, "hub_behind", "Times that a session became a reader of the log";
        closed: Family<Code, Counter>, "hub_closed", "Sessions that ended, by close code";
    }
}

part! {
    /// Statements sent to the database.
    StoreMetrics {
        seconds: Family<Query, Histogram, fn() -> Histogram> = by_query(), "store_seconds",
            "How long a statement took, a barrier from its append on; for log_announce nobody waits";
        errors: Family<Query, Counter>, "store_errors", "Statements that failed";
        pool_waits: Counter, "store_pool_waits", "Requests that found no free connection in time";
    }
}

impl StoreMetrics {
    /// `query` is the name of a file under `sql/query`.
    pub fn answered(&self, query: &'static str, within: Duration, well: bool) {
        self.seconds.get_or_create(&query.into()).observe(within.as_secs_f64());
        if !well {
            self.failed(query);
        }
    }

    pub fn failed(&self, query: &'static str) {
        self.errors.get_or_create(&query.into()).inc();
    }
}

part! {
    /// What is found again after something went wrong.
    RecoveryMetrics {
        outbox_found: Counter, "recovery_outbox_found", "Looks, every 5 s, that found rows in the outbox";
        outbox_relayed: Counter, "recovery_outbox_relayed", "Outbox rows moved to the log";
        outbox_oldest_seconds: Gauge, "recovery_outbox_oldest_seconds",
            "Age of the oldest row in the outbox at the last look, every 5 s; it grows while Postgres is away";
        keys_forgotten: Counter, "recovery_keys_forgotten",
            "Idempotency keys that were too old and are forgotten";
        partitions_expired: Counter, "recovery_partitions_expired",
            "Partitions that were found too old, each time that they were";
        messages_dropped: Counter, "recovery_messages_dropped",
            "Messages that were dropped with their partitions";
        partitions_dropped: Counter, "recovery_partitions_dropped",
            "Partitions dropped by retention";
    }
}

part! {
    /// Batch operations on this replica.
    TaskMetrics {
        running: Gauge, "tasks_running", "Tasks whose lease this replica holds";
        claimed: Counter, "tasks_claimed", "Leases that this replica was given";
        finished: Family<State, Counter>, "tasks_finished", "Tasks that this replica finished, by status";
        lost: Counter, "tasks_lost", "Leases that were somebody else's when a report came";
        reports: Counter, "tasks_reports", "Reports that were booked";
        items: Family<Reason, Counter>, "tasks_items", "Items that left a hand, by what became of them";
    }
}

part! {
    /// Notices and inboxes on this replica.
    NoticeMetrics {
        sent: Counter, "notices_sent", "Notices that this replica took for sending";
        handed: Family<Way, Counter>, "notices_handed",
            "Notices written to sessions: `live` as they were sent, `replay` to who came back, or `again` as nobody acknowledged them";
        marks: Family<State, Counter>, "notices_marks", "Steps of receipts that were written down, by state";
        refused: Family<Reason, Counter>, "notices_refused", "What found no room, and comes by itself later";
        readers: Gauge, "notices_readers", "Sessions that have an inbox";
        waiting: Gauge, "notices_waiting", "Inboxes to be opened and receipts to be written down";
    }
}

part! {
    /// Who is there.
    PresenceMetrics {
        sessions: Gauge, "presence_sessions", "Sessions of users that this replica tells of";
        writes: Counter, "presence_writes", "Statements that told of sessions which came, changed or went";
        reaped: Counter, "presence_reaped", "Users found gone with a replica that renews no more";
    }
}

part! {
    /// Requests over HTTP, WebSockets with their beginning.
    ApiMetrics {
        answers: Family<Status, Counter>, "api_answers", "Requests that were answered, by the hundred of the status";
    }
}

impl ApiMetrics {
    const HUNDREDS: [&'static str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

    pub fn answer(&self, status: u16) {
        let hundred = usize::from(status / 100).clamp(1, 5) - 1;
        self.answers.get_or_create(&Self::HUNDREDS[hundred].into()).inc();
    }

    fn answered(&self) -> u64 {
        Self::HUNDREDS
            .iter()
            .map(|hundred| self.answers.get_or_create(&(*hundred).into()).get())
            .sum()
    }

    fn failed(&self) -> u64 {
        self.answers.get_or_create(&"5xx".into()).get()
    }
}

part! {
    /// Sources on this replica.
    TelemetryMetrics {
        sources: Gauge, "telemetry_sources", "Sources that this replica reads";
        instances: Gauge, "telemetry_instances", "Instances of these sources, when they were last counted";
        events: Counter, "telemetry_events", "Events that came from sources, ignored ones among them";
        ignored: Family<Reason, Counter>, "telemetry_ignored", "Events that changed nothing, by reason";
        reconnects: Counter, "telemetry_reconnects", "Times that a source could not be read and was tried again";
        flushes: Family<Reason, Counter>, "telemetry_flushes", "Flushes that were begun, by reason";
        flushed: Counter, "telemetry_flushed", "Flushes that were written";
        flush_errors: Counter, "telemetry_flush_errors", "Flushes that failed; most are tried again";
        flush_seconds: Histogram = latency(), "telemetry_flush_seconds", "How long a flush took";
        rows: Counter, "telemetry_rows", "Rows that flushes wrote";
        buffer_events: Gauge, "telemetry_buffer_events", "Raw events that wait to be written";
        buffer_bytes: Gauge, "telemetry_buffer_bytes", "What these weigh";
        pressed: Gauge, "telemetry_pressed", "1 while the buffer has been more than 80 % full, or thinned, for 10 s";
        thinned: Counter, "telemetry_thinned", "Updates and minutes given up because the buffer was full; totals keep them";
        reads: Family<Way, Counter>, "telemetry_reads", "Questions about instances, by where the answer was found";
    }
}

part! {
    /// Connections.
    ServerMetrics {
        connections: Gauge, "server_connections", "Connections that are open";
        accepted: Counter, "server_accepted", "Connections that were accepted";
        refused: Family<Reason, Counter>, "server_refused", "Connections that were turned away";
        stalled: Counter, "server_stalled",
            "Connections cut off because their clients took no answer, WebSockets apart";
        aborted: Counter, "server_aborted", "Connections cut off at the end of a drain";
    }
}

part! {
    /// Loops and their lives.
    SuperviseMetrics {
        restarts: Family<Name, Counter>, "supervise_restarts", "Loops that were started again";
        panics: Family<Name, Counter>, "supervise_panics", "Loops that panicked";
        running: Gauge, "supervise_running", "Loops that run now";
    }
}

/// 1 to 4096; what is larger is counted above that.
fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 13))
}

fn by_query() -> Family<Query, Histogram, fn() -> Histogram> {
    Family::new_with_constructor(latency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_was_counted_and_ends_as_openmetrics_wants() {
        let metrics = Metrics::new();
        metrics.clone().publish.messages.inc_by(3);
        metrics.log.announced.get_or_create(&"inline".into()).inc();
        metrics.hub.closed.get_or_create(&Code { code: 4408 }).inc();
        metrics.store.seconds.get_or_create(&"message_append".into()).observe(0.002);
        metrics.delivery_seconds.observe(Duration::from_millis(20));
        let page = metrics.encode();
        for line in [
            "tidings_publish_messages_total 3\n",
            "tidings_log_announced_total{way=\"inline\"} 1\n",
            "tidings_hub_closed_total{code=\"4408\"} 1\n",
            "tidings_store_seconds_count{query=\"message_append\"} 1\n",
            "tidings_delivery_seconds_count 1\n",
            "tidings_publish_intake_messages 0\n",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn every_name_is_declared_once() {
        let page = Metrics::new().encode();
        let names: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
        let distinct: std::collections::HashSet<&&str> = names.iter().collect();
        assert!(names.len() > 20, "{names:?}");
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }
}
