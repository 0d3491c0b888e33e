//! An image as the rest of stanza sees it.

use stanza_spec::oci::image::ImageConfiguration;
use stanza_spec::{Digest, Platform, Reference};

/// An image in the store: one platform, its configuration and its layers.
#[derive(Clone, Debug)]
pub struct Image {
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The media type of its manifest: the OCI's or Docker's.
    pub manifest_type: String,
    /// Bytes of its manifest.
    pub manifest_size: u64,
    /// Every name it has in the store, sorted; empty for a dangling image.
    pub names: Vec<Reference>,
    /// `repository@digest` for every repository it was pulled from; the digest is the registry's (often that of an
    /// index), sorted.
    pub digests: Vec<Reference>,
    /// The configuration blob.
    pub config: ImageConfiguration,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// Bytes in the store: manifest, configuration and layers as they are (compressed).
    pub size: u64,
    /// When it was built, RFC 3339; `None` when the configuration does not say.
    pub created: Option<String>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob's digest (of the compressed bytes).
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The media type that the manifest gives; the compression is told by the bytes themselves.
    pub media_type: String,
    /// The digest of the uncompressed tar, from the configuration.
    pub diff_id: Digest,
}

impl Image {
    /// Whether the image has no name left, neither with a tag nor by digest.
    #[must_use]
    pub fn is_dangling(&self) -> bool {
        self.names.is_empty()
    }

    /// The platform that the configuration names.
    #[must_use]
    pub fn platform(&self) -> Platform {
        platform_of(&self.config)
    }
}

pub(crate) fn platform_of(config: &ImageConfiguration) -> Platform {
    Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone().filter(|variant| !variant.is_empty()),
    }
}
