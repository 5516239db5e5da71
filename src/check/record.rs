//! The log, read back: from the database if there is a way to it, else from the replicas.

use std::sync::Arc;
use std::time::Duration;

use super::word::Met;
use crate::client::{Client, ClientError, History};
use crate::domain::{Cursor, Pattern, Seq};
use crate::store::{LogStore, Page, StoreError};

/// What replicas give in one page unless their settings say otherwise.
const PAGE_MESSAGES_MAX: usize = 1_000;

const PAGE_BYTES_MAX: usize = 4 << 20;

/// How long replicas are asked for one page before others have a turn.
const PATIENCE: Duration = Duration::from_secs(5);

pub enum Record {
    Database(Arc<dyn LogStore>),
    History(Client),
}

/// A message as it stands in the log.
pub struct Logged {
    pub seq: Seq,
    topic: String,
    class: String,
    key: Option<String>,
    data: String,
}

impl Logged {
    pub fn met(&self) -> Met<'_> {
        let Logged { topic, class, data, .. } = self;
        Met { topic, class, key: self.key.as_deref(), data }
    }
}

/// Some of it, in order.
pub struct Chunk {
    pub messages: Vec<Logged>,
    /// Up to here nothing is missing from this and the chunks before it.
    pub read_to: Seq,
}

/// Why there is none, cut by what follows.
#[derive(Debug)]
pub enum Unread {
    Later(String),
    Never(String),
    /// The log does not go on from there, but from here.
    Gone(Cursor),
}

impl Record {
    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Record::Database(_) => "the database",
            Record::History(_) => "the history of the replicas",
        }
    }

    /// What came after a cursor. In a database what lies beyond `durable` may yet be undone by a
    /// crash, and is not looked at; replicas show nothing of the kind.
    pub async fn read(
        &self,
        topics: &Pattern,
        after: &Cursor,
        durable: Seq,
    ) -> Result<Chunk, Unread> {
        let topics = std::slice::from_ref(topics);
        match self {
            Record::Database(store) => from_store(&**store, topics, after, durable).await,
            Record::History(client) => from_history(client, topics, after).await,
        }
    }
}

async fn from_store(
    store: &dyn LogStore,
    topics: &[Pattern],
    after: &Cursor,
    durable: Seq,
) -> Result<Chunk, Unread> {
    let head = store.head().await.map_err(|error| unread(&error))?;
    if head.epoch != after.epoch {
        return Err(Unread::Gone(Cursor::new(head.epoch, head.seq)));
    }
    // Whoever was told of more was told wrongly.
    let durable = durable.min(head.seq);
    if durable <= after.seq {
        return Ok(Chunk { messages: Vec::new(), read_to: after.seq });
    }
    let page = Page { messages_max: PAGE_MESSAGES_MAX, bytes_max: PAGE_BYTES_MAX };
    let found = match store.matching(topics, after.seq, durable, page).await {
        Ok(found) => found,
        Err(StoreError::Expired { oldest }) => {
            return Err(Unread::Gone(Cursor::new(head.epoch, oldest.previous())));
        }
        Err(error) => return Err(unread(&error)),
    };
    let logged = |message: crate::domain::Message| {
        Some(Logged {
            seq: message.seq?,
            topic: message.topic.as_str().to_owned(),
            class: message.class.as_str().to_owned(),
            key: message.key.as_deref().map(str::to_owned),
            data: message.data.to_string(),
        })
    };
    let messages = found.messages.into_iter().filter_map(logged).collect();
    Ok(Chunk { messages, read_to: found.read_to })
}

fn unread(error: &StoreError) -> Unread {
    match error {
        StoreError::Unavailable(_) => Unread::Later(error.to_string()),
        _ => Unread::Never(error.to_string()),
    }
}

async fn from_history(
    client: &Client,
    topics: &[Pattern],
    after: &Cursor,
) -> Result<Chunk, Unread> {
    let page = match client.history(topics, after, PAGE_MESSAGES_MAX, PATIENCE).await {
        Ok(History::Page(page)) => page,
        Ok(History::Gone(cursor)) => return Err(Unread::Gone(cursor)),
        Err(ClientError::GaveUp { reason, .. }) => return Err(Unread::Later(reason)),
        Err(error) => return Err(Unread::Never(error.to_string())),
    };
    let logged = |message: crate::client::Received| {
        let seq = message.seq.and_then(Seq::new)?;
        let crate::client::Received { topic, class, key, data, .. } = message;
        Some(Logged { seq, topic, class, key, data })
    };
    let messages = page.messages.into_iter().filter_map(logged).collect();
    Ok(Chunk { messages, read_to: page.cursor.seq })
}
