//! The settings of the part `auth`.

use axum::Router;
use axum::routing::get;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::client::Answer;
use super::{in_memory, refused};
use crate::fleet::{Replica, until};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// Made for these tests and known to everybody.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEII3y/UKRHp4TxdfbgSZMgGa1H9ZWxCVNdmykFwgUAbs3
-----END PRIVATE KEY-----";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA/SRSoupel8kmt3Qod5zRDA6rUfSrF7TEAVNMODDuMqE=
-----END PUBLIC KEY-----";
const PUBLIC_KEY_X: &str = "_SRSoupel8kmt3Qod5zRDA6rUfSrF7TEAVNMODDuMqE";

/// An admin's claims, good for the rest of the century.
pub(super) fn claims() -> Value {
    json!({"sub": "ann", "exp": 4_102_444_800_u64, "roles": ["admin"]})
}

pub(super) fn signed_with_secret(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

fn signed_with_key(claims: &Value) -> String {
    let key = EncodingKey::from_ed_pem(PRIVATE_KEY.as_bytes()).unwrap();
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

/// A replica that lets in only who has a token.
pub(super) async fn strict(settings: &[(&str, &str)]) -> Replica {
    let strict = [("dev", "false")].iter().chain(settings).copied();
    in_memory(&strict.collect::<Vec<_>>()).await
}

async fn asked(replica: &Replica, token: &str) -> Answer {
    let request = reqwest::Client::new().get(format!("{}/v1/stats", replica.url));
    Answer::of(request.bearer_auth(token).send().await.unwrap()).await
}

async fn lets_in(replica: &Replica, token: &str) {
    let answer = asked(replica, token).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// A file of its own for a key; it is gone when the test is over.
struct KeyFile(std::path::PathBuf);

impl KeyFile {
    fn new() -> KeyFile {
        let name = format!("tidings-{}.pem", uuid::Uuid::now_v7().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, PUBLIC_KEY).unwrap();
        KeyFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
pub(super) async fn who_has_an_api_key_is_let_in() {
    let keys = "the key of one server,the key of another";
    let replica = strict(&[("api_keys", keys)]).await;
    for key in keys.split(',') {
        lets_in(&replica, key).await;
    }
    asked(&replica, "the key of a third").await.is_problem(401);
    asked(&replica, keys).await.is_problem(401);
}

#[tokio::test]
pub(super) async fn a_token_signed_with_the_secret_is_let_in() {
    let replica = strict(&[("jwt_secret", SECRET)]).await;
    lets_in(&replica, &signed_with_secret(&claims())).await;
    let other = strict(&[("jwt_secret", "another secret, just as long as that")]).await;
    asked(&other, &signed_with_secret(&claims())).await.is_problem(401);
}

#[tokio::test]
pub(super) async fn a_token_is_checked_with_the_key_in_the_file() {
    let file = KeyFile::new();
    let settings = [("jwt_public_key_file", file.path()), ("jwt_algorithm", "EdDSA")];
    let replica = strict(&settings).await;
    lets_in(&replica, &signed_with_key(&claims())).await;
    asked(&replica, &signed_with_secret(&claims())).await.is_problem(401);
    let (code, said) = refused(&[("jwt_public_key_file", "/nowhere/key.pem")]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/nowhere/key.pem"), "{said}");
}

#[tokio::test]
pub(super) async fn keys_are_fetched_from_their_address() {
    let key = json!({"kty": "OKP", "crv": "Ed25519", "x": PUBLIC_KEY_X, "kid": "one"});
    let set = json!({ "keys": [key] }).to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let router = Router::new().route("/keys", get(async move || set));
    #[expect(clippy::disallowed_methods, reason = "the server of a test, ended with it")]
    tokio::spawn(async move { axum::serve(listener, router).await });

    let replica = strict(&[("jwks_url", &url), ("jwt_algorithm", "EdDSA")]).await;
    let token = signed_with_key(&claims());
    until("the keys were fetched", async || asked(&replica, &token).await.status == 200).await;

    let nowhere = [("jwks_url", "http://127.0.0.1:1/keys"), ("jwt_algorithm", "EdDSA")];
    let without = strict(&nowhere).await;
    asked(&without, &token).await.is_problem(503).says_when_to_come_back();
}

#[tokio::test]
pub(super) async fn the_algorithm_is_pinned() {
    let file = KeyFile::new();
    // Unset, a public key is one for RS256, which this one is not.
    let (code, said) = refused(&[("jwt_public_key_file", file.path())]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("RS256"), "{said}");
    let replica = strict(&[("jwt_secret", SECRET), ("jwt_algorithm", "HS256")]).await;
    lets_in(&replica, &signed_with_secret(&claims())).await;
    let answer = asked(&replica, &signed_with_key(&claims())).await;
    assert!(answer.is_problem(401).text.contains("HS256 only"), "{}", answer.text);
}

#[tokio::test]
pub(super) async fn a_token_of_another_issuer_is_refused() {
    only_with("jwt_issuer", "iss").await;
}

#[tokio::test]
pub(super) async fn a_token_for_another_audience_is_refused() {
    only_with("jwt_audience", "aud").await;
}

async fn only_with(setting: &str, claim: &str) {
    let indifferent = strict(&[("jwt_secret", SECRET)]).await;
    let particular = strict(&[("jwt_secret", SECRET), (setting, "https://example.com")]).await;
    for (value, counts) in
        [(Some("https://example.com"), true), (Some("https://example.org"), false), (None, false)]
    {
        let mut claims = claims();
        if let Some(value) = value {
            claims[claim] = json!(value);
        }
        let token = signed_with_secret(&claims);
        lets_in(&indifferent, &token).await;
        match counts {
            true => lets_in(&particular, &token).await,
            false => {
                asked(&particular, &token).await.is_problem(401);
            }
        }
    }
}
