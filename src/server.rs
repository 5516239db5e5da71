//! The accept loop: every connection is counted, bounded in time and memory, and accounted for.
//!
//! `axum::serve` has no bound on headers, connections or time, its WebSockets escape a graceful
//! shutdown and its event streams block one for ever. Here each connection holds a
//! `ConnectionGuard`, and so does whatever a handler lets outlive its response; the drain waits
//! for guards, not for tasks that it happens to know.
//!
//! ```text
//!           draining             accept_grace over             drain over, or stopping
//! serving ------------> last ones -----------------> closing -------------------------> cutting
//! (accepts)   (accepts, but keeps none alive)  (listener closed, idle ones closed,   (aborts, and
//!                                              requests finish, guards see `closing`)  says how many)
//! ```
//!
//! At the cap a connection is answered 503 at once rather than left in the backlog: a client that
//! is told goes elsewhere, one that waits in a queue of the kernel looks like a dead server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::TokioTimer;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::config;
use crate::metrics::Metrics;
use crate::supervise::Shutdown;

mod connection;
pub mod descriptors;
mod guard;
mod stall;

pub use connection::Peer;
pub use guard::ConnectionGuard;

use guard::Gate;
use stall::Watched;

/// Connections that the kernel holds while the loop is busy: a fleet that comes back at once. Whom it
/// cannot hold tries again after a second. Linux grants no more than `net.core.somaxconn`.
const BACKLOG: i32 = 8192;
/// Headers, a long token in the query among them, and the buffer behind every connection.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Without a free file descriptor accepting fails at once, over and over.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Beyond the time in which a client is told that it is too slow: who does not even acknowledge that
/// is not there.
#[cfg(target_os = "linux")]
const LOST: Duration = Duration::from_secs(15);
/// After connections are cut off their tasks need a moment to fall.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A bound listener and what it serves.
pub struct Server {
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    metrics: Metrics,
}

/// What the settings say about connections.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections_max: usize,
    pub header_timeout: Duration,
    pub accept_grace: Duration,
    pub drain: Duration,
    /// How long a client may take nothing from its socket.
    pub stall: Duration,
}

impl Bounds {
    pub fn new(settings: &config::Server, stall: Duration) -> Bounds {
        Bounds {
            connections_max: settings.connections_max,
            header_timeout: settings.header_timeout,
            accept_grace: settings.accept_grace,
            drain: settings.drain,
            stall,
        }
    }
}

/// Over how long farewells are spread once the listener is closed. The rest of the drain is for what
/// is still under way at the last of them, and for clients that take their time to go.
pub fn farewells(settings: &config::Server) -> Duration {
    settings.drain.saturating_sub(settings.accept_grace).mul_f64(0.7)
}

/// How serving ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    /// Connections that did not end in time.
    pub aborted: usize,
}

impl Server {
    pub fn bind(
        address: SocketAddr,
        router: Router,
        bounds: Bounds,
        metrics: Metrics,
    ) -> io::Result<Server> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A replica that restarts must not wait for the connections of the one before it.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        Ok(Server { listener, router, bounds, metrics })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the replica drains, and returns when the last connection is gone.
    pub async fn run(self, shutdown: Shutdown) -> Served {
        let Server { listener, router, bounds, metrics } = self;
        let gate = Gate::new(bounds.connections_max, metrics);
        let door = Door { router, gate, http: http(bounds.header_timeout), stall: bounds.stall };
        tokio::select! {
            () = door.accept(&listener, true) => {}
            () = shutdown.draining.cancelled() => {}
        }
        let cut_at = Instant::now() + bounds.drain;
        tokio::select! {
            () = door.accept(&listener, false) => {}
            () = tokio::time::sleep(bounds.accept_grace) => {}
            () = shutdown.stopping.cancelled() => {}
        }
        // From here on the kernel refuses, and clients go elsewhere at once.
        drop(listener);
        door.gate.close();
        if shutdown.stopping.is_cancelled() {
            // Idle connections close at once; they need a moment to do so.
            let _ = tokio::time::timeout(CUT_GRACE, door.gate.empty()).await;
        }
        tokio::select! {
            () = door.gate.empty() => return Served { aborted: 0 },
            () = tokio::time::sleep_until(cut_at) => {}
            () = shutdown.stopping.cancelled() => {}
        }
        door.cut().await
    }
}

/// What every connection is served with.
struct Door {
    router: Router,
    gate: Arc<Gate>,
    http: hyper::server::conn::http1::Builder,
    stall: Duration,
}

impl Door {
    /// Never returns; whoever has waited long enough drops it.
    async fn accept(&self, listener: &TcpListener, keep_alive: bool) {
        let mut told: Option<Instant> = None;
        let mut http = self.http.clone();
        http.keep_alive(keep_alive);
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.admit(stream, peer, &http),
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    // It comes back with every try, and a log that fills the disk helps nobody.
                    if told.is_none_or(|told| told.elapsed() >= ACCEPT_TOLD_EVERY) {
                        tracing::error!(%error, "no connection can be accepted");
                        told = Some(Instant::now());
                    }
                    self.gate.refused("accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        http: &hyper::server::conn::http1::Builder,
    ) {
        // Frames are written whole; waiting for more to send with them helps nobody.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection was gone before it was served");
            return;
        }
        // A host that vanished acknowledges nothing, and little is sent to an event stream: without
        // this the kernel would hold on to it for a quarter of an hour.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.stall + LOST));
        match self.gate.enter() {
            Some(guard) => {
                let stream = Watched::new(stream, self.stall, guard.stalled().clone());
                let serve = connection::serve(stream, peer, self.router.clone(), http, guard);
                self.gate.spawn(serve);
            }
            None => self.gate.turn_away(stream),
        }
    }

    /// Ends what is left, and says how much that was.
    async fn cut(&self) -> Served {
        let aborted = self.gate.held();
        tracing::warn!(connections = aborted, "connections did not end in time and are cut off");
        self.gate.cut();
        if tokio::time::timeout(CUT_GRACE, self.gate.empty()).await.is_err() {
            let connections = self.gate.held();
            tracing::error!(connections, "handlers hold connections that were cut off");
        }
        Served { aborted }
    }
}

/// The memory of a connection is bounded by the buffer, and nothing is done that few clients need.
fn http(header_timeout: Duration) -> hyper::server::conn::http1::Builder {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .half_close(false)
        .pipeline_flush(false);
    http
}

/// The client went away between the handshake and `accept`; that is no fault of ours.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
