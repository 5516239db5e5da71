//! What a JWT claims, and whether it may.

use std::sync::Arc;

use jsonwebtoken::{EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::{Algorithm, AuthError, AuthSettings, known};
use crate::domain::{Pattern, Principal, UserId};

/// How far the clocks of an issuer and of a replica may be apart.
const LEEWAY_S: i64 = 10;

/// The role that may do everything.
const ADMIN: &str = "admin";

/// More than any token that fits into a header.
const TOKEN_BYTES_MAX: usize = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    #[serde(default)]
    tidings: Rights,
    /// Written by us, checked by the library, which knows their other forms.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Rights {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
}

/// What `tidings token` is asked for.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    pub user: String,
    pub roles: Vec<String>,
    pub subscribe: Vec<String>,
    pub publish: Vec<String>,
    pub expires_at_s: i64,
    pub issuer: Option<String>,
    pub audience: Option<String>,
}

/// A token signed with the secret, for trying things out and for small installations.
pub fn sign(request: &TokenRequest, secret: &str) -> Result<String, AuthError> {
    let claims = Claims {
        sub: request.user.clone(),
        exp: request.expires_at_s,
        nbf: None,
        roles: request.roles.clone(),
        tidings: Rights { subscribe: request.subscribe.clone(), publish: request.publish.clone() },
        iss: request.issuer.clone(),
        aud: request.audience.clone(),
    };
    // What would be refused is not signed.
    principal(&claims)?;
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(known(Algorithm::Hs256)), &claims, &key)
        .map_err(|error| AuthError::Claims(error.to_string()))
}

pub(super) async fn verify(
    token: &str,
    keys: &Keys,
    settings: &AuthSettings,
    now_s: i64,
) -> Result<Principal, AuthError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AuthError::Unknown);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Unknown)?;
    let pinned = settings.algorithm;
    if header.alg != known(pinned) {
        return Err(AuthError::Algorithm { found: "another algorithm", pinned: pinned.as_str() });
    }
    let candidates = keys.candidates(header.kid.as_deref()).await?;
    let validation = validation(settings);
    let mut refused = AuthError::Signature;
    for key in candidates.iter() {
        match jsonwebtoken::decode::<Claims>(token, key, &validation) {
            Ok(verified) => {
                check_times(&verified.claims, now_s)?;
                return principal(&verified.claims);
            }
            Err(error) => refused = understand(&error),
        }
    }
    Err(refused)
}

fn validation(settings: &AuthSettings) -> Validation {
    let mut validation = Validation::new(known(settings.algorithm));
    // Times are checked below, by the clock that everything here goes by.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_required_spec_claims(&["exp", "sub"]);
    match &settings.issuer {
        Some(issuer) => {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        None => validation.iss = None,
    }
    match &settings.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        None => validation.validate_aud = false,
    }
    validation
}

fn understand(error: &jsonwebtoken::errors::Error) -> AuthError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidIssuer => AuthError::Claims("iss is another issuer".to_owned()),
        ErrorKind::InvalidAudience => AuthError::Claims("aud is another audience".to_owned()),
        ErrorKind::MissingRequiredClaim(claim) => AuthError::Claims(format!("{claim} is missing")),
        // Where in the claims something is wrong, not what stands there.
        ErrorKind::Json(error) => AuthError::Claims(format!(
            "not as they should be at column {}; sub, exp, roles and tidings have fixed types",
            error.column()
        )),
        _ => AuthError::Signature,
    }
}

fn check_times(claims: &Claims, now_s: i64) -> Result<(), AuthError> {
    if claims.exp.saturating_add(LEEWAY_S) <= now_s {
        return Err(AuthError::Expired);
    }
    if claims.nbf.is_some_and(|nbf| nbf > now_s.saturating_add(LEEWAY_S)) {
        return Err(AuthError::Early);
    }
    Ok(())
}

fn principal(claims: &Claims) -> Result<Principal, AuthError> {
    let user =
        UserId::parse(&claims.sub).map_err(|error| AuthError::Claims(format!("sub: {error}")))?;
    let patterns = |list: &[String]| {
        list.iter()
            .map(|text| Pattern::parse(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| AuthError::Claims(format!("tidings: {error}")))
    };
    Ok(Principal {
        user: Some(user),
        roles: claims.roles.iter().map(|role| Arc::from(role.as_str())).collect(),
        admin: claims.roles.iter().any(|role| role == ADMIN),
        subscribe: patterns(&claims.tidings.subscribe)?,
        publish: patterns(&claims.tidings.publish)?,
        // A session may live as long as its token would open a new one.
        expires_at_s: Some(claims.exp.saturating_add(LEEWAY_S)),
    })
}
