//! One request and its answer, and the patience to ask until somebody answers.

use std::time::Duration;

use backon::BackoffBuilder;
use http::header;
use reqwest::{RequestBuilder, Response};
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::Undone;
use super::{Address, Client, ClientError, deepest, pauses};

/// How long one attempt may take: a server that hangs must not use up the time of the others.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// More than a page of anything holds: the largest is a task's first thousand items with their data.
const ANSWER_BYTES_MAX: usize = 64 << 20;

impl Client {
    /// Asks each address in turn, then pauses, then asks them again, until `within` is over.
    pub(super) async fn insist<T>(
        &self,
        within: Duration,
        attempt: impl AsyncFn(&Address) -> Result<T, Undone>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + within;
        let mut pauses = pauses().build();
        loop {
            let (mut reason, mut soonest) = (String::new(), None);
            let first = self.preferred();
            for turn in first..first + self.addresses.len() {
                let address = self.address(turn);
                let until = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
                let attempted = timeout_at(until, attempt(address)).await.unwrap_or_else(|_| {
                    Err(Undone::later(format!("{address} did not answer in time")))
                });
                match attempted {
                    Ok(done) => {
                        self.prefer(turn);
                        return Ok(done);
                    }
                    Err(Undone::Never(reason)) => return Err(ClientError::Refused(reason)),
                    Err(Undone::Conflict(reason)) => return Err(ClientError::Conflict(reason)),
                    Err(Undone::Gone(cursor)) => {
                        let reason = format!("the log goes on from {cursor}");
                        return Err(ClientError::Refused(reason));
                    }
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

    pub(super) fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }

    /// The body of an answer that is a success.
    pub(super) async fn exchange(
        &self,
        address: &Address,
        request: RequestBuilder,
    ) -> Result<Vec<u8>, Undone> {
        let answer = self.authorized(request).send().await;
        let answer = answer.map_err(|error| broken(address, &error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = whole(address, answer).await?;
        if status.is_success() { Ok(body) } else { Err(Undone::answered(status, &headers, &body)) }
    }
}

/// A body, if it has an end.
pub(super) async fn whole(address: &Address, mut answer: Response) -> Result<Vec<u8>, Undone> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| broken(address, &error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Undone::Never(format!("{address} gave an answer without end")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn broken(address: &Address, error: &reqwest::Error) -> Undone {
    Undone::later(format!("{address} cannot be reached: {}", deepest(error)))
}
