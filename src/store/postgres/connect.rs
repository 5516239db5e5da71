//! Connections to Postgres, with or without TLS.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::query;
use crate::store::StoreError;

pub type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// How long a request to cancel may take: whoever asked has waited long enough already.
pub const GIVE_UP_TIMEOUT: Duration = Duration::from_millis(500);

/// Makes connections to one database.
#[derive(Clone)]
pub struct Connector {
    config: Arc<Config>,
    tls: MakeRustlsConnect,
    timeout: Duration,
}

impl Connector {
    /// `tls` is not used when the configuration says `sslmode=disable`.
    pub fn new(config: Config, tls: rustls::ClientConfig, timeout: Duration) -> Connector {
        Connector { config: Arc::new(config), tls: MakeRustlsConnect::new(tls), timeout }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// A connection whose driver the caller polls itself: for the listener.
    pub async fn connect_raw(&self) -> Result<(Client, Connection<Socket, TlsStream>), StoreError> {
        let connecting = self.config.connect(self.tls.clone());
        match tokio::time::timeout(self.timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| classify(&error)),
            Err(_) => Err(StoreError::Unavailable("connecting took too long".to_owned())),
        }
    }

    /// A connection that drives itself until its client is dropped, with what statements rely on.
    pub async fn connect(&self) -> Result<Client, StoreError> {
        let (client, connection) = self.connect_raw().await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the driver of a connection ends with its client"
        )]
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Postgres ended");
            }
        });
        let begun = client.query_typed(query::SESSION_BEGIN.text, &[]);
        match tokio::time::timeout(self.timeout, begun).await {
            Ok(Ok(_)) => Ok(client),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => Err(StoreError::Unavailable("connecting took too long".to_owned())),
        }
    }
}

/// Waits for an answer while driving the connection that it comes over, as the first thing that is
/// asked on it: notifications would be lost.
pub async fn drive(
    connection: &mut Connection<Socket, TlsStream>,
    question: impl Future<Output = Result<(), tokio_postgres::Error>>,
) -> Result<(), StoreError> {
    let mut question = std::pin::pin!(question);
    let both = poll_fn(|cx| {
        if let Poll::Ready(result) = question.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        while let Poll::Ready(message) = connection.poll_message(cx) {
            match message {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => break,
            }
        }
        question.as_mut().poll(cx)
    });
    both.await.map_err(|error| classify(&error))
}

/// Tells the server to give up what it does for a client that no longer waits for it. Closing the
/// connection is not enough: a statement that waits for a lock would go on waiting, and every
/// further try would leave one more behind.
pub async fn give_up(statement: CancelToken, tls: MakeRustlsConnect) {
    match tokio::time::timeout(GIVE_UP_TIMEOUT, statement.cancel_query(tls)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a statement was not cancelled"),
        // The server is away altogether, and with it whatever it was doing.
        Err(_) => tracing::debug!("cancelling a statement took too long"),
    }
}

/// What the caller can do about an error of Postgres.
pub fn classify(error: &tokio_postgres::Error) -> StoreError {
    let Some(database) = error.as_db_error() else {
        return StoreError::Unavailable(describe(error));
    };
    let code = database.code().code();
    match code {
        // Raised by our own functions: the slot is somebody else's, or not where we think.
        "TD001" | "TD002" => StoreError::Fenced,
        // Serialization (`session_begin` sees to it that there is none, except through a pooler), deadlock, lock not available, read-only (a standby after a failover).
        "40001" | "40P01" | "55P03" | "25006" => StoreError::Unavailable(describe(error)),
        // Connection, resources (disk full, too many), operator (shutdown, cancelled), system, no such role yet.
        _ if ["08", "53", "57", "58", "28"].contains(&&code[..2]) => {
            StoreError::Unavailable(describe(error))
        }
        _ => StoreError::Refused(describe(error)),
    }
}

/// The sentence and its code; tokio-postgres's own text leaves out both.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(database) => format!("{} ({})", database.message(), database.code().code()),
        None => {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}
