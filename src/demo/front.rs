//! One address for all replicas: each new connection goes to the next one that is ready.
//!
//! It passes bytes and reads none of them, like the simplest of load balancers; so what the demo
//! shows of clients that go elsewhere is what they do behind a real one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::replica::Replica;
use super::{DemoError, say};

/// Where one looks first; others follow ten apart, so that they do not meet those of the replicas.
const PORT: u16 = 8080;
const PORT_STEP: u16 = 10;
const PORTS_TRIED: u16 = 100;

/// More than somebody who looks around opens; with more, the next one waits in the kernel.
const CONNECTIONS_MAX: usize = 1_024;
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// After an accept that failed, or while no replica is ready.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Front {
    listener: TcpListener,
    pub port: u16,
}

impl Front {
    pub async fn bind() -> Result<Front, DemoError> {
        for step in 0..PORTS_TRIED {
            let port = PORT + step * PORT_STEP;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if let Ok(listener) = TcpListener::bind(address).await {
                return Ok(Front { listener, port });
            }
            say(&format!("front: port {port} is taken."));
        }
        Err(DemoError::NoPort("the front".to_owned()))
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs until it is dropped, and its connections with it.
    pub async fn run(&self, replicas: &[Replica]) {
        let mut turn: usize = 0;
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                    Ok((near, _)) => {
                        turn = turn.wrapping_add(1);
                        open.push(pass(near, replicas, turn));
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                Some(()) = open.next() => {}
            }
        }
    }
}

/// To the first that takes it, beginning with the one whose turn it is.
async fn pass(mut near: TcpStream, replicas: &[Replica], from: usize) {
    let _ = near.set_nodelay(true);
    for step in 0..replicas.len() {
        let Some(port) = replicas[(from + step) % replicas.len()].ready_port() else { continue };
        let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        if let Ok(Ok(mut far)) = timeout(CONNECT_WITHIN, far).await {
            let _ = far.set_nodelay(true);
            // However it ends, both ends are told by the drop of their sockets.
            let _ = copy_bidirectional(&mut near, &mut far).await;
            return;
        }
    }
    // Nobody is ready: whoever came tries again, and the pause keeps it from doing so at once.
    tokio::time::sleep(PAUSE).await;
}
