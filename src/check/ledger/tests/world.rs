//! A small installation that keeps every promise, as a list of what a ledger would be told of it:
//! to be told as it is, or with one thing changed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::check::ledger::Ledger;
use crate::check::word::{Id, Met, Plan};
use crate::domain::{Class, Cursor, Epoch, Priority, Seq};

pub const CLIENTS: usize = 3;

/// The run does not begin at the beginning of the log.
pub const BEGIN: u64 = 40;

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Said { publisher: usize, count: u64 },
    Accepted { id: Id, seq: u64 },
    Unknown { id: Id },
    Row { seq: u64, id: Id },
    ReadTo(u64),
    Opened { client: usize },
    Frame { client: usize, seq: u64, id: Id, cursor: bool },
    Cursor { client: usize, seq: u64 },
    Reset { client: usize, epoch: &'static str, seq: u64 },
}

pub struct World {
    pub plan: Plan,
    pub steps: Vec<Step>,
    /// What stands in the log.
    pub log: Vec<(u64, Id)>,
    pub end: u64,
    random: StdRng,
    accepts: Vec<Step>,
    sessions: Vec<Session>,
    read: u64,
}

/// What the server and one client know of each other.
struct Session {
    /// The last cursor that the client was given.
    cursor: u64,
    /// What is on its way, in the order in which it leaves.
    waiting: Vec<(u64, Id)>,
    /// What was put on its way.
    taken_to: u64,
}

pub fn follows(client: usize, topic: usize) -> bool {
    topic == 8 || client == 0 || (topic + client).is_multiple_of(2)
}

pub fn at(seq: u64) -> Cursor {
    Cursor::new(Epoch::parse("a").unwrap(), Seq::new(seq).unwrap())
}

pub fn plan() -> Plan {
    Plan { run: "r".to_owned(), topics: 8, publishers: 3, bytes_max: 50 }
}

impl World {
    pub fn new(seed: u64) -> World {
        let session = |_| Session { cursor: BEGIN, waiting: Vec::new(), taken_to: BEGIN };
        let mut world = World {
            plan: plan(),
            steps: Vec::new(),
            log: Vec::new(),
            end: 0,
            random: StdRng::seed_from_u64(seed),
            accepts: Vec::new(),
            sessions: (0..CLIENTS).map(session).collect(),
            read: BEGIN,
        };
        for client in 0..CLIENTS {
            world.steps.push(Step::Opened { client });
        }
        let mut said = [0_u64; 4];
        world.publish(3, 1, &mut said);
        for _ in 0..60 {
            match world.random.random_range(0..6) {
                0 | 1 => {
                    let publisher = world.random.random_range(0..3);
                    let count = world.random.random_range(1..6);
                    world.publish(publisher, count, &mut said);
                }
                2 => world.answer(),
                3 => world.read_on(),
                _ => {
                    let client = world.random.random_range(0..CLIENTS);
                    world.deliver(client);
                }
            }
        }
        world.publish(3, 1, &mut said);
        world.end = world.head();
        world.answer();
        world.read_on();
        for client in 0..CLIENTS {
            world.take(client, true);
            while !world.sessions[client].waiting.is_empty() {
                world.send(client);
            }
            let seq = world.end;
            world.steps.push(Step::Cursor { client, seq });
        }
        world.read_on();
        world
    }

    fn head(&self) -> u64 {
        self.log.last().map_or(BEGIN, |(seq, _)| *seq)
    }

    fn publish(&mut self, publisher: usize, count: u64, said: &mut [u64; 4]) {
        // A publisher waits for the answers to its last batch.
        self.answer();
        let first = said[publisher];
        said[publisher] += count;
        self.steps.push(Step::Said { publisher, count });
        let ids = (first..first + count).map(|number| Id { publisher, number });
        let (given_up, kept) = match self.random.random_range(0..10) {
            _ if publisher == 3 => (false, true),
            0 => (true, false),
            1 => (true, true),
            _ => (false, true),
        };
        for id in ids {
            // Others publish in between.
            let seq = self.head() + self.random.random_range(1..3);
            if kept {
                self.log.push((seq, id));
            }
            self.accepts.push(match given_up {
                true => Step::Unknown { id },
                false => Step::Accepted { id, seq },
            });
        }
    }

    fn answer(&mut self) {
        self.steps.append(&mut self.accepts);
    }

    fn read_on(&mut self) {
        let head = self.head();
        for (seq, id) in self.log.iter().filter(|(seq, _)| *seq > self.read) {
            self.steps.push(Step::Row { seq: *seq, id: *id });
        }
        self.read = head;
        self.steps.push(Step::ReadTo(head));
    }

