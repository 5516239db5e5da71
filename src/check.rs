//! A delivery checker for an installation: publishes, follows, cuts connections, and compares what
//! clients were given with what the log has.
//!
//! ```text
//!   begin ──▶ clients come in ──▶ publish and cut ──▶ last mark ──▶ all have it ──▶ log again ──▶ verdict
//! ```
//! A mark is a message that every client follows. The log is read while the run lasts, so that what
//! everybody has had can be forgotten, and a second time in the end, to see that it has stayed.
//! All of it is one task: `ledger` decides, the others carry to it what they see.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout_at};

mod follower;
pub mod latency;
pub mod ledger;
mod publisher;
mod reading;
mod record;
mod report;
pub mod word;

use follower::Follower;
use ledger::Ledger;
use record::Record;
pub use report::Outcome;
use word::{Id, Plan};

use crate::client::{Client, ClientError, Way};
use crate::domain::{Cursor, Seq};
use crate::store::LogStore;

/// How often the log is read on, and states are looked at that nobody tells of.
const LOOK: Duration = Duration::from_millis(100);

/// How many clients' troubles are told.
const TROUBLES_TOLD_MAX: usize = 3;

#[derive(Clone, Debug)]
pub struct Settings {
    pub clients: usize,
    /// Taken in turn; at least one.
    pub ways: Vec<Way>,
    pub publishers: usize,
    /// Messages a second, of all publishers.
    pub rate: u32,
    pub lasts: Option<Duration>,
    pub messages: Option<u64>,
    pub topics: usize,
    pub bytes_max: usize,
    pub cuts_per_minute: u32,
    pub seed: u64,
    /// How long a message is said, and how long stragglers are waited for.
    pub timeout: Duration,
}

/// How a run is to go on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wish {
    GoOn,
    /// Publish no more, and come to a verdict.
    Stop,
    /// Wait for nobody.
    AtOnce,
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CheckError(String);

pub struct Run {
    client: Client,
    settings: Settings,
    plan: Plan,
    began: Instant,
    /// When publishing is over, once it has begun; written by `publish_all`.
    over_at: OnceLock<Instant>,
    wish: watch::Receiver<Wish>,
    /// Fed by all, never across an await.
    ledger: Mutex<Ledger>,
    troubles: Mutex<Troubles>,
}

/// What stands in the way of a verdict; one entry a client or publisher at most, each once.
#[derive(Default)]
struct Troubles {
    /// Why a client has no connection, and whether it is for good.
    clients: BTreeMap<usize, (String, bool)>,
    others: Vec<String>,
}

impl Troubles {
    /// Whether going on would check less than was asked for.
    fn are_final(&self) -> bool {
        !self.others.is_empty() || self.clients.values().any(|(_, for_good)| *for_good)
    }
}

/// Checks an installation. `progress` is told every second how far it has come.
pub async fn run(
    client: Client,
    store: Option<Arc<dyn LogStore>>,
    settings: Settings,
    wish: watch::Receiver<Wish>,
    progress: impl Fn(&str),
) -> Result<Outcome, CheckError> {
    let plan = Plan {
        run: format!("{:08x}", rand::random::<u32>()),
        topics: settings.topics,
        publishers: settings.publishers,
        bytes_max: settings.bytes_max,
    };
    let record = match store {
        Some(store) => Record::Database(store),
        None => Record::History(client.beginning_with(0)),
    };
    let run = Run::begin(client, settings, plan, wish, &record).await?;
    let begin = run.ledger.lock().position();
    let followers: Vec<Follower<'_>> =
        (0..run.settings.clients).map(|name| Follower::new(&run, name)).collect();
    let following = async {
        let mut all: FuturesUnordered<_> =
            followers.iter().map(|follower| follower.follow(begin.clone())).collect();
        while all.next().await.is_some() {}
        std::future::pending::<()>().await;
    };
    let telling = async {
        let mut second = interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            progress(&run.progress());
        }
    };
    tokio::select! {
        // What clients were given counts before what is concluded from it.
        biased;
        () = following => Err(CheckError("nobody follows any more".to_owned())),
        () = telling => Err(CheckError("nobody tells any more".to_owned())),
        outcome = run.conduct(&followers, &record, &begin) => outcome,
    }
}

