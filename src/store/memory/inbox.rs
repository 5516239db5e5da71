//! Inboxes in memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::notice::{Books, Row};
use crate::domain::{NoticeId, ReceiptState, Timestamp, UserId};
use crate::store::StoreError;
use crate::store::notice::{
    Delivery, Entry, InboxFilter, InboxStore, Mark, Marked, Opened, Reader, Redelivery, Replays,
    counts_draft,
};

#[async_trait]
impl InboxStore for MemoryStore {
    async fn open(&self, readers: &[Reader], replays: Replays) -> Result<Vec<Opened>, StoreError> {
        let now = self.clock.now();
        let mut books = self.notices.lock();
        let as_of = self.state.lock().head;
        let one = |reader: &Reader| {
            books.fill(reader, now);
            let rows = books.inboxes.get(&reader.user).into_iter().flatten();
            let waiting: Vec<Delivery> = rows
                .filter(|(_, row)| row.receipt.state < ReceiptState::Received)
                .filter_map(|(number, row)| {
                    let sheet = books.notices.get(number).filter(|sheet| sheet.is_live(now))?;
                    Some(sheet.delivery(&reader.user, row.place))
                })
                .collect();
            let newest = waiting.len().saturating_sub(replays.max);
            let young = |one: &&Delivery| after(one.message.at, replays.age) > now;
            let missed: Vec<Delivery> =
                waiting.iter().skip(newest).filter(young).cloned().collect();
            let left_out = (waiting.len() - missed.len()) as u64;
            // What a session is not shown when it opens does not come by redelivery either.
            let shown: HashSet<&NoticeId> = missed.iter().map(|one| &one.id).collect();
            let hidden = waiting.iter().filter(|one| !shown.contains(&one.id));
            let hidden: Vec<u64> = hidden.filter_map(|one| books.number(&one.id)).collect();
            books.give_up(&reader.user, &hidden);
            Opened { counts: books.counts(&reader.user, now), as_of, missed, left_out }
        };
        Ok(readers.iter().map(one).collect())
    }

    async fn mark(&self, marks: &[Mark]) -> Result<Marked, StoreError> {
        let now = self.clock.now();
        let mut books = self.notices.lock();
        let mut acted = BTreeSet::new();
        for mark in marks {
            books.fill(&mark.reader, now);
            for number in numbers(&books, mark) {
                let Books { notices, inboxes, .. } = &mut *books;
                let rows = inboxes.get_mut(&mark.reader.user);
                let (Some(sheet), Some(row)) =
                    (notices.get(&number), rows.and_then(|rows| rows.get_mut(&number)))
                else {
                    continue;
                };
                let may = sheet.is_live(now)
                    || (sheet.notice.recalled_at.is_none()
                        && row.receipt.state >= ReceiptState::Received);
                if may
                    && row.grow(mark.state, sheet.notice.confirm, now)
                    && row.receipt.state >= ReceiptState::Read
                {
                    acted.insert(mark.reader.user.clone());
                }
            }
        }
        let users: BTreeSet<&UserId> = marks.iter().map(|mark| &mark.reader.user).collect();
        let counts: Vec<_> =
            users.into_iter().map(|user| (user.clone(), books.counts(user, now))).collect();
        let said = counts.iter().filter(|(user, _)| acted.contains(user));
        let drafts: Vec<_> = said.map(|(user, counts)| counts_draft(user, *counts)).collect();
        let told = self.append_and_tell(&drafts);
        let as_of = self.state.lock().head;
        Ok(Marked { counts, as_of, told })
    }

    async fn inbox(
        &self,
        reader: &Reader,
        filter: &InboxFilter,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let now = self.clock.now();
        let mut books = self.notices.lock();
        books.fill(reader, now);
        let end = filter.before.as_ref().map_or(u64::MAX, |id| books.number(id).unwrap_or(0));
        let Some(rows) = books.inboxes.get(&reader.user) else { return Ok(Vec::new()) };
        let entry = |(number, row): (&u64, &Row)| {
            let sheet = books.notices.get(number).filter(|sheet| sheet.is_live(now))?;
            let (notice, receipt) = (&sheet.notice, &row.receipt);
            (!filter.unread || receipt.state < ReceiptState::Read).then(|| Entry {
                id: notice.id.clone(),
                title: notice.title.clone(),
                content: notice.content.clone(),
                data: notice.data.clone(),
                urgency: notice.urgency,
                confirm: notice.confirm,
                created_at: notice.created_at,
                expires_at: notice.expires_at,
                state: receipt.state,
                read_at: receipt.read_at,
                confirmed_at: receipt.confirmed_at,
            })
        };
        Ok(rows.range(..end).rev().filter_map(entry).take(limit).collect())
    }

    async fn due(&self, of: &Redelivery<'_>) -> Result<Vec<(UserId, Delivery)>, StoreError> {
        let now = self.clock.now();
        let mut books = self.notices.lock();
        let Books { notices, inboxes, .. } = &mut *books;
        let mut found: BTreeMap<(u64, UserId), Delivery> = BTreeMap::new();
        for user in of.users {
            let rows = inboxes.get_mut(user).into_iter().flatten();
            let waits = |row: &Row| row.receipt.state < ReceiptState::Received && !row.given_up;
            for (number, row) in rows.filter(|(_, row)| waits(row)) {
                let Some(sheet) = notices.get(number).filter(|sheet| sheet.is_live(now)) else {
                    continue;
                };
                let wait =
                    of.grace.saturating_mul(1_u32.checked_shl(row.tries).unwrap_or(u32::MAX));
                let is_over = after(row.tried_at, wait) <= now;
                let carried = row.carriers.iter().any(|carrier| **carrier == *of.replica);
                if found.len() < of.rows_max && (is_over || (row.tries > 0 && !carried)) {
                    if is_over && row.tries >= of.tries_max {
                        row.given_up = true;
                        row.carriers.clear();
                        continue;
                    }
                    if is_over {
                        (row.tried_at, row.tries) = (now, row.tries + 1);
                        row.carriers.clear();
                    }
                    row.carriers.push(of.replica.into());
                    found.insert((*number, user.clone()), sheet.delivery(user, row.place));
                }
            }
        }
        Ok(found.into_iter().map(|((_, user), delivery)| (user, delivery)).collect())
    }

    async fn lapsed(&self, since: Timestamp) -> Result<(Timestamp, bool), StoreError> {
        let now = self.clock.now();
        let books = self.notices.lock();
        let lapsed = |at: Timestamp| at > since && at <= now;
        let any = books.notices.values().any(|sheet| sheet.notice.expires_at.is_some_and(lapsed));
        Ok((now, any))
    }
}

/// The notices that a mark is about.
fn numbers(books: &Books, mark: &Mark) -> Vec<u64> {
    match &mark.id {
        Some(id) => books.number(id).into_iter().collect(),
        None => {
            let rows = books.inboxes.get(&mark.reader.user);
            rows.into_iter().flatten().map(|(number, _)| *number).collect()
        }
    }
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}
