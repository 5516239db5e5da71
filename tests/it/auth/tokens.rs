//! Tokens that are right, and those of everybody who would like to be let in.

use std::path::Path;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

pub const API_KEY: &str = "an-api-key-of-a-server";
pub const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
pub const ISSUER: &str = "https://issuer.test";
pub const AUDIENCE: &str = "tidings";

const RSA: &[u8] = include_bytes!("../../keys/rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../../keys/rsa.pub.pem");
const RSA_WRONG: &[u8] = include_bytes!("../../keys/rsa2.pem");
const EC: &[u8] = include_bytes!("../../keys/ec.pem");
const EC_PUBLIC: &[u8] = include_bytes!("../../keys/ec.pub.pem");
const EC_WRONG: &[u8] = include_bytes!("../../keys/ec2.pem");
const ED: &[u8] = include_bytes!("../../keys/ed.pem");
const ED_PUBLIC: &[u8] = include_bytes!("../../keys/ed.pub.pem");
const ED_WRONG: &[u8] = include_bytes!("../../keys/ed2.pem");

pub fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA).unwrap()
}

pub fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(EC).unwrap()
}

pub fn ed() -> EncodingKey {
    EncodingKey::from_ed_pem(ED).unwrap()
}

pub fn ed_wrong() -> EncodingKey {
    EncodingKey::from_ed_pem(ED_WRONG).unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    None,
    User,
    Stranger,
    Everything,
}

pub struct Credential {
    pub what: &'static str,
    pub token: String,
    pub rights: Rights,
}

/// Whoever signs tokens, and how.
pub struct Issuer {
    pub algorithm: Algorithm,
    pub key: EncodingKey,
    wrong: EncodingKey,
    public: Option<&'static [u8]>,
}

pub fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Of the user 42, who may something.
pub fn claims() -> Value {
    json!({
        "sub": "42",
        "exp": now_s() + 3600,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "roles": ["ops"],
        "tidings": {"subscribe": ["order:*"], "publish": ["order:*"]},
    })
}

/// The same claims but for some; a null leaves one out.
pub fn but(changes: Value) -> Value {
    let mut claims = claims();
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

pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            text.push(char::from(LETTERS[bits >> (18 - 6 * place) & 63]));
        }
    }
    text
}

impl Issuer {
    pub fn hs256() -> Issuer {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let wrong = EncodingKey::from_secret(b"another-secret-of-thirty-two-bytes");
        Issuer { algorithm: Algorithm::HS256, key, wrong, public: None }
    }

    pub fn rs256() -> Issuer {
        let wrong = EncodingKey::from_rsa_pem(RSA_WRONG).unwrap();
        Issuer { algorithm: Algorithm::RS256, key: rsa(), wrong, public: Some(RSA_PUBLIC) }
    }

    pub fn es256() -> Issuer {
        let wrong = EncodingKey::from_ec_pem(EC_WRONG).unwrap();
        Issuer { algorithm: Algorithm::ES256, key: ec(), wrong, public: Some(EC_PUBLIC) }
    }

    pub fn eddsa() -> Issuer {
        let (key, wrong) = (ed(), ed_wrong());
        Issuer { algorithm: Algorithm::EdDSA, key, wrong, public: Some(ED_PUBLIC) }
    }