impl Run {
    /// Publishes the first mark, which shows that there is somebody to check.
    async fn begin(
        client: Client,
        settings: Settings,
        plan: Plan,
        wish: watch::Receiver<Wish>,
        record: &Record,
    ) -> Result<Run, CheckError> {
        let follows = |name| follower::follows(name, settings.topics);
        let follows = (0..settings.clients).map(follows).collect();
        let began = Instant::now();
        let mark = Id { publisher: plan.marks(), number: 0 };
        let message = publisher::outgoing(&plan, mark, 0);
        let message = message.map_err(|error| CheckError(error.to_string()))?;
        let published = client.publish(&[message], settings.timeout).await.map_err(|error| {
            CheckError(format!("nothing could be published: {}", advised(&error)))
        })?;
        let told = published.first().and_then(|one| Cursor::parse(one.cursor.as_deref()?).ok());
        let told = told.ok_or_else(|| {
            CheckError("a message was accepted without a cursor: is that Tidings?".to_owned())
        })?;
        if let Record::Database(store) = record {
            let head = store.head().await.map_err(|error| {
                CheckError(format!(
                    "the database cannot be read: {error}; mend --database, or leave it out to read the log over HTTP"
                ))
            })?;
            if head.epoch != told.epoch || head.seq < told.seq {
                return Err(CheckError(
                    "that database is not the one behind these replicas: give theirs with --database, or leave it out to read the log over HTTP".to_owned(),
                ));
            }
        }
        let begin = Cursor::new(told.epoch.clone(), told.seq.previous());
        let mut ledger = Ledger::new(plan.clone(), &begin, follows);
        ledger.say(mark.publisher, 1);
        ledger.accepted(mark, &told);
        let (ledger, troubles) = (Mutex::new(ledger), Mutex::default());
        let over_at = OnceLock::new();
        Ok(Run { client, settings, plan, began, over_at, wish, ledger, troubles })
    }

