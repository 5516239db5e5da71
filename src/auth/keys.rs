//! The keys by which tokens are checked: a secret, a PEM file, or a set of keys behind a URL.
//!
//! A set is fetched at the start and every few minutes, and when a token names a key that is not in
//! it, at most once in a while: a key that was rotated in counts at once, and nobody can make a
//! replica fetch by sending rubbish. A fetch that fails leaves the old keys in place.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Algorithm, AuthError, known};

/// How long after a fetch an unknown key may cause the next one.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// How long a fetch may take: sessions that open wait for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// In the first line of every PEM of a private key.
const PRIVATE: &[u8] = b"PRIVATE KEY-----";

/// More than any set of keys.
const SET_BYTES_MAX: usize = 256 << 10;

#[derive(Clone)]
pub enum KeySource {
    Secret(String),
    Pem(Vec<u8>),
    Jwks(String),
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key is no PEM of a public key for {algorithm}: {reason}")]
    Pem { algorithm: &'static str, reason: String },
    #[error("{0} cannot be used with {1}")]
    Mismatch(&'static str, &'static str),
    #[error("no HTTP client: {0}")]
    Client(reqwest::Error),
}

pub enum Keys {
    Fixed(Arc<[DecodingKey]>),
    Fetched(Box<Fetched>),
}

pub struct Fetched {
    url: String,
    algorithm: Algorithm,
    client: reqwest::Client,
    set: ArcSwap<Vec<Named>>,
    /// When it was fetched last; held while fetching, so that many wait for one.
    last: Mutex<Option<(Instant, bool)>>,
}

#[derive(Clone)]
struct Named {
    id: Option<String>,
    key: DecodingKey,
}

impl Keys {
    pub fn new(source: KeySource, algorithm: Algorithm) -> Result<Keys, KeyError> {
        let fixed = |key| Ok(Keys::Fixed(Arc::from([key])));
        match (source, algorithm) {
            (KeySource::Secret(secret), Algorithm::Hs256) => {
                fixed(DecodingKey::from_secret(secret.as_bytes()))
            }
            (KeySource::Secret(_), other) => Err(KeyError::Mismatch("a secret", other.as_str())),
            // A public key is known to everybody: as a secret it would let everybody sign.
            (_, Algorithm::Hs256) => Err(KeyError::Mismatch("a public key", "HS256")),
            (KeySource::Pem(pem), algorithm) => fixed(from_pem(&pem, algorithm)?),
            (KeySource::Jwks(url), algorithm) => {
                let client = reqwest::Client::builder()
                    .timeout(FETCH_TIMEOUT)
                    .redirect(reqwest::redirect::Policy::none())
                    .build()
                    .map_err(KeyError::Client)?;
                let set = ArcSwap::default();
                let last = Mutex::new(None);
                Ok(Keys::Fetched(Box::new(Fetched { url, algorithm, client, set, last })))
            }
        }
    }

    /// The keys that may have signed a token.
    pub(super) async fn candidates(
        &self,
        id: Option<&str>,
    ) -> Result<Arc<[DecodingKey]>, AuthError> {
        match self {
            Keys::Fixed(keys) => Ok(keys.clone()),
            Keys::Fetched(fetched) => {
                if let Some(found) = fetched.find(id) {
                    return Ok(found);
                }
                let is_new = fetched.fetch(FETCH_PAUSE).await;
                match fetched.find(id) {
                    Some(found) => Ok(found),
                    None if is_new => Err(AuthError::Signature),
                    // It may stand in a set that could not be had, or not so soon again.
                    None => Err(AuthError::NoKeys),
                }
            }
        }
    }

    pub async fn refresh(&self) {
        if let Keys::Fetched(fetched) = self {
            fetched.fetch(Duration::ZERO).await;
        }
    }
}

impl Fetched {
    fn find(&self, id: Option<&str>) -> Option<Arc<[DecodingKey]>> {
        let set = self.set.load();
        let fits = |named: &&Named| id.is_none() || named.id.as_deref() == id;
        let found: Vec<DecodingKey> =
            set.iter().filter(fits).map(|named| named.key.clone()).collect();
        (!found.is_empty()).then(|| found.into())
    }

    /// Whether the set is the one that the issuer has now.
    async fn fetch(&self, pause: Duration) -> bool {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        match *last {
            // Somebody else fetched it while this one waited.
            Some((at, is_new)) if at >= asked => return is_new,
            Some((at, _)) if at.elapsed() < pause => return false,
            _ => {}
        }
        let got = self.get().await;
        *last = Some((Instant::now(), got.is_ok()));
        match got {
            Ok(set) => {
                if set.is_empty() {
                    let algorithm = self.algorithm.as_str();
                    tracing::warn!(algorithm, "the key set has no key that fits: nobody is let in");
                }
                self.set.store(Arc::new(set));
                true
            }
            Err(reason) => {
                tracing::warn!(reason, "the key set cannot be fetched; keeping the old one");
                false
            }
        }
    }

    async fn get(&self) -> Result<Vec<Named>, String> {
        let text = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.client.get(&self.url).send().await.map_err(text)?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            if body.len() + chunk.len() > SET_BYTES_MAX {
                return Err("it is too large for a key set".to_owned());
            }
            body.extend_from_slice(&chunk);
        }
        let set: JwkSet = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let pinned = self.algorithm.as_str();
        let fits = |jwk: &&jsonwebtoken::jwk::Jwk| {
            let for_signing = jwk
                .common
                .public_key_use
                .as_ref()
                .is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
            let algorithm = jwk.common.key_algorithm;
            for_signing && algorithm.is_none_or(|algorithm| algorithm.to_string() == pinned)
        };
        let named = |jwk: &jsonwebtoken::jwk::Jwk| {
            let key = DecodingKey::from_jwk(jwk).ok()?;
            let family = key.family();
            family
                .algorithms()
                .contains(&known(self.algorithm))
                .then(|| Named { id: jwk.common.key_id.clone(), key })
        };
        Ok(set.keys.iter().filter(fits).filter_map(named).collect())
    }
}

fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<DecodingKey, KeyError> {
    let refused = |reason: String| KeyError::Pem { algorithm: algorithm.as_str(), reason };
    // It would be taken, fit no signature, and lie where it should not.
    if pem.windows(PRIVATE.len()).any(|part| part == PRIVATE) {
        return Err(refused("it is a private key, which only the issuer should hold".to_owned()));
    }
    let key = match algorithm {
        Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem),
        Algorithm::Es256 => DecodingKey::from_ec_pem(pem),
        Algorithm::EdDsa | Algorithm::Hs256 => DecodingKey::from_ed_pem(pem),
    };
    key.map_err(|error| refused(error.to_string()))
}
