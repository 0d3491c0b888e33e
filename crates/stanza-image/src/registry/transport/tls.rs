//! TLS: whom we believe, and who we say we are.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};

use super::certificates::{CertificateDirectories, Own};
use super::{Failure, TransportError};
use crate::registry::url::Url;

/// Where distributions keep the certificates of authorities, all in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Makes the settings for each registry.
pub(super) struct TlsSettings {
    certificates: CertificateDirectories,
    provider: Arc<CryptoProvider>,
    /// Read once, when the first certificate is to be checked: it takes milliseconds.
    roots: OnceLock<Arc<RootCertStore>>,
}

impl TlsSettings {
    pub(super) fn new(certificates: CertificateDirectories) -> TlsSettings {
        TlsSettings { certificates, provider: Arc::new(ring::default_provider()), roots: OnceLock::new() }
    }

    /// Whether the host has a directory of certificates.
    pub(super) fn has_own(&self, url: &Url) -> bool {
        self.certificates.find(url).is_some()
    }

    /// The settings for connections to the host of `url`; `verify` off believes any certificate.
    pub(super) fn for_registry(&self, url: &Url, verify: bool) -> Result<Arc<ClientConfig>, TransportError> {
        let own = match self.certificates.find(url) {
            Some(directory) => Own::read(&directory, &self.provider)?,
            None => Own::default(),
        };
        let builder = self.builder()?;
        let builder = if verify {
            builder.with_root_certificates(self.roots_with(&own)?)
        } else {
            let any = Arc::new(AnyCertificate(Arc::clone(&self.provider)));
            builder.dangerous().with_custom_certificate_verifier(any)
        };
        let mut config = if own.clients.is_empty() {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_resolver(Arc::new(Identities(own.clients)))
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The settings for connections to a proxy that speaks TLS itself.
    pub(super) fn for_proxy(&self) -> Result<Arc<ClientConfig>, TransportError> {
        let roots = self.roots_with(&Own::default())?;
        Ok(Arc::new(self.builder()?.with_root_certificates(roots).with_no_client_auth()))
    }

    fn builder(&self) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TransportError> {
        ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TransportError::new(Failure::Fatal, io::ErrorKind::Other, error.to_string()))
    }

    /// The system's authorities and the host's own.
    fn roots_with(&self, own: &Own) -> Result<Arc<RootCertStore>, TransportError> {
        let system = self.roots.get_or_init(|| Arc::new(system_roots()));
        if own.authorities.is_empty() {
            return Ok(Arc::clone(system));
        }
        let mut roots = RootCertStore::clone(system);
        for (path, certificate) in &own.authorities {
            roots.add(certificate.clone()).map_err(|error| {
                let text = format!("cannot use authority `{}`: {error}", path.display());
                TransportError::new(Failure::Fatal, io::ErrorKind::InvalidInput, text)
            })?;
        }
        Ok(Arc::new(roots))
    }
}

/// The authorities that the system trusts, or Mozilla's, which the crate brings, when it has no list.
fn system_roots() -> RootCertStore {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = BUNDLES.iter().map(PathBuf::from);
    let bytes = named.into_iter().chain(usual).find_map(|path| std::fs::read(path).ok());
    let mut roots = RootCertStore::empty();
    for certificate in bytes.iter().flat_map(|bytes| CertificateDer::pem_slice_iter(bytes)).flatten() {
        // Bundles have some that are older than the rules for them.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// The client certificates for a host: the first that the server's list of authorities asks for.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut usable = self.0.iter().filter(|identity| identity.key.choose_scheme(schemes).is_some());
        // A certificate carries the name of who signed it, encoded as the server's list has it (RFC 5280, 4.1.2.4).
        let named = |identity: &&Arc<CertifiedKey>| {
            authorities.is_empty()
                || identity.cert.iter().any(|certificate| {
                    authorities.iter().any(|name| {
                        !name.is_empty() && certificate.windows(name.len()).any(|window| window == *name)
                    })
                })
        };
        usable.clone().find(named).or_else(|| usable.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// For registries that are asked without verification.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
