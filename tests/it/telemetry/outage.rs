//! Postgres is away, and the fleet tells on: what waits stays within its bounds, is thinned where it must be, and
//! nothing is missing afterwards.

use serde_json::json;
use tidings::cluster::Options;
use tokio::time::Instant;

use super::station::Station;
use super::{borrowed, create, get, settings, until_status};
use crate::fleet::{Replica, until};
use crate::harness;

/// Ten minutes, told in a moment.
const MINUTES_MS: i64 = 600_000;

/// Between two updates of an instance.
const STEP_MS: i64 = 5_000;

/// What instances weigh that are known, beside the raw events: their figures, twelve minutes that are not
/// written yet, and a copy of them on its way.
const INSTANCE_BYTES: u64 = 16 << 10;

/// How many events may be between the fleet and the replica, those included that nobody listened to.
const ON_THE_WAY: u64 = 40_000;

const BUFFER_BYTES: u64 = 16 << 20;

struct Scale {
    sources: usize,
    instances: usize,
}

fn name(source: usize) -> String {
    format!("s-{source:03}")
}

fn instance(instance: usize) -> String {
    format!("i-{instance:02}")
}

/// What a process has allocated, in bytes.
fn memory_bytes(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss_Anon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Raw events that are kept: of a kind, those of which an instance has the name.
const EVENTS: &str =
    "select count(*) from tidings.source_events, jsonb_array_elements(events::jsonb) e
    where e ->> 'type' = $1 and e ->> 'instance' like $2";

/// Instances whose last sample is not among the raw events.
const WITHOUT_LAST: &str = "select count(*) from tidings.instance i left join (
        select s.source, e ->> 'instance' as name, max((e -> 'counters' ->> 'tcp_rx')::bigint) as last
        from tidings.source_events s, jsonb_array_elements(s.events::jsonb) e group by 1, 2) k using (source, name)
    where i.status = 'up' and k.last is distinct from (i.state -> 'counters' -> 'tcp_rx' ->> 0)::bigint";

