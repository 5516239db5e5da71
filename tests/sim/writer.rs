//! The real writer over a real server, with faults beneath it: held, refused and killed statements,
//! and failovers to a standby that had not heard of the last batches.
//!
//! A seed decides what goes wrong under each call (`beneath.sql`). Two lanes use the contract as
//! `publish` does: after `Unavailable` they recover until they are answered, and what was not
//! committed is written again. After each answer the log is looked at.
//!
//! # What counts as failure
//! - a batch that was answered and does not stand where the answer says;
//! - a message that stands in the log twice;
//! - a batch that was refused, of which nothing may be written, and that is there;
//! - an answer in the old epoch by a lane whose earlier answers were lost in a failover.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings::domain::{Draft, Epoch, Topic};
use tidings::store::{Appended, LogStore, LogWriter, StoreError};
use tokio_postgres::Client;

use crate::operation::Seeded;
use crate::postgres::Database;

const SEEDS: u64 = 6;
const BATCHES: usize = 25;
const POINTS: [&str; 3] = ["append", "barrier", "announce"];
const WHATS: [&str; 3] = ["held", "refused", "killed"];

/// What a held statement costs; on a slow machine others are given up too, which is only one fault more.
const STATEMENT_TIMEOUT: Duration = Duration::from_millis(150);

/// More rounds than any list of faults needs.
const ROUNDS_MAX: usize = 200;

struct Lane {
    writer: Box<dyn LogWriter>,
    /// The epoch of its last answer, and whether a failover has lost something it was answered for.
    epoch: Option<Epoch>,
    last_seq: i64,
    betrayed: bool,
}

struct Bench {
    client: Client,
    random: Seeded,
    lanes: Vec<Lane>,
    /// What was answered: where it must stand.
    answered: BTreeMap<i64, String>,
    refused: Vec<String>,
    /// How many batches were answered, whatever a failover made of them.
    answers: usize,
    /// Up to where the standby has followed.
    followed: i64,
    next: usize,
    said: Vec<String>,
}

