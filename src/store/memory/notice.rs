//! Notices in memory: what Postgres promises of them, but gone at exit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use crate::domain::notice::{Counts, NOTICE};
use crate::domain::{
    Class, Draft, Message, Notice, NoticeId, Receipt, ReceiptState, Seq, Tally, Target, Timestamp,
    UserId,
};
use crate::notification::Announcement;
use crate::store::StoreError;
use crate::store::notice::{
    Delivery, NewNotice, NoticeStore, Reader, Recalled, RecipientFilter, Resent, Sent, document,
    drafts, recall_drafts,
};
use crate::store::task::announcement;

/// How many notices are kept; the oldest go first.
const NOTICES_MAX: usize = 10_000;

/// Every notice by the order of sending, and the receipts of each user by the same numbers.
#[derive(Default)]
pub struct Books {
    pub notices: BTreeMap<u64, Sheet>,
    numbers: HashMap<NoticeId, u64>,
    keys: HashMap<Arc<str>, NoticeId>,
    pub inboxes: HashMap<UserId, BTreeMap<u64, Row>>,
    last: u64,
}

pub struct Sheet {
    pub notice: Notice,
    key: Option<Arc<str>>,
    /// Those who were named, in the order of their messages.
    named: Vec<UserId>,
    data: Arc<str>,
    seq: Seq,
}

/// One recipient's receipt.
#[derive(Clone)]
pub struct Row {
    /// Which of the notice's messages is the recipient's.
    pub place: usize,
    pub receipt: Receipt,
    pub tried_at: Timestamp,
    pub tries: u32,
    pub carriers: Vec<Arc<str>>,
    pub given_up: bool,
}

impl Row {
    fn new(user: &UserId, place: usize, tried_at: Timestamp) -> Row {
        let receipt = Receipt {
            user: user.clone(),
            state: ReceiptState::Pending,
            sent_at: None,
            received_at: None,
            read_at: None,
            confirmed_at: None,
        };
        Row { place, receipt, tried_at, tries: 0, carriers: Vec::new(), given_up: false }
    }

    /// Whether it grew.
    pub fn grow(&mut self, to: ReceiptState, confirm: bool, now: Timestamp) -> bool {
        let receipt = &mut self.receipt;
        let state = receipt.state.grown(to, confirm);
        if state == receipt.state {
            return false;
        }
        receipt.state = state;
        let times = [
            (ReceiptState::Sent, &mut receipt.sent_at),
            (ReceiptState::Received, &mut receipt.received_at),
            (ReceiptState::Read, &mut receipt.read_at),
            (ReceiptState::Confirmed, &mut receipt.confirmed_at),
        ];
        for (reached, at) in times {
            if state >= reached {
                at.get_or_insert(now);
            }
        }
        self.tried_at = now;
        true
    }
}

impl Sheet {
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.notice.recalled_at.is_none() && !self.ran_out(now)
    }

    fn ran_out(&self, now: Timestamp) -> bool {
        self.notice.expires_at.is_some_and(|at| at <= now)
    }

    /// Which of its messages reaches the reader, if it is for everybody or for roles.
    fn place_of(&self, reader: &Reader) -> Option<usize> {
        if self.notice.except.contains(&reader.user) {
            return None;
        }
        match &self.notice.target {
            Target::All => Some(0),
            Target::Roles(roles) => roles.iter().position(|role| reader.roles.contains(role)),
            Target::Users(_) => None,
        }
    }

    pub fn delivery(&self, user: &UserId, place: usize) -> Delivery {
        let notice = &self.notice;
        let topics = match &notice.target {
            Target::Users(_) => vec![user.topic()],
            target => target.topics(),
        };
        let topic = topics.into_iter().nth(if self.named.is_empty() { place } else { 0 });
        let draft = Draft {
            kind: Some(NOTICE.into()),
            class: Class::Event,
            key: Some(notice.id.as_str().into()),
            priority: notice.urgency.priority(),
            ..Draft::new(topic.unwrap_or_else(|| user.topic()), self.data.clone())
        };
        let seq = self.seq.plus(place as u64);
        let message = Message::from_draft(&draft, Some(seq), notice.created_at);
        let message = Message { expires_at: notice.expires_at, ..message };
        Delivery { id: notice.id.clone(), sending: notice.sending, message }
    }
}

impl Books {
    pub fn number(&self, id: &NoticeId) -> Option<u64> {
        self.numbers.get(id).copied()
    }

    fn sheet(&mut self, id: &NoticeId) -> Option<(u64, &mut Sheet)> {
        let number = self.number(id)?;
        self.notices.get_mut(&number).map(|sheet| (number, sheet))
    }

