//! How replicas hear of messages: through announcements, so that nobody waits for a tick.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::fleet::{Replica, three, until, until_live};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::proxy::{Proxy, Weather};

/// The log's ticks come once in a minute, so that they find nothing while a test runs.
const NO_TICK: &[(&str, &str)] =
    &[("TIDINGS_TICK_MS", "60000"), ("TIDINGS_POLLING_TICK_MS", "60000")];

const OWN: &str = "tidings_log_announced_total{way=\"own\"}";
const INLINE: &str = "tidings_log_announced_total{way=\"inline\"}";
const RANGE: &str = "tidings_log_announced_total{way=\"range\"}";
const TICK: &str = "tidings_log_announced_total{way=\"tick\"}";
const READ: &str = "tidings_store_seconds_count{query=\"message_range\"}";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_heard_and_not_found_by_the_tick() {
    let url = harness::database_url().await;
    let fleet = three(&url, NO_TICK).await;
    until_live(&fleet).await;
    let follow =
        |replica: &Replica| Follower::start(Way::WebSocket, vec![replica.url.clone()], "a", None);
    let followers: Vec<Follower> = fleet.iter().map(follow).collect();
    for follower in &followers {
        follower.connected().await;
    }
    let ticks = async || {
        let mut ticks = 0;
        for replica in &fleet {
            ticks += replica.metric(TICK).await;
        }
        ticks
    };
    let at_the_start = ticks().await;
    let began = Instant::now();
    for round in 1..=10 {
        fleet[round % 3].publish(&json!({"topic": "a", "data": round})).await;
        for follower in &followers {
            follower.has(round).await;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?} for ten by HTTP", began.elapsed());

    // The outbox has a tick of five seconds on each replica. Each message is waited for before the
    // next one, so ticks would find fewer than one in a second: these would take a minute or more.
    let client = harness::connect(&url).await;
    let began = Instant::now();
    for round in 1..=60 {
        client.batch_execute("select tidings.publish('a', '0')").await.unwrap();
        for follower in &followers {
            follower.has(10 + round).await;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?} for sixty by SQL", began.elapsed());
    assert_eq!(ticks().await, at_the_start, "nothing was found by a tick");
}

/// A replica whose listener can be cut off, one that speaks to it, and a follower of the first.
struct Pair {
    listeners: Proxy,
    hearing: Replica,
    speaking: Replica,
    follower: Follower,
    ticks_at_the_start: u64,
}

impl Pair {
    async fn start() -> Pair {
        let url = harness::database_url().await;
        let (listeners, listen) = Proxy::to_database(&url).await;
        let settings = [NO_TICK, &[("LISTEN_DATABASE_URL", listen.as_str())]].concat();
        let hearing = Replica::start("hearing", &url, &settings).await;
        let speaking = Replica::start("speaking", &url, NO_TICK).await;
        until("it is live", async || speaking.readyz().await["listener"] == "live").await;
        let follower = Follower::start(Way::WebSocket, vec![hearing.url.clone()], "a", None);
        follower.connected().await;
        let ticks_at_the_start = hearing.metric(TICK).await;
        let pair = Pair { listeners, hearing, speaking, follower, ticks_at_the_start };
        pair.is_live_again().await;
        pair
    }

    async fn is_live(&self) -> bool {
        self.hearing.readyz().await["listener"] == "live"
    }

    async fn is_live_again(&self) {
        until("it is live", async || self.is_live().await).await;
    }

    /// Cuts the listener off; each step of its return takes so long.
    async fn cut(&self, step: Duration) {
        self.listeners.weather(Weather::Slow(step));
        self.listeners.cut();
        until("it has noticed", async || !self.is_live().await).await;
    }

    /// Publishes the message of a round, which must be heard.
    async fn says(&self, round: usize) {
        self.speaking.publish(&json!({"topic": "a", "data": round})).await;
        self.follower.has(round).await;
        let ticks = self.hearing.metric(TICK).await;
        assert_eq!(ticks, self.ticks_at_the_start, "round {round}: found by a tick");
    }
}

/// The way to the listener is slow, so that there is time between being connected and listening.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_says_it_is_live_listens() {
    let pair = Pair::start().await;
    for round in 1..=5 {
        pair.cut(Duration::from_millis(300)).await;
        pair.is_live_again().await;
        pair.says(round).await;
        pair.listeners.weather(Weather::Fair);
    }
}

/// One message in each step of a return, and nothing after it that would show that it is missing:
/// the slower the steps are, the earlier it comes among them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_a_listener_comes_back_is_heard_without_a_tick() {
    let pair = Pair::start().await;
    for round in 1..=24 {
        pair.cut(Duration::from_millis(4 * round as u64)).await;
        pair.says(round).await;
        pair.is_live_again().await;
        pair.listeners.weather(Weather::Fair);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_takes_its_short_way() {
    let url = harness::database_url().await;
    let writer = Replica::start("writer", &url, NO_TICK).await;
    let other = Replica::start("other", &url, NO_TICK).await;
    let fleet = [writer, other];
    until_live(&fleet).await;
    let [writer, other] = &fleet;
    let ways = async |replica: &Replica| {
        let mut counts = [0; 5];
        for (count, name) in counts.iter_mut().zip([OWN, INLINE, RANGE, TICK, READ]) {
            *count = replica.metric(name).await;
        }
        counts
    };
    let is = async |what: &str, replica: &Replica, wanted: [u64; 5]| {
        until(what, async || ways(replica).await == wanted).await;
    };
    assert_eq!(ways(writer).await, [0; 5]);
    assert_eq!(ways(other).await, [0; 5]);
    writer.publish(&json!({"topic": "a", "data": "small"})).await;
    is("a small message comes whole", other, [0, 1, 0, 0, 0]).await;
    is("its writer has it from memory, and hears of it too", writer, [1, 1, 0, 0, 0]).await;
    writer.publish(&json!({"topic": "a", "data": "x".repeat(9_000)})).await;
    is("one of 9 KB is read once", other, [0, 1, 1, 0, 1]).await;
    until("its writer has it from memory", async || writer.metric(OWN).await == 2).await;
    for replica in &fleet {
        assert_eq!(replica.metric("tidings_log_applied_seq").await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_hears_is_not_given_up_because_no_connection_is_free_for_its_pulse() {
    let url = harness::database_url().await;
    let settings = [
        ("TIDINGS_POOL_CONNECTIONS_MAX", "2"),
        ("TIDINGS_REPLAY_READERS_MAX", "1"),
        ("TIDINGS_POOL_WAIT_MS", "100"),
        ("TIDINGS_STATEMENT_TIMEOUT_MS", "60000"),
        ("TIDINGS_TICK_MS", "100"),
        ("TIDINGS_PULSE_S", "1"),
    ];
    let replica = Replica::start("busy", &url, &settings).await;
    until_live(std::slice::from_ref(&replica)).await;
    let mut holder = harness::connect(&url).await;
    let held = holder.transaction().await.unwrap();
    let lock = "lock table tidings.log, tidings.outbox, tidings.task in access exclusive mode";
    held.batch_execute(lock).await.unwrap();
    // The log's look and the outbox's wait for the lock, and nothing is left for pulses.
    let waits = "tidings_store_pool_waits_total";
    let before = replica.metric(waits).await;
    until("pulses found no connection", async || replica.metric(waits).await >= before + 10).await;
    held.rollback().await.unwrap();
    until_live(std::slice::from_ref(&replica)).await;
    let reconnects = replica.metric("tidings_bus_reconnects_total").await;
    assert_eq!(reconnects, 0, "it heard all the time");
}
