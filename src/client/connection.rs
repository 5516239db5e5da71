//! One WebSocket to one address, from its handshake to its end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use http::header;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};

use super::answer::Undone;
use super::incoming::Incoming;
use super::{Address, CONNECT_TIMEOUT, Client, close, deepest};
use crate::domain::Cursor;

/// How long the server may take to say welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Frames larger than any setting allows a server to send.
const FRAME_BYTES_MAX: usize = 80 << 20;

/// What our frame without a token says, so that an answer to it is known.
const ANONYMOUS: &str = "\"anonymous\"";

/// What a server that says nothing of it is believed to send.
const HEARTBEAT_S: u64 = 15;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) struct Connection {
    socket: Socket,
    /// Two heartbeats and a half: one may be late, and one be lost with the other's delay.
    silence_max: Duration,
    last_heard: Instant,
}

/// What the server said first.
pub(super) struct Welcome {
    pub(super) replica: String,
    pub(super) cursor: Option<Cursor>,
}

impl Connection {
    /// `query` carries topics and cursor. The token goes into a header, which proxies do not log.
    pub(super) async fn open(
        client: &Client,
        address: &Address,
        query: &str,
    ) -> Result<(Connection, Welcome), Undone> {
        let text = address.websocket(&format!("/v1/ws?{query}"));
        let mut request = text.into_client_request().map_err(|error| understand(address, error))?;
        if let Some(authorization) = &client.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let connecting = tokio_tungstenite::connect_async_tls_with_config(
            request,
            Some(config),
            true,
            Some(connector(address)?),
        );
        let mut socket = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(error)) => return Err(understand(address, error)),
            Err(_) => return Err(Undone::later(format!("{address} did not answer in time"))),
        };
        if client.authorization.is_none() {
            // A server that wants a token would wait for it; so it says at once that it does.
            let hello = format!("{{\"op\":\"hello\",\"ref\":{ANONYMOUS}}}");
            let sent = socket.send(Message::text(hello)).await;
            sent.map_err(|error| understand(address, error))?;
        }
        let silence_max = Duration::from_secs(HEARTBEAT_S * 5 / 2);
        let mut connection = Connection { socket, silence_max, last_heard: Instant::now() };
        let welcome = timeout(WELCOME_TIMEOUT, connection.welcome(address)).await;
        let welcome = welcome
            .unwrap_or_else(|_| Err(Undone::later(format!("{address} does not welcome"))))?;
        Ok((connection, welcome))
    }

    async fn welcome(&mut self, address: &Address) -> Result<Welcome, Undone> {
        loop {
            let text = self.next().await?;
            let Some(frame) = Incoming::read(&text) else {
                return Err(Undone::Never(format!("what answers at {address} is not Tidings")));
            };
            if frame.r#type == "welcome" {
                let heartbeat = Duration::from_secs(frame.heartbeat_s.unwrap_or(HEARTBEAT_S));
                self.silence_max = heartbeat.max(Duration::from_secs(1)).mul_f32(2.5);
                let replica = frame.replica.clone().unwrap_or_default().into_owned();
                return Ok(Welcome { replica, cursor: frame.cursor() });
            }
        }
    }

    /// The next frame. Cancel-safe. A server that is silent for too long is taken for gone.
    pub(super) async fn next(&mut self) -> Result<Utf8Bytes, Undone> {
        loop {
            match timeout_at(self.last_heard + self.silence_max, self.socket.next()).await {
                Ok(received) => {
                    if let Some(text) = self.heard(received)? {
                        return Ok(text);
                    }
                }
                Err(_) => {
                    return Err(Undone::later("nothing was heard for too long, not a heartbeat"));
                }
            }
        }
    }

    /// A frame that is here already.
    pub(super) fn ready(&mut self) -> Option<Result<Utf8Bytes, Undone>> {
        loop {
            let received = self.socket.next().now_or_never()?;
            if let Some(text) = self.heard(received).transpose() {
                return Some(text);
            }
        }
    }

    fn heard(
        &mut self,
        received: Option<Result<Message, Error>>,
    ) -> Result<Option<Utf8Bytes>, Undone> {
        self.last_heard = Instant::now();
        match received {
            None => Err(Undone::later("the connection was closed")),
            Some(Err(error)) => Err(Undone::later(format!("lost: {}", deepest(&error)))),
            Some(Ok(Message::Text(text))) => Ok(Some(text)),
            Some(Ok(Message::Close(frame))) => Err(close::read(frame.as_ref())),
            // Pings are answered by the library, with the next read.
            Some(Ok(_)) => Ok(None),
        }
    }
}

/// Whether a frame answers our frame without a token: where none is needed it is an error.
pub(super) fn is_to_anonymous(frame: &Incoming<'_>) -> bool {
    frame.reference.is_some_and(|reference| reference.get() == ANONYMOUS)
}

/// Why there is no connection.
fn understand(address: &Address, error: Error) -> Undone {
    match error {
        Error::Http(answer) => {
            let (parts, body) = answer.into_parts();
            if parts.status.is_success() {
                return Undone::Never(format!("what answers at {address} speaks no WebSocket"));
            }
            Undone::answered(parts.status, &parts.headers, &body.unwrap_or_default())
        }
        Error::Url(_) | Error::HttpFormat(_) => {
            Undone::Never(format!("{address} cannot be asked: {}", deepest(&error)))
        }
        error => Undone::later(format!("{address} cannot be reached: {}", deepest(&error))),
    }
}

/// The provider is named: what the process holds as its default is not ours to guess.
fn connector(address: &Address) -> Result<Connector, Undone> {
    if !address.is_secure() {
        return Ok(Connector::Plain);
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Undone::Never(format!("no TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Connector::Rustls(Arc::new(config)))
}
