//! One connection, from its first byte to its last request.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::ConnectionGuard;
use super::stall::Watched;
use crate::wake::Gate;

/// How long a connection may take to ask for anything at all. Between requests it may idle for
/// longer, but whoever holds places without a word is no client.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// Who is at the other end of the connection, often a load balancer; an extension of each request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer(pub SocketAddr);

/// Returns when the connection has ended, was upgraded, or is cut; or when its client takes nothing.
pub(super) fn serve(
    stream: Watched<TcpStream>,
    peer: SocketAddr,
    router: Router,
    http: &Builder,
    guard: ConnectionGuard,
) -> impl Future<Output = ()> + Send + use<> {
    let extended = guard.clone();
    let asked = CancellationToken::new();
    let asking = asked.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        asking.cancel();
        let extensions = request.extensions_mut();
        extensions.insert(Peer(peer));
        extensions.insert(ConnectInfo(peer));
        extensions.insert(extended.clone());
        answer(router.clone(), request)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    async move {
        let mut connection = pin!(connection);
        let silence = async {
            tokio::select! {
                () = asked.cancelled() => std::future::pending().await,
                () = tokio::time::sleep(FIRST_REQUEST) => {}
            }
        };
        let mut silence = pin!(silence);
        let mut closing = pin!(guard.closing().cancelled());
        let mut cut = pin!(guard.cut().cancelled());
        let mut stalled = pin!(guard.stalled().cancelled());
        // Every request wakes the connection several times, and none of these.
        let (gate, mut is_closing) = (Gate::default(), false);
        let ended = loop {
            let aside = poll_fn(|cx| {
                gate.poll(cx, |cx| {
                    if cut.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Aside::Cut);
                    }
                    if stalled.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Aside::Stalled);
                    }
                    if !is_closing && closing.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Aside::Closing);
                    }
                    silence.as_mut().poll(cx).map(|()| Aside::Silent)
                })
            });
            tokio::select! {
                biased;
                ended = connection.as_mut() => break ended,
                aside = aside => match aside {
                    // An idle connection is closed, a request under way is the last one.
                    Aside::Closing => {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Aside::Cut | Aside::Silent => return,
                    Aside::Stalled => {
                        guard.note_stalled();
                        return;
                    }
                },
            }
        };
        if let Err(error) = ended {
            // Clients vanish, stall and send nonsense all day.
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}

/// What ends a connection from our side.
enum Aside {
    Closing,
    Cut,
    /// It has asked for nothing.
    Silent,
    Stalled,
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    TowerToHyperService::new(router).call(request).await
}
