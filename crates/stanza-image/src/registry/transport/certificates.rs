//! `certs.d`: certificates for one registry (Docker, "Verify repository client with certificates").
//!
//! ```text
//! certs.d/HOST[:PORT]/   *.crt   authorities that are believed, beside the system's
//!                        *.cert  what we show when asked who we are, with the key in the *.key of the same name
//! ```
//!
//! The first directory that exists for a host counts, in this order: `$XDG_CONFIG_HOME/containers/certs.d` (or
//! `~/.config/…`), `~/.docker/certs.d`, `/etc/containers/certs.d`, `/etc/docker/certs.d`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{Failure, TransportError};
use crate::registry::url::Url;

/// Where directories of certificates may lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertificateDirectories(Vec<PathBuf>);

impl CertificateDirectories {
    /// Those of the calling user and of the system.
    pub(crate) fn of_user() -> CertificateDirectories {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = variable("HOME");
        let configuration =
            variable("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let own = [
            configuration.map(|directory| directory.join("containers/certs.d")),
            home.map(|home| home.join(".docker/certs.d")),
        ];
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        CertificateDirectories(own.into_iter().flatten().chain(system).collect())
    }

    /// These.
    #[cfg(test)]
    pub(super) fn at(directory: &Path) -> CertificateDirectories {
        CertificateDirectories(vec![directory.to_owned()])
    }

    /// The directory for the host of `url`.
    pub(super) fn find(&self, url: &Url) -> Option<PathBuf> {
        let host = url.authority();
        // With the scheme's own port both spellings are one.
        let with_port = format!("{host}:{}", url.port);
        let names = [Some(host.as_str()), (!host.ends_with(&format!(":{}", url.port))).then_some(&with_port)];
        self.0
            .iter()
            .flat_map(|parent| names.iter().flatten().map(|name| parent.join(name)))
            .find(|directory| directory.is_dir())
    }
}

/// What a host's directory holds.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// With the files they come from.
    pub(super) authorities: Vec<(PathBuf, CertificateDer<'static>)>,
    pub(super) clients: Vec<Arc<CertifiedKey>>,
}

impl Own {
    /// Reads it; files with other endings are left alone.
    pub(super) fn read(directory: &Path, provider: &CryptoProvider) -> Result<Own, TransportError> {
        let unreadable =
            |error: io::Error| wrong(&error, format!("cannot read `{}`: {error}", directory.display()));
        let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(unreadable)?;
        paths.sort();
        let mut own = Own::default();
        for path in &paths {
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("crt") => {
                    let certificates = certificates(path)?;
                    own.authorities
                        .extend(certificates.into_iter().map(|certificate| (path.clone(), certificate)));
                }
                Some("cert") => own.clients.push(Arc::new(client(path, provider)?)),
                Some("key") if !path.with_extension("cert").exists() => {
                    let text = format!(
                        "key `{}` has no client certificate beside it, `{}`",
                        path.display(),
                        path.with_extension("cert").display()
                    );
                    return Err(settings(text));
                }
                _ => {}
            }
        }
        Ok(own)
    }
}

/// A client certificate with its key.
fn client(path: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TransportError> {
    let key_path = path.with_extension("key");
    if !key_path.exists() {
        return Err(settings(format!(
            "client certificate `{}` has no key beside it, `{}` (authorities have the ending `.crt`)",
            path.display(),
            key_path.display()
        )));
    }
    let bytes = read(&key_path)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| settings(format!("cannot use key `{}`: {error}", key_path.display())))?;
    CertifiedKey::from_der(certificates(path)?, key, provider).map_err(|error| {
        settings(format!("cannot use client certificate `{}` with its key: {error}", path.display()))
    })
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let bytes = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| settings(format!("cannot use certificate `{}`: {error}", path.display())))?;
    if found.is_empty() {
        return Err(settings(format!("`{}` holds no certificate in PEM form", path.display())));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TransportError> {
    std::fs::read(path).map_err(|error| wrong(&error, format!("cannot read `{}`: {error}", path.display())))
}

fn settings(text: String) -> TransportError {
    TransportError::new(Failure::Fatal, io::ErrorKind::InvalidInput, text)
}

fn wrong(error: &io::Error, text: String) -> TransportError {
    TransportError::new(Failure::Fatal, error.kind(), text)
}
