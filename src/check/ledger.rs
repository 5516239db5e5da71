//! The verdict: what was published, what is in the log and what each client was given, compared.
//!
//! ```text
//!   publishers ── said, accepted, undecided ──▶ ┌────────┐
//!   the log ───── rows in order, read to ─────▶ │ ledger │──▶ findings, figures
//!   clients ───── frames, cursors, resets ────▶ └────────┘
//! ```
//! It decides and does nothing: no clock, no socket. What all clients have settled is forgotten, so
//! its size follows what is under way and not how long a run lasts; who feeds it stops publishing
//! while `unsettled` is too much.

use crate::domain::{Cursor, Epoch, Seq};

mod account;
mod book;
mod finding;

use account::{Account, Arrival};
pub use book::Audit;
use book::Book;
pub use finding::{Findings, Kind};

use super::latency::Latency;
use super::word::{Id, Met, Plan};

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub accepted: u64,
    pub refused: u64,
    /// Nobody answered for them in time: they may be there or not.
    pub unknown: u64,
    /// Messages of ours in the log.
    pub logged: u64,
    /// Messages that a client had for the first time.
    pub delivered: u64,
    /// Messages that came again after a resume, as they may.
    pub repeated: u64,
    pub cuts: u64,
    /// Connections after the first one of each client.
    pub resumes: u64,
    pub resets: u64,
    pub gaps: u64,
    pub latency: Latency,
}

pub struct Ledger {
    epoch: Epoch,
    book: Book,
    accounts: Vec<Account>,
    findings: Findings,
    pub figures: Figures,
    /// The highest seq that somebody was told of: up to there the log is durable.
    durable: Seq,
    /// The log is no longer the one that the run began with.
    set_back: bool,
}

impl Ledger {
    /// Clients begin after a cursor; each follows the topics that are `true`.
    pub fn new(plan: Plan, begin: &Cursor, follows: Vec<Vec<bool>>) -> Ledger {
        let accounts = follows.into_iter().enumerate();
        let accounts = accounts.map(|(name, follows)| Account::new(name, follows, begin.seq));
        Ledger {
            epoch: begin.epoch.clone(),
            accounts: accounts.collect(),
            book: Book::new(plan, begin.seq),
            findings: Findings::default(),
            figures: Figures::default(),
            durable: begin.seq,
            set_back: false,
        }
    }

    /// The next numbers of a publisher: the first of them.
    pub fn say(&mut self, publisher: usize, count: u64) -> u64 {
        self.book.say(publisher, count)
    }

    pub fn accepted(&mut self, id: Id, told: &Cursor) {
        self.figures.accepted += 1;
        if self.continues(&told.epoch) {
            self.durable = self.durable.max(told.seq);
            self.book.accepted(id, told.seq, &mut self.findings);
        }
    }

    /// Under a key an earlier try may have been kept all the same.
    pub fn refused(&mut self, id: Id) {
        self.figures.refused += 1;
        self.book.undecided(id);
    }

    pub fn unknown(&mut self, id: Id) {
        self.figures.unknown += 1;
        self.book.undecided(id);
    }

    /// A connection of a client is open, and goes on from its last cursor.
    pub fn opened(&mut self, client: usize, resumed: bool) {
        self.figures.resumes += u64::from(resumed);
        self.accounts[client].opened();
    }

    pub fn lost_connection(&mut self, client: usize) {
        self.accounts[client].lost_connection();
    }

    pub fn replayed(&mut self, client: usize) {
        self.accounts[client].replayed();
    }

    /// A message that a client was given.
    pub fn frame(
        &mut self,
        client: usize,
        seq: Option<u64>,
        cursor: Option<&Cursor>,
        met: &Met<'_>,
        now_us: u64,
    ) {
        if cursor.is_some_and(|cursor| !self.continues(&cursor.epoch)) {
            return;
        }
        // A session hears topics of its user as well, of which only the cursor concerns us.
        if met.topic.starts_with(&self.book.plan().prefix()) {
            self.ours(client, seq, met, now_us);
        }
        if let Some(cursor) = cursor {
            self.reach(client, cursor.seq);
        }
    }

