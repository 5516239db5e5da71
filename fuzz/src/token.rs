//! Tokens: as they come, and with headers and claims of anybody's making under a good signature.
//!
//! The first line is the header, the rest the claims; both are signed with the right secret, as an
//! issuer might that is careless or hostile. The whole is also taken for a token as it stands.

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use jsonwebtoken::{Algorithm as Signed, EncodingKey};
use serde_json::Value;
use tidings::auth::{Algorithm, AuthError, AuthSettings, Authenticator, KeySource};
use tidings::clock::Clock;
use tidings::domain::{Pattern, Principal, UserId};

const SECRET: &str = "a secret of thirty-two characters";
const API_KEY: &str = "an-api-key-of-a-server";

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let settings = AuthSettings {
        api_keys: vec![API_KEY.to_owned()],
        keys: Some(KeySource::Secret(SECRET.to_owned())),
        algorithm: Algorithm::Hs256,
        issuer: None,
        audience: None,
        dev: false,
    };
    Authenticator::new(settings, Clock::system()).expect("a secret is a key")
});

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match authenticate(text) {
        Ok(principal) => assert!(text == API_KEY && principal == Principal::server()),
        Err(error) => says_nothing_of(text, &error),
    }
    let (header, claims) = text.split_once('\n').unwrap_or((r#"{"alg":"HS256"}"#, text));
    let signed = format!("{}.{}", base64url(header), base64url(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Signed::HS256);
    let token = format!("{signed}.{}", signature.expect("a secret signs"));
    match authenticate(&token) {
        Ok(principal) => is_what_was_claimed(&principal, header, claims),
        Err(error) => says_nothing_of(&token, &error),
    }
    // The same under another signature is nobody's.
    let forged = format!("{signed}.{}", base64url("not the signature of this text"));
    assert!(authenticate(&forged).is_err(), "{forged}");
    assert!(authenticate(&format!("{signed}.")).is_err(), "without a signature");
}

/// Keys that are at hand make nobody wait.
fn authenticate(token: &str) -> Result<Principal, AuthError> {
    let mut asked = pin!(AUTHENTICATOR.authenticate(Some(token), None));
    match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the keys are at hand"),
    }
}

fn says_nothing_of(token: &str, error: &AuthError) {
    let said = error.to_string();
    assert!(said.len() <= 400, "{said}");
    assert!(token.len() < 40 || !said.contains(token), "{said}");
}

fn is_what_was_claimed(principal: &Principal, header: &str, claims: &str) {
    let header: Value = serde_json::from_str(header).expect("a header is JSON");
    assert_eq!(header["alg"], "HS256", "the algorithm is pinned");
    let Ok(claims) = serde_json::from_str::<Value>(claims) else {
        // A number that no `Value` holds may stand in a claim that nobody looks at.
        return;
    };
    let user = UserId::parse(claims["sub"].as_str().expect("sub is a text"));
    assert_eq!(principal.user, user.ok(), "{claims}");
    assert!(principal.user.is_some());
    // Clocks may be ten seconds apart.
    let expires_at_s = claims["exp"].as_i64().map(|exp| exp.saturating_add(10));
    assert_eq!(principal.expires_at_s, expires_at_s);
    let now_s = Clock::system().now().0 / 1_000;
    assert!(
        principal.expires_at_s.is_some_and(|expires_at_s| expires_at_s.saturating_add(1) > now_s)
    );
    let list = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let roles: Vec<Arc<str>> = list(&claims["roles"]).into_iter().map(Into::into).collect();
    assert_eq!(principal.admin, roles.iter().any(|role| &**role == "admin"));
    assert_eq!(principal.roles, roles);
    let shown = |patterns: &[Pattern]| -> Vec<String> {
        patterns.iter().map(ToString::to_string).collect()
    };
    assert_eq!(shown(&principal.subscribe), list(&claims["tidings"]["subscribe"]));
    assert_eq!(shown(&principal.publish), list(&claims["tidings"]["publish"]));
    for topic in principal.own_topics() {
        assert!(principal.may_subscribe(&Pattern::Exact(topic)), "its own topics are its own");
    }
}

fn base64url(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut coded = String::new();
    for three in text.as_bytes().chunks(3) {
        let byte = |place: usize| usize::from(three.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..=three.len() {
            coded.push(char::from(LETTERS[bits >> (18 - 6 * place) & 63]));
        }
    }
    coded
}