    fn deliver(&mut self, client: usize) {
        if self.random.random_range(0..6) == 0 {
            self.steps.push(Step::Opened { client });
            let session = &mut self.sessions[client];
            session.waiting.clear();
            session.taken_to = session.cursor;
        }
        self.take(client, false);
        let some = self.random.random_range(0..8);
        for _ in 0..some {
            self.send(client);
        }
        let session = &mut self.sessions[client];
        if session.waiting.is_empty() {
            session.cursor = session.taken_to;
            self.steps.push(Step::Cursor { client, seq: session.taken_to });
        }
    }

    /// Puts on the way what has come, by priority and seq; of states only the newest.
    fn take(&mut self, client: usize, all: bool) {
        let head = self.head();
        let upto = match all || self.random.random_range(0..2) == 0 {
            true => head,
            false => (self.sessions[client].taken_to + 5).min(head),
        };
        let (plan, session) = (&self.plan, &mut self.sessions[client]);
        for (seq, id) in &self.log {
            let new = *seq > session.taken_to && *seq <= upto;
            if new && follows(client, plan.topic(*id)) {
                let state = plan.class(plan.topic(*id)) == Class::State;
                let same = |other: Id| {
                    plan.topic(other) == plan.topic(*id) && plan.key(other) == plan.key(*id)
                };
                session.waiting.retain(|(_, other)| !(state && same(*other)));
                session.waiting.push((*seq, *id));
            }
        }
        session.taken_to = upto.max(session.taken_to);
        let priority = |id: Id| match plan.priority(plan.topic(id)) {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        };
        session.waiting.sort_by_key(|(seq, id)| (priority(*id), *seq));
    }

    fn send(&mut self, client: usize) {
        let session = &mut self.sessions[client];
        if session.waiting.is_empty() {
            return;
        }
        let (seq, id) = session.waiting.remove(0);
        let cursor =
            session.waiting.iter().all(|(waiting, _)| *waiting > seq) && seq > session.cursor;
        if cursor {
            session.cursor = seq;
        }
        self.steps.push(Step::Frame { client, seq, id, cursor });
    }

    /// Tells a ledger all of it, to the end and with a second reading of the log.
    pub fn told(&self) -> Ledger {
        let follows = |client| (0..self.plan.topics_all()).map(move |topic| follows(client, topic));
        let follows = (0..CLIENTS).map(|client| follows(client).collect()).collect();
        let mut ledger = Ledger::new(self.plan.clone(), &at(BEGIN), follows);
        for step in &self.steps {
            tell(&mut ledger, &self.plan, step);
        }
        ledger.finish(Seq::new(self.end));
        let mut audit = ledger.audit(true);
        for (seq, id) in &self.log {
            met(&self.plan, *id, |met| ledger.audit_row(&mut audit, Seq::new(*seq).unwrap(), met));
        }
        ledger.audit_end(audit);
        ledger
    }
}

pub fn met<T>(plan: &Plan, id: Id, with: impl FnOnce(&Met<'_>) -> T) -> T {
    let topic = plan.topic_name(plan.topic(id));
    let key = plan.key(id).map(Plan::key_name);
    let (class, data) = (plan.class(plan.topic(id)).as_str(), plan.data(id, 7));
    with(&Met { topic: &topic, class, key: key.as_deref(), data: &data })
}

pub fn tell(ledger: &mut Ledger, plan: &Plan, step: &Step) {
    match step {
        Step::Said { publisher, count } => {
            ledger.say(*publisher, *count);
        }
        Step::Accepted { id, seq } => ledger.accepted(*id, &at(*seq)),
        Step::Unknown { id } => ledger.unknown(*id),
        Step::Row { seq, id } => met(plan, *id, |met| ledger.row(Seq::new(*seq).unwrap(), met)),
        Step::ReadTo(seq) => ledger.read_to(Seq::new(*seq).unwrap()),
        Step::Opened { client } => ledger.opened(*client, true),
        Step::Frame { client, seq, id, cursor } => {
            let cursor = cursor.then(|| at(*seq));
            met(plan, *id, |met| ledger.frame(*client, Some(*seq), cursor.as_ref(), met, 9));
        }
        Step::Cursor { client, seq } => ledger.cursor(*client, &at(*seq)),
        Step::Reset { client, epoch, seq } => {
            let epoch = Epoch::parse(epoch).unwrap();
            ledger.reset(*client, Some(&Cursor::new(epoch, Seq::new(*seq).unwrap())));
        }
    }
}
