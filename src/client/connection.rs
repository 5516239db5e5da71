//! One connection to one address, from its handshake to its end, over either of two ways.

use std::str::FromStr;
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
use super::stream::Stream;
use super::{Address, CONNECT_TIMEOUT, Client, close, deepest};
use crate::domain::Cursor;

/// How long the server may take to say welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Frames larger than any setting allows a server to send.
pub(super) const FRAME_BYTES_MAX: usize = 80 << 20;

/// What our frame without a token says, so that an answer to it is known.
const ANONYMOUS: &str = "\"anonymous\"";

/// What a server that says nothing of it is believed to send.
const HEARTBEAT_S: u64 = 15;
/// More than any server is set to.
const HEARTBEAT_S_MAX: u64 = 86_400;

/// Enough to read many small frames at once; the default costs 128 KiB for each socket.
const READ_BUFFER_BYTES: usize = 16 << 10;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What carries the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    #[default]
    WebSocket,
    Sse,
}

/// There is no such way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a way is ws or sse")]
pub struct WayError;

impl FromStr for Way {
    type Err = WayError;

    fn from_str(text: &str) -> Result<Way, WayError> {
        match text {
            "ws" => Ok(Way::WebSocket),
            "sse" => Ok(Way::Sse),
            _ => Err(WayError),
        }
    }
}

pub(super) enum Carrier {
    WebSocket(Box<Socket>),
    Sse(Box<Stream>),
}

pub(super) struct Connection {
    carrier: Carrier,
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
        way: Way,
        query: &str,
    ) -> Result<(Connection, Welcome), Undone> {
        let opening = async {
            match way {
                Way::WebSocket => websocket(client, address, query).await,
                Way::Sse => Ok(Carrier::Sse(Box::new(Stream::open(client, address, query).await?))),
            }
        };
        let carrier = match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(carrier) => carrier?,
            Err(_) => return Err(Undone::later(format!("{address} did not answer in time"))),
        };
        let silence_max = Duration::from_secs(HEARTBEAT_S * 5 / 2);
        let mut connection = Connection { carrier, silence_max, last_heard: Instant::now() };
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
                let heartbeat_s =
                    frame.heartbeat_s.unwrap_or(HEARTBEAT_S).clamp(1, HEARTBEAT_S_MAX);
                self.silence_max = Duration::from_secs(heartbeat_s).mul_f32(2.5);
                let replica = frame.replica.clone().unwrap_or_default().into_owned();
                return Ok(Welcome { replica, cursor: frame.cursor() });
            }
        }
    }

    /// The next frame. Cancel-safe. A server that is silent for too long is taken for gone.
    pub(super) async fn next(&mut self) -> Result<Utf8Bytes, Undone> {
        loop {
            match timeout_at(self.last_heard + self.silence_max, self.carrier.next()).await {
                Ok(received) => {
                    self.last_heard = Instant::now();
                    if let Some(text) = received? {
                        return Ok(text);
                    }
                }
                Err(_) => {
                    return Err(Undone::later("nothing was heard for too long, not a heartbeat"));
                }
            }
        }
    }

    /// For who looks after silence himself.
    pub(super) fn into_carrier(self) -> Carrier {
        self.carrier
    }

    /// A frame that is here already.
    pub(super) fn ready(&mut self) -> Option<Result<Utf8Bytes, Undone>> {
        loop {
            let received = self.carrier.next().now_or_never()?;
            self.last_heard = Instant::now();
            if let Some(text) = received.transpose() {
                return Some(text);
            }
        }
    }
}

impl Carrier {
    /// A frame, or `None` for a sign of life. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Utf8Bytes>, Undone> {
        let socket = match self {
            Carrier::WebSocket(socket) => socket,
            Carrier::Sse(stream) => return stream.next().await,
        };
        match socket.next().await {
            None => Err(Undone::later("the connection was closed")),
            Some(Err(error)) => Err(Undone::later(format!("lost: {}", deepest(&error)))),
            Some(Ok(Message::Text(text))) => Ok(Some(text)),
            Some(Ok(Message::Close(frame))) => Err(close::read(frame.as_ref())),
            // Pings are answered by the library, with the next read.
            Some(Ok(_)) => Ok(None),
        }
    }
}

async fn websocket(client: &Client, address: &Address, query: &str) -> Result<Carrier, Undone> {
    let text = address.websocket(&format!("/v1/ws?{query}"));
    let mut request = text.into_client_request().map_err(|error| understand(address, error))?;
    if let Some(authorization) = &client.authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let connecting = tokio_tungstenite::connect_async_tls_with_config(
        request,
        Some(config),
        true,
        Some(connector(address)?),
    );
    let (mut socket, _) = connecting.await.map_err(|error| understand(address, error))?;
    if client.authorization.is_none() {
        // A server that wants a token would wait for it; so it says at once that it does.
        let hello = format!("{{\"op\":\"hello\",\"ref\":{ANONYMOUS}}}");
        let sent = socket.send(Message::text(hello)).await;
        sent.map_err(|error| understand(address, error))?;
    }
    Ok(Carrier::WebSocket(Box::new(socket)))
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

fn connector(address: &Address) -> Result<Connector, Undone> {
    Ok(tls(address)?.map_or(Connector::Plain, Connector::Rustls))
}

/// `None` where none is spoken.
/// The provider is named: what the process holds as its default is not ours to guess.
pub(super) fn tls(address: &Address) -> Result<Option<Arc<rustls::ClientConfig>>, Undone> {
    if !address.is_secure() {
        return Ok(None);
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Undone::Never(format!("no TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(Arc::new(config)))
}
