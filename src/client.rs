//! A client of Tidings, for programs in Rust and for our own command line.
//!
//! `publish` says a message until somebody answers for it: under its idempotency key it is kept
//! once, however often it was said. `tail` follows topics and comes back by itself, with the last
//! cursor that it was given, so that what a caller is handed misses nothing and repeats nothing.
//! `listen` and `posting` are one connection each and no more, for who measures.
//! `history` reads back what is in the log; `task_…` submits tasks, shows and changes them, and works on
//! them under a lease.
//! Several addresses are several ways to one installation; they are tried in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::ExponentialBuilder;
use http::HeaderValue;

mod address;
mod answer;
mod close;
mod connection;
mod exchange;
mod history;
mod incoming;
mod lean;
mod lease;
mod notice;
mod place;
mod publish;
mod stream;
mod tail;
mod task;

pub use address::{Address, AddressError};
pub use connection::{Way, WayError};
pub use history::{History, Page};
pub use incoming::Received;
pub use lean::{Listening, Posting};
pub use lease::{Claim, ItemResult, Lease, Report};
pub use publish::{Outgoing, Published};
pub use tail::{Event, Tail};
pub use task::{Item, Items, Submission, Task, Tasks, Wish};

/// How long one attempt to connect may take, before the next address is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that says "come back tomorrow" is asked again sooner.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Saying it again would not help.
    #[error("{0}")]
    Refused(String),
    /// It cannot be as things stand: another status, an older term.
    #[error("{0}")]
    Conflict(String),
    /// Nobody answered for it in time; whether it was done is not known.
    #[error("gave up after {} s: {reason}", within.as_secs())]
    GaveUp { reason: String, within: Duration },
    #[error("the token holds what no header can carry")]
    Token,
    #[error("at least one address is needed")]
    NoAddress,
    #[error("no HTTP client: {0}")]
    Setup(String),
}

/// One installation, by whatever address answers.
pub struct Client {
    addresses: Vec<Address>,
    authorization: Option<HeaderValue>,
    http: reqwest::Client,
    /// The address that answered last, by its place; any number, of which the remainder counts.
    preferred: AtomicUsize,
}

impl Client {
    /// `addresses` in the order in which they are tried.
    pub fn new(addresses: Vec<Address>, token: Option<&str>) -> Result<Client, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        let authorization = token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
            value.set_sensitive(true);
            Ok::<_, http::header::InvalidHeaderValue>(value)
        });
        let authorization = authorization.transpose().map_err(|_| ClientError::Token)?;
        // No proxy: WebSockets would not go through it, and it would puzzle if one half worked.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| ClientError::Setup(deepest(&error)))?;
        Ok(Client { addresses, authorization, http, preferred: AtomicUsize::new(0) })
    }

    /// The same client, which begins with another address.
    #[must_use]
    pub fn beginning_with(&self, turn: usize) -> Client {
        Client {
            addresses: self.addresses.clone(),
            authorization: self.authorization.clone(),
            http: self.http.clone(),
            preferred: AtomicUsize::new(turn % self.addresses.len()),
        }
    }

    /// How many addresses there are.
    pub fn addresses(&self) -> usize {
        self.addresses.len()
    }

    fn address(&self, turn: usize) -> &Address {
        &self.addresses[turn % self.addresses.len()]
    }

    fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    fn prefer(&self, turn: usize) {
        self.preferred.store(turn % self.addresses.len(), Ordering::Relaxed);
    }
}

/// Pauses between rounds: short at first, longer for an installation that stays away, and spread
/// so that a fleet of clients does not come back as one.
fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
}

/// The cause at the bottom of an error, which is what somebody can do something about.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
