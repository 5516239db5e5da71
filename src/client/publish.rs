//! Publishing, until somebody answers for it or the time is up.

use std::time::Duration;

use bytes::Bytes;
use http::header;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::Undone;
use super::{Address, Client, ClientError};

/// A message as the protocol takes it.
#[derive(Clone, Debug, Serialize)]
pub struct Outgoing {
    pub topic: String,
    pub data: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u32>,
    /// Not an option: without one a message that is said again might be kept twice.
    pub idempotency_key: String,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub topic: String,
    /// `None` for a signal, which is not kept.
    pub seq: Option<u64>,
    pub cursor: Option<String>,
    /// It was there already, under the same idempotency key.
    pub duplicate: bool,
}

impl Client {
    /// Publishes all of it or nothing, in order. Each address is tried in turn, then there is a
    /// pause, then they are tried again, until `within` is over.
    pub async fn publish(
        &self,
        messages: &[Outgoing],
        within: Duration,
    ) -> Result<Vec<Published>, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            messages: &'a [Outgoing],
        }
        let body = serde_json::to_vec(&Body { messages });
        let body = Bytes::from(body.map_err(|error| ClientError::Refused(error.to_string()))?);
        self.insist(within, async |address| {
            let published = self.post(address, body.clone()).await?;
            let whole = published.len() == messages.len();
            whole
                .then_some(published)
                .ok_or_else(|| Undone::Never("no answer of Tidings".to_owned()))
        })
        .await
    }

    async fn post(&self, address: &Address, body: Bytes) -> Result<Vec<Published>, Undone> {
        #[derive(Deserialize)]
        struct Answer {
            messages: Vec<Published>,
        }
        let request = self.http.post(address.http("/v1/messages")).body(body);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let text = self.exchange(address, request).await?;
        let answer: Result<Answer, _> = serde_json::from_slice(&text);
        let none = |_| Undone::Never(format!("what answers at {address} is not Tidings"));
        answer.map(|answer| answer.messages).map_err(none)
    }
}