    fn ours(&mut self, client: usize, seq: Option<u64>, met: &Met<'_>, now_us: u64) {
        let seq = seq.and_then(Seq::new);
        let read = self.book.plan().read(met).filter(|(id, _)| self.book.was_said(*id));
        let (Some((id, at_us)), Some(seq)) = (read, seq) else {
            self.findings.add(Kind::Phantom, || {
                let seq = seq.map_or("none".to_owned(), |seq| seq.to_string());
                format!(
                    "client {client} was given what was never published so: seq {seq} on {}",
                    met.topic
                )
            });
            return;
        };
        let (topic, key) = (self.book.plan().topic(id), self.book.plan().key(id));
        let account = &mut self.accounts[client];
        match account.takes(seq, topic, id, key, &mut self.findings) {
            Arrival::New => {
                self.figures.delivered += 1;
                if account.is_live() {
                    self.figures.latency.add(now_us.saturating_sub(at_us));
                }
            }
            Arrival::Repeated => self.figures.repeated += 1,
            Arrival::Wrong => {}
        }
    }

    /// A client was told that everything due up to here has been sent.
    pub fn cursor(&mut self, client: usize, cursor: &Cursor) {
        if self.continues(&cursor.epoch) {
            self.reach(client, cursor.seq);
        }
    }

    fn reach(&mut self, client: usize, seq: Seq) {
        self.accounts[client].reach(seq);
        self.durable = self.durable.max(seq);
    }

    /// A client was told to go on elsewhere.
    pub fn reset(&mut self, client: usize, cursor: Option<&Cursor>) {
        self.figures.resets += 1;
        if let Some(cursor) = cursor.filter(|cursor| self.continues(&cursor.epoch)) {
            self.accounts[client].reset(cursor.seq);
        }
    }

    fn continues(&mut self, epoch: &Epoch) -> bool {
        if *epoch == self.epoch {
            return true;
        }
        if !self.set_back {
            self.set_back = true;
            let own = &self.epoch;
            self.findings.add(Kind::SetBack, || {
                format!(
                    "the log began anew (epoch {own}, then {epoch}): what was accepted before may be gone"
                )
            });
        }
        false
    }

    /// A replica or the database speaks of a log with this epoch.
    pub fn log_is(&mut self, epoch: &Epoch) {
        self.continues(epoch);
    }

    pub fn is_set_back(&self) -> bool {
        self.set_back
    }

    /// A message of our topics in the log; they come in the order of seqs.
    pub fn row(&mut self, seq: Seq, met: &Met<'_>) {
        self.figures.logged += 1;
        self.book.row(seq, met, &mut self.findings);
    }

    /// The log was read up to here.
    pub fn read_to(&mut self, seq: Seq) {
        self.book.reach(seq);
        for account in &mut self.accounts {
            account.settle(&self.book, &mut self.findings);
        }
        let settled = self.accounts.iter().map(Account::settled).min();
        self.book.forget(settled.unwrap_or(seq));
    }

    /// Up to here the log may be read: what lies beyond may not be durable yet.
    pub fn durable(&self) -> Seq {
        self.durable
    }

    pub fn position(&self) -> Cursor {
        Cursor::new(self.epoch.clone(), self.book.read_to())
    }

    /// Messages that were said and of which nothing was noted since.
    pub fn unanswered(&self) -> u64 {
        let Figures { accepted, refused, unknown, .. } = self.figures;
        self.book.said().saturating_sub(accepted + refused + unknown)
    }

    /// How much is remembered one by one.
    pub fn unsettled(&self) -> usize {
        self.book.unsettled() + self.accounts.iter().map(Account::unsettled).sum::<usize>()
    }

    /// Clients that have not come as far as that.
    pub fn behind(&self, seq: Seq) -> usize {
        self.accounts.iter().filter(|account| account.cursor() < seq).count()
    }

    /// Clients without a connection.
    pub fn apart(&self) -> usize {
        self.accounts.iter().filter(|account| !account.is_open()).count()
    }

    /// Nothing more comes. Up to `end`, the seq of the last mark, clients were given time to come;
    /// without it only what cursors promised is judged. Of a client without a connection nothing
    /// more is claimed.
    pub fn finish(&mut self, end: Option<Seq>) {
        for account in &mut self.accounts {
            let end = end.filter(|_| account.is_open());
            account.finish(end, &self.book, &mut self.findings);
        }
        self.book.finish(&mut self.findings);
    }

    /// Begins to read the log a second time, from its beginning or, if that was not kept, later.
    pub fn audit(&self, whole: bool) -> Audit {
        Audit::new(&self.book, whole)
    }

    pub fn audit_row(&mut self, audit: &mut Audit, seq: Seq, met: &Met<'_>) {
        audit.row(&self.book, seq, met, &mut self.findings);
    }

    pub fn audit_end(&mut self, audit: Audit) -> u64 {
        audit.finish(&self.book, &mut self.findings)
    }

    pub fn findings(&self) -> &Findings {
        &self.findings
    }
}

#[cfg(test)]
mod tests;
