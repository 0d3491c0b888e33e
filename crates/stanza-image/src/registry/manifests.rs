//! Manifests and indexes: by tag or by digest, whole.

use std::io::Read;

use stanza_spec::Digest;

use super::client::{Access, Ask, Content, OnRetry, Registry, Target};
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

/// What the registry says about a document that it has.
pub(crate) struct DocumentHead {
    /// `Docker-Content-Digest`; not every registry says it.
    pub(crate) digest: Option<Digest>,
}

/// A document on its way to the registry, byte for byte as it is.
pub(crate) struct OutgoingDocument<'r> {
    pub(crate) digest: &'r Digest,
    pub(crate) media_type: &'r str,
    pub(crate) bytes: &'r [u8],
}

/// What the registry says when it has taken a document.
pub(crate) struct Accepted {
    /// `OCI-Subject`: it saw what the document refers to, and lists it among the referrers by itself.
    pub(crate) subject: bool,
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

    /// What the registry has under a tag or digest, without fetching it.
    pub(crate) fn head_manifest(
        &self,
        name: &str,
        on_retry: OnRetry<'_>,
    ) -> Result<Option<DocumentHead>, RegistryError> {
        let path = format!("manifests/{name}");
        let ask = Ask {
            method: Method::Head,
            target: Target::Path(&path),
            headers: &[("accept", accept())],
            content: Content::Empty,
            access: self.access,
            success: &[200],
            what: &self.name_of(name),
        };
        match self.ask(&ask, on_retry) {
            Ok(mut answer) => {
                answer.finish();
                let digest = answer.response.header("docker-content-digest");
                Ok(Some(DocumentHead { digest: digest.and_then(|text| text.parse().ok()) }))
            }
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a document its name: a tag, or its digest.
    pub(crate) fn put_manifest(
        &self,
        name: &str,
        document: &OutgoingDocument<'_>,
        on_retry: OnRetry<'_>,
    ) -> Result<Accepted, RegistryError> {
        let path = format!("manifests/{name}");
        let what = self.name_of(name);
        let ask = Ask {
            method: Method::Put,
            target: Target::Path(&path),
            headers: &[("content-type", document.media_type.to_owned())],
            content: Content::Bytes(document.bytes),
            access: self.access,
            success: &[200, 201, 202, 204],
            what: &what,
        };
        let mut answer = self.ask(&ask, on_retry)?;
        answer.finish();
        let stored = answer.response.header("docker-content-digest");
        self.check_digest(stored, document.digest, &what)?;
        Ok(Accepted { subject: answer.response.header("oci-subject").is_some() })
    }

    /// Takes a document away, and with it all tags that mean it.
    pub(crate) fn delete_manifest(
        &self,
        digest: &Digest,
        on_retry: OnRetry<'_>,
    ) -> Result<(), RegistryError> {
        let path = format!("manifests/{digest}");
        let ask = Ask {
            method: Method::Delete,
            target: Target::Path(&path),
            headers: &[],
            content: Content::Empty,
            access: Access::Delete,
            success: &[200, 202, 204],
            what: &self.name_of(digest.as_str()),
        };
        self.ask(&ask, on_retry)?.finish();
        Ok(())
    }

    /// Whether the registry calls what it stored as we do; it may use another algorithm.
    pub(super) fn check_digest(
        &self,
        stored: Option<&str>,
        sent: &Digest,
        what: &str,
    ) -> Result<(), RegistryError> {
        let stored = stored.and_then(|text| text.parse::<Digest>().ok());
        match stored {
            Some(stored) if stored.algorithm() == sent.algorithm() && stored != *sent => {
                Err(self.answer(what, format!("it stored it as `{stored}` instead of `{sent}`")))
            }
            _ => Ok(()),
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
