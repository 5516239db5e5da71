//! TLS as libpq's `sslmode` means it.
//!
//! | sslmode | encrypted | chain checked | name checked |
//! |---|---|---|---|
//! | disable | no | – | – |
//! | allow, prefer | if the server can | no | no |
//! | require | yes | only with `sslrootcert` | no |
//! | verify-ca | yes | yes | no |
//! | verify-full | yes | yes | yes |
//!
//! `prefer` and `require` keep off those who listen, not those who stand in the middle.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::{DsnError, value};

/// How much of TLS is asked for, from least to most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TlsMode {
    Disable,
    /// Also `allow`: encrypting first and not last does no harm.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Files that hold certificates, by path; `system` as root means the system's own.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Files {
    pub(super) root: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

const SYSTEM: &str = "system";

impl TlsMode {
    pub(super) fn parse(
        mode: Option<&str>,
        ssl: Option<&str>,
        files: &Files,
    ) -> Result<TlsMode, DsnError> {
        let system = files.root.as_deref() == Some(SYSTEM);
        let mode = match (mode, ssl) {
            (None, None | Some("false" | "0")) if system => TlsMode::VerifyFull,
            (None, None) => TlsMode::Prefer,
            // The spelling of JDBC and of node-postgres.
            (None, Some("true" | "1")) => TlsMode::Require,
            (None, Some("false" | "0")) => TlsMode::Disable,
            (None, Some(_)) => return Err(value("ssl", "true or false")),
            (Some("disable"), _) => TlsMode::Disable,
            (Some("allow" | "prefer"), _) => TlsMode::Prefer,
            (Some("require" | "no-verify"), _) => TlsMode::Require,
            (Some("verify-ca"), _) => TlsMode::VerifyCa,
            (Some("verify-full"), _) => TlsMode::VerifyFull,
            (Some(_), _) => {
                let allowed = "disable, allow, prefer, require, verify-ca or verify-full";
                return Err(value("sslmode", allowed));
            }
        };
        if system && mode != TlsMode::VerifyFull {
            // Anybody can have a certificate that the system trusts; only the name tells.
            return Err(value("sslmode", "verify-full with sslrootcert=system"));
        }
        // As libpq: whoever names a root wants it checked.
        let named_root = mode == TlsMode::Require && files.root.is_some();
        Ok(if named_root { TlsMode::VerifyCa } else { mode })
    }

    const fn as_str(self) -> &'static str {
        match self {
            TlsMode::Disable => "disable",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The provider is named here: the process may hold another one, or none, as its default.
pub(super) fn client_config(
    mode: TlsMode,
    files: &Files,
    direct: bool,
) -> Result<Option<ClientConfig>, DsnError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match mode {
        TlsMode::Disable => return Ok(None),
        TlsMode::Prefer | TlsMode::Require => Arc::new(Unchecked(provider.clone())),
        TlsMode::VerifyCa | TlsMode::VerifyFull => {
            let by_name = mode == TlsMode::VerifyFull;
            Arc::new(Checked::new(certificates(files)?, by_name, provider.clone())?)
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| file("sslrootcert", &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            let chain = pem_certificates("sslcert", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| file("sslkey", &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| file("sslcert", &error))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(value("sslcert", "given together with sslkey")),
    };
    if direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Some(config))
}

fn certificates(files: &Files) -> Result<Vec<CertificateDer<'static>>, DsnError> {
    match files.root.as_deref() {
        // A managed Postgres whose URL says verify-full alone has a public certificate.
        None | Some(SYSTEM) => Ok(rustls_native_certs::load_native_certs().certs),
        Some(path) => pem_certificates("sslrootcert", path),
    }
}

fn pem_certificates(
    key: &'static str,
    path: &str,
) -> Result<Vec<CertificateDer<'static>>, DsnError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|error| file(key, &error))?;
    if all.is_empty() { Err(file(key, &"it holds no certificate")) } else { Ok(all) }
}

fn file(key: &'static str, why: &dyn fmt::Display) -> DsnError {
    DsnError::File { key, why: why.to_string() }
}

/// `prefer` and `require`: whoever answers is believed.
/// A signature by an unknown key proves nothing, so none is checked.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca` and `verify-full`.
#[derive(Debug)]
struct Checked {
    inner: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    by_name: bool,
}

impl Checked {
    fn new(
        roots: Vec<CertificateDer<'static>>,
        by_name: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Checked, DsnError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| file("sslrootcert", &error))?;
        Ok(Checked { inner, roots, by_name })
    }
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // A self-signed certificate named as its own root is what small installations have.
        // webpki refuses it as "a CA used as an end entity"; being the very same one is proof.
        let pinned = self.roots.iter().any(|root| root == end_entity);
        let chain = if pinned {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)
                .map(|()| ServerCertVerified::assertion())
        } else {
            self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now)
        };
        match chain {
            // The name is looked at last, after the chain was found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.by_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
