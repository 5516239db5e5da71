//! Hostile clients of every kind at once, and honest ones that must not notice.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::interval;

use super::raw::{Raw, header};
use super::{goes_on, replica};
use crate::follower::{Follower, Way};
use crate::load::{Load, lost_and_doubled_nothing, received};

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;

/// How many of each kind there are.
const OF_EACH: usize = 5;

/// The status that a request is answered with; nothing when it is cut off.
async fn status(url: &str, request: &[u8]) -> String {
    let mut raw = Raw::connect(url).await;
    raw.write(request).await;
    let answer = String::from_utf8_lossy(&raw.rest().await).into_owned();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

async fn header_bombs(url: String) {
    let long = "x".repeat(64 << 10);
    let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n");
    assert_eq!(status(&url, request.as_bytes()).await, "431");
    let many = "X: x\r\n".repeat(10_000);
    let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    // Whether the number or the size is noticed first depends on how they arrive.
    assert!(["431", "400"].contains(&status(&url, request.as_bytes()).await.as_str()));
    let request = format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(["431", "414"].contains(&status(&url, request.as_bytes()).await.as_str()));
}

/// A byte now and then, so that there is always something new: the time is for all of the headers.
async fn slow_headers(url: String) {
    let mut raw = Raw::connect(&url).await;
    let mut pace = interval(Duration::from_millis(20));
    for byte in b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ".iter().chain([&b'x'; 200]) {
        pace.tick().await;
        raw.write(&[*byte]).await;
    }
    let answer = raw.rest().await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

async fn slow_bodies(url: String) {
    let head = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{";
    assert_eq!(status(&url, head.as_bytes()).await, "408");
}

async fn huge_bodies(url: String) {
    let head =
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(status(&url, head.as_bytes()).await, "413");
}

async fn huge_frames(url: String) {
    let mut raw = Raw::websocket(&url).await;
    raw.write(&header(TEXT, 1 << 40, 0x80)).await;
    raw.write(&[0; 4]).await;
    assert_eq!(raw.close_code().await, 4413);
}

/// Frames of every kind count, those that are answered below the protocol too.
async fn floods(url: String) {
    for (first, payload) in [(TEXT, &b"{\"op\":\"ping\"}"[..]), (PING, b"x"), (0x8a, b"")] {
        let mut raw = Raw::websocket(&url).await;
        for _ in 0..2_000 {
            raw.frame(first, payload).await;
        }
        assert_eq!(raw.close_code().await, 4429, "frames that begin with {first:x}");
    }
}

async fn bad_text(url: String) {
    let mut raw = Raw::websocket(&url).await;
    raw.frame(TEXT, b"{\"op\":\"\xff\"}").await;
    assert_eq!(raw.close_code().await, 4400);
    let body = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\n\"\xff\"";
    assert_eq!(status(&url, body).await, "400");
}

async fn wrong_origins(url: String) {
    for target in ["/v1/ws", "/v1/sse", "/v1/messages?topic=*"] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.test\r\n\
             Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(status(&url, request.as_bytes()).await, "403", "{target}");
    }
}

/// As they stand: a library would tidy them up first.
async fn path_tricks(url: String) {
    let mut wrong = Vec::new();
    for (line, expected) in [
        ("GET /../../etc/passwd", "404"),
        ("GET /v1/../livez", "404"),
        ("GET /./livez", "404"),
        ("GET //livez", "404"),
        ("GET /livez/", "404"),
        ("GET /%6c%69vez", "404"),
        ("GET /livez%00", "404"),
        ("GET /livez%2f..", "404"),
        ("GET /livez;x=1", "404"),
        ("GET /LIVEZ", "404"),
        ("GET \\livez", "400"),
        ("GET livez", "404"),
        // What follows the mark is for the client alone, and is left out.
        ("GET /livez#x", "200"),
        ("GET /a\tb", "400"),
        ("GET http://evil.test/etc/passwd", "404"),
        ("CONNECT evil.test:443", "404"),
        ("OPTIONS *", "200"),
        ("TRACE /livez", "405"),
        ("BREW /livez", "405"),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answered = status(&url, request.as_bytes()).await;
        if answered != expected {
            wrong.push((line, answered));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_hostile_clients_do_honest_ones_get_everything() {
    let settings = [("TIDINGS_HEADER_TIMEOUT_S", "1"), ("TIDINGS_BODY_TIMEOUT_S", "1")];
    let replica = replica("", &settings).await;
    let urls = vec![replica.url.clone()];
    let honest = Way::ALL.map(|way| Follower::start(way, urls.clone(), "load:*", None));
    for follower in &honest {
        follower.connected().await;
    }
    let load = Load::paced(&urls, 4, Duration::from_millis(5));
    received(&honest, 10).await;
    let mut hostile: Vec<BoxFuture<'static, ()>> = Vec::new();
    for _ in 0..OF_EACH {
        let url = || replica.url.clone();
        hostile.extend([
            Box::pin(header_bombs(url())) as BoxFuture<'static, ()>,
            Box::pin(slow_headers(url())),
            Box::pin(slow_bodies(url())),
            Box::pin(huge_bodies(url())),
            Box::pin(huge_frames(url())),
            Box::pin(floods(url())),
            Box::pin(bad_text(url())),
            Box::pin(wrong_origins(url())),
            Box::pin(path_tricks(url())),
        ]);
    }
    join_all(hostile).await;
    let published = load.end().await;
    lost_and_doubled_nothing(&honest, &published).await;
    for follower in honest.iter().filter(|follower| follower.way != Way::LongPoll) {
        assert_eq!(follower.seen().connects, 1, "{:?} was disturbed", follower.way);
    }
    drop(honest);
    goes_on(replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_never_ends_closes_the_socket() {
    let replica = replica("", &[("TIDINGS_HEARTBEAT_S", "1")]).await;
    let mut raw = Raw::websocket_with(&replica.url, "\"heartbeat_s\":1}").await;
    let mut half = header(TEXT, 100, 0x80);
    half.extend_from_slice(b"\0\0\0\0{\"op\":");
    raw.write(&half).await;
    assert_eq!(raw.close_code().await, 4408);
    goes_on(replica).await;
}
