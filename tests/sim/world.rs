//! Replicas and clients, what is done to them, and how everything comes to rest.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings::clock::Clock;
use tidings::domain::{Class, Draft, Pattern, Seq, Topic};
use tidings::publish::{PublishError, Published};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep};

use crate::backend::Backend;
use crate::client::Client;
use crate::faults::Faults;
use crate::ledger::Ledger;
use crate::operation::{CLIENTS, Op, PATTERNS, Plan, REPLICAS, TOPICS, Trust, What};
use crate::replica::Replica;
use crate::session::{Ask, Sent, session};
use crate::verdict::Book;

/// How many frames are on their way to a client.
const SOCKET_FRAMES: usize = 5;

/// How long everything may take to come to rest once all is well; far less than an hour's tick.
const PATIENCE: Duration = Duration::from_secs(30);

/// Over Postgres time is real.
const REAL_ADVANCE_MAX: u64 = 40;

/// What a run showed.
#[derive(Debug, Default)]
pub struct Outcome {
    pub wrongs: Vec<String>,
    pub accepted: usize,
    pub seen: usize,
    pub resets: usize,
}

struct World {
    trust: Trust,
    backend: Backend,
    clock: Clock,
    replicas: Vec<Option<Replica>>,
    faults: Vec<Faults>,
    clients: Vec<Arc<Mutex<Client>>>,
    lines: Vec<Option<Line>>,
    /// How many milliseconds lie between two frames that a client reads; `None`: it reads nothing.
    paces: Vec<watch::Sender<Option<u64>>>,
    ledger: Arc<Mutex<Ledger>>,
    publishing: JoinSet<()>,
    wrongs: Vec<String>,
}

/// A client's connection. Dropping it cuts it off.
struct Line {
    at: usize,
    asks: mpsc::Sender<Ask>,
    _tasks: JoinSet<()>,
}

pub async fn run(plan: &Plan, backend: Backend, clock: Clock) -> Outcome {
    let mut world = World::new(plan.trust, backend, clock);
    for operation in &plan.operations {
        world.perform(*operation).await;
        yield_now().await;
    }
    let book = world.settle().await;
    world.judge(&book).await
}

impl World {
    fn new(trust: Trust, backend: Backend, clock: Clock) -> World {
        World {
            trust,
            backend,
            clock,
            replicas: (0..REPLICAS).map(|_| None).collect(),
            faults: (0..REPLICAS).map(|_| Faults::default()).collect(),
            clients: (0..CLIENTS).map(|name| Arc::new(Mutex::new(Client::new(name)))).collect(),
            lines: (0..CLIENTS).map(|_| None).collect(),
            paces: (0..CLIENTS).map(|_| watch::Sender::new(Some(0))).collect(),
            ledger: Arc::default(),
            publishing: JoinSet::new(),
            wrongs: Vec::new(),
        }
    }

    async fn perform(&mut self, operation: Op) {
        match operation {
            Op::Publish { at, topic, what, count } => self.publish(at, topic, what, count),
            Op::PublishFromSql { topic, count } => self.publish_from_sql(topic, count),
            Op::Connect { client, at } => self.connect(client, at),
            Op::Disconnect { client } => self.lines[client] = None,
            Op::Subscribe { client, pattern, replay } => self.subscribe(client, pattern, replay),
            Op::Unsubscribe { client, pattern } => self.unsubscribe(client, pattern),
            Op::Slow { client, ms } => drop(self.paces[client].send_replace(Some(ms))),
            Op::Stall { client } => drop(self.paces[client].send_replace(None)),
            Op::Kill { at } => self.kill(at).await,
            Op::Stop { at } => self.stop(at).await,
            Op::Start { at } => self.start(at),
            Op::CutStore { at } => self.faults[at].cut_store(),
            Op::SlowStore { at, ms } => self.faults[at].slow_store(ms),
            Op::CutBus { at } => self.faults[at].cut_bus(),
            Op::Heal { at } => self.faults[at].heal(),
            Op::LoseAnswer { at } => self.faults[at].lose_answer(),
            Op::LoseNews { at, count } => self.faults[at].lose_news(count),
            Op::DoubleNews { at, count } => self.faults[at].double_news(count),
            Op::LateNews { at, count } => self.faults[at].late_news(count),
            Op::StealSlots { at } => self.steal(at).await,
            Op::RenewEpoch => self.backend.renew_epoch().await,
            Op::CrashStore => self.backend.crash().await,
            Op::Expire => self.backend.expire().await,
            Op::Advance { ms } => self.advance(ms).await,
        }
    }

