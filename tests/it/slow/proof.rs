//! The proof that stalled clients cost bounded memory, and healthy ones nothing.
//!
//! Every message has one healthy client, which follows one topic of many, and all the stalled ones,
//! which follow every topic. So each stalled session is under the whole load, and the healthy ones
//! take as much as two cores can carry to clients that share them: with every healthy client on
//! every topic, 2,000 messages a second of 4 KB would be 1.6 GB a second to read.
//!
//! The stalled ones come one after the other while the load goes on, so that each holds other
//! messages than its neighbours: shared ones would weigh once what the bounds count for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::WAYS;
use super::client::{Client, request};
use crate::fleet::{Replica, until};
use crate::follower::Way;

/// What a session may hold beside its queue: what it has in hand, and what waits to be written.
const IN_HAND_BYTES: usize = 64 << 10;
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// What the allocator keeps of what was given back, and what the process does besides.
const PROCESS_BYTES: usize = 1 << 20;

pub struct Scale {
    pub healthy: usize,
    pub stalled: usize,
    pub messages_per_s: usize,
    pub data_bytes: usize,
    pub queue_bytes: usize,
    /// Each round is one phase without the stalled ones, and one with them.
    pub rounds: usize,
    pub phase: Duration,
}

/// What a phase was like.
struct Phase {
    p50_us: u32,
    p99_us: u32,
    delivered: usize,
    memory_max_kib: u64,
}

pub struct Verdict {
    pub grown_bytes: u64,
    pub bound_bytes: u64,
    /// The p99 with the stalled ones against that without them, each the median of its phases.
    pub ratio: f64,
}

pub async fn prove(scale: &Scale) -> Verdict {
    let queue = scale.queue_bytes.to_string();
    let sessions = 2 * (scale.healthy + scale.stalled);
    let (sessions, connections) = (sessions.to_string(), (sessions + 100).to_string());
    let settings = [
        ("TIDINGS_SESSION_QUEUE_BYTES_MAX", queue.as_str()),
        ("TIDINGS_DATA_BYTES_MAX", "16 KiB"),
        // Little, so that what the stalled ones hold is held by them alone.
        ("TIDINGS_RING_BYTES_MAX", "1 MiB"),
        ("TIDINGS_MEMORY_BYTES_MAX", "1 MiB"),
        ("TIDINGS_CONNECTIONS_MAX", &connections),
        ("TIDINGS_SESSIONS_MAX", &sessions),
        // They stay stalled for as long as it takes.
        ("TIDINGS_STALL_S", "3600"),
        ("TIDINGS_HEARTBEAT_S", "3600"),
    ];
    let replica = Replica::in_memory("proof", &settings).await;
    let epoch = Instant::now();
    let listen = |number: usize| {
        Listener::start(&replica.url, WAYS[number % 2], format!("t:{number}"), epoch)
    };
    let listeners: Vec<Listener> = join_all((0..scale.healthy).map(listen)).await;
    let load = Load::start(&replica.url, scale, epoch);
    let full = 900 << 10;
    until("the ring is full", async || replica.metric("tidings_log_ring_bytes").await > full).await;

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=scale.rounds {
        without.push(phase(&replica, &listeners, scale, epoch, &format!("{round} without")).await);
        let stalled = stall(&replica, scale).await;
        with.push(phase(&replica, &listeners, scale, epoch, &format!("{round} with")).await);
        drop(stalled);
        let healthy = scale.healthy as u64;
        until("the stalled ones are gone", async || {
            replica.metric("tidings_hub_sessions").await == healthy
        })
        .await;
    }
    let published = load.end().await;
    for (listener, published) in listeners.iter().zip(&published) {
        until("a healthy client has everything", async || {
            listener.had.lock().len() >= published.len()
        })
        .await;
        let had: Vec<u64> = listener.had.lock().iter().map(|had| had.seq).collect();
        assert_eq!(&had, published, "each once and in order");
    }
    let each = scale.queue_bytes + IN_HAND_BYTES + WRITE_BUFFER_BYTES;
    let grown_kib = with[0].memory_max_kib.saturating_sub(without[0].memory_max_kib);
    let verdict = Verdict {
        grown_bytes: grown_kib << 10,
        bound_bytes: (PROCESS_BYTES + scale.stalled * each) as u64,
        ratio: f64::from(median(&with)) / f64::from(median(&without)),
    };
    println!(
        "{} stalled clients: grown by {} KiB of {} KiB allowed; median p99 {} us without them, {} us with them: {:.2}",
        scale.stalled,
        verdict.grown_bytes >> 10,
        verdict.bound_bytes >> 10,
        median(&without),
        median(&with),
        verdict.ratio
    );
    verdict
}

