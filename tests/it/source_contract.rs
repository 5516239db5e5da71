//! One suite over every store of telemetry: what is promised of sources, their readers and what they told.

mod ageing;
mod asking;
mod claiming;
mod cost;
mod flushing;
mod keeping;
mod pushing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidings::bus::memory::MemoryBus;
use tidings::clock::{Clock, TestClock};
use tidings::domain::telemetry::counter::Counter;
use tidings::domain::telemetry::instance::Instance;
use tidings::domain::telemetry::rollup::{Bucket, Course, Growth, Level, Pending};
use tidings::domain::{InstanceStatus, Seq, SourceId, SourceStatus, Timestamp};
use tidings::store::memory::{MemorySettings, MemoryStore};
use tidings::store::source::{
    Created, Flushed, LogFilter, LogLine, Part, ReaderStore, Said, Source, SourceClaim,
    SourceClaimed, SourceRules, SourceStore, Swept, TrendPoint, TrendQuery,
};
use tidings::store::{LogStore, Page, Upkeep};
use tokio_postgres::Client;

use crate::harness;

const LEASE: Duration = Duration::from_secs(30);
const MINUTE: i64 = Level::Minute.length_ms();
const HOUR: i64 = Level::Hour.length_ms();
const DAY: i64 = Level::Day.length_ms();

/// More sources than any test makes.
const MANY: usize = 1_000;

/// A store to be tested, and the hand that makes leases run out.
struct Subject {
    sources: Arc<dyn SourceStore>,
    readers: Arc<dyn ReaderStore>,
    log: Arc<dyn LogStore>,
    upkeep: Arc<dyn Upkeep>,
    hand: Hand,
}

enum Hand {
    Clock(Clock, TestClock),
    Database(Client),
}

async fn memory() -> Subject {
    let settings = MemorySettings {
        messages_max: 1_000_000,
        bytes_max: 1 << 30,
        items_max: 100_000,
        retention_s: 3600,
        idempotency_s: 86_400,
    };
    let (clock, hand) = Clock::test(Timestamp(1_795_168_800_000));
    let store = MemoryStore::new(settings, clock.clone(), MemoryBus::default());
    Subject {
        sources: Arc::new(store.clone()),
        readers: Arc::new(store.clone()),
        log: Arc::new(store.clone()),
        upkeep: Arc::new(store),
        hand: Hand::Clock(clock, hand),
    }
}

async fn postgres() -> Subject {
    let connector = harness::database().await;
    let client = connector.connect().await.unwrap();
    // As many at once as a test asks.
    let store = harness::store_with(connector, |settings| {
        settings.pool.connections_max = 16;
        settings.pool.statement_timeout = Duration::from_secs(30);
    });
    store.settings_store().await.unwrap();
    Subject {
        sources: Arc::new(store.clone()),
        readers: Arc::new(store.clone()),
        log: Arc::new(store.clone()),
        upkeep: Arc::new(store),
        hand: Hand::Database(client),
    }
}

suite! {
    keeping:
        a_source_is_kept_as_it_was_made
        sources_come_in_their_order_page_by_page
        a_change_needs_the_revision_that_was_seen
        there_are_so_many_sources_and_no_more
        a_source_made_again_begins_anew
        what_a_deleted_source_left_is_swept;
    claiming:
        readers_share_what_there_is_to_read
        a_source_is_given_to_one_reader_though_many_ask_at_once
        what_a_dead_reader_held_is_taken_over
        who_was_away_first_only_renews
        who_holds_nothing_of_nothing_is_no_reader
        what_is_disabled_or_stopped_is_not_given
        a_lease_says_where_its_source_goes_on
        a_reader_that_leaves_is_not_waited_for;
    flushing:
        what_was_flushed_is_read_again
        a_part_told_twice_writes_nothing_more
        a_part_of_another_term_is_lost_and_writes_nothing
        a_part_that_releases_its_source_is_the_last
        increments_add_up_over_minute_hour_and_day;
    pushing:
        what_is_pushed_is_read_in_its_order
        what_is_pushed_stays_until_it_is_flushed
        a_full_inbox_takes_no_more
        what_waits_is_bounded_in_bytes_and_read_in_portions
        who_does_not_push_is_told_why;
    asking:
        a_trend_has_the_buckets_that_were_asked_for
        what_waits_counts_once
        a_gauge_beyond_all_measure_spoils_nothing
        a_dashboard_counts_all_or_some
        sums_of_any_size_are_shown_whole
        lines_come_page_by_page_the_newest_first;
    ageing:
        raw_events_stay_seven_days
        each_level_of_roll_ups_has_its_time
        lines_and_deleted_instances_stay_seven_days;
}