    /// Rows for what was sent to everybody or to roles.
    pub fn fill(&mut self, reader: &Reader, now: Timestamp) {
        let rows = self.inboxes.entry(reader.user.clone()).or_default();
        for (number, sheet) in &self.notices {
            if sheet.is_live(now)
                && let Some(place) = sheet.place_of(reader)
            {
                rows.entry(*number)
                    .or_insert_with(|| Row::new(&reader.user, place, sheet.notice.created_at));
            }
        }
    }

    /// Nothing of these is redelivered.
    pub fn give_up(&mut self, user: &UserId, numbers: &[u64]) {
        let Some(rows) = self.inboxes.get_mut(user) else { return };
        for number in numbers {
            if let Some(row) = rows.get_mut(number) {
                row.given_up = true;
            }
        }
    }

    /// A notice whose messages begin at `seq`, and the rows of those who are named.
    pub fn keep(&mut self, new: &NewNotice, data: Arc<str>, now: Timestamp, seq: Seq) {
        let named = match &new.target {
            Target::Users(users) => users.clone(),
            _ => Vec::new(),
        };
        let notice = Notice {
            id: new.id.clone(),
            target: new.target.clone(),
            except: new.except.clone(),
            title: new.title.clone(),
            content: new.content.clone(),
            data: new.data.clone(),
            urgency: new.urgency,
            confirm: new.confirm,
            sender: new.sender.clone(),
            recipients: new.recipients(),
            created_at: now,
            expires_at: expires_at(new, now),
            recalled_at: None,
            sending: 1,
        };
        self.last += 1;
        let number = self.last;
        for (place, user) in named.iter().enumerate() {
            let row = Row::new(user, place, now);
            self.inboxes.entry(user.clone()).or_default().insert(number, row);
        }
        self.numbers.insert(new.id.clone(), number);
        let key = new.idempotency_key.clone();
        if let Some(key) = &key {
            self.keys.insert(key.clone(), new.id.clone());
        }
        self.notices.insert(number, Sheet { notice, key, named, data, seq });
        while self.notices.len() > NOTICES_MAX
            && let Some(oldest) = self.notices.keys().next().copied()
        {
            self.remove(oldest);
        }
    }

    pub fn counts(&self, user: &UserId, now: Timestamp) -> Counts {
        let mut counts = Counts::default();
        for (number, row) in self.inboxes.get(user).into_iter().flatten() {
            let Some(sheet) = self.notices.get(number).filter(|sheet| sheet.is_live(now)) else {
                continue;
            };
            let state = row.receipt.state;
            counts.unread += u64::from(state < ReceiptState::Read);
            let unconfirmed = sheet.notice.confirm && state < ReceiptState::Confirmed;
            counts.unconfirmed += u64::from(unconfirmed);
        }
        counts
    }

    fn receipts(&self, number: u64) -> Vec<&Receipt> {
        let rows = self.inboxes.values().filter_map(|rows| rows.get(&number));
        let mut receipts: Vec<&Receipt> = rows.map(|row| &row.receipt).collect();
        receipts.sort_unstable_by(|one, other| one.user.cmp(&other.user));
        receipts
    }

    fn remove(&mut self, number: u64) {
        if let Some(sheet) = self.notices.remove(&number) {
            self.numbers.remove(&sheet.notice.id);
            if let Some(key) = sheet.key {
                self.keys.remove(&key);
            }
        }
        self.inboxes.retain(|_, rows| {
            rows.remove(&number);
            !rows.is_empty()
        });
    }
}

impl MemoryStore {
    /// Appends what is to be said, and tells everybody.
    pub(super) fn append_and_tell(&self, drafts: &[Draft]) -> Option<Announcement> {
        if drafts.is_empty() {
            return None;
        }
        let appended = self.append(drafts);
        let told = announcement(appended.epoch, appended.at, appended.first, drafts);
        self.bus.announce(&told);
        Some(told)
    }
}

#[async_trait]
impl NoticeStore for MemoryStore {
    async fn send(&self, new: &NewNotice) -> Result<Sent, StoreError> {
        let mut books = self.notices.lock();
        let now = self.clock.now();
        if let Some(id) = new.idempotency_key.as_ref().and_then(|key| books.keys.get(key)).cloned()
        {
            let recipients = books.sheet(&id).and_then(|(_, sheet)| sheet.notice.recipients);
            return Ok(Sent { id, duplicate: true, recipients, told: None });
        }
        let topics = new.target.topics();
        if topics.is_empty() {
            return Err(StoreError::Refused("a notice for nobody".to_owned()));
        }
        let data: Arc<str> = document(new, expires_at(new, now)).into();
        let drafts = drafts(&new.id, topics, &data, new.urgency, new.expires_in_s);
        let told = self.append_and_tell(&drafts);
        books.keep(new, data, now, told.as_ref().map_or(Seq::ZERO, |told| told.first));
        Ok(Sent { id: new.id.clone(), duplicate: false, recipients: new.recipients(), told })
    }

