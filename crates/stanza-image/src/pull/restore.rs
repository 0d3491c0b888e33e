//! Bringing blobs of known images again: those that were dropped, lost or damaged.

use std::cell::RefCell;

use stanza_spec::{Digest, Reference};

use super::download::Step;
use super::layers::Layers;
use super::{PullError, Surroundings};
use crate::document::{Descriptor, MAX_MANIFEST};
use crate::hash::digest_like;
use crate::image::Image;
use crate::progress::{Progress, ProgressEvent};
use crate::remote::Connections;
use crate::store::{BlobKind, ImageStore, KnownBlob, StoreError};

/// How to reach registries.
pub struct RestoreOptions<'a> {
    /// `false` accepts any certificate, and plain http, from a registry.
    pub tls_verify: bool,
    /// Is told what happens.
    pub progress: &'a mut dyn Progress,
}

/// Fetches one blob again from one of its sources, in order, and puts it in the place of whatever is there.
///
/// # Errors
/// What the last source says; [`StoreError::Missing`] when it has none.
pub fn restore_blob(
    store: &ImageStore,
    blob: &KnownBlob,
    options: &mut RestoreOptions<'_>,
) -> Result<(), PullError> {
    restore_with(store, blob, options, &Connections::load()?.surroundings())
}

/// [`restore_blob`], with the network given.
fn restore_with(
    store: &ImageStore,
    blob: &KnownBlob,
    options: &mut RestoreOptions<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<(), PullError> {
    let mut last = PullError::from(StoreError::Missing { digest: blob.digest.clone() });
    for source in &blob.sources {
        match restore_from(store, blob, source, options, surroundings) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// [`restore_blob`] from one source, with the network given.
pub(crate) fn restore_from(
    store: &ImageStore,
    blob: &KnownBlob,
    source: &Reference,
    options: &mut RestoreOptions<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<(), PullError> {
    let registry = surroundings.source(source, options.tls_verify)?;
    let KnownBlob { digest, size, kind, .. } = blob;
    let ingest = store.ingest()?;
    ingest.protect([digest])?;
    ingest.replace();
    if *kind != BlobKind::Manifest {
        // What is there is of no use, or would have been left alone.
        store.discard_blob(digest)?;
        let descriptor = Descriptor::new("", digest.clone(), *size);
        let progress = RefCell::new(&mut *options.progress);
        let show = |step: Step| step.show(&descriptor, *progress.borrow_mut());
        Layers::new(&registry, store, None, 1).blob(&descriptor, &show)?;
        show(Step::Done);
    } else {
        let progress = &mut *options.progress;
        let raw = registry.manifest(digest.as_str(), &mut |attempt, delay| {
            progress.event(ProgressEvent::Retrying { attempt, delay });
        })?;
        let actual = digest_like(digest, &raw.bytes);
        if actual != *digest || u64::try_from(raw.bytes.len()).map_or(true, |length| length > MAX_MANIFEST) {
            let what = format!("manifest of `{}`", source.familiar());
            return Err(PullError::Digest { what, expected: digest.clone(), actual });
        }
        ingest.store_bytes(digest, &raw.bytes)?;
    }
    Ok(ingest.sync()?)
}

/// Fetches all blobs of an image's layers that are not there, those that `needed` says yes to; gives how many came.
///
/// # Errors
/// When one cannot be fetched, or the image came from no registry.
pub fn restore_layers(
    store: &ImageStore,
    image: &Image,
    needed: &dyn Fn(&Digest) -> bool,
    options: &mut RestoreOptions<'_>,
) -> Result<usize, PullError> {
    // Made when the first one is needed: mostly none is.
    let mut connections = None;
    let mut came = 0;
    for layer in image.layers.iter().filter(|layer| needed(&layer.digest)) {
        if store.has_blob(&layer.digest, layer.size) {
            continue;
        }
        let blob = KnownBlob {
            digest: layer.digest.clone(),
            size: layer.size,
            kind: BlobKind::Layer,
            images: Vec::new(),
            sources: image.digests.clone(),
            annotations: std::collections::BTreeMap::new(),
        };
        let connections = match &mut connections {
            Some(connections) => connections,
            none => none.insert(Connections::load()?),
        };
        restore_with(store, &blob, options, &connections.surroundings())?;
        came += 1;
    }
    Ok(came)
}
