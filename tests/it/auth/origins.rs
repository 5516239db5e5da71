//! From which pages a replica may be asked, and under which names.

use crate::auth::tokens::API_KEY;
use crate::client;
use crate::fleet::Replica;

async fn statuses(replica: &Replica, headers: &[(&str, &str)]) -> Vec<u16> {
    let http = reqwest::Client::new();
    let mut statuses = Vec::new();
    for target in ["/v1/stats", "/v1/sse", "/v1/messages?topic=a", "/v1/nothing"] {
        let mut request = http.get(format!("{}{target}", replica.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        statuses.push(request.send().await.unwrap().status().as_u16());
    }
    let opened = client::connect(&replica.url, "/v1/ws", headers).await;
    statuses.push(match opened {
        Ok(_) => 200,
        Err(error) => match *error {
            tokio_tungstenite::tungstenite::Error::Http(response) => response.status().as_u16(),
            error => panic!("{error}"),
        },
    });
    statuses
}

const LET_IN: [u16; 5] = [200, 200, 200, 404, 200];
const REFUSED: [u16; 5] = [403; 5];

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_allowed_origins_may_ask() {
    let key = format!("Bearer {API_KEY}");
    for (allowed, origin, expected) in [
        (None, None, LET_IN),
        (None, Some("https://app.test"), REFUSED),
        (None, Some("null"), REFUSED),
        (None, Some(""), REFUSED),
        (Some("https://app.test"), Some("https://app.test"), LET_IN),
        (Some("https://app.test"), Some("https://app.test:444"), REFUSED),
        (Some("https://app.test"), Some("https://app.test.evil.test"), REFUSED),
        (Some("https://app.test"), Some("http://app.test"), REFUSED),
        (Some("*"), Some("https://evil.test"), LET_IN),
    ] {
        let mut settings = vec![("TIDINGS_DEV", "false"), ("TIDINGS_API_KEYS", API_KEY)];
        settings.extend(allowed.map(|allowed| ("TIDINGS_ALLOWED_ORIGINS", allowed)));
        let replica = Replica::start("replica-1", "", &settings).await;
        let mut headers = vec![("authorization", key.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        assert_eq!(statuses(&replica, &headers).await, expected, "{allowed:?} {origin:?}");
        // Pages that the replica served itself.
        let own = replica.url.clone();
        let headers = [("authorization", key.as_str()), ("origin", own.as_str())];
        assert_eq!(statuses(&replica, &headers).await, LET_IN, "{allowed:?} its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_dev_mode_a_replica_answers_to_names_of_this_machine_only() {
    let replica = Replica::start("replica-1", "", &[]).await;
    for (headers, expected) in [
        (vec![], LET_IN),
        (vec![("host", "localhost:8080")], LET_IN),
        (vec![("host", "[::1]:8080")], LET_IN),
        // A name that somebody made point here: its pages are of the same origin as the replica.
        (vec![("host", "evil.test")], REFUSED),
        (vec![("host", "evil.test:80"), ("origin", "http://evil.test:80")], REFUSED),
        (vec![("host", "localhost.evil.test")], REFUSED),
        (vec![("host", "127.0.0.1.evil.test")], REFUSED),
        (vec![("host", "localhost:8080"), ("origin", "https://evil.test")], REFUSED),
    ] {
        assert_eq!(statuses(&replica, &headers).await, expected, "{headers:?}");
    }
}
