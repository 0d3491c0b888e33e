//! Pulling an index with everything in it: all platforms, and the attestations beside them.
//!
//! The name then means the index itself, which is complete in the store: what is pushed or saved under it is what the
//! registry had, to the last byte. This machine's image is unpacked; the others are stored.

use std::collections::HashMap;

use stanza_spec::Digest;

use super::layers::{Layers, Wish};
use super::{Pull, PullError, Top};
use crate::document::{Descriptor, MAX_INDEX_DEPTH, OCI_INDEX};
use crate::hash::digest_like;
use crate::image::Image;
use crate::outline::Outline;
use crate::progress::ProgressEvent;
use crate::store::ImageStore;

/// Most documents of one index, all levels together.
const MAX_DOCUMENTS: usize = 512;

/// Whether what is signed may come in.
pub(super) type Admit<'a> = &'a dyn Fn(&Digest, &[u8]) -> Result<(), PullError>;

/// A document of the index.
struct Part {
    digest: Digest,
    bytes: Vec<u8>,
    outline: Outline,
}

impl Pull<'_> {
    /// Brings an index with all documents and blobs that it leads to, then the name.
    pub(super) fn fetch_every(
        &self,
        store: &ImageStore,
        top: Top,
        admit: Admit<'_>,
    ) -> Result<Image, PullError> {
        let media_type = match Outline::parse(&top.bytes) {
            Ok(Outline { media_type: Some(media_type), .. }) => media_type,
            _ => OCI_INDEX.to_owned(),
        };
        let size = u64::try_from(top.bytes.len()).unwrap_or(u64::MAX);
        let source = Descriptor::new(&media_type, top.digest.clone(), size);
        let parts = self.gather(&top, admit)?;
        // The name must mean an image here, whatever else it means elsewhere.
        let own = self.choose_manifest(top)?;

        let ingest = store.ingest()?;
        let blobs = || parts.iter().flat_map(|part| &part.outline.blobs);
        ingest.protect(parts.iter().map(|part| &part.digest).chain(blobs().map(|blob| &blob.digest)))?;
        let layers = Layers::new(&self.registry, store, self.sink, self.concurrency);
        let diff_ids = self.fetch_config(store, &layers, &own.manifest)?;
        ingest.protect(&diff_ids)?;
        let unpacked: HashMap<&Digest, &Digest> =
            own.manifest.layers.iter().map(|layer| &layer.digest).zip(&diff_ids).collect();
        let mut wishes: Vec<Wish<'_>> = Vec::new();
        for blob in blobs() {
            if wishes.iter().all(|wish| wish.blob.digest != blob.digest)
                && blob.digest != own.manifest.config.digest
            {
                wishes.push(Wish { blob, diff_id: unpacked.get(&blob.digest).copied() });
            }
        }
        layers.fetch(&wishes, *self.progress.borrow_mut())?;
        if let Some(sink) = self.sink {
            sink.stack(&diff_ids)?;
        }
        for part in &parts {
            ingest.store_bytes(&part.digest, &part.bytes)?;
        }
        ingest.sync()?;
        self.name_it(store, ingest, &source, &own.manifest.config.digest, &source.digest)
    }

    /// All documents that an index leads to, itself first; each is let in or the whole is refused.
    fn gather(&self, top: &Top, admit: Admit<'_>) -> Result<Vec<Part>, PullError> {
        let outline = |digest: &Digest, bytes: &[u8]| {
            Outline::parse(bytes).map_err(|reason| self.shape(digest, &reason))
        };
        let mut parts = vec![Part {
            digest: top.digest.clone(),
            bytes: top.bytes.clone(),
            outline: outline(&top.digest, &top.bytes)?,
        }];
        let mut open: Vec<(Descriptor, u32)> =
            parts[0].outline.documents.iter().map(|child| (child.clone(), 1)).collect();
        while let Some((child, depth)) = open.pop() {
            if parts.iter().any(|part| part.digest == child.digest) {
                continue;
            }
            if depth > MAX_INDEX_DEPTH || parts.len() >= MAX_DOCUMENTS {
                return Err(self.shape(&top.digest, "it leads to too many other documents"));
            }
            let raw = self.registry.manifest(child.digest.as_str(), &mut |attempt, delay| {
                self.tell(ProgressEvent::Retrying { attempt, delay });
            })?;
            let actual = digest_like(&child.digest, &raw.bytes);
            if actual != child.digest {
                let what = format!("manifest of `{}`", self.reference.familiar());
                return Err(PullError::Digest { what, expected: child.digest, actual });
            }
            let outline = outline(&child.digest, &raw.bytes)?;
            if outline.documents.is_empty() {
                admit(&child.digest, &raw.bytes)?;
            }
            open.extend(outline.documents.iter().map(|child| (child.clone(), depth + 1)));
            parts.push(Part { digest: child.digest, bytes: raw.bytes, outline });
        }
        Ok(parts)
    }
}
