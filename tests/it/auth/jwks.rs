//! Keys behind a URL: rotated, fetched seldom, and kept when their server is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidings::auth::{AuthError, AuthSettings, Authenticator, KeySource};
use tidings::clock::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::tokens::{API_KEY, claims, ec, ed, ed_wrong, rsa};
use crate::client::{self, Carrier};
use crate::fleet::Replica;

/// Longer than a replica waits between two fetches for unknown keys.
const PAUSE: Duration = Duration::from_secs(11);

/// Serves whatever it is told to, and counts.
struct KeyServer {
    url: String,
    answer: Arc<Mutex<(StatusCode, String)>>,
    fetches: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl KeyServer {
    async fn start(keys: &[Value]) -> KeyServer {
        let answer = Arc::new(Mutex::new((StatusCode::OK, String::new())));
        let fetches = Arc::new(AtomicUsize::new(0));
        let (told, count) = (answer.clone(), fetches.clone());
        let keys_page = get(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            let (status, text) = told.lock().clone();
            // Only a server that follows redirects would get there.
            (status, [("location", "/elsewhere")], text)
        });
        let router = Router::new().route("/keys", keys_page);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a server of a test, ended with it")]
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let server = KeyServer { url, answer, fetches, task };
        server.holds(keys);
        server
    }

    fn holds(&self, keys: &[Value]) {
        self.says(StatusCode::OK, json!({ "keys": keys }).to_string());
    }

