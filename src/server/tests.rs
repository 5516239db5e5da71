//! The accept loop: its bounds, and a drain that ends.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Extension;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

/// Nothing here takes a second; whoever waits this long hangs.
const HANG: Duration = Duration::from_secs(10);
const GET: &[u8] = b"GET /peer HTTP/1.1\r\nhost: a\r\n\r\n";

struct Running {
    address: SocketAddr,
    shutdown: Shutdown,
    metrics: Metrics,
    served: JoinHandle<Served>,
    hand: Hand,
}

/// What a test shares with its handlers.
#[derive(Clone, Default)]
struct Hand {
    /// Lets the handler of `/slow` answer.
    go: Arc<Notify>,
    /// Handlers that have come to the point where they wait.
    waiting: Arc<AtomicUsize>,
}

impl Hand {
    fn waits(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }
}

fn bounds() -> Bounds {
    Bounds {
        connections_max: 4,
        header_timeout: HANG,
        accept_grace: Duration::ZERO,
        drain: HANG,
        stall: HANG,
    }
}

fn router(hand: Hand) -> Router {
    let slow = |Extension(hand): Extension<Hand>| async move {
        hand.waits();
        hand.go.notified().await;
        "slow and yet answered"
    };
    let never = |Extension(hand): Extension<Hand>| async move {
        hand.waits();
        pending::<&'static str>().await
    };
    let peer = |Extension(Peer(peer)): Extension<Peer>| async move { peer.to_string() };
    Router::new()
        .route("/peer", get(peer))
        .route("/slow", get(slow))
        .route("/never", get(never))
        .route("/socket", get(socket))
        .layer(Extension(hand))
}

/// Says goodbye when the replica closes, unless it is asked by `stay` to be rude.
async fn socket(
    upgrade: WebSocketUpgrade,
    Extension(guard): Extension<ConnectionGuard>,
    Extension(hand): Extension<Hand>,
) -> Response {
    upgrade.on_upgrade(move |mut socket| async move {
        let closing = guard.closing().clone();
        let work = async {
            tokio::select! {
                Some(Ok(_)) = socket.recv() => {
                    hand.waits();
                    pending::<()>().await;
                }
                () = closing.cancelled() => {}
            }
            let _ = socket.send(Message::Close(None)).await;
        };
        guard.hold(work).await;
    })
}

fn start(bounds: Bounds) -> Running {
    let (hand, shutdown, metrics) = (Hand::default(), Shutdown::new(), Metrics::new());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(any, router(hand.clone()), bounds, metrics.clone()).unwrap();
    let address = server.local_addr().unwrap();
    let served = tokio_util::task::TaskTracker::new().spawn(server.run(shutdown.clone()));
    Running { address, shutdown, metrics, served, hand }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn connections(&self, count: i64) {
        self.until(|| self.metrics.server.connections.get() == count).await;
    }

    async fn waiting(&self, count: usize) {
        self.until(|| self.hand.waiting.load(Ordering::SeqCst) == count).await;
    }

    async fn until(&self, reached: impl Fn() -> bool) {
        let wait = async {
            while !reached() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(HANG, wait).await.expect("the state is reached");
    }

    async fn served(self) -> Served {
        tokio::time::timeout(HANG, self.served).await.expect("nothing hangs").unwrap()
    }
}

/// Everything until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(HANG, read).await.expect("the connection is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = tokio::time::timeout(HANG, stream.read(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test]
async fn a_request_is_answered_and_knows_its_peer() {
    let running = start(bounds());
    let mut stream = running.send(GET).await;
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with(&stream.local_addr().unwrap().to_string()), "{answer}");
}

#[tokio::test]
async fn a_client_that_dawdles_over_its_headers_is_closed() {
    let running = start(Bounds { header_timeout: Duration::from_millis(50), ..bounds() });
    let dawdling = running.send(b"GET /peer HTTP/1.1\r\nhost: ").await;
    let silent = running.connect().await;
    assert!(!rest(dawdling).await.contains("200"));
    assert_eq!(rest(silent).await, "");
    running.connections(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_nothing_is_closed_sooner_than_one_that_idles() {
    let running = start(Bounds { header_timeout: HANG * 10, ..bounds() });
    let begun = Instant::now();
    let mut silent = running.connect().await;
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(begun.elapsed() <= HANG + Duration::from_secs(1), "{:?}", begun.elapsed());
    let mut idle = running.send(GET).await;
    let begun = Instant::now();
    head(&mut idle).await;
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(begun.elapsed() > HANG * 9, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn headers_have_a_bound_in_bytes() {
    let running = start(bounds());
    let long = format!("GET /peer HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(20 << 10));
    assert!(rest(running.send(long.as_bytes()).await).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn at_the_cap_the_next_one_is_told_at_once_and_a_place_that_is_left_is_given_again() {
    let running = start(bounds());
    let mut inside = Vec::new();
    for _ in 0..4 {
        inside.push(running.connect().await);
    }
    running.connections(4).await;
    let refused = rest(running.send(GET).await).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    inside.pop();
    running.connections(3).await;
    assert!(head(&mut running.send(GET).await).await.starts_with("HTTP/1.1 200"));
    let page = running.metrics.encode();
    assert!(page.contains("tidings_server_refused_total{reason=\"full\"} 1"), "{page}");
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_closes_what_is_idle() {
    let running = start(bounds());
    let mut idle = running.send(GET).await;
    head(&mut idle).await;
    let slow = running.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    running.waiting(1).await;
    running.shutdown.drain();
    assert_eq!(rest(idle).await, "");
    assert!(TcpStream::connect(running.address).await.is_err(), "the listener is closed");
    running.hand.go.notify_one();
    let answer = rest(slow).await;
    assert!(answer.ends_with("slow and yet answered"), "{answer}");
    assert_eq!(running.served().await, Served { aborted: 0 });
}

#[tokio::test]
async fn while_load_balancers_catch_up_a_draining_replica_still_answers() {
    let running = start(Bounds { accept_grace: HANG, ..bounds() });
    running.shutdown.drain();
    tokio::task::yield_now().await;
    let answer = rest(running.send(GET).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    running.shutdown.stop();
    assert_eq!(running.served().await, Served { aborted: 0 });
}

#[tokio::test]
async fn what_never_ends_is_cut_off_and_counted() {
    let running = start(Bounds { drain: Duration::from_millis(50), ..bounds() });
    let stuck = running.send(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let url = format!("ws://{}/socket", running.address);
    let (mut rude, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    futures_util::SinkExt::send(&mut rude, "stay".into()).await.unwrap();
    running.waiting(2).await;
    running.shutdown.drain();
    let metrics = running.metrics.clone();
    assert_eq!(running.served().await, Served { aborted: 2 });
    assert_eq!(rest(stuck).await, "");
    assert!(rude.next().await.is_none_or(|last| last.is_err()));
    assert_eq!((metrics.server.connections.get(), metrics.server.aborted.get()), (0, 2));
}

#[tokio::test]
async fn a_websocket_counts_until_it_ends_and_is_told_to_go() {
    let running = start(bounds());
    let url = format!("ws://{}/socket", running.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    running.connections(1).await;
    running.shutdown.drain();
    assert!(socket.next().await.is_some_and(|last| last.unwrap().is_close()));
    assert_eq!(running.served().await, Served { aborted: 0 });
}

#[tokio::test]
async fn a_second_signal_cuts_the_drain_short() {
    let running = start(bounds());
    let _stuck = running.send(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    running.waiting(1).await;
    running.shutdown.stop();
    assert_eq!(running.served().await, Served { aborted: 1 });
}
