//! Who is let in: API keys, and one kind of key with one algorithm for tokens.

use std::path::PathBuf;

use super::secret::Secret;
use super::values::Values;

/// Shorter ones can be guessed.
const API_KEY_CHARS_MIN: usize = 16;
/// With less, whoever holds one token finds the secret, and makes himself an admin.
const JWT_SECRET_BYTES_MIN: usize = 16;
/// What RFC 7518 asks of a secret for HS256.
const JWT_SECRET_BYTES_ADVISED: usize = 32;

#[derive(Clone, Debug)]
pub struct Auth {
    pub api_keys: Vec<Secret>,
    /// `None`: no tokens are taken.
    pub keys: Option<Keys>,
    /// Pinned: what the token itself claims is never believed.
    pub algorithm: Algorithm,
    pub issuer: Option<String>,
    pub audience: Option<String>,
}

/// Where the keys of tokens come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keys {
    Secret(Secret),
    PublicKeyFile(PathBuf),
    JwksUrl(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

impl Auth {
    /// Nobody could be let in: without `dev` such a server would answer 401 for ever.
    pub fn is_empty(&self) -> bool {
        self.api_keys.is_empty() && self.keys.is_none()
    }

    pub(super) fn read(values: &mut Values, dev: bool, warnings: &mut Vec<String>) -> Auth {
        let keys = read_keys(values, dev, warnings);
        let public = matches!(keys, Some(Keys::PublicKeyFile(_) | Keys::JwksUrl(_)));
        if public && values.text("jwt_audience").is_none() {
            warnings.push(
                "jwt_audience is not set: what the issuer signs for other applications counts here"
                    .to_owned(),
            );
        }
        Auth {
            api_keys: read_api_keys(values),
            algorithm: read_algorithm(values, keys.as_ref()),
            keys,
            issuer: values.text("jwt_issuer"),
            audience: values.text("jwt_audience"),
        }
    }
}

fn read_api_keys(values: &mut Values) -> Vec<Secret> {
    let list = values.list("api_keys");
    if let Some(place) = list.iter().position(|key| key.chars().count() < API_KEY_CHARS_MIN) {
        let why =
            format!("key number {} is shorter than {API_KEY_CHARS_MIN} characters", place + 1);
        values.refuse("api_keys", why);
    }
    let sendable = |key: &String| key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if let Some(place) = list.iter().position(|key| !sendable(key)) {
        let why = format!("key number {} has characters that no header can carry", place + 1);
        values.refuse("api_keys", why);
    }
    list.into_iter().map(Secret::new).collect()
}

fn read_keys(values: &mut Values, dev: bool, warnings: &mut Vec<String>) -> Option<Keys> {
    let secret = values.text("jwt_secret").map(|text| Keys::Secret(Secret::new(text)));
    let file = values.text("jwt_public_key_file").map(|path| Keys::PublicKeyFile(path.into()));
    let url = values.parsed("jwks_url", |text| {
        let uri: http::Uri = text.parse().ok()?;
        let web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        // A password would be shown wherever the address is.
        let bare = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        (web && bare).then(|| Keys::JwksUrl(text.to_owned()))
    });
    if let Some(Keys::JwksUrl(url)) = &url
        && is_in_the_clear(url)
    {
        warnings.push(
            "jwks_url is not https: whoever sits between may bring keys of his own".to_owned(),
        );
    }
    if let Some(Keys::Secret(secret)) = &secret {
        let bytes = secret.expose().len();
        if bytes < JWT_SECRET_BYTES_MIN && !dev {
            let why = format!("must have {JWT_SECRET_BYTES_MIN} bytes at least, better 32");
            values.refuse("jwt_secret", why);
        } else if bytes < JWT_SECRET_BYTES_ADVISED {
            warnings.push(format!(
                "jwt_secret has {bytes} bytes: below {JWT_SECRET_BYTES_ADVISED} it can be guessed"
            ));
        }
    }
    let several = [&secret, &file, &url].into_iter().flatten().count() > 1;
    if several {
        let key = if secret.is_some() { "jwt_secret" } else { "jwks_url" };
        values.refuse(key, "only one of jwt_secret, jwt_public_key_file and jwks_url may be set");
    }
    secret.or(file).or(url)
}

/// On this machine nobody sits between.
fn is_in_the_clear(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    uri.scheme_str() == Some("http") && !local
}

fn read_algorithm(values: &mut Values, keys: Option<&Keys>) -> Algorithm {
    let with_secret = matches!(keys, None | Some(Keys::Secret(_)));
    let unset = if with_secret { Algorithm::Hs256 } else { Algorithm::Rs256 };
    let algorithm = match values.word("jwt_algorithm") {
        Some("HS256") => Algorithm::Hs256,
        Some("RS256") => Algorithm::Rs256,
        Some("ES256") => Algorithm::Es256,
        Some("EdDSA") => Algorithm::EdDsa,
        _ => unset,
    };
    // A public key taken for a secret would let everybody who knows it sign.
    if keys.is_some() && with_secret != (algorithm == Algorithm::Hs256) {
        let allowed = if with_secret { "HS256 with jwt_secret" } else { "RS256, ES256 or EdDSA" };
        values.refuse("jwt_algorithm", format!("must be {allowed}"));
    }
    algorithm
}
