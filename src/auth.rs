//! Who speaks: API keys and JWTs become principals.
//!
//! The algorithm of a JWT is fixed by the settings. What the token says of itself decides nothing:
//! a token signed with the public key as an HMAC secret, or with `none`, is refused like any other.

mod claims;
mod keys;

use std::sync::Arc;

use subtle::ConstantTimeEq;

pub use self::claims::{TokenRequest, sign};
pub use self::keys::{KeyError, KeySource, Keys};
use crate::clock::Clock;
pub use crate::config::Algorithm;
use crate::domain::{Principal, UserId};

#[derive(Clone)]
pub struct AuthSettings {
    pub api_keys: Vec<String>,
    /// `None`: no JWT is accepted.
    pub keys: Option<KeySource>,
    pub algorithm: Algorithm,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// Everybody is admin, and says who it is.
    pub dev: bool,
}

/// Why a token does not count. No token is ever repeated in a text.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum AuthError {
    #[error("a token is needed: an API key or a JWT, as `Authorization: Bearer …`")]
    Missing,
    #[error("the token is neither an API key nor a JWT of this installation")]
    Unknown,
    #[error("the token is signed with {found}, and this installation takes {pinned} only")]
    Algorithm { found: &'static str, pinned: &'static str },
    #[error("the token's signature does not fit")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token's claims cannot be used: {0}")]
    Claims(String),
    #[error("the keys to check tokens with cannot be fetched; try again")]
    NoKeys,
}

/// A cheap handle.
#[derive(Clone)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

struct Shared {
    settings: AuthSettings,
    keys: Option<Keys>,
    clock: Clock,
}

impl Authenticator {
    pub fn new(settings: AuthSettings, clock: Clock) -> Result<Authenticator, KeyError> {
        let keys = settings.keys.clone().map(|source| Keys::new(source, settings.algorithm));
        let keys = keys.transpose()?;
        Ok(Authenticator { shared: Arc::new(Shared { settings, keys, clock }) })
    }

    /// Whom a token speaks for. In dev mode nobody needs one, and `dev_user` says who it is.
    pub async fn authenticate(
        &self,
        token: Option<&str>,
        dev_user: Option<&str>,
    ) -> Result<Principal, AuthError> {
        let settings = &self.shared.settings;
        match token {
            Some(token) if settings.api_keys.iter().any(|key| same(key, token)) => {
                Ok(Principal::server())
            }
            Some(token) if !settings.dev || self.shared.keys.is_some() => {
                let keys = self.shared.keys.as_ref().ok_or(AuthError::Unknown)?;
                let now_s = self.shared.clock.now().0.div_euclid(1000);
                claims::verify(token, keys, settings, now_s).await
            }
            _ if settings.dev => dev_principal(dev_user),
            _ => Err(AuthError::Missing),
        }
    }

    /// Fetches the keys anew, if they come from somewhere.
    pub async fn refresh(&self) {
        if let Some(keys) = &self.shared.keys {
            keys.refresh().await;
        }
    }

    pub fn is_dev(&self) -> bool {
        self.shared.settings.dev
    }
}

fn known(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

fn dev_principal(user: Option<&str>) -> Result<Principal, AuthError> {
    let user = user.map(UserId::parse).transpose();
    let user = user.map_err(|error| AuthError::Claims(format!("user: {error}")))?;
    Ok(Principal { user, admin: true, ..Principal::default() })
}

/// Takes the same time for every token of the same length, however much of it is right.
fn same(key: &str, token: &str) -> bool {
    key.as_bytes().ct_eq(token.as_bytes()).into()
}

#[cfg(test)]
mod tests;
