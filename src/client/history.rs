//! Reading back what is in the log.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::Undone;
use super::incoming::{Incoming, Received};
use super::{Address, Client, ClientError};
use crate::domain::{Cursor, Pattern};

/// A page of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub messages: Vec<Received>,
    /// Everything up to here is in this page or in those before it.
    pub cursor: Cursor,
    /// Whether the next page has something already.
    pub more: bool,
}

/// What became of asking for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    Page(Page),
    /// The cursor cannot be honoured: it goes on from here.
    Gone(Cursor),
}

impl Client {
    /// What came after a cursor on these topics, as much as one page holds.
    pub async fn history(
        &self,
        topics: &[Pattern],
        after: &Cursor,
        limit: usize,
        within: Duration,
    ) -> Result<History, ClientError> {
        let topics: Vec<String> = topics.iter().map(ToString::to_string).collect();
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("topics", &topics.join(","));
        query.append_pair("after", &after.to_string());
        query.append_pair("limit", &limit.to_string());
        let path = format!("/v1/messages?{}", query.finish());
        self.insist(within, async |address| self.page(address, &path, after).await).await
    }

    async fn page(&self, address: &Address, path: &str, after: &Cursor) -> Result<History, Undone> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            messages: Vec<&'a RawValue>,
            cursor: String,
            more: bool,
        }
        let foreign = || Undone::Never(format!("what answers at {address} is not Tidings"));
        let text = match self.exchange(address, self.http.get(address.http(path))).await {
            Ok(text) => text,
            Err(Undone::Gone(head)) if head.epoch == after.epoch && head.seq < after.seq => {
                return Err(Undone::later(format!("{address} has not come as far as {after}")));
            }
            Err(Undone::Gone(cursor)) => return Ok(History::Gone(cursor)),
            Err(undone) => return Err(undone),
        };
        let answer: Answer<'_> = serde_json::from_slice(&text).map_err(|_| foreign())?;
        let message = |frame: &&RawValue| {
            Incoming::read(frame.get()).map(|read| read.received(frame.get())).ok_or_else(foreign)
        };
        let messages = answer.messages.iter().map(message).collect::<Result<_, _>>()?;
        let cursor = Cursor::parse(&answer.cursor).map_err(|_| foreign())?;
        Ok(History::Page(Page { messages, cursor, more: answer.more }))
    }
}