    async fn get(&self, id: &NoticeId) -> Result<Option<Notice>, StoreError> {
        Ok(self.notices.lock().sheet(id).map(|(_, sheet)| shown(&sheet.notice)))
    }

    async fn tally(&self, id: &NoticeId) -> Result<Tally, StoreError> {
        let now = self.clock.now();
        let mut books = self.notices.lock();
        let mut tally = Tally::default();
        let Some((number, sheet)) = books.sheet(id) else { return Ok(tally) };
        let ran_out = sheet.ran_out(now);
        let present = self.presence.lock();
        let online = present.online(now);
        for receipt in books.receipts(number) {
            tally.by_state[receipt.state.shown(ran_out) as usize] += 1;
            tally.online += u64::from(online.contains(&receipt.user));
        }
        Ok(tally)
    }

    async fn list(
        &self,
        before: Option<&NoticeId>,
        limit: usize,
    ) -> Result<Vec<Notice>, StoreError> {
        let books = self.notices.lock();
        let end = before.map_or(u64::MAX, |id| books.number(id).unwrap_or(0));
        let newest = books.notices.range(..end).rev().map(|(_, sheet)| shown(&sheet.notice));
        Ok(newest.take(limit).collect())
    }

    async fn recipients(
        &self,
        id: &NoticeId,
        filter: &RecipientFilter,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError> {
        let now = self.clock.now();
        let mut books = self.notices.lock();
        let Some((number, sheet)) = books.sheet(id) else { return Ok(Vec::new()) };
        let ran_out = sheet.ran_out(now);
        let shown =
            |receipt: &Receipt| Receipt { state: receipt.state.shown(ran_out), ..receipt.clone() };
        let wanted = |receipt: &Receipt| {
            filter.state.is_none_or(|state| state == receipt.state)
                && filter.after.as_ref().is_none_or(|after| receipt.user > *after)
        };
        let receipts = books.receipts(number).into_iter().map(shown).filter(wanted);
        Ok(receipts.take(limit).collect())
    }

    async fn resend(&self, id: &NoticeId) -> Result<Resent, StoreError> {
        let now = self.clock.now();
        let mut books = self.notices.lock();
        let Some((number, sheet)) = books.sheet(id) else { return Ok(Resent::Absent) };
        if !sheet.is_live(now) {
            return Ok(Resent::Refused);
        }
        sheet.notice.sending += 1;
        let mut due = 0;
        let rows = books.inboxes.values_mut().filter_map(|rows| rows.get_mut(&number));
        for row in rows.filter(|row| row.receipt.state < ReceiptState::Received) {
            (row.tried_at, row.tries) = (Timestamp(0), 0);
            row.carriers.clear();
            row.given_up = false;
            due += 1;
        }
        Ok(Resent::Done(due))
    }

    async fn recall(&self, id: &NoticeId) -> Result<Recalled, StoreError> {
        let now = self.clock.now();
        let mut books = self.notices.lock();
        let Some((_, sheet)) = books.sheet(id) else { return Ok(Recalled::Absent) };
        if sheet.notice.recalled_at.is_some() {
            return Ok(Recalled::Done(None));
        }
        sheet.notice.recalled_at = Some(now);
        let (topics, priority) = (sheet.notice.target.topics(), sheet.notice.urgency.priority());
        Ok(Recalled::Done(self.append_and_tell(&recall_drafts(id, topics, priority))))
    }

    async fn expire(&self, after: Duration) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let age_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let mut books = self.notices.lock();
        let old = |sheet: &Sheet| {
            sheet.notice.created_at.0.saturating_add(age_ms) < now.0
                && (sheet.notice.expires_at.is_none() || sheet.ran_out(now))
        };
        let gone: Vec<u64> =
            books.notices.iter().filter(|(_, s)| old(s)).map(|(number, _)| *number).collect();
        for number in &gone {
            books.remove(*number);
        }
        Ok(gone.len() as u64)
    }
}

fn expires_at(new: &NewNotice, now: Timestamp) -> Option<Timestamp> {
    new.expires_in_s.map(|s| Timestamp(now.0.saturating_add(i64::from(s) * 1000)))
}

/// Of named users it is told how many, not who.
fn shown(notice: &Notice) -> Notice {
    let target = match &notice.target {
        Target::Users(_) => Target::Users(Vec::new()),
        target => target.clone(),
    };
    Notice { target, ..notice.clone() }
}