    async fn conduct(
        &self,
        followers: &[Follower<'_>],
        record: &Record,
        begin: &Cursor,
    ) -> Result<Outcome, CheckError> {
        self.all_come_in(begin).await?;
        let end = {
            let publishing = async {
                self.publish_all(followers).await;
                self.last_mark().await
            };
            tokio::select! {
                unread = self.read_on(record) => {
                    self.note(unread);
                    None
                }
                end = publishing => end,
            }
        };
        let deadline = Instant::now() + self.settings.timeout;
        if let Some(end) = end {
            self.all_arrive(record, end, deadline).await;
        }
        // In another life of the log its seq means nothing.
        let end = end.filter(|_| !self.is_set_back());
        self.ledger.lock().finish(end);
        if end.is_some() {
            self.audit(record, begin).await;
        }
        Ok(report::outcome(self, record, end.is_some()))
    }

    async fn all_come_in(&self, begin: &Cursor) -> Result<(), CheckError> {
        let deadline = Instant::now() + self.settings.timeout;
        let first = begin.seq.next();
        loop {
            let behind = self.ledger.lock().behind(first);
            if behind == 0 {
                return Ok(());
            }
            if Instant::now() > deadline || self.is_stopping() {
                let all = self.settings.clients;
                let reasons = self.clients_told();
                let reasons = if reasons.is_empty() {
                    "they were not welcomed in time".to_owned()
                } else {
                    reasons
                };
                return Err(CheckError(format!(
                    "{behind} of {all} clients did not come in: {reasons}; see that the addresses, the token and the limits of sessions are right, or take fewer --clients"
                )));
            }
            sleep(LOOK).await;
        }
    }

    async fn publish_all(&self, followers: &[Follower<'_>]) {
        if let Some(lasts) = self.settings.lasts {
            self.over_at.get_or_init(|| Instant::now() + lasts);
        }
        let mut all: FuturesUnordered<_> =
            (0..self.plan.publishers).map(|publisher| self.publish(publisher)).collect();
        let publishing = async { while all.next().await.is_some() {} };
        tokio::select! {
            () = publishing => {}
            () = self.cut(followers) => {}
            () = self.wished(Wish::AtOnce) => {}
        }
    }

    /// Cuts clients at random, for ever.
    async fn cut(&self, followers: &[Follower<'_>]) {
        if self.settings.cuts_per_minute == 0 {
            return std::future::pending().await;
        }
        let mut random = StdRng::seed_from_u64(self.settings.seed);
        let mean = Duration::from_secs(60) / self.settings.cuts_per_minute;
        let mut next = Instant::now();
        loop {
            next += mean.mul_f64(random.random_range(0.5..1.5));
            sleep_until(next).await;
            followers[random.random_range(0..followers.len())].cut.notify_one();
        }
    }

    /// The seq of the message that ends it; `None` if nobody took it.
    async fn last_mark(&self) -> Option<Seq> {
        let saying = self.say(&self.client, self.plan.marks(), 1);
        let said = tokio::select! {
            said = saying => said,
            () = self.wished(Wish::AtOnce) => return None,
        };
        match said {
            Ok(Some(cursor)) => Some(cursor.seq),
            Ok(None) => {
                self.note_publisher("the last message was not taken in time");
                None
            }
            Err(error) => {
                self.note_publisher(&error);
                None
            }
        }
    }

    /// Waits until every client has come as far, and the log was read.
    async fn all_arrive(&self, record: &Record, end: Seq, deadline: Instant) {
        let arrived = async {
            loop {
                {
                    let ledger = self.ledger.lock();
                    let read = ledger.position().seq >= end;
                    if (read && ledger.behind(end) == 0) || ledger.is_set_back() {
                        return;
                    }
                }
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            unread = self.read_on(record) => self.note(unread),
            _ = timeout_at(deadline, arrived) => {}
            () = self.wished(Wish::AtOnce) => {}
        }
        let read_to = self.ledger.lock().position().seq;
        if read_to < end {
            self.note(format!("the log was read up to seq {read_to} only, of {end}"));
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn is_set_back(&self) -> bool {
        self.ledger.lock().is_set_back()
    }

    fn is_over(&self) -> bool {
        self.over_at.get().is_some_and(|over_at| Instant::now() >= *over_at)
    }

    fn is_stopping(&self) -> bool {
        let wished = *self.wish.borrow() >= Wish::Stop;
        wished || self.is_over() || self.is_set_back() || self.troubles.lock().are_final()
    }

    /// Resolves when the time is over, or an end was wished for.
    async fn stopping(&self) {
        let over = async {
            match self.over_at.get() {
                Some(over_at) => sleep_until(*over_at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            () = self.wished(Wish::Stop) => {}
        }
    }

    async fn wished(&self, wish: Wish) {
        // Who could wish for something is gone: then nobody does.
        if self.wish.clone().wait_for(|now| *now >= wish).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn note_client(&self, client: usize, reason: String, for_good: bool) {
        self.troubles.lock().clients.insert(client, (reason, for_good));
    }

    fn note_publisher(&self, reason: &str) {
        self.note(format!("a publisher gave up: {reason}"));
    }

    fn note(&self, reason: String) {
        let others = &mut self.troubles.lock().others;
        if !others.contains(&reason) {
            others.push(reason);
        }
    }

    /// What the clients without a connection were told last.
    fn clients_told(&self) -> String {
        let mut told: Vec<String> = Vec::new();
        for (reason, _) in self.troubles.lock().clients.values() {
            if !told.contains(reason) && told.len() < TROUBLES_TOLD_MAX {
                told.push(reason.clone());
            }
        }
        told.join("; ")
    }

    fn progress(&self) -> String {
        let ledger = self.ledger.lock();
        let (figures, apart) = (&ledger.figures, ledger.apart());
        let wrong = match ledger.findings().is_empty() {
            true => "nothing wrong".to_owned(),
            false => report::counts(ledger.findings()),
        };
        format!(
            "{} s: {} accepted, {} delivered, {} cuts, {apart} clients without a connection; {wrong}",
            self.began.elapsed().as_secs(),
            figures.accepted,
            figures.delivered,
            figures.cuts,
        )
    }
}

/// The error, and what to do about it.
fn advised(error: &ClientError) -> String {
    let text = error.to_string();
    let advice = match error {
        ClientError::Refused(_) if text.contains("(401)") => {
            "; give an API key or a JWT with --token or TIDINGS_TOKEN"
        }
        ClientError::Refused(_) if text.contains("(403)") => {
            "; the token must allow publishing on and subscribing to check:*, as an API key does"
        }
        ClientError::GaveUp { .. } => {
            "; see that a replica answers at the addresses given with --url or TIDINGS_URL"
        }
        _ => "",
    };
    text + advice
}
