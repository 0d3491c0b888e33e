//! What is to be sent for one name: documents, children first, and the blobs that they name.

use std::collections::HashSet;

use stanza_spec::{Digest, Platform, Reference};

use super::error::PushError;
use crate::document::{Choice, Descriptor, MAX_INDEX_DEPTH, MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST, choose};
use crate::outline::Outline;
use crate::store::{ImageStore, StoreError};

/// Most documents of one name.
pub(super) const MAX_DOCUMENTS: usize = 1000;

/// One document, byte for byte as it is in the store.
pub(super) struct PlannedDocument {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
    pub(super) outline: Outline,
}

/// What one name leads to.
pub(super) struct Plan {
    /// Children before the index that names them; the name's own document is the last.
    pub(super) documents: Vec<PlannedDocument>,
    /// Every blob once, in the order of the documents.
    pub(super) blobs: Vec<Descriptor>,
    /// Those of them that are layers, and so are shown.
    pub(super) layers: HashSet<Digest>,
}

impl Plan {
    /// Follows `entry` through the store. With `platform`, the manifest for it takes the place of an index.
    pub(super) fn of(
        store: &ImageStore,
        name: &Reference,
        entry: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<Plan, PushError> {
        let mut plan = Plan { documents: Vec::new(), blobs: Vec::new(), layers: HashSet::new() };
        let mut top = entry.clone();
        if let Some(platform) = platform {
            top = choose_document(store, name, top, platform)?;
        }
        plan.add(store, name, &top, 0)?;
        Ok(plan)
    }

    /// The document that gets the name.
    pub(super) fn top(&self) -> &PlannedDocument {
        self.documents.last().expect("a plan has at least the document of its name")
    }

    fn add(
        &mut self,
        store: &ImageStore,
        name: &Reference,
        descriptor: &Descriptor,
        depth: u32,
    ) -> Result<(), PushError> {
        if self.documents.iter().any(|known| known.digest == descriptor.digest) {
            return Ok(());
        }
        let refuse = |reason: &str| PushError::Document {
            name: name.familiar(),
            digest: descriptor.digest.clone(),
            reason: reason.to_owned(),
        };
        if depth > MAX_INDEX_DEPTH {
            return Err(refuse("its indexes are nested too deeply"));
        }
        if self.documents.len() >= MAX_DOCUMENTS {
            return Err(refuse("it leads to too many other documents"));
        }
        let document = read(store, name, descriptor)?;
        for child in &document.outline.documents {
            self.add(store, name, child, depth + 1)?;
        }
        let is_manifest = document.outline.documents.is_empty();
        for (at, blob) in document.outline.blobs.iter().enumerate() {
            if is_manifest && at > 0 {
                self.layers.insert(blob.digest.clone());
            }
            if !self.blobs.iter().any(|known| known.digest == blob.digest) {
                self.blobs.push(blob.clone());
            }
        }
        self.documents.push(document);
        Ok(())
    }
}

/// The manifest for `platform` that an index leads to; a manifest is itself.
fn choose_document(
    store: &ImageStore,
    name: &Reference,
    mut descriptor: Descriptor,
    platform: &Platform,
) -> Result<Descriptor, PushError> {
    let nothing = || PushError::Platform { name: name.familiar(), wanted: platform.to_string() };
    for _ in 0..MAX_INDEX_DEPTH {
        let document = read(store, name, &descriptor)?;
        if document.outline.documents.is_empty() {
            let (_, manifest) = store.read_manifest(&descriptor, platform, 0)?;
            let (config, _) = store.read_config(&manifest)?;
            let fits = crate::image::platform_of(&config).satisfies(platform);
            return if fits { Ok(descriptor) } else { Err(nothing()) };
        }
        descriptor = match choose(&document.outline.documents, platform) {
            Choice::One(child) => child.clone(),
            Choice::Unnamed(unnamed) => unnamed[0].clone(),
            Choice::Nothing(_) => return Err(nothing()),
        };
    }
    Err(nothing())
}

fn read(store: &ImageStore, name: &Reference, descriptor: &Descriptor) -> Result<PlannedDocument, PushError> {
    let digest = descriptor.digest.clone();
    let bytes = match store.read_blob(&digest, MAX_MANIFEST) {
        Ok(bytes) => bytes,
        Err(StoreError::Missing { .. }) => return Err(PushError::Missing { name: name.familiar(), digest }),
        Err(error) => return Err(error.into()),
    };
    let outline = Outline::parse(&bytes).map_err(|reason| PushError::Document {
        name: name.familiar(),
        digest: digest.clone(),
        reason,
    })?;
    let usual = if outline.documents.is_empty() { OCI_MANIFEST } else { OCI_INDEX };
    let given = Some(descriptor.media_type.as_str()).filter(|given| !given.is_empty());
    let media_type = outline.media_type.as_deref().or(given).unwrap_or(usual).to_owned();
    Ok(PlannedDocument { digest, media_type, bytes, outline })
}
