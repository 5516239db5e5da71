//! One connection each, without patience: nothing is said twice and nobody comes back.
//!
//! For who counts what a connection costs. Publishing and hearing are here as cheap as one client can
//! make them, so that the server is what is measured.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::answer::Undone;
use super::connection::{Carrier, Connection, Way, tls};
use super::tail::query;
use super::{Address, CONNECT_TIMEOUT, Client, ClientError, deepest};
use crate::domain::{Cursor, Pattern};

/// A thousand published messages are answered with less.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A session that hears, until it ends.
pub struct Listening {
    carrier: Carrier,
    /// Where it began.
    pub cursor: Option<Cursor>,
}

/// A connection that posts, one request after the other.
pub struct Posting {
    sender: SendRequest<Full<Bytes>>,
    /// Driven by whoever waits for an answer, so that no second task has to be woken.
    driver: BoxFuture<'static, hyper::Result<()>>,
    request: http::request::Parts,
}

impl Client {
    /// A session by WebSocket at one address of several.
    pub async fn listen(
        &self,
        turn: usize,
        topics: &[Pattern],
        after: Option<&Cursor>,
    ) -> Result<Listening, ClientError> {
        let topics: Vec<String> = topics.iter().map(ToString::to_string).collect();
        let query = query(&topics.join(","), after);
        let opening = Connection::open(self, self.address(turn), Way::WebSocket, &query);
        let (connection, welcome) = opening.await.map_err(refused)?;
        Ok(Listening { carrier: connection.into_carrier(), cursor: welcome.cursor })
    }

    /// A connection for publishing at one address of several.
    pub async fn posting(&self, turn: usize) -> Result<Posting, ClientError> {
        let address = self.address(turn);
        let connecting = timeout(CONNECT_TIMEOUT, stream(address)).await;
        let stream = connecting.map_err(|_| unreached(address, "no answer in time"))??;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| unreached(address, deepest(&error)))?;
        let mut request = Request::post(address.path("/v1/messages"))
            .header(header::HOST, address.authority())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let (request, ()) =
            request.body(()).map_err(|error| ClientError::Setup(error.to_string()))?.into_parts();
        Ok(Posting { sender, driver: Box::pin(driver), request })
    }
}

impl Listening {
    /// The next frame. Cancel-safe.
    pub async fn next(&mut self) -> Result<Utf8Bytes, ClientError> {
        loop {
            if let Some(text) = self.carrier.next().await.map_err(refused)? {
                return Ok(text);
            }
        }
    }
}

impl Posting {
    /// Publishes a body of the protocol's. Anything but 201 is an error.
    pub async fn post(&mut self, body: Bytes) -> Result<(), ClientError> {
        let request = Request::from_parts(self.request.clone(), Full::new(body));
        let lost = |error: hyper::Error| ClientError::Refused(format!("lost: {}", deepest(&error)));
        let exchange = async {
            let answer = self.sender.send_request(request).await.map_err(lost)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| ClientError::Refused(error.to_string()))?.to_bytes();
            match head.status {
                StatusCode::CREATED => Ok(()),
                status => Err(refused(Undone::answered(status, &head.headers, &body))),
            }
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            done = &mut exchange => done,
            _ = &mut self.driver => {
                Err(ClientError::Refused("the connection was closed".to_owned()))
            }
        }
    }
}

async fn stream(address: &Address) -> Result<MaybeTlsStream<TcpStream>, ClientError> {
    let (host, port) = address.host_and_port();
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| unreached(address, error))?;
    stream.set_nodelay(true).map_err(|error| unreached(address, error))?;
    let Some(config) = tls(address).map_err(refused)? else {
        return Ok(MaybeTlsStream::Plain(stream));
    };
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| unreached(address, error))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    Ok(MaybeTlsStream::Rustls(stream.map_err(|error| unreached(address, error))?))
}

fn unreached(address: &Address, reason: impl std::fmt::Display) -> ClientError {
    ClientError::Refused(format!("{address} cannot be reached: {reason}"))
}

fn refused(undone: Undone) -> ClientError {
    match undone {
        Undone::Never(reason) | Undone::Conflict(reason) | Undone::Later { reason, .. } => {
            ClientError::Refused(reason)
        }
        Undone::Gone(_) => ClientError::Refused("the cursor is not honoured".to_owned()),
    }
}