    async fn advance(&self, ms: u64) {
        let ms = match self.backend {
            Backend::Memory(_) => ms,
            Backend::Postgres(_) => ms.min(REAL_ADVANCE_MAX),
        };
        sleep(Duration::from_millis(ms)).await;
    }

    fn start(&mut self, at: usize) {
        if self.replicas[at].is_none() {
            self.faults[at] = Faults::default();
            let (store, bus) = self.backend.replica(at, &self.faults[at]);
            let faults = self.faults[at].clone();
            self.replicas[at] = Some(Replica::start(store, bus, faults, self.trust, &self.clock));
        }
    }

    fn cut_lines(&mut self, at: usize) {
        for line in &mut self.lines {
            if line.as_ref().is_some_and(|line| line.at == at) {
                *line = None;
            }
        }
    }

    async fn kill(&mut self, at: usize) {
        self.cut_lines(at);
        if let Some(replica) = self.replicas[at].take() {
            self.wrongs.extend(replica.kill().await);
        }
    }

    async fn stop(&mut self, at: usize) {
        self.cut_lines(at);
        if let Some(replica) = self.replicas[at].take() {
            self.wrongs.extend(replica.stop().await);
        }
    }

    fn publish(&mut self, at: usize, topic: usize, what: What, count: usize) {
        let Some(replica) = &self.replicas[at] else { return };
        let (place, drafts) = enter(&self.ledger, topic, what, count);
        let (publisher, ledger) = (replica.publisher.clone(), self.ledger.clone());
        self.publishing.spawn(async move {
            let answer = publisher.publish(drafts).await;
            ledger.lock().answered(place, answer);
        });
    }

    fn publish_from_sql(&mut self, topic: usize, count: usize) {
        let Backend::Postgres(database) = &self.backend else { return };
        let what = What::Event(tidings::domain::Priority::Normal);
        let (place, topic, data) = self.ledger.lock().enter(what, topic, count);
        let (database, ledger) = (database.clone(), self.ledger.clone());
        self.publishing.spawn(async move {
            let known = database.publish(TOPICS[topic], &data).await;
            ledger.lock().committed(place, known);
        });
    }

    /// Twice, so that the numbers of its batches meet those of the lane that it robs.
    async fn steal(&mut self, at: usize) {
        let mut thief = self.backend.thief(at).await;
        let ledger = self.ledger.clone();
        self.publishing.spawn(async move {
            for topic in 0..2 {
                let what = What::Event(tidings::domain::Priority::Normal);
                let (place, drafts) = enter(&ledger, topic, what, 1);
                let written = thief.write(&drafts, Box::new(())).await;
                let Ok(appended) = written else {
                    return ledger.lock().answered(place, Err(PublishError::Unknown));
                };
                let answer = Ok(appended.placed.iter().map(published).collect());
                ledger.lock().answered(place, answer);
            }
        });
    }

    fn connect(&mut self, client: usize, at: usize) {
        self.lines[client] = None;
        let Some(replica) = &self.replicas[at] else { return };
        let hello = self.clients[client].lock().hello();
        let (socket, received) = mpsc::channel(SOCKET_FRAMES);
        let (asks, asked) = mpsc::channel(32);
        let mut tasks = JoinSet::new();
        tasks.spawn(session(replica.log.clone(), replica.hub.clone(), hello, asked, socket));
        let pace = self.paces[client].subscribe();
        tasks.spawn(read(self.clients[client].clone(), received, pace, self.backend.clone()));
        self.lines[client] = Some(Line { at, asks, _tasks: tasks });
    }

    fn subscribe(&mut self, client: usize, pattern: usize, replay: bool) {
        let pattern = Pattern::parse(PATTERNS[pattern]).unwrap();
        let replay = self.clients[client].lock().want(pattern.clone(), replay);
        self.ask(client, Ask::Subscribe { pattern, replay });
    }

    fn unsubscribe(&mut self, client: usize, pattern: usize) {
        let pattern = Pattern::parse(PATTERNS[pattern]).unwrap();
        self.clients[client].lock().unwant(&pattern);
        self.ask(client, Ask::Unsubscribe(pattern));
    }

    /// A client that cannot say what it wants comes again and says it then.
    fn ask(&mut self, client: usize, ask: Ask) {
        if self.lines[client].as_ref().is_some_and(|line| line.asks.try_send(ask).is_err()) {
            self.lines[client] = None;
        }
    }