fn id(name: &str) -> SourceId {
    SourceId::parse(name).unwrap()
}

/// Of a source that pushes.
fn rules() -> SourceRules {
    SourceRules {
        format: "generic".into(),
        url: None,
        sealed: None,
        headers: Vec::new(),
        enabled: true,
    }
}

/// Of a source that is read.
fn stream() -> SourceRules {
    SourceRules {
        format: "nodepass".into(),
        url: Some("https://one.example/events?***".into()),
        sealed: Some("v1.c2VhbGVk".into()),
        headers: vec!["X-API-Key".into(), "X-Other".into()],
        enabled: true,
    }
}

/// A bucket with one sample of the counter `rx`.
fn grown(delta: u64) -> Bucket {
    let mut bucket = Bucket::default();
    bucket.grow(&"rx".into(), Growth::of(delta));
    bucket
}

fn instance(at: Timestamp, value: u64) -> Instance {
    Instance {
        status: InstanceStatus::Up,
        facts: [("region".into(), r#""eu""#.into())].into(),
        gauges: [("ping".into(), 1.5)].into(),
        counters: [("rx".into(), Counter { value, at, total: value.into() })].into(),
        at,
        created_at: at,
        pending: Pending::default(),
    }
}

fn line(at: Timestamp, instance: Option<&str>, text: &str) -> LogLine {
    LogLine { instance: instance.map(Into::into), at, text: text.into() }
}

fn said(kind: &'static str, key: Option<&str>) -> Said {
    Said { kind, key: key.map(Into::into), data: r#"{"a" : 1}"#.into() }
}

fn before(at: Timestamp, ms: i64) -> Timestamp {
    Timestamp(at.0 - ms)
}

/// Everything that there is of a source, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted {
    instances: usize,
    lines: usize,
    messages: usize,
    /// All growth, and samples, of `rx` at each level.
    grown: Vec<(u128, u64)>,
    /// Rows in Postgres: roll-ups, raw events, what was pushed.
    rows: Vec<i64>,
}

impl Subject {
    /// As many connections as there may be, so that what is asked at once comes at once.
    async fn connected(&self) {
        let ask = (0..16).map(|_| self.sources.list(None, 1));
        futures_util::future::join_all(ask).await;
    }

    async fn now(&self) -> Timestamp {
        match &self.hand {
            Hand::Clock(clock, _) => clock.now(),
            Hand::Database(client) => {
                let now = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
                Timestamp(number(client, now).await)
            }
        }
    }

    async fn create(&self, name: &str, rules: &SourceRules) -> SourceId {
        assert_eq!(self.sources.create(&id(name), rules, MANY).await.unwrap(), Created::Done);
        id(name)
    }

    async fn source(&self, id: &SourceId) -> Source {
        self.sources.get(id).await.unwrap().unwrap()
    }

    fn claim_of(&self, holder: &str) -> SourceClaim {
        SourceClaim {
            holder: holder.into(),
            lease: LEASE,
            sources_max: MANY,
            takes: true,
            holds: false,
        }
    }

    async fn claim(&self, holder: &str) -> SourceClaimed {
        self.readers.claim(&self.claim_of(holder)).await.unwrap()
    }

    /// The names that a reader holds, having asked.
    async fn held(&self, holder: &str) -> Vec<String> {
        let leases = self.claim(holder).await.leases;
        let mut names: Vec<_> = leases.iter().map(|lease| lease.id.to_string()).collect();
        names.sort();
        names
    }

    /// A source that somebody reads, and the term.
    async fn owned(&self, name: &str) -> (SourceId, i64) {
        let id = self.create(name, &rules()).await;
        let term = self.term(&id).await;
        (id, term)
    }

    /// The term under which `one 1` holds it.
    async fn term(&self, id: &SourceId) -> i64 {
        let claimed = self.claim("one 1").await;
        claimed.leases.iter().find(|lease| lease.id == *id).unwrap().term
    }

    async fn flush(&self, part: &Part) -> Flushed {
        let outcomes = self.readers.flush(std::slice::from_ref(part)).await.unwrap();
        assert_eq!(outcomes.len(), 1);
        assert_eq!(outcomes[0].0, part.id);
        outcomes[0].1
    }

    async fn stand(&self, id: &SourceId, term: i64, number: i64, status: SourceStatus) {
        let part = Part { status: Some((status, None)), ..Part::new(id.clone(), term, number) };
        assert_eq!(self.flush(&part).await, Flushed::Done);
    }

    async fn let_leases_run_out(&self) {
        match &self.hand {
            Hand::Clock(_, hand) => hand.shift_ms(60_000),
            Hand::Database(client) => {
                let past =
                    "update tidings.source_reader set due_at = clock_timestamp() - interval '1 s'";
                client.batch_execute(past).await.unwrap();
            }
        }
    }

    async fn points(
        &self,
        source: &SourceId,
        instance: Option<&str>,
        metric: &str,
        level: Level,
        buckets: &[(i64, i64)],
    ) -> Vec<TrendPoint> {
        let query = TrendQuery {
            source: source.clone(),
            instance: instance.map(Into::into),
            metric: metric.into(),
            level,
            buckets: buckets.iter().map(|(a, b)| (Timestamp(*a), Timestamp(*b))).collect(),
        };
        self.sources.trend(&query).await.unwrap()
    }

    /// All growth of `rx` at a level, in one bucket that holds all time.
    async fn growth(&self, source: &SourceId, level: Level) -> (u128, u64) {
        let all = [(0, i64::MAX / 2_000)];
        let points = self.points(source, None, "rx", level, &all).await;
        points[0].growth.map_or((0, 0), |growth| (growth.sum, growth.samples))
    }

    async fn lines(&self, source: &SourceId) -> Vec<LogLine> {
        let filter = LogFilter { source: source.clone(), instance: None, before: None };
        let found = self.sources.logs(&filter, 100_000).await.unwrap();
        found.into_iter().map(|(_, line)| line).collect()
    }

    /// What was said on the topic of a source: kinds and keys.
    async fn said(&self, id: &SourceId) -> Vec<(String, Option<String>)> {
        while self.upkeep.outbox_relay().await.unwrap().is_some() {}
        let page = Page { messages_max: 1_000, bytes_max: 1 << 30 };
        let head = self.log.head().await.unwrap().seq;
        let found = self.log.range(Seq::ZERO, head, page).await.unwrap();
        assert_eq!(found.read_to, head);
        let own = found.messages.iter().filter(|message| message.topic == id.topic());
        own.map(|message| {
            assert_eq!(&*message.data, r#"{"a" : 1}"#);
            let key = message.key.as_deref().map(str::to_owned);
            (message.kind.as_deref().unwrap().to_owned(), key)
        })
        .collect()
    }

    async fn counted(&self, id: &SourceId) -> Counted {
        let mut grown = Vec::new();
        for level in Level::ALL {
            grown.push(self.growth(id, level).await);
        }
        let mut rows = Vec::new();
        if let Hand::Database(client) = &self.hand {
            for table in ["rollup", "source_events", "source_inbox"] {
                let count = format!(
                    "select count(*) from tidings.{table} where source = (select number from tidings.source where id = '{id}')"
                );
                rows.push(number(client, &count).await);
            }
        }
        Counted {
            instances: self.readers.instances(id).await.unwrap().len(),
            lines: self.lines(id).await.len(),
            messages: self.said(id).await.len(),
            grown,
            rows,
        }
    }

    /// Sweeps until there is nothing more, and says what went.
    async fn sweep(&self) -> Swept {
        let mut all = Swept::default();
        loop {
            let swept = self.readers.sweep().await.unwrap();
            all = Swept {
                events: all.events + swept.events,
                minutes: all.minutes + swept.minutes,
                hours: all.hours + swept.hours,
                days: all.days + swept.days,
                logs: all.logs + swept.logs,
                instances: all.instances + swept.instances,
                orphans: all.orphans + swept.orphans,
            };
            if swept == Swept::default() {
                return all;
            }
        }
    }
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// By name.
fn named(instances: Vec<(Arc<str>, Instance)>) -> BTreeMap<String, Instance> {
    instances.into_iter().map(|(name, one)| (name.to_string(), one)).collect()
}