    /// The settings of a replica that trusts it.
    pub fn settings(&self, directory: &Path) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("TIDINGS_DEV", "false".to_owned()),
            ("TIDINGS_API_KEYS", API_KEY.to_owned()),
            ("TIDINGS_TASK_HTTP_HOSTS", "127.0.0.1:1".to_owned()),
            ("TIDINGS_JWT_ISSUER", ISSUER.to_owned()),
            ("TIDINGS_JWT_AUDIENCE", AUDIENCE.to_owned()),
            ("TIDINGS_JWT_ALGORITHM", format!("{:?}", self.algorithm)),
        ];
        match self.public {
            None => settings.push(("TIDINGS_JWT_SECRET", SECRET.to_owned())),
            Some(pem) => {
                let file = directory.join("key.pem");
                std::fs::write(&file, pem).unwrap();
                settings.push(("TIDINGS_JWT_PUBLIC_KEY_FILE", file.display().to_string()));
            }
        }
        settings
    }

    pub fn sign(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.key).unwrap()
    }

    /// Everything that somebody may come with.
    pub fn credentials(&self) -> Vec<Credential> {
        use Rights::{Everything, None, Stranger, User};
        let mut all: Vec<Credential> = Vec::new();
        let mut add = |what, rights, token: String| all.push(Credential { what, token, rights });
        let right = self.sign(&claims());
        let (head, rest) = right.split_once('.').unwrap();
        let (payload, signature) = rest.split_once('.').unwrap();

        add("a user", User, right.clone());
        add(
            "another user",
            Stranger,
            self.sign(&but(json!({"sub": "43", "roles": null, "tidings": null}))),
        );
        add("an admin", Everything, self.sign(&but(json!({"roles": ["admin"], "tidings": null}))));
        add("an API key", Everything, API_KEY.to_owned());
        add("one of several audiences", User, self.sign(&but(json!({"aud": ["x", AUDIENCE]}))));

        add("an empty token", None, String::new());
        add("rubbish", None, "rubbish".to_owned());
        add("three parts of rubbish", None, "a.b.c".to_owned());
        add("an API key and more", None, format!("{API_KEY}x"));
        add("a part of an API key", None, API_KEY[..API_KEY.len() - 1].to_owned());
        add("an API key in capitals", None, API_KEY.to_uppercase());
        add("an expired token", None, self.sign(&but(json!({"exp": now_s() - 60}))));
        add("a token of tomorrow", None, self.sign(&but(json!({"nbf": now_s() + 86_400}))));
        add("no exp", None, self.sign(&but(json!({"exp": null}))));
        add("an exp in words", None, self.sign(&but(json!({"exp": "never"}))));
        add("an exp without end", None, self.sign(&but(json!({"exp": 1e300}))));
        add("no sub", None, self.sign(&but(json!({"sub": null}))));
        add("an empty sub", None, self.sign(&but(json!({"sub": ""}))));
        add("a sub that is no topic", None, self.sign(&but(json!({"sub": "a b"}))));
        add("a sub with a star", None, self.sign(&but(json!({"sub": "*"}))));
        add("a role in place of roles", None, self.sign(&but(json!({"roles": "admin"}))));
        add(
            "a pattern that is none",
            None,
            self.sign(&but(json!({"tidings": {"subscribe": ["a b"]}}))),
        );
        add("another issuer", None, self.sign(&but(json!({"iss": "https://elsewhere.test"}))));
        add("no issuer", None, self.sign(&but(json!({"iss": null}))));
        add("another audience", None, self.sign(&but(json!({"aud": "elsewhere"}))));
        add("no audience", None, self.sign(&but(json!({"aud": null}))));
        add("no signature", None, format!("{head}.{payload}."));
        add("two parts", None, format!("{head}.{payload}"));
        add("four parts", None, format!("{right}.{signature}"));
        let admin = base64(but(json!({"roles": ["admin"]})).to_string().as_bytes());
        add("a payload of another", None, format!("{head}.{admin}.{signature}"));
        for (what, alg) in [("alg none", "none"), ("alg None", "None"), ("no alg", "")] {
            let header = base64(json!({"typ": "JWT", "alg": alg}).to_string().as_bytes());
            add(what, None, format!("{header}.{admin}."));
            add(what, None, format!("{header}.{payload}.{signature}"));
        }

        let signed = |header: Header, key: &EncodingKey| encode(&header, &claims(), key).unwrap();
        add("a wrong key", None, signed(Header::new(self.algorithm), &self.wrong));
        let mut header = Header::new(self.algorithm);
        header.jwk = Jwk::from_encoding_key(&self.wrong, self.algorithm).ok();
        header.jku = Some("http://127.0.0.1:1/keys".to_owned());
        add("a key that it brings along", None, signed(header, &self.wrong));
        if let Some(pem) = self.public {
            let text = std::str::from_utf8(pem).unwrap();
            for secret in [text, text.trim_end(), SECRET] {
                let key = EncodingKey::from_secret(secret.as_bytes());
                add("a secret that is public", None, signed(Header::new(Algorithm::HS256), &key));
            }
        }
        for other in [
            Issuer::signer(Algorithm::RS256),
            Issuer::signer(Algorithm::ES256),
            Issuer::signer(Algorithm::EdDSA),
        ] {
            if other.0 != self.algorithm {
                add("another algorithm", None, signed(Header::new(other.0), &other.1));
            }
        }
        let sibling = match self.algorithm {
            Algorithm::HS256 => Some(Algorithm::HS512),
            Algorithm::RS256 => Some(Algorithm::PS256),
            _ => Option::None,
        };
        if let Some(sibling) = sibling {
            add("the same key by another algorithm", None, signed(Header::new(sibling), &self.key));
        }
        all
    }

    fn signer(algorithm: Algorithm) -> (Algorithm, EncodingKey) {
        match algorithm {
            Algorithm::RS256 => (algorithm, rsa()),
            Algorithm::ES256 => (algorithm, ec()),
            _ => (Algorithm::EdDSA, ed()),
        }
    }
}