    /// All is well again: waits until everybody has everything.
    async fn settle(&mut self) -> Book {
        for at in 0..REPLICAS {
            self.faults[at].heal();
            self.start(at);
        }
        for client in 0..CLIENTS {
            self.paces[client].send_replace(Some(0));
            if self.lines[client].as_ref().is_none_or(|line| line.asks.is_closed()) {
                self.connect(client, client % REPLICAS);
            }
        }
        let until = Instant::now() + PATIENCE;
        // The last announcement of one that died may have died with it; the next one shows the hole.
        for at in 0..REPLICAS {
            while !self.marked(at).await && Instant::now() < until {
                self.advance(20).await;
            }
        }
        loop {
            let book = Book::new(self.backend.history().await);
            let rest = self.ledger.lock().waiting == 0
                && self.missing(&book).is_empty()
                // What an application has committed may still wait in the outbox.
                && book.check_log(&self.ledger.lock()).is_empty()
                && (0..REPLICAS).all(|at| self.applied(at) == book.head());
            if rest || Instant::now() > until {
                // Whatever comes twice comes soon.
                self.advance(200).await;
                return Book::new(self.backend.history().await);
            }
            self.advance(20).await;
        }
    }

    async fn marked(&mut self, at: usize) -> bool {
        let Some(replica) = &self.replicas[at] else { return false };
        let what = What::Event(tidings::domain::Priority::Normal);
        let (place, drafts) = enter(&self.ledger, 0, what, 1);
        let answer = replica.publisher.publish(drafts).await;
        let marked = answer.is_ok();
        self.ledger.lock().answered(place, answer);
        marked
    }

    fn applied(&self, at: usize) -> Seq {
        let position = self.replicas[at].as_ref().and_then(|replica| replica.log.position());
        position.map(|position| position.seq).unwrap_or_default()
    }

    fn missing(&self, book: &Book) -> Vec<String> {
        self.clients.iter().flat_map(|client| book.missing(&client.lock())).collect()
    }

    async fn judge(mut self, book: &Book) -> Outcome {
        let mut wrongs = std::mem::take(&mut self.wrongs);
        wrongs.extend(self.replicas.iter().flatten().filter_map(Replica::health));
        wrongs.extend(self.backend.faults());
        wrongs.extend(book.check_log(&self.ledger.lock()));
        wrongs.extend(self.missing(book));
        let mut outcome = Outcome::default();
        for client in &self.clients {
            let client = client.lock();
            wrongs.extend(book.check_client(&client));
            outcome.seen += client.seen.len();
            outcome.resets += client.resets;
        }
        for at in 0..REPLICAS {
            let applied = self.applied(at);
            if applied != book.head() {
                wrongs.push(format!("replica {at} is at {applied}, the log at {}", book.head()));
            }
        }
        if self.ledger.lock().waiting > 0 {
            wrongs.push("a publisher was never answered".to_owned());
        }
        outcome.accepted = self.ledger.lock().accepted();
        let mut told = HashSet::new();
        wrongs.retain(|wrong| told.insert(wrong.clone()));
        outcome.wrongs = wrongs;
        for at in 0..REPLICAS {
            self.kill(at).await;
        }
        outcome
    }
}

fn published(placed: &tidings::store::Placed) -> Published {
    Published { seq: Some(placed.seq), cursor: None, duplicate: placed.duplicate }
}

fn enter(ledger: &Mutex<Ledger>, topic: usize, what: What, count: usize) -> (usize, Vec<Draft>) {
    let (place, topic, data) = ledger.lock().enter(what, topic, count);
    let draft = |data: &String| {
        let mut draft = Draft::new(Topic::parse(TOPICS[topic]).unwrap(), data.as_str());
        match what {
            What::Event(priority) => draft.priority = priority,
            What::State(key) => {
                draft.class = Class::State;
                draft.key = Some(format!("s{key}").into());
            }
            What::Signal => draft.class = Class::Signal,
            What::Keyed(key) => draft.idempotency_key = Some(format!("k{key}").into()),
        }
        draft
    };
    (place, data.iter().map(draft).collect())
}

async fn read(
    client: Arc<Mutex<Client>>,
    mut socket: mpsc::Receiver<Sent>,
    mut pace: watch::Receiver<Option<u64>>,
    backend: Backend,
) {
    loop {
        let ms = *pace.borrow_and_update();
        let received = async {
            match ms {
                None => return std::future::pending().await,
                Some(0) => {}
                Some(ms) => sleep(Duration::from_millis(ms)).await,
            }
            socket.recv().await
        };
        tokio::select! {
            changed = pace.changed() => if changed.is_err() { return },
            received = received => match received {
                Some(sent) => client.lock().receive(sent, backend.facts()),
                None => return,
            },
        }
    }
}