async fn is_bounded_and_nothing_is_missing(scale: &Scale) {
    let station = Station::start().await;
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let mut settings = settings(&station);
    settings.push(("TIDINGS_TELEMETRY_BUFFER_BYTES_MAX", BUFFER_BYTES.to_string()));
    settings[2].1 = "5000".to_owned();
    let replica = Replica::start("outage", &url, &borrowed(&settings)).await;
    let client = harness::connect(&url).await;
    let all = scale.sources * scale.instances;
    let begin = jiff::Timestamp::now().as_millisecond() - MINUTES_MS;
    station.set_clock(begin);
    for source in 0..scale.sources {
        for one in 0..scale.instances {
            station.count(&name(source), &instance(one), 0);
        }
        create(&replica, &json!({"name": name(source), "url": station.url(&name(source))})).await;
    }
    until("all are there", async || {
        get(&replica, "/v1/dashboard").await["instances"] == json!({"up": all})
    })
    .await;
    let before = memory_bytes(replica.process());
    let heard = async || replica.metric("tidings_telemetry_events_total").await;
    cluster.pause().unwrap();
    let begun = Instant::now();
    let (mut sent, mut lines, mut lives, mut most) = (0_u64, 0_i64, 0_i64, 0);
    for (step, at) in (0..).zip((STEP_MS..=MINUTES_MS).step_by(usize::try_from(STEP_MS).unwrap())) {
        station.set_clock(begin + at);
        for source in 0..scale.sources {
            let name = name(source);
            for one in 0..scale.instances {
                station.count(&name, &instance(one), 7);
                sent += 1;
            }
            // Those that come back ask for all that there is; what is only told would be missed by them.
            let flaps = source % 10 == 3;
            if step % 12 == 5 && !flaps {
                station.tell(&name, &json!({"type": "log", "text": format!("line {step}")}));
                for kind in ["create", "update", "delete"] {
                    station
                        .tell(&name, &json!({"type": kind, "instance": format!("extra-{step}")}));
                }
                (lines, lives, sent) = (lines + 1, lives + 1, sent + 4);
            }
            if flaps && step % 8 == source / 10 % 8 {
                station.hang_up(&name);
            }
        }
        most = most.max(memory_bytes(replica.process()));
        // As fast as it is read: what is on the way is not what waits.
        until("it keeps up", async || heard().await + ON_THE_WAY >= sent).await;
    }
    let flapped = |source: usize| source % 10 == 3;
    until("all who flap are back", async || {
        (0..scale.sources)
            .filter(|source| flapped(*source))
            .all(|source| station.listeners(&name(source)) == 1)
    })
    .await;
    for source in 0..scale.sources {
        let name = name(source);
        let last = instance(scale.instances - 1);
        let counter = station.counter(&name, &last);
        until("all is read", async || {
            super::counter(&replica, &name, &last).await == Some(counter)
        })
        .await;
    }
    most = most.max(memory_bytes(replica.process()));
    let stats = replica.stats().await["telemetry"].clone();
    let usage = stats["buffer_usage"].as_f64().unwrap();
    let grown = most.saturating_sub(before);
    let bound = 2 * BUFFER_BYTES + INSTANCE_BYTES * all as u64;
    println!(
        "{sent} events of {all} instances in {:?}: grown by {} KiB of at most {} KiB, the buffer {:.0} % full, {} thinned",
        begun.elapsed(),
        grown >> 10,
        bound >> 10,
        usage * 100.0,
        stats["thinned"],
    );
    assert!(usage <= 1.0, "{stats}");
    cluster.resume().unwrap();
    let counted: u64 = (0..scale.sources)
        .flat_map(|source| (0..scale.instances).map(move |one| (source, one)))
        .map(|(source, one)| station.counter(&name(source), &instance(one)))
        .sum();
    let expected = json!({"total": counted, "last_hour": counted});
    until("all is counted", async || {
        let (status, shown) = super::ask(&replica, "GET", "/v1/dashboard", None).await;
        status == 200 && shown["counters"]["tcp_rx"] == expected && shown["instances"]["up"] == all
    })
    .await;
    println!("all of it written {:?} after it began", begun.elapsed());
    let mut replica = replica;
    assert_eq!(replica.leave().await, Some(0));
    let count = async |kind: &str, like: &str| -> i64 {
        client.query_one(EVENTS, &[&kind, &like]).await.unwrap().get(0)
    };
    // What happened is all there; of the rest the last of each.
    assert_eq!(count("create", "extra-%").await, lives);
    assert_eq!(count("delete", "extra-%").await, lives);
    let logs = client.query_one("select count(*) from tidings.source_log", &[]).await.unwrap();
    assert_eq!(logs.get::<_, i64>(0), lines);
    let without = client.query_one(WITHOUT_LAST, &[]).await.unwrap();
    assert_eq!(without.get::<_, i64>(0), 0, "the last of each is among the raw events");
    assert!(grown <= bound, "{grown} of at most {bound} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_ten_minutes_stays_within_its_bounds() {
    is_bounded_and_nothing_is_missing(&Scale { sources: 40, instances: 20 }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half a million updates: make outage"]
async fn what_a_whole_fleet_tells_in_ten_minutes_stays_within_its_bounds() {
    is_bounded_and_nothing_is_missing(&Scale { sources: 200, instances: 20 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_is_a_warning_until_it_is_relieved_and_loses_no_last_update() {
    const INSTANCES: usize = 20;
    const UPDATES: usize = 300;
    let station = Station::start().await;
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let mut settings = settings(&station);
    settings.push(("TIDINGS_TELEMETRY_BUFFER_EVENTS_MAX", "2000".to_owned()));
    let mut replica = Replica::start("full", &url, &borrowed(&settings)).await;
    let client = harness::connect(&url).await;
    for one in 0..INSTANCES {
        station.count("a", &instance(one), 1);
    }
    create(&replica, &json!({"name": "a", "url": station.url("a")})).await;
    until_status(&replica, "a", "connected").await;
    until("all are there", async || {
        get(&replica, "/v1/dashboard").await["instances"] == json!({"up": INSTANCES})
    })
    .await;
    let pressed = async |replica: &Replica| replica.metric("tidings_telemetry_pressed").await == 1;
    assert!(!pressed(&replica).await);
    assert_eq!(replica.readyz().await["telemetry"], json!(null));
    cluster.pause().unwrap();
    for round in 0..UPDATES {
        for one in 0..INSTANCES {
            station.count("a", &instance(one), 1);
        }
        if round % 30 == 0 {
            station.tell("a", &json!({"type": "create", "instance": format!("extra-{round}")}));
            station.tell("a", &json!({"type": "delete", "instance": format!("extra-{round}")}));
        }
    }
    until("it is pressed", async || pressed(&replica).await).await;
    let said = replica.readyz().await["telemetry"].as_str().unwrap().to_owned();
    assert!(said.contains("% full"), "{said}");
    replica.said("% full; updates in it are thinned").await;
    cluster.resume().unwrap();
    until("it is relieved", async || !pressed(&replica).await).await;
    until("it is ready", async || {
        let said = replica.readyz().await;
        said["status"] == "ready" && said["telemetry"] == json!(null)
    })
    .await;
    let thinned = replica.metric("tidings_telemetry_thinned_total").await;
    assert_eq!(replica.leave().await, Some(0));
    let count = async |kind: &str, like: &str| -> i64 {
        client.query_one(EVENTS, &[&kind, &like]).await.unwrap().get(0)
    };
    for kind in ["create", "delete"] {
        assert_eq!(count(kind, "extra-%").await, 10, "{kind}");
    }
    let last = "select count(*) from tidings.source_events, jsonb_array_elements(events::jsonb) e
        where e ->> 'type' = 'update' and (e -> 'counters' ->> 'tcp_rx')::bigint = $1";
    let last = client.query_one(last, &[&i64::try_from(UPDATES + 1).unwrap()]).await.unwrap();
    assert_eq!(last.get::<_, i64>(0), 20, "the last of each");
    let kept = u64::try_from(count("update", "i-%").await).unwrap();
    let sent = (INSTANCES * UPDATES) as u64;
    println!("of {sent} updates {kept} are kept, {thinned} were thinned");
    assert_eq!(kept + thinned, sent, "what is not there was counted");
    assert!(thinned >= sent / 2, "{thinned}");
}

#[tokio::test]
async fn what_cannot_be_thinned_is_written_as_soon_as_it_fills_the_buffer() {
    // Nothing else is a reason to write: neither is a batch full nor a moment over.
    let settings = [
        ("TIDINGS_TELEMETRY_BUFFER_EVENTS_MAX", "100"),
        ("TIDINGS_TELEMETRY_BATCH_EVENTS", "100000"),
        ("TIDINGS_TELEMETRY_BATCH_AGE_MS", "3600000"),
        ("TIDINGS_TELEMETRY_FLUSH_MS", "600000"),
    ];
    let replica = Replica::in_memory("fills", &settings).await;
    create(&replica, &json!({"name": "push"})).await;
    let one = |number| json!({"type": "create", "instance": format!("i-{number:03}")});
    let body = json!({"source": "push", "events": (0..1_000).map(one).collect::<Vec<_>>()});
    assert_eq!(super::ask(&replica, "POST", "/v1/ingest", Some(&body)).await.0, 202);
    until("all are there", async || super::names(&replica, "push").await.len() == 1_000).await;
    let flushes = replica.metric("tidings_telemetry_flushes_total{reason=\"full\"}").await;
    assert!(flushes >= 5, "{flushes}");
}
