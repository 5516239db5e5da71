//! Streams that are none, and places where none may be read: each is refused with a word that says what.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::header::{self, HeaderName};
use serde_json::{Value, json};

use super::station::Station;
use super::{ask, borrowed, counter, create, get, settings, source, until_status};
use crate::fleet::{Replica, until};

const STREAM: (HeaderName, &str) = (header::CONTENT_TYPE, "text/event-stream");

fn headers(all: &[(HeaderName, &str)]) -> Vec<(HeaderName, String)> {
    all.iter().map(|(name, value)| (name.clone(), (*value).to_owned())).collect()
}

async fn until_failing(replica: &Replica, name: &str, why: &str) {
    until(&format!("{name} fails: {why}"), async || {
        let shown = get(replica, &format!("/v1/sources/{name}")).await;
        shown["status"] == "failing" && shown["detail"].as_str().is_some_and(|is| is.contains(why))
    })
    .await;
}

#[tokio::test]
async fn whatever_is_no_stream_is_refused_with_a_reason() {
    let station = Station::start().await;
    let replica = Replica::in_memory("refused", &borrowed(&settings(&station))).await;
    // Answers that lead to themselves, for ever.
    let around = [(header::LOCATION, station.url("around"))];
    station.answer_with("around", 308, &around, "");
    let zip = [STREAM, (header::CONTENT_ENCODING, "gzip")];
    station.answer_with("zip", 200, &headers(&zip), &b"\x1f\x8b\x08\0"[..]);
    let page = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    station.answer_with("page", 200, &headers(&page), "<p>text/event-stream");
    station.answer_with("typeless", 200, &[], "data: {}\n\n");
    station.answer_with("astray", 302, &headers(&[(header::LOCATION, "//")]), "");
    station.answer_with("file", 302, &headers(&[(header::LOCATION, "file:///etc/passwd")]), "");
    for (name, status) in [("broken", 500), ("gone", 410), ("unknown", 401)] {
        station.answer(name, Some((status, None)));
    }
    for (name, why) in [
        ("around", "more than 5 redirects"),
        ("zip", "compressed"),
        ("page", "text/event-stream"),
        ("typeless", "text/event-stream"),
        ("astray", "a redirect that leads nowhere"),
        ("file", "http or https"),
        ("broken", "it answers 500"),
        ("gone", "it answers 410"),
        ("unknown", "it answers 401"),
    ] {
        source(&replica, &station, name).await;
        let (status, tested) =
            ask(&replica, "POST", &format!("/v1/sources/{name}/test"), None).await;
        assert_eq!((status, &tested["ok"]), (200, &json!(false)), "{name}");
        assert!(tested["detail"].as_str().unwrap().contains(why), "{name}: {tested}");
        until_failing(&replica, name, why).await;
    }
    // One look follows five redirects, and no more.
    assert!(station.connections("around") >= 6);
    // Whatever it was, it is read as soon as it is a stream.
    station.answer("broken", None);
    station.count("broken", "i", 5);
    until_status(&replica, "broken", "connected").await;
    until("it counts", async || counter(&replica, "broken", "i").await == Some(5)).await;
}

#[tokio::test]
async fn a_name_leads_to_no_address_inside_that_is_not_listed() {
    let station = Station::start().await;
    let place = format!("localhost:{}", station.address.port());
    let mut settings = settings(&station);
    settings[0].1 = place.clone();
    let replica = Replica::in_memory("inside", &borrowed(&settings)).await;
    create(&replica, &json!({"name": "a", "url": format!("http://{place}/a")})).await;
    until_failing(&replica, "a", "no address that may be reached").await;
    until_failing(&replica, "a", "telemetry_hosts").await;
    assert_eq!(station.connections("a"), 0);
    settings[0].1 = format!("{place},127.0.0.0/8");
    let replica = Replica::in_memory("listed", &borrowed(&settings)).await;
    create(&replica, &json!({"name": "a", "url": format!("http://{place}/a")})).await;
    until_status(&replica, "a", "connected").await;
}