    fn says(&self, status: StatusCode, text: String) {
        *self.answer.lock() = (status, text);
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn trusted(&self, algorithm: tidings::auth::Algorithm) -> Authenticator {
        let settings = AuthSettings {
            api_keys: Vec::new(),
            keys: Some(KeySource::Jwks(self.url.clone())),
            algorithm,
            issuer: None,
            audience: None,
            dev: false,
        };
        Authenticator::new(settings, Clock::system()).unwrap()
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn public(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    serde_json::to_value(jwk).unwrap()
}

fn signed(key: &EncodingKey, algorithm: Algorithm, id: Option<&str>) -> String {
    let header = Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, &claims(), key).unwrap()
}

/// Real sockets do not know that time was stopped, so it is stopped for as long as it takes to jump.
async fn pause_passes() {
    tokio::time::pause();
    tokio::time::advance(PAUSE).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_new_key_counts_at_once_and_an_old_one_no_longer() {
    let (old, new) = (ed(), ed_wrong());
    let server = KeyServer::start(&[public(&old, Algorithm::EdDSA, "old")]).await;
    let auth = server.trusted(tidings::auth::Algorithm::EdDsa);
    let by_old = signed(&old, Algorithm::EdDSA, Some("old"));
    let by_new = signed(&new, Algorithm::EdDSA, Some("new"));
    assert!(auth.authenticate(Some(&by_old), None).await.is_ok());
    assert_eq!(server.fetches(), 1);
    server.holds(&[public(&new, Algorithm::EdDSA, "new")]);
    // Fetched a moment ago: nobody can make it fetch again so soon, and nobody is turned away for it.
    assert_eq!(auth.authenticate(Some(&by_new), None).await, Err(AuthError::NoKeys));
    assert_eq!(server.fetches(), 1);
    pause_passes().await;
    assert!(auth.authenticate(Some(&by_new), None).await.is_ok());
    assert_eq!(server.fetches(), 2);
    assert_eq!(auth.authenticate(Some(&by_old), None).await, Err(AuthError::NoKeys));
    pause_passes().await;
    assert_eq!(auth.authenticate(Some(&by_old), None).await, Err(AuthError::Signature));
    // A token that claims the name of a key that it was not signed with is nothing.
    let named = signed(&old, Algorithm::EdDSA, Some("new"));
    assert_eq!(auth.authenticate(Some(&named), None).await, Err(AuthError::Signature));
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_in_a_while_however_many_ask() {
    let server = KeyServer::start(&[public(&ed(), Algorithm::EdDSA, "known")]).await;
    let auth = server.trusted(tidings::auth::Algorithm::EdDsa);
    for round in 1..=3 {
        let ask = |number: usize| {
            let token = signed(&ed_wrong(), Algorithm::EdDSA, Some(&format!("unknown-{number}")));
            let auth = auth.clone();
            async move { auth.authenticate(Some(&token), None).await }
        };
        for answer in futures_util::future::join_all((0..50).map(ask)).await {
            assert_eq!(answer, Err(AuthError::Signature));
        }
        assert_eq!(server.fetches(), round);
        pause_passes().await;
    }
}

#[tokio::test]
async fn keys_are_kept_while_their_server_is_away_or_talks_nonsense() {
    let server = KeyServer::start(&[]).await;
    server.says(StatusCode::SERVICE_UNAVAILABLE, String::new());
    let auth = server.trusted(tidings::auth::Algorithm::EdDsa);
    let token = signed(&ed(), Algorithm::EdDSA, Some("a"));
    assert_eq!(auth.authenticate(Some(&token), None).await, Err(AuthError::NoKeys));
    let key = public(&ed(), Algorithm::EdDSA, "a");
    server.holds(std::slice::from_ref(&key));
    auth.refresh().await;
    assert!(auth.authenticate(Some(&token), None).await.is_ok());
    for (status, text) in [
        (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        (StatusCode::FOUND, String::new()),
        (StatusCode::OK, String::new()),
        (StatusCode::OK, "{}".to_owned()),
        (
            StatusCode::OK,
            json!({"keys": [public(&ed_wrong(), Algorithm::EdDSA, "a")]}).to_string()
                + &" ".repeat(300_000),
        ),
    ] {
        server.says(status, text);
        auth.refresh().await;
        assert!(auth.authenticate(Some(&token), None).await.is_ok(), "{status}");
    }
    assert_eq!(server.fetches(), 7);
    // An issuer that has revoked all of its keys is heeded.
    server.holds(&[]);
    auth.refresh().await;
    assert_ne!(auth.authenticate(Some(&token), None).await.map(|_| ()), Ok(()));
}

#[tokio::test]
async fn of_a_set_only_the_keys_that_fit_are_taken() {
    let strangers = [
        json!({"kty": "RSA", "use": "enc", "kid": "enc", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "later", "pub": "AAAA"}),
        json!({"kty": "EC", "crv": "P-521", "kid": "wide", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "OKP", "crv": "X25519", "use": "enc", "kid": "x", "x": "AAAA"}),
        json!({"kty": "OKP", "crv": "Ed448", "kid": "448", "x": "AAAA"}),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "oct", "kid": "shared", "k": "AAAA"}),
    ];
    for (algorithm, pinned, key) in [
        (Algorithm::RS256, tidings::auth::Algorithm::Rs256, rsa()),
        (Algorithm::ES256, tidings::auth::Algorithm::Es256, ec()),
        (Algorithm::EdDSA, tidings::auth::Algorithm::EdDsa, ed()),
    ] {
        let server = KeyServer::start(&[]).await;
        let auth = server.trusted(pinned);
        let own = public(&key, algorithm, "own");
        let set: Vec<Value> = strangers.iter().cloned().chain([own.clone()]).collect();
        server.holds(&set);
        let named = signed(&key, algorithm, Some("own"));
        assert!(auth.authenticate(Some(&named), None).await.is_ok(), "{algorithm:?}");
        // Without a name every key that fits is tried.
        let nameless = signed(&key, algorithm, None);
        assert!(auth.authenticate(Some(&nameless), None).await.is_ok(), "{algorithm:?}");
        let mut encrypting = own;
        encrypting["use"] = json!("enc");
        let server = KeyServer::start(&[encrypting]).await;
        let auth = server.trusted(pinned);
        assert_eq!(auth.authenticate(Some(&named), None).await, Err(AuthError::Signature));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_tokens_by_the_keys_of_a_url() {
    let server = KeyServer::start(&[public(&rsa(), Algorithm::RS256, "a")]).await;
    let token = signed(&rsa(), Algorithm::RS256, Some("a"));
    for (url, expected, code) in
        [(server.url.as_str(), 200, 200), ("http://127.0.0.1:1/", 503, 1013)]
    {
        let settings =
            [("TIDINGS_DEV", "false"), ("TIDINGS_API_KEYS", API_KEY), ("TIDINGS_JWKS_URL", url)];
        let replica = Replica::start("replica-1", "", &settings).await;
        let target = "/v1/messages?topic=order:7";
        let answer = client::ask(&replica.url, "GET", target, None, Carrier::Header, &token).await;
        assert_eq!(answer.status, expected, "{answer:?}");
        let target = format!("/v1/ws?access_token={token}");
        let mut socket = client::connect(&replica.url, &target, &[]).await.unwrap();
        match socket.next().await {
            Ok(frame) => assert_eq!((frame["type"].as_str(), code), (Some("welcome"), 200)),
            Err(closed) => assert_eq!(closed.0, code),
        }
        // Servers are let in whatever becomes of the keys.
        let answer =
            client::ask(&replica.url, "GET", "/v1/stats", None, Carrier::Header, API_KEY).await;
        assert_eq!(answer.status, 200);
    }
}