fn median(phases: &[Phase]) -> u32 {
    let mut all: Vec<u32> = phases.iter().map(|phase| phase.p99_us).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

/// Opens the stalled ones while the load goes on, and waits until each has all that it may hold.
async fn stall(replica: &Replica, scale: &Scale) -> Vec<Client> {
    let behind = replica.metric("tidings_hub_behind_total").await + scale.stalled as u64;
    // As many messages between two of them as a queue holds.
    let weight = scale.data_bytes + 256;
    let pause = scale.queue_bytes as f64 / (scale.messages_per_s * weight) as f64;
    let mut pace = interval(Duration::from_secs_f64(pause));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stalled = Vec::new();
    for number in 0..scale.stalled {
        pace.tick().await;
        stalled.push(Client::open(replica, WAYS[number % 2], "topics=t:*").await);
    }
    until("each of them is behind", async || {
        replica.metric("tidings_hub_behind_total").await >= behind
    })
    .await;
    stalled
}

async fn phase(
    replica: &Replica,
    listeners: &[Listener],
    scale: &Scale,
    epoch: Instant,
    name: &str,
) -> Phase {
    let begun = Instant::now();
    let (from, to) = (micros(begun - epoch), micros(begun + scale.phase - epoch));
    let mut memory_max_kib = 0;
    let mut pace = interval(Duration::from_millis(100));
    while begun.elapsed() < scale.phase {
        pace.tick().await;
        memory_max_kib = memory_max_kib.max(memory_kib(replica.process()));
    }
    let within = |listener: &Listener| -> Vec<u32> {
        let had = listener.had.lock();
        let had = had.iter().filter(|had| (from..to).contains(&had.published_us));
        had.map(|had| had.latency_us).collect()
    };
    let mut latencies: Vec<u32> = listeners.iter().flat_map(within).collect();
    latencies.sort_unstable();
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or(0);
    let phase =
        Phase { p50_us: at(50), p99_us: at(99), delivered: latencies.len(), memory_max_kib };
    println!(
        "{name}: {} deliveries a second, p50 {} us, p99 {} us, at most {} KiB",
        phase.delivered * 1_000 / usize::try_from(scale.phase.as_millis()).unwrap(),
        phase.p50_us,
        phase.p99_us,
        phase.memory_max_kib
    );
    phase
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

/// What a process has in memory.
fn memory_kib(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A client that takes all there is at once, and notes when.
struct Listener {
    had: Arc<Mutex<Vec<Had>>>,
    task: JoinHandle<()>,
}

struct Had {
    seq: u64,
    published_us: u64,
    latency_us: u32,
}

impl Listener {
    async fn start(url: &str, way: Way, topic: String, epoch: Instant) -> Listener {
        let address = url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request(way, &format!("topics={topic}")).as_bytes()).await.unwrap();
        let mut buffer = Vec::with_capacity(64 << 10);
        while !buffer.windows(9).any(|window| window == b"heartbeat") {
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0);
        }
        buffer.clear();
        let had = Arc::new(Mutex::new(Vec::new()));
        let own = had.clone();
        #[expect(clippy::disallowed_methods, reason = "a client of a test, ended with it")]
        let task = tokio::spawn(async move {
            while stream.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
                let now_us = micros(epoch.elapsed());
                while let Some((end, seq, published_us)) = message(&buffer) {
                    let latency_us = u32::try_from(now_us - published_us).unwrap();
                    own.lock().push(Had { seq, published_us, latency_us });
                    buffer.drain(..end);
                }
            }
        });
        Listener { had, task }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the first message ends, its seq and when it was published: whatever stands around it.
fn message(buffer: &[u8]) -> Option<(usize, u64, u64)> {
    const SEQ: &[u8] = b"\"seq\":";
    const TIME: &[u8] = b"\"z_us\":";
    // The time is the last thing in a message; nearly always it is at the end of what was read.
    let time = find(buffer, TIME)? + TIME.len();
    let end = time + find(&buffer[time..], b"}")?;
    let seq = find(buffer, SEQ)? + SEQ.len();
    let number = |from: usize| {
        let digits = buffer[from..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |sum: u64, byte| sum * 10 + u64::from(byte - b'0'))
    };
    Some((end, number(seq), number(time)))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(quote) = bytes[from..].iter().position(|byte| *byte == what[0]) {
        if bytes[from + quote..].starts_with(what) {
            return Some(from + quote);
        }
        from += quote + 1;
    }
    None
}

/// So many messages a second, to each topic its share.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Vec<u64>>>>,
}

/// How many topics one publisher has, each with one message in every request.
const TOPICS_PER_PUBLISHER: usize = 10;

impl Load {
    fn start(url: &str, scale: &Scale, epoch: Instant) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_secs_f64(scale.healthy as f64 / scale.messages_per_s as f64);
        let publishers = scale.healthy / TOPICS_PER_PUBLISHER;
        let pad = "x".repeat(scale.data_bytes - 32);
        let publish = |publisher: usize| {
            let (stop, pad) = (stop.clone(), pad.clone());
            let url = format!("{url}/v1/messages");
            // Evenly spread over the pause.
            let begin = Instant::now() + pause.mul_f64(publisher as f64 / publishers as f64);
            #[expect(clippy::disallowed_methods, reason = "a client of a test, ended by it")]
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let mut seqs = vec![Vec::new(); TOPICS_PER_PUBLISHER];
                let mut pace = tokio::time::interval_at(begin, pause);
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let now_us = micros(epoch.elapsed());
                    let message = |place: usize| {
                        let topic = publisher * TOPICS_PER_PUBLISHER + place;
                        format!(
                            r#"{{"topic":"t:{topic}","data":{{"pad":"{pad}","z_us":{now_us}}}}}"#
                        )
                    };
                    let messages: Vec<String> = (0..TOPICS_PER_PUBLISHER).map(message).collect();
                    let body = format!(r#"{{"messages":[{}]}}"#, messages.join(","));
                    let answer = client.post(&url).body(body).send().await.unwrap();
                    assert_eq!(answer.status(), 201);
                    let answer: serde_json::Value = answer.json().await.unwrap();
                    for (place, own) in seqs.iter_mut().enumerate() {
                        own.push(answer["messages"][place]["seq"].as_u64().unwrap());
                    }
                }
                seqs
            })
        };
        Load { tasks: (0..publishers).map(publish).collect(), stop }
    }

    /// What was answered, by topic.
    async fn end(self) -> Vec<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seqs = Vec::new();
        for task in self.tasks {
            seqs.extend(task.await.unwrap());
        }
        seqs
    }
}
