//! Tokens: what is let in, and what is refused.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::domain::{Timestamp, Topic};

const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
const KEY: &str = "an-api-key-of-a-server";
const NOW_S: i64 = 1_800_000_000;

fn settings() -> AuthSettings {
    AuthSettings {
        api_keys: vec![KEY.to_owned(), "another-key-of-a-server".to_owned()],
        keys: Some(KeySource::Secret(SECRET.to_owned())),
        algorithm: Algorithm::Hs256,
        issuer: None,
        audience: None,
        dev: false,
    }
}

/// It is `NOW_S` for whoever is asked.
async fn ask(settings: AuthSettings, token: Option<&str>) -> Result<Principal, AuthError> {
    let (clock, _hand) = Clock::test(Timestamp(NOW_S * 1000));
    Authenticator::new(settings, clock).unwrap().authenticate(token, None).await
}

fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(jsonwebtoken::Algorithm::HS256), claims, &key).unwrap()
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": "42", "exp": NOW_S + 60});
    let Value::Object(changes) = changes else { panic!("the changes are an object") };
    for (name, value) in changes {
        let own = claims.as_object_mut().unwrap();
        match value {
            Value::Null => own.remove(&name),
            value => own.insert(name, value),
        };
    }
    claims
}

#[tokio::test]
async fn claims_say_who_it_is_and_what_it_may() {
    for (changes, roles, admin, subscribe, publish) in [
        (json!({}), vec![], false, "", ""),
        (json!({"roles": []}), vec![], false, "", ""),
        (json!({"roles": ["ops", "dev"]}), vec!["ops", "dev"], false, "", ""),
        (json!({"roles": ["ops", "admin"]}), vec!["ops", "admin"], true, "", ""),
        (
            json!({"roles": ["Admin", "administrator"]}),
            vec!["Admin", "administrator"],
            false,
            "",
            "",
        ),
        (json!({"tidings": {}}), vec![], false, "", ""),
        (json!({"tidings": {"subscribe": ["a", "b:*"]}}), vec![], false, "a b:*", ""),
        (json!({"tidings": {"publish": ["*"]}}), vec![], false, "", "*"),
        // Claims of others are none of ours.
        (json!({"scope": "admin", "tidings": {"colour": 1}, "admin": true}), vec![], false, "", ""),
    ] {
        let principal = ask(settings(), Some(&signed(&claims(changes.clone())))).await;
        let principal = principal.unwrap_or_else(|error| panic!("{changes}: {error}"));
        let shown = |patterns: &[crate::domain::Pattern]| {
            patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(principal.user.as_ref().map(UserId::as_str), Some("42"), "{changes}");
        assert_eq!(principal.roles.iter().map(|role| &**role).collect::<Vec<_>>(), roles);
        assert_eq!(principal.admin, admin, "{changes}");
        assert_eq!(shown(&principal.subscribe), subscribe, "{changes}");
        assert_eq!(shown(&principal.publish), publish, "{changes}");
        // A session lives for as long as its token would open another one.
        assert_eq!(principal.expires_at_s, Some(NOW_S + 60 + 10));
    }
}

#[tokio::test]
async fn claims_that_say_something_else_are_refused() {
    for (changes, said) in [
        (json!({"sub": null}), "sub"),
        (json!({"sub": 42}), "column"),
        (json!({"sub": ""}), "sub: "),
        (json!({"sub": "a b"}), "sub: "),
        (json!({"sub": "a*"}), "sub: "),
        (json!({"sub": "x".repeat(200)}), "sub: "),
        (json!({"exp": null}), "exp"),
        (json!({"exp": "2030-01-01"}), "column"),
        (json!({"exp": 1e300}), "column"),
        (json!({"nbf": "soon"}), "column"),
        (json!({"roles": "admin"}), "column"),
        (json!({"roles": [1]}), "column"),
        (json!({"tidings": "all"}), "column"),
        (json!({"tidings": {"subscribe": "*"}}), "column"),
        (json!({"tidings": {"subscribe": ["*a"]}}), "tidings: "),
        (json!({"tidings": {"publish": [""]}}), "tidings: "),
    ] {
        let refused = ask(settings(), Some(&signed(&claims(changes.clone())))).await;
        let Err(AuthError::Claims(text)) = &refused else { panic!("{changes}: {refused:?}") };
        assert!(text.contains(said), "{changes}: {text} does not say {said}");
    }
}

#[tokio::test]
async fn clocks_may_be_ten_seconds_apart_and_no_more() {
    for (changes, expected) in [
        (json!({"exp": NOW_S + 1}), Ok(())),
        (json!({"exp": NOW_S - 9}), Ok(())),
        (json!({"exp": NOW_S - 10}), Err(AuthError::Expired)),
        (json!({"exp": 0}), Err(AuthError::Expired)),
        (json!({"exp": i64::MAX}), Ok(())),
        (json!({"nbf": NOW_S}), Ok(())),
        (json!({"nbf": NOW_S + 10}), Ok(())),
        (json!({"nbf": NOW_S + 11}), Err(AuthError::Early)),
        (json!({"nbf": i64::MAX}), Err(AuthError::Early)),
    ] {
        let answer = ask(settings(), Some(&signed(&claims(changes.clone())))).await;
        assert_eq!(answer.map(|_| ()), expected, "{changes}");
    }
}

#[tokio::test]
async fn issuer_and_audience_count_where_they_are_set() {
    let of = |issuer: Option<&str>, audience: Option<&str>| AuthSettings {
        issuer: issuer.map(str::to_owned),
        audience: audience.map(str::to_owned),
        ..settings()
    };
    for (settings, changes, passes) in [
        (of(None, None), json!({"iss": "anybody", "aud": "anything"}), true),
        (of(Some("i"), None), json!({"iss": "i"}), true),
        (of(Some("i"), None), json!({"iss": "j"}), false),
        (of(Some("i"), None), json!({}), false),
        (of(None, Some("a")), json!({"aud": "a"}), true),
        (of(None, Some("a")), json!({"aud": ["b", "a"]}), true),
        (of(None, Some("a")), json!({"aud": ["b"]}), false),
        (of(None, Some("a")), json!({"aud": []}), false),
        (of(None, Some("a")), json!({}), false),
    ] {
        let answer = ask(settings, Some(&signed(&claims(changes.clone())))).await;
        assert_eq!(answer.is_ok(), passes, "{changes}: {answer:?}");
    }
}

#[tokio::test]
async fn an_api_key_is_taken_whole_or_not_at_all() {
    let token = signed(&claims(json!({})));
    for (token, expected) in [
        (Some(KEY), Ok(Principal::server())),
        (Some("another-key-of-a-server"), Ok(Principal::server())),
        (Some(&KEY[1..]), Err(AuthError::Unknown)),
        (Some(""), Err(AuthError::Unknown)),
        (Some("a.b.c"), Err(AuthError::Unknown)),
        (Some(&"x.".repeat(20_000)), Err(AuthError::Unknown)),
        (None, Err(AuthError::Missing)),
    ] {
        assert_eq!(ask(settings(), token).await, expected, "{token:?}");
    }
    // Where no key for tokens is set, none is taken.
    let keys_only = AuthSettings { keys: None, ..settings() };
    assert_eq!(ask(keys_only, Some(&token)).await, Err(AuthError::Unknown));
}

#[tokio::test]
async fn in_dev_mode_everybody_is_admin_and_says_who_it_is() {
    let (clock, _hand) = Clock::test(Timestamp(NOW_S * 1000));
    let dev = AuthSettings { dev: true, keys: None, ..settings() };
    let auth = Authenticator::new(dev, clock).unwrap();
    for (token, user) in [(None, None), (None, Some("7")), (Some("whatever"), Some("7"))] {
        let principal = auth.authenticate(token, user).await.unwrap();
        assert!(principal.admin);
        assert_eq!(principal.user.as_ref().map(UserId::as_str), user);
    }
    assert!(matches!(auth.authenticate(None, Some("a b")).await, Err(AuthError::Claims(_))));
    assert_eq!(auth.authenticate(Some(KEY), None).await, Ok(Principal::server()));
}

#[tokio::test]
async fn a_token_that_is_signed_here_is_taken_here() {
    let request = TokenRequest {
        user: "42".to_owned(),
        roles: vec!["ops".to_owned()],
        subscribe: vec!["order:*".to_owned()],
        publish: vec!["order:7".to_owned()],
        expires_at_s: NOW_S + 60,
        issuer: None,
        audience: None,
    };
    let principal = ask(settings(), Some(&sign(&request, SECRET).unwrap())).await.unwrap();
    assert!(principal.may_publish(&Topic::parse("order:7").unwrap()));
    assert!(!principal.may_publish(&Topic::parse("order:8").unwrap()));
    for wrong in [
        TokenRequest { user: "a b".to_owned(), ..request.clone() },
        TokenRequest { subscribe: vec!["*a".to_owned()], ..request.clone() },
        TokenRequest { publish: vec![String::new()], ..request },
    ] {
        assert!(matches!(sign(&wrong, SECRET), Err(AuthError::Claims(_))), "{wrong:?}");
    }
}

#[test]
fn a_key_fits_the_algorithm_or_nothing_starts() {
    let rsa = include_bytes!("../../tests/keys/rsa.pub.pem");
    let ec = include_bytes!("../../tests/keys/ec.pub.pem");
    let ed = include_bytes!("../../tests/keys/ed.pub.pem");
    let private = include_bytes!("../../tests/keys/rsa.pem");
    let pem = |bytes: &[u8]| KeySource::Pem(bytes.to_vec());
    for (source, algorithm, fits) in [
        (KeySource::Secret(SECRET.to_owned()), Algorithm::Hs256, true),
        (KeySource::Secret(SECRET.to_owned()), Algorithm::Rs256, false),
        (pem(rsa), Algorithm::Rs256, true),
        (pem(ec), Algorithm::Es256, true),
        (pem(ed), Algorithm::EdDsa, true),
        // A public key is known to everybody: as a secret it would let everybody in.
        (pem(rsa), Algorithm::Hs256, false),
        (KeySource::Jwks("http://127.0.0.1:1/".to_owned()), Algorithm::Hs256, false),
        (pem(rsa), Algorithm::Es256, false),
        (pem(ec), Algorithm::Rs256, false),
        (pem(ec), Algorithm::EdDsa, false),
        (pem(ed), Algorithm::Es256, false),
        // Who holds it can sign; a replica has no need to.
        (pem(private), Algorithm::Rs256, false),
        (pem(b"no PEM"), Algorithm::Rs256, false),
        (pem(b""), Algorithm::EdDsa, false),
    ] {
        let auth = AuthSettings { keys: Some(source), algorithm, ..settings() };
        let made = Authenticator::new(auth, Clock::system());
        assert_eq!(made.is_ok(), fits, "{algorithm:?}: {:?}", made.err());
    }
}
