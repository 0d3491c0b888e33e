//! Manifests and indexes: by tag or by digest, whole.

use std::io::Read;

use stanza_spec::Digest;

use super::client::{Ask, Content, OnRetry, Registry, Target};
use super::error::RegistryError;
use super::transport::Method;
use crate::document::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST};

/// A document and what the registry said about it.
pub(crate) struct RawDocument {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: Option<String>,
    /// `Docker-Content-Digest`.
    pub(crate) digest: Option<Digest>,
}

impl Registry<'_> {
    /// Fetches a manifest or index, by tag or digest, whole.
    pub(crate) fn manifest(&self, name: &str, on_retry: OnRetry<'_>) -> Result<RawDocument, RegistryError> {
        let path = format!("manifests/{name}");
        let what = self.name_of(name);
        let ask = Ask {
            method: Method::Get,
            target: Target::Path(&path),
            headers: &[("accept", accept())],
            content: Content::Empty,
            access: self.access,
            success: &[200],
            what: &what,
        };
        let mut attempt = 1;
        loop {
            let response = self.ask(&ask, on_retry)?.response;
            let content_type = response.header("content-type").map(str::to_owned);
            let digest = response.header("docker-content-digest").and_then(|text| text.parse().ok());
            let mut bytes = Vec::new();
            match response.body.take(MAX_MANIFEST + 1).read_to_end(&mut bytes) {
                Ok(_) if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_MANIFEST) => {
                    let reason = format!("the manifest has more than {MAX_MANIFEST} bytes");
                    return Err(self.answer(&what, reason));
                }
                Ok(_) => return Ok(RawDocument { bytes, content_type, digest }),
                Err(_) if attempt < self.retry.tries => {
                    self.pause(attempt, None, on_retry);
                    attempt += 1;
                }
                Err(source) => return Err(RegistryError::Interrupted { what, source }),
            }
        }
    }

    /// A document of the repository as errors name it.
    pub(super) fn name_of(&self, name: &str) -> String {
        let mark = if name.contains(':') { '@' } else { ':' };
        format!("{}{mark}{name}", self.repository)
    }
}

/// The types of documents that are understood.
fn accept() -> String {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ")
}
