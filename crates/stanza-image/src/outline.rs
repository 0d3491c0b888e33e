//! What a document leads to, whatever it describes: an image, an index, an attestation, an artifact.
//!
//! [`crate::document::Document`] is for what is going to run, and refuses the rest; this is for what is moved as it
//! is.

use std::collections::BTreeMap;

use serde::Deserialize;
use stanza_spec::Digest;

use crate::document::{Descriptor, MAX_MANIFEST};

/// Everything a document names by digest.
#[derive(Debug)]
pub(crate) struct Outline {
    /// Its own media type, when it says one.
    pub(crate) media_type: Option<String>,
    /// The sort of thing: its artifact type, or else the type of its configuration; may be empty.
    pub(crate) artifact_type: String,
    /// Configuration and layers, in this order.
    pub(crate) blobs: Vec<Descriptor>,
    /// The documents of an index.
    pub(crate) documents: Vec<Descriptor>,
    /// What it is about.
    pub(crate) subject: Option<Digest>,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Outline {
    /// Reads a document that is at most as long as registries take.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Outline, String> {
        if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_MANIFEST) {
            return Err(format!("it has more than {MAX_MANIFEST} bytes"));
        }
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is not the JSON of a manifest or an index: {error}"))?;
        let Raw { media_type, artifact_type, config, layers, manifests, subject, annotations } = raw;
        if manifests.is_some() && (config.is_some() || layers.is_some()) {
            return Err("it has both layers and manifests".to_owned());
        }
        let artifact_type = artifact_type
            .or_else(|| config.as_ref().map(|config| config.media_type.clone()))
            .unwrap_or_default();
        Ok(Outline {
            media_type: media_type.filter(|media_type| !media_type.is_empty()),
            artifact_type,
            blobs: config.into_iter().chain(layers.unwrap_or_default()).collect(),
            documents: manifests.unwrap_or_default(),
            subject: subject.map(|subject| subject.digest),
            annotations: annotations.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_and_attestations_have_an_outline_too() {
        let digest = |fill: &str| format!("sha256:{}", fill.repeat(64));
        let text = serde_json::json!({"schemaVersion": 2, "artifactType": "application/x",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest("c"), "size": 2},
            "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": digest("a"), "size": 9}],
            "subject": {"mediaType": "m", "digest": digest("b"), "size": 1}, "annotations": null});
        let outline = Outline::parse(text.to_string().as_bytes()).unwrap();
        let blobs: Vec<&str> = outline.blobs.iter().map(|blob| blob.digest.as_str()).collect();
        assert_eq!(blobs, [digest("c"), digest("a")]);
        assert_eq!(outline.subject.unwrap().as_str(), digest("b"));
        assert_eq!((outline.artifact_type.as_str(), outline.media_type), ("application/x", None));
        let both = serde_json::json!({"layers": [], "manifests": []}).to_string();
        assert!(Outline::parse(both.as_bytes()).is_err());
        assert!(Outline::parse(&b" ".repeat(5_000_000)).is_err());
    }
}
