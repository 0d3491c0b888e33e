//! What refers to a manifest: signatures, attestations, bills of materials (distribution-spec, "Listing Referrers").
//!
//! A registry without the API keeps the list as an index under the tag `sha256-<hex>`, and who pushes a document that
//! refers to another keeps it up to date.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stanza_spec::Digest;

use super::client::{OnRetry, Registry};
use super::error::RegistryError;
use super::manifests::OutgoingDocument;
use super::token::escape;
use crate::document::OCI_INDEX;
use crate::hash::sha256;

/// Most referrers of one manifest.
const MAX_REFERRERS: usize = 100_000;

/// A document that refers to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The type of the document.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What sort of thing it is; empty when it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// What it says about itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    manifests: Option<Vec<Referrer>>,
}

impl Registry<'_> {
    /// What refers to `subject`; only things of the sort `artifact_type`, when given.
    pub(crate) fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        on_retry: OnRetry<'_>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let mut path = format!("referrers/{subject}");
        if let Some(artifact_type) = artifact_type {
            path.push_str("?artifactType=");
            escape(artifact_type, &mut path);
        }
        let mut found = Vec::new();
        let listed = self.pages(&path, subject.as_str(), on_retry, &mut |bytes| {
            found.extend(parse(bytes)?);
            if found.len() > MAX_REFERRERS {
                return Err(format!("it has more than {MAX_REFERRERS} referrers"));
            }
            Ok(true)
        });
        match listed {
            Ok(()) => {}
            // A registry without the API.
            Err(RegistryError::NotFound { .. } | RegistryError::Status { status: 405, .. }) => {
                found = self.fallback(subject, on_retry)?;
            }
            Err(error) => return Err(error),
        }
        // Registries need not filter; those that do say so, but to look again costs nothing.
        found.retain(|referrer| artifact_type.is_none_or(|wanted| referrer.artifact_type == wanted));
        Ok(found)
    }

    /// Adds a document that was pushed to the list that a registry without the API keeps for its subject.
    pub(crate) fn add_referrer(
        &self,
        subject: &Digest,
        referrer: &Referrer,
        on_retry: OnRetry<'_>,
    ) -> Result<(), RegistryError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct List<'r> {
            schema_version: u32,
            media_type: &'r str,
            manifests: &'r [Referrer],
        }
        let mut known = self.fallback(subject, on_retry)?;
        if known.iter().any(|other| other.digest == referrer.digest) {
            return Ok(());
        }
        known.push(referrer.clone());
        let tag = fallback_tag(subject);
        let list = List { schema_version: 2, media_type: OCI_INDEX, manifests: &known };
        let bytes = serde_json::to_vec(&list)
            .map_err(|error| self.answer(&tag, format!("its list of referrers cannot be kept: {error}")))?;
        let document = OutgoingDocument { digest: &sha256(&bytes), media_type: OCI_INDEX, bytes: &bytes };
        self.put_manifest(&tag, &document, on_retry).map(drop)
    }

    /// The list under the fallback tag.
    fn fallback(&self, subject: &Digest, on_retry: OnRetry<'_>) -> Result<Vec<Referrer>, RegistryError> {
        let tag = fallback_tag(subject);
        match self.manifest(&tag, on_retry) {
            Ok(document) => parse(&document.bytes).map_err(|reason| self.answer(&tag, reason)),
            Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Referrer>, String> {
    let page: Page = serde_json::from_slice(bytes)
        .map_err(|error| format!("its list of referrers is not an index: {error}"))?;
    Ok(page.manifests.unwrap_or_default())
}

/// `sha256-<hex>`; a tag has at most 128 characters, which a longer digest is cut to.
fn fallback_tag(subject: &Digest) -> String {
    let hex = &subject.hex()[..subject.hex().len().min(64)];
    format!("{}-{hex}", subject.algorithm())
}
