//! Rows of the log, read into the words of the domain.

use std::sync::Arc;

use tokio_postgres::Row;

use crate::domain::{Class, Epoch, Message, Priority, Seq, Timestamp, Topic, Trace};
use crate::store::{Appended, Placed, StoreError};

/// A row that the schema cannot hold.
pub fn corrupt(what: &str) -> StoreError {
    StoreError::Refused(format!("the schema holds what this version cannot read: {what}"))
}

pub fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    index: usize,
) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| corrupt(&error.to_string()))
}

pub fn seq(row: &Row, index: usize) -> Result<Seq, StoreError> {
    get(row, index).map(Seq::from_db)
}

pub fn epoch(row: &Row, index: usize) -> Result<Epoch, StoreError> {
    Epoch::parse(get(row, index)?).map_err(|_| corrupt("epoch"))
}

pub fn topic(row: &Row, index: usize) -> Result<Topic, StoreError> {
    Topic::parse(get(row, index)?).map_err(|_| corrupt("topic"))
}

/// The columns of `message_range` and its sisters; `None` where the page is empty.
pub fn message(row: &Row) -> Result<Option<Message>, StoreError> {
    let Some(number) = get::<Option<i64>>(row, 1)? else { return Ok(None) };
    let text = |index| get::<Option<&str>>(row, index).map(|text| text.map(Arc::from));
    Ok(Some(Message {
        seq: Some(Seq::from_db(number)),
        at: Timestamp(get(row, 2)?),
        expires_at: get::<Option<i64>>(row, 3)?.map(Timestamp),
        // A newer version may know more of them. Whoever refused the row could apply nothing after it.
        class: Class::from_db(get(row, 4)?).unwrap_or_default(),
        priority: Priority::from_db(get(row, 5)?).unwrap_or_default(),
        topic: topic(row, 6)?,
        kind: text(7)?,
        key: text(8)?,
        data: get::<&str>(row, 9)?.into(),
        trace: get::<Option<&str>>(row, 10)?.and_then(Trace::parse),
    }))
}

/// The columns of `log_append` from `start` on.
pub fn appended(row: &Row, start: usize, drafts: usize) -> Result<Appended, StoreError> {
    let first = seq(row, start + 2)?;
    let seqs: Option<Vec<i64>> = get(row, start + 4)?;
    let duplicates: Option<Vec<bool>> = get(row, start + 5)?;
    let placed: Vec<Placed> = match (seqs, duplicates) {
        (Some(seqs), Some(duplicates)) => seqs
            .into_iter()
            .zip(duplicates)
            .map(|(seq, duplicate)| Placed { seq: Seq::from_db(seq), duplicate })
            .collect(),
        // Without keys all are new, and stand one after another.
        _ => {
            let fresh = u64::try_from(get::<i32>(row, start + 3)?).unwrap_or(0);
            (0..fresh).map(|place| Placed { seq: first.plus(place), duplicate: false }).collect()
        }
    };
    if placed.len() != drafts {
        return Err(corrupt("a batch has another length than was written"));
    }
    let at = Timestamp(get(row, start + 1)?);
    Ok(Appended { epoch: epoch(row, start)?, at, first, placed })
}