impl Bench {
    async fn new(seed: u64, database: &Database) -> Bench {
        let client = database.client().await;
        client.batch_execute(include_str!("beneath.sql")).await.unwrap();
        let path = "do $$ begin execute format(
            'alter database %I set search_path = beneath, pg_catalog', current_database()); end $$";
        client.batch_execute(path).await.unwrap();
        let store = database.store("bench", STATEMENT_TIMEOUT);
        let mut lanes = Vec::new();
        for _ in 0..2 {
            let writer = store.writer().await.unwrap();
            lanes.push(Lane { writer, epoch: None, last_seq: 0, betrayed: false });
        }
        Bench {
            client,
            random: Seeded::new(seed),
            lanes,
            answered: BTreeMap::new(),
            refused: Vec::new(),
            answers: 0,
            followed: 0,
            next: 0,
            said: Vec::new(),
        }
    }

    fn dice(&mut self, sides: u64) -> usize {
        usize::try_from(self.random.next() % sides).unwrap()
    }

    /// Two calls in three meet a fault, at one point or two.
    async fn set_faults(&mut self) {
        self.client.batch_execute("delete from beneath.fault").await.unwrap();
        for _ in 0..self.dice(3) {
            let (point, what) = (POINTS[self.dice(3)], WHATS[self.dice(3)]);
            let set = "insert into beneath.fault values ($1, $2) on conflict do nothing";
            self.client.execute(set, &[&point, &what]).await.unwrap();
            self.said.push(format!("  {point} is {what}"));
        }
    }

    async fn fail_over(&mut self) {
        self.client.batch_execute("select standby.fail_over()").await.unwrap();
        let lost = self.answered.split_off(&(self.followed + 1));
        self.said.push(format!("  failover, {} answered messages lost", lost.len()));
        for lane in &mut self.lanes {
            lane.betrayed |= lane.last_seq > self.followed;
        }
    }

    fn batch(&mut self) -> Vec<Draft> {
        let drafts = 1 + self.dice(3);
        let draft = |number| Draft::new(Topic::parse("sim").unwrap(), format!("{number}"));
        let batch = (self.next..self.next + drafts).map(draft).collect();
        self.next += drafts;
        batch
    }

    /// Writes a batch as a lane of `publish` does.
    async fn write(&mut self, lane: usize) {
        let drafts = self.batch();
        let first = drafts[0].data.clone();
        self.said.push(format!("lane {lane} writes {} from {first}", drafts.len()));
        for _ in 0..ROUNDS_MAX {
            self.set_faults().await;
            // A failover comes before a call or between the call and its recovery.
            if self.dice(12) == 0 {
                self.fail_over().await;
            }
            let written = self.lanes[lane].writer.write(&drafts, Box::new(())).await;
            self.said.push(format!("  written: {written:?}"));
            match written {
                Ok(appended) => return self.answered(lane, &drafts, &appended).await,
                Err(StoreError::Fenced) => {}
                Err(StoreError::Unavailable(_)) => match self.recover(lane, &drafts).await {
                    Recovered::Not => {}
                    Recovered::Done => return,
                },
                Err(_) => {
                    self.refused.extend(drafts.iter().map(|draft| draft.data.to_string()));
                    return;
                }
            }
        }
        panic!("never answered:\n{}", self.story());
    }

    async fn recover(&mut self, lane: usize, drafts: &[Draft]) -> Recovered {
        for _ in 0..ROUNDS_MAX {
            self.set_faults().await;
            if self.dice(12) == 0 {
                self.fail_over().await;
            }
            let recovered = self.lanes[lane].writer.recover(drafts).await;
            self.said.push(format!("  recovered: {recovered:?}"));
            match recovered {
                Ok(Some(appended)) => {
                    self.answered(lane, drafts, &appended).await;
                    return Recovered::Done;
                }
                Ok(None) => return Recovered::Not,
                Err(StoreError::Unavailable(_)) => {}
                // Nobody is told anything, and nothing is written again.
                Err(_) => return Recovered::Done,
            }
        }
        panic!("never recovered:\n{}", self.story());
    }

    async fn answered(&mut self, lane: usize, drafts: &[Draft], appended: &Appended) {
        self.answers += 1;
        let log = self.log().await;
        for (draft, placed) in drafts.iter().zip(&appended.placed) {
            let seq = placed.seq.to_db();
            let there = log.get(&seq).map(String::as_str);
            let here = Some(&*draft.data);
            assert_eq!(there, here, "seq {seq} was answered for another one:\n{}", self.story());
            self.answered.insert(seq, draft.data.to_string());
            self.lanes[lane].last_seq = seq;
        }
        let lane = &mut self.lanes[lane];
        let (betrayed, old) = (std::mem::take(&mut lane.betrayed), lane.epoch.take());
        lane.epoch = Some(appended.epoch.clone());
        let same = old.as_ref() == Some(&appended.epoch);
        assert!(!(betrayed && same), "the log was set back in one epoch:\n{}", self.story());
        if self.dice(3) == 0 {
            self.client.batch_execute("select standby.replicate()").await.unwrap();
            self.followed = log.last_key_value().map_or(0, |(seq, _)| *seq);
            self.said.push(format!("  the standby has followed up to {}", self.followed));
        }
    }

    async fn log(&self) -> BTreeMap<i64, String> {
        let rows = self.client.query("select seq, data from tidings.message", &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn judge(&self) {
        let log = self.log().await;
        let mut places: BTreeMap<&str, i64> = BTreeMap::new();
        for (seq, data) in &log {
            let before = places.insert(data, *seq);
            assert_eq!(before, None, "{data} is there twice, again at {seq}:\n{}", self.story());
        }
        for (seq, data) in &self.answered {
            assert_eq!(log.get(seq), Some(data), "{data} was answered:\n{}", self.story());
        }
        for data in &self.refused {
            assert!(!places.contains_key(&**data), "{data} was refused:\n{}", self.story());
        }
    }

    /// What led here.
    fn story(&self) -> String {
        self.said[self.said.len().saturating_sub(40)..].join("\n")
    }
}

enum Recovered {
    Done,
    Not,
}

/// Returns how many batches were answered.
fn run(seed: u64) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let mut bench = Bench::new(seed, &Database::fresh().await).await;
        for _ in 0..BATCHES {
            let lane = bench.dice(2);
            bench.write(lane).await;
        }
        bench.judge().await;
        println!("seed {seed}: {} of {BATCHES} batches answered", bench.answers);
        bench.answers
    })
}

#[test]
fn the_writer_loses_and_doubles_nothing_whatever_breaks_beneath_it() {
    if let Some(seed) = crate::number("TIDINGS_SIM_SEED") {
        run(seed);
        return;
    }
    let answers: usize = std::thread::scope(|scope| {
        let half = |half| (0..SEEDS).filter(move |seed| seed % 2 == half).map(run).sum::<usize>();
        let halves = [0, 1].map(|number| scope.spawn(move || half(number)));
        halves.into_iter().map(|half| half.join().unwrap()).sum()
    });
    let batches = BATCHES * (0..SEEDS).count();
    assert!(answers > batches / 3, "of {batches} batches {answers} were answered: little is shown");
}
