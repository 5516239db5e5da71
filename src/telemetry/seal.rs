//! Secrets of sources, encrypted with a key of the settings before they are kept.
//!
//! What is sealed is bound to its source: put into another row it cannot be opened.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use crate::domain::SourceId;

/// What stands before what was sealed, should there ever be another way.
const VERSION: &str = "1.";

pub struct Sealer {
    key: Option<RandomizedNonceKey>,
}

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("secrets are kept encrypted only: set telemetry_key")]
    NoKey,
    #[error("the secrets of this source were sealed with another telemetry_key: set them again")]
    OtherKey,
}

impl Sealer {
    pub fn new(key: Option<&str>) -> Sealer {
        let key = key.map(|text| {
            let hash = digest(&SHA256, format!("tidings source secrets {text}").as_bytes());
            RandomizedNonceKey::new(&AES_256_GCM, hash.as_ref())
                .expect("a hash is as long as a key")
        });
        Sealer { key }
    }

    pub fn seal(&self, id: &SourceId, text: &str) -> Result<String, SealError> {
        let key = self.key.as_ref().ok_or(SealError::NoKey)?;
        let mut sealed = text.as_bytes().to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(id.as_str()), &mut sealed)
            .map_err(|_| SealError::NoKey)?;
        let whole = [&nonce.as_ref()[..], &sealed].concat();
        Ok(format!("{VERSION}{}", BASE64.encode(whole)))
    }

    pub fn open(&self, id: &SourceId, sealed: &str) -> Result<String, SealError> {
        let key = self.key.as_ref().ok_or(SealError::NoKey)?;
        let other = || SealError::OtherKey;
        let whole = sealed.strip_prefix(VERSION).ok_or_else(other)?;
        let whole = BASE64.decode(whole).map_err(|_| other())?;
        let (nonce, sealed) = whole.split_at_checked(NONCE_LEN).ok_or_else(other)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| other())?;
        let mut text = sealed.to_vec();
        let open = key.open_in_place(nonce, Aad::from(id.as_str()), &mut text);
        let open = open.map_err(|_| other())?.to_vec();
        String::from_utf8(open).map_err(|_| other())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_its_key_and_for_its_source_only() {
        let (a, b) = (SourceId::parse("a").unwrap(), SourceId::parse("b").unwrap());
        let sealer = Sealer::new(Some("0123456789abcdef"));
        let sealed = sealer.seal(&a, "s3cr3t").unwrap();
        assert!(!sealed.contains("s3cr3t"));
        assert_ne!(sealed, sealer.seal(&a, "s3cr3t").unwrap());
        assert_eq!(sealer.open(&a, &sealed).unwrap(), "s3cr3t");
        assert_eq!(sealer.open(&b, &sealed), Err(SealError::OtherKey));
        assert_eq!(Sealer::new(Some("other")).open(&a, &sealed), Err(SealError::OtherKey));
        assert_eq!(Sealer::new(None).open(&a, &sealed), Err(SealError::NoKey));
        for bad in ["", "1.", "1.AAAA", "2.AAAA", "1.*"] {
            assert_eq!(sealer.open(&a, bad), Err(SealError::OtherKey));
        }
    }
}
