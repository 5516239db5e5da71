//! Publishing, until somebody answers for it or the time is up.

use std::time::Duration;

use backon::BackoffBuilder;
use bytes::Bytes;
use http::header;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::Undone;
use super::{Address, Client, ClientError, deepest, pauses};

/// How long one attempt may take: a server that hangs must not use up the time of the others.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// More than a thousand answers need.
const ANSWER_BYTES_MAX: usize = 4 << 20;

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
        let deadline = Instant::now() + within;
        let mut pauses = pauses().build();
        loop {
            let (mut reason, mut soonest) = (String::new(), None);
            let first = self.preferred();
            for turn in first..first + self.addresses.len() {
                match self.publish_once(self.address(turn), body.clone(), deadline).await {
                    Ok(published) if published.len() == messages.len() => {
                        self.prefer(turn);
                        return Ok(published);
                    }
                    Ok(_) => return Err(ClientError::Refused("no answer of Tidings".to_owned())),
                    Err(Undone::Never(reason)) => return Err(ClientError::Refused(reason)),
                    Err(Undone::Later { reason: why, retry_after }) => {
                        reason = why;
                        let wait = retry_after.unwrap_or_default();
                        soonest = Some(soonest.map_or(wait, |soonest: Duration| soonest.min(wait)));
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = soonest.unwrap_or_default();
            if left.is_zero() || asked > left {
                return Err(ClientError::GaveUp { reason, within });
            }
            // What the server asks for, and a little more at random.
            let pause = pauses.next().unwrap_or_default();
            sleep((asked + pause).min(left)).await;
        }
    }

    async fn publish_once(
        &self,
        address: &Address,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Vec<Published>, Undone> {
        let until = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
        match timeout_at(until, self.post(address, body)).await {
            Ok(answered) => answered,
            Err(_) => Err(Undone::later(format!("{address} did not answer in time"))),
        }
    }

    async fn post(&self, address: &Address, body: Bytes) -> Result<Vec<Published>, Undone> {
        #[derive(Deserialize)]
        struct Answer {
            messages: Vec<Published>,
        }
        let broken = |error: &reqwest::Error| {
            Undone::later(format!("{address} cannot be reached: {}", deepest(error)))
        };
        let mut request = self.http.post(address.http("/v1/messages")).body(body);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let mut answer = request.send().await.map_err(|error| broken(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| broken(&error))? {
            if text.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Undone::Never(format!("{address} gave an answer without end")));
            }
            text.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(Undone::answered(status, &headers, &text));
        }
        let answer: Result<Answer, _> = serde_json::from_slice(&text);
        let none = |_| Undone::Never(format!("what answers at {address} is not Tidings"));
        answer.map(|answer| answer.messages).map_err(none)
    }
}
