//! What may happen in a run, and how a seed becomes a list of it.
//!
//! Every operation makes sense in every state: what cannot be done (a dead replica cannot be
//! killed) is passed over. So any part of a list is a list too, which is what shrinking needs.
//! Printed, a list is Rust, to be pasted into `reproductions.rs`.

use tidings::domain::Priority;

pub const REPLICAS: usize = 3;
pub const CLIENTS: usize = 4;

/// What is published on.
pub const TOPICS: [&str; 3] = ["t:0", "t:1", "u:0"];

/// What is subscribed to: single topics, prefixes that overlap them, everything.
pub const PATTERNS: [&str; 5] = ["t:0", "t:1", "u:0", "t:*", "*"];

/// One of a few idempotency keys, so that retries happen by themselves.
pub const KEYS: u32 = 6;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    Event(Priority),
    /// The state of one of two keys; a key has one priority, as publishers are told to do.
    State(u32),
    Signal,
    Keyed(u32),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    Publish {
        at: usize,
        topic: usize,
        what: What,
        count: usize,
    },
    /// In a transaction of an application, which only Postgres knows.
    PublishFromSql {
        topic: usize,
        count: usize,
    },
    /// Comes with the cursor it has, if it has one.
    Connect {
        client: usize,
        at: usize,
    },
    /// What is on the way to it is lost.
    Disconnect {
        client: usize,
    },
    Subscribe {
        client: usize,
        pattern: usize,
        replay: bool,
    },
    Unsubscribe {
        client: usize,
        pattern: usize,
    },
    /// Calls its session away from whatever it does.
    Ping {
        client: usize,
    },
    /// It reads so many milliseconds apart from here on; 0 is as fast as it can.
    Slow {
        client: usize,
        ms: u64,
    },
    /// It reads nothing.
    Stall {
        client: usize,
    },
    /// All its loops go at once.
    Kill {
        at: usize,
    },
    /// It leaves in order.
    Stop {
        at: usize,
    },
    Start {
        at: usize,
    },
    CutStore {
        at: usize,
    },
    /// The store answers it so much later.
    SlowStore {
        at: usize,
        ms: u64,
    },
    /// It is told that it hears nothing, and hears nothing.
    CutBus {
        at: usize,
    },
    Heal {
        at: usize,
    },
    /// The next write of it is committed, and it does not learn that.
    LoseAnswer {
        at: usize,
    },
    /// The next announcements to it are lost, and nobody says so.
    LoseNews {
        at: usize,
        count: usize,
    },
    DoubleNews {
        at: usize,
        count: usize,
    },
    /// The next announcements to it are overtaken by those after them.
    LateNews {
        at: usize,
        count: usize,
    },
    /// The loop that applies its log panics at its next barrier, and is started again.
    Panic {
        at: usize,
    },
    /// Somebody else takes its writer slots and writes.
    StealSlots {
        at: usize,
    },
    RenewEpoch,
    /// The server forgets what it had not flushed; in Postgres all its sessions are ended.
    CrashStore,
    /// Everything older than half a minute is no longer kept.
    Expire,
    Advance {
        ms: u64,
    },
}

/// Whom a run trusts, so that each safeguard is once the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The tick comes once in an hour, so everything must be found through announcements and by
    /// catching up when they are heard again. None is lost in silence.
    Bus,
    /// Announcements are lost in silence; the tick finds what they would have told.
    Tick,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Of the delays of the disk, so that a shorter list has the same ones.
    pub seed: u64,
    pub trust: Trust,
    pub operations: Vec<Op>,
}

/// A generator whose numbers stay the same whatever library is updated.
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Seeded {
        Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

impl Plan {
    pub fn of_seed(seed: u64) -> Plan {
        let mut seeded = Seeded::new(seed);
        let trust = if seed.is_multiple_of(2) { Trust::Bus } else { Trust::Tick };
        let mut operations = Vec::new();
        for at in 0..REPLICAS {
            if at == 0 || !seeded.one_in(4) {
                operations.push(Op::Start { at });
            }
        }
        for client in 0..CLIENTS {
            let pattern = seeded.below(PATTERNS.len());
            operations.push(Op::Subscribe { client, pattern, replay: false });
            operations.push(Op::Connect { client, at: seeded.below(REPLICAS) });
        }
        operations.push(Op::Advance { ms: 20 });
        let length = 20 + seeded.below(100);
        operations.extend((0..length).map(|_| operation(&mut seeded, trust)));
        Plan { seed, trust, operations }
    }
}

fn operation(seeded: &mut Seeded, trust: Trust) -> Op {
    let at = seeded.below(REPLICAS);
    let client = seeded.below(CLIENTS);
    let pattern = seeded.below(PATTERNS.len());
    let count = 1 + seeded.below(3);
    match seeded.below(100) {
        0..31 => publish(seeded, at),
        31..34 => Op::PublishFromSql { topic: seeded.below(TOPICS.len()), count },
        34..36 => Op::Ping { client },
        36..50 => {
            // Mostly too short for anything to end, at times long enough for everything.
            let ms = [0, 1, 2, 3, 5, 10, 20, 50, 300, 2_500][seeded.below(10)];
            Op::Advance { ms }
        }
        50..58 => Op::Connect { client, at },
        58..62 => Op::Disconnect { client },
        62..67 => Op::Subscribe { client, pattern, replay: !seeded.one_in(3) },
        67..69 => Op::Unsubscribe { client, pattern },
        69 => Op::Ping { client },
        70..72 => Op::Stall { client },
        72..76 => Op::Slow { client, ms: [0, 0, 1, 5][seeded.below(4)] },
        76..79 => Op::Kill { at },
        79 => Op::Stop { at },
        80..83 => Op::Start { at },
        83 => Op::Panic { at },
        84 => Op::CutStore { at },
        85 => Op::SlowStore { at, ms: 1 + seeded.next() % 30 },
        86..88 => Op::CutBus { at },
        88..91 => Op::Heal { at },
        91 => Op::LoseAnswer { at },
        92 if trust == Trust::Tick => Op::LoseNews { at, count },
        92 | 93 => Op::DoubleNews { at, count },
        94 | 95 => Op::LateNews { at, count },
        96 => Op::StealSlots { at },
        97 => Op::CrashStore,
        98 if seeded.one_in(3) => Op::RenewEpoch,
        98 => Op::LoseAnswer { at },
        _ if seeded.one_in(4) => Op::Expire,
        _ => Op::Advance { ms: 40_000 },
    }
}

fn publish(seeded: &mut Seeded, at: usize) -> Op {
    let topic = seeded.below(TOPICS.len());
    let what = match seeded.below(10) {
        0..6 => What::Event(Priority::ALL[seeded.below(3)]),
        6 | 7 => What::State(u32::try_from(seeded.below(2)).unwrap()),
        8 => What::Signal,
        _ => What::Keyed(u32::try_from(seeded.below(6)).unwrap() % KEYS),
    };
    let count = match what {
        What::Keyed(_) => 1,
        // Now and then more than a session's queue holds.
        _ => [1, 1, 1, 2, 3, 12][seeded.below(6)],
    };
    Op::Publish { at, topic, what, count }
}
