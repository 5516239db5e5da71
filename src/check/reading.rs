//! Tells the ledger what the log has: as it grows, and all of it again in the end.

use tokio::time::{Instant, interval, sleep, timeout_at};

use super::record::{Record, Unread};
use super::{LOOK, Run, Wish};
use crate::domain::Cursor;

impl Run {
    /// Reads the log as it grows, for ever; returns why that is not possible any more.
    pub async fn read_on(&self, record: &Record) -> String {
        let (topics, mut look) = (self.plan.pattern(), interval(LOOK));
        loop {
            look.tick().await;
            let (after, durable) = {
                let ledger = self.ledger.lock();
                (ledger.position(), ledger.durable())
            };
            match record.read(&topics, &after, durable).await {
                Ok(chunk) => {
                    let mut ledger = self.ledger.lock();
                    for logged in &chunk.messages {
                        ledger.row(logged.seq, &logged.met());
                    }
                    ledger.read_to(chunk.read_to);
                    if chunk.read_to > after.seq && !chunk.messages.is_empty() {
                        look.reset_immediately();
                    }
                }
                Err(Unread::Later(_)) => {}
                Err(Unread::Never(reason)) => return format!("the log cannot be read: {reason}"),
                Err(Unread::Gone(cursor)) if cursor.epoch == after.epoch => {
                    return format!(
                        "the log is kept from {cursor} on and was read up to {after}: with so short a retention it cannot be compared"
                    );
                }
                Err(Unread::Gone(cursor)) => self.ledger.lock().log_is(&cursor.epoch),
            }
        }
    }

    /// Reads the log a second time, from where it begins now.
    pub async fn audit(&self, record: &Record, begin: &Cursor) {
        let (topics, mut after) = (self.plan.pattern(), begin.clone());
        let (until, mut audit) = {
            let ledger = self.ledger.lock();
            (ledger.position().seq, ledger.audit(true))
        };
        let mut deadline = Instant::now() + self.settings.timeout;
        while after.seq < until {
            let reading = record.read(&topics, &after, until);
            let read = tokio::select! {
                read = timeout_at(deadline, reading) => read,
                () = self.wished(Wish::AtOnce) => Ok(Err(Unread::Never("it was ended".to_owned()))),
            };
            match read {
                Ok(Ok(chunk)) => {
                    let mut ledger = self.ledger.lock();
                    for logged in chunk.messages.iter().filter(|logged| logged.seq <= until) {
                        ledger.audit_row(&mut audit, logged.seq, &logged.met());
                    }
                    if chunk.read_to > after.seq {
                        after.seq = chunk.read_to;
                        deadline = Instant::now() + self.settings.timeout;
                    }
                }
                Ok(Err(Unread::Later(_))) if Instant::now() < deadline => sleep(LOOK).await,
                Ok(Err(Unread::Gone(cursor)))
                    if cursor.epoch == after.epoch && cursor.seq > after.seq =>
                {
                    after = cursor;
                    audit = self.ledger.lock().audit(false);
                }
                Ok(Err(Unread::Gone(cursor))) => return self.ledger.lock().log_is(&cursor.epoch),
                Ok(Err(Unread::Later(reason) | Unread::Never(reason))) => {
                    let told = format!("the log could not be read a second time: {reason}");
                    return self.note(told);
                }
                Err(_) => {
                    let told = "the log could not be read a second time in time".to_owned();
                    return self.note(told);
                }
            }
        }
        self.ledger.lock().audit_end(audit);
    }
}