#[tokio::test]
async fn whoever_ends_no_line_is_silent_and_an_event_that_never_ends_is_none() {
    let station = Station::start().await;
    let mut settings = settings(&station);
    settings.push(("TIDINGS_TELEMETRY_SILENCE_MS", "1000".to_owned()));
    let replica = Replica::in_memory("endless", &borrowed(&settings)).await;
    for name in ["dribble", "flood", "talks"] {
        source(&replica, &station, name).await;
        until_status(&replica, name, "connected").await;
    }
    // Bytes come all the time, and say nothing; comments are enough to be heard.
    let flooded = AtomicUsize::new(0);
    until("it is connected to anew", async || {
        station.send("dribble", "x");
        station.send("talks", ":\n");
        if flooded.fetch_add(64 << 10, Ordering::Relaxed) < 8 << 20 {
            station.send("flood", format!("data: {}\n", "y".repeat(64 << 10)));
        }
        station.connections("dribble") >= 2 && station.connections("flood") >= 2
    })
    .await;
    assert_eq!(station.connections("talks"), 1);
    let reconnects = replica.metric("tidings_telemetry_reconnects_total").await;
    assert!(reconnects >= 2, "{reconnects}");
}

#[tokio::test]
async fn why_a_stream_was_given_up_is_said() {
    let station = Station::start().await;
    let mut settings = settings(&station);
    settings.push(("TIDINGS_TELEMETRY_SILENCE_MS", "1000".to_owned()));
    for (piece, why) in
        [("x".to_owned(), "silent"), (format!("data: {}\n", "y".repeat(5 << 20)), "does not end")]
    {
        let replica = Replica::in_memory("why", &borrowed(&settings)).await;
        let mut socket =
            crate::client::connect(&replica.url, "/v1/ws?topics=source:a", &[]).await.unwrap();
        source(&replica, &station, "a").await;
        until_status(&replica, "a", "connected").await;
        station.send("a", piece);
        let said = loop {
            let frame: Value = socket.frame().await;
            if frame["kind"] == "source.status" && frame["data"]["status"] == "failing" {
                break frame["data"]["detail"].as_str().unwrap().to_owned();
            }
        };
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_source_over_tls_is_trusted_by_its_authority_and_leads_no_secret_out() {
    let (station, plain) = (Station::start_tls().await, Station::start().await);
    let place = format!("localhost:{}", station.address.port());
    let mut settings = settings(&plain);
    settings[0].1 = format!("{place},{},127.0.0.0/8", plain.address);
    let secret = "s3cr3t-value";
    let body = json!({
        "name": "a", "url": format!("{}?token={secret}", station.url("a")), "headers": {"X-API-Key": secret},
    });
    // An authority that nobody knows vouches for nothing.
    let stranger = Replica::in_memory("stranger", &borrowed(&settings)).await;
    create(&stranger, &body).await;
    until_failing(&stranger, "a", "certificate").await;
    assert_eq!(station.connections("a"), 0);
    drop(stranger);
    let directory = tempfile();
    let file = directory.join("authority.pem");
    std::fs::write(&file, station.authority.as_deref().unwrap()).unwrap();
    settings.push(("SSL_CERT_FILE", file.to_str().unwrap().to_owned()));
    let mut replica = Replica::in_memory("trusts", &borrowed(&settings)).await;
    create(&replica, &body).await;
    until_status(&replica, "a", "connected").await;
    assert_eq!(station.header("a", "x-api-key").as_deref(), Some(secret));
    station.count("a", "i", 3);
    until("it counts", async || counter(&replica, "a", "i").await == Some(3)).await;
    // From TLS to none, and from there back to where the secret is at home.
    plain.answer("b", Some((307, Some(station.url("c")))));
    station.answer("a", Some((302, Some(plain.url("b")))));
    station.hang_up("a");
    until("it was led there and back", async || station.connections("c") == 1).await;
    for name in ["x-api-key", "referer", "authorization"] {
        assert_eq!(plain.header("b", name), None, "{name}");
    }
    let (_, said) = replica.leave_saying().await;
    assert!(!said.join("\n").contains(secret));
    std::fs::remove_dir_all(directory).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("tidings-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&directory).unwrap();
    directory
}
