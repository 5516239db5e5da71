//! The settings of the part `server`.

use std::time::Duration;

use reqwest::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::{Answer, Raw, Socket, get};
use super::{in_memory, refused};
use crate::fleet::{Replica, until};

/// Far longer than any test: what ends within it ended for another reason.
const LONG_S: &str = "600";

/// A request that is never finished, and that the replica has in hand.
async fn unfinished(replica: &Replica) -> Raw {
    let head = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n";
    let mut request = Raw::send(replica, &format!("{head}expect: 100-continue\r\n\r\n")).await;
    request.until("100 Continue").await;
    request
}

async fn can_connect(replica: &Replica) -> bool {
    TcpStream::connect(replica.url.strip_prefix("http://").unwrap()).await.is_ok()
}

#[tokio::test]
pub(super) async fn clients_are_served_where_it_says() {
    let mut replica = in_memory(&[]).await;
    let url = replica.url.clone();
    let (code, said) = refused(&[("listen", url.strip_prefix("http://").unwrap())]).await;
    assert_eq!(code, Some(1), "it is taken");
    assert!(said.contains("cannot listen on"), "{said}");
    replica.kill().await;
    replica.start_again().await;
    assert_eq!(replica.url, url);
    assert_eq!(get(&replica, "/livez").await.status, 200);
}

#[tokio::test]
pub(super) async fn health_and_metrics_listen_apart() {
    let replica = in_memory(&[("ops_listen", "127.0.0.1:0")]).await;
    let ops_url = replica.ops_url.clone().expect("it says where");
    for path in ["/livez", "/readyz", "/metrics"] {
        let apart = reqwest::get(format!("{ops_url}{path}")).await.unwrap();
        assert_eq!(apart.status(), 200, "{path}");
        get(&replica, path).await.is_problem(404);
    }
    let elsewhere = reqwest::get(format!("{ops_url}/v1/stats")).await.unwrap();
    assert_eq!(elsewhere.status(), 404);

    let together = in_memory(&[]).await;
    assert_eq!(together.ops_url, None);
    assert_eq!(get(&together, "/metrics").await.status, 200);
}

#[tokio::test]
pub(super) async fn pages_of_other_origins_are_let_in_when_named() {
    let page = "https://app.example.com";
    let ask = async |replica: &Replica, method: &str| {
        let url = format!("{}/v1/messages?topic=a", replica.url);
        let request = reqwest::Client::new().request(method.parse().unwrap(), url);
        let request = request.header(ORIGIN, page).header("access-control-request-method", "POST");
        Answer::of(request.send().await.unwrap()).await
    };
    let own = in_memory(&[]).await;
    ask(&own, "GET").await.is_problem(403);
    assert!(!ask(&own, "OPTIONS").await.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    for origins in ["https://other.example.com,https://app.example.com", "*"] {
        let open = in_memory(&[("allowed_origins", origins)]).await;
        for method in ["GET", "OPTIONS"] {
            let answer = ask(&open, method).await;
            assert_eq!(answer.status, 200, "{origins}: {}", answer.text);
            let told = &answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN];
            assert_eq!(told, page, "or no browser would let the page read it");
            assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        }
        let (asked, got) = (ask(&open, "OPTIONS").await, ask(&open, "GET").await);
        let listed = |answer: &Answer, header: &str| {
            let text = answer.headers[&*format!("access-control-{header}")].to_str().unwrap();
            let mut names: Vec<String> =
                text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(listed(&asked, "allow-methods"), "delete get patch post");
        let headers = "authorization content-type last-event-id traceparent";
        assert_eq!(listed(&asked, "allow-headers"), headers);
        assert_eq!(listed(&got, "expose-headers"), "retry-after");
    }
    let others = in_memory(&[("allowed_origins", "https://other.example.com")]).await;
    ask(&others, "GET").await.is_problem(403);
}

#[tokio::test]
pub(super) async fn a_drain_ends_in_time() {
    let mut replica = in_memory(&[("drain_s", "1")]).await;
    let _unfinished = unfinished(&replica).await;
    let begun = Instant::now();
    replica.signal("-TERM");
    let line = replica.said("cut off at the end of the drain").await;
    assert!(line.contains("\"connections\":1"), "{line}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "it waited for its clients");
    assert_eq!(replica.ended().await, Some(0));

    let mut hurried = in_memory(&[("drain_s", "0")]).await;
    let _unfinished = unfinished(&hurried).await;
    hurried.signal("-TERM");
    hurried.said("cut off at the end of the drain").await;
    assert_eq!(hurried.ended().await, Some(0));
}

#[tokio::test]
pub(super) async fn a_leaving_replica_takes_connections_for_its_grace_only() {
    let patient = [("drain_s", "601"), ("accept_grace_s", LONG_S)];
    let mut patient = in_memory(&patient).await;
    patient.signal("-TERM");
    until("it answers on a new connection that it leaves", async || {
        patient.readyz().await["draining"] == true
    })
    .await;
    assert!(can_connect(&patient).await);
    patient.signal("-TERM");
    patient.ended().await;

    let mut brisk = in_memory(&[("drain_s", LONG_S), ("accept_grace_s", "0")]).await;
    let unfinished = unfinished(&brisk).await;
    brisk.signal("-TERM");
    until("nobody is let in", async || !can_connect(&brisk).await).await;
    brisk.signal("-TERM");
    brisk.ended().await;
    unfinished.rest().await;
}

#[tokio::test]
pub(super) async fn a_connection_too_many_is_answered_503() {
    let replica = in_memory(&[("connections_max", "3"), ("sessions_max", "2")]).await;
    let mut held = Vec::new();
    while held.len() < 2 {
        // The connection on which it was asked whether it is ready may still be there.
        held.extend(Socket::try_open(&replica, "").await);
    }
    let _silent = Raw::send(&replica, "").await;
    let refused = get(&replica, "/livez").await;
    refused.is_problem(503).says_when_to_come_back();
    drop(held.pop());
    until("there is a place again", async || {
        reqwest::get(format!("{}/livez", replica.url)).await.is_ok_and(|it| it.status() == 200)
    })
    .await;
}

#[tokio::test]
pub(super) async fn a_connection_that_sends_no_headers_is_closed() {
    let replica = in_memory(&[("header_timeout_s", "1")]).await;
    let begun = Instant::now();
    let silent = Raw::send(&replica, "").await;
    let dawdling = Raw::send(&replica, "GET /livez HTTP/1.1\r\nhost: ").await;
    assert_eq!(silent.rest().await, "");
    assert!(!dawdling.rest().await.contains("200 OK"));
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
pub(super) async fn a_connection_that_idles_between_two_requests_is_closed() {
    let replica = in_memory(&[("header_timeout_s", "1"), ("heartbeat_s", "1")]).await;
    let request = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut idle = Raw::send(&replica, request).await;
    idle.until("{\"status\":\"live\"}").await;
    assert_eq!(idle.rest().await, "");

    // An answer that goes on for longer is not between two requests.
    let mut stream = Raw::get(&replica, "/v1/sse?topics=a").await;
    for _ in 0..3 {
        stream.until("event: cursor").await;
    }
}
