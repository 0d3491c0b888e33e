//! Bringing blobs of known images again: those that were dropped, lost or damaged.

use stanza_spec::{Digest, Reference};

use super::{PullError, Quiet, Surroundings, download};
use crate::document::{Descriptor, MAX_MANIFEST};
use crate::hash::digest_like;
use crate::image::Image;
use crate::progress::{Progress, ProgressEvent};
use crate::registry::{CredentialFiles, Http, Registry, RetryPolicy};
use crate::store::{BlobKind, ImageStore, StoreError, Wanted};

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
    blob: &Wanted,
    options: &mut RestoreOptions<'_>,
) -> Result<(), PullError> {
    let transport = Http::default();
    let credentials = CredentialFiles::of_user();
    let surroundings =
        Surroundings { transport: &transport, retry: RetryPolicy::default(), credentials: &credentials };
    let mut last = PullError::from(StoreError::Missing { digest: blob.digest.clone() });
    for source in &blob.sources {
        match restore_from(store, blob, source, options, &surroundings) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// [`restore_blob`] from one source, with the network given.
pub(crate) fn restore_from(
    store: &ImageStore,
    blob: &Wanted,
    source: &Reference,
    options: &mut RestoreOptions<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<(), PullError> {
    let registry = Registry::new(
        source,
        options.tls_verify,
        surroundings.transport,
        surroundings.retry,
        surroundings.credentials,
    );
    let Wanted { digest, size, kind, .. } = blob;
    let ingest = store.ingest()?;
    ingest.protect([digest])?;
    ingest.replace();
    let wanted = Descriptor::new("", digest.clone(), *size);
    if *kind == BlobKind::Layer {
        options.progress.event(ProgressEvent::LayerStarted { digest, size: *size });
        download::fetch_blob(&registry, &ingest, &wanted, options.progress)?;
        options.progress.event(ProgressEvent::LayerDone { digest, size: *size });
    } else if *kind == BlobKind::Config {
        download::fetch_blob(&registry, &ingest, &wanted, &mut Quiet(options.progress))?;
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
    let mut came = 0;
    for layer in image.layers.iter().filter(|layer| needed(&layer.digest)) {
        if store.has_blob(&layer.digest, layer.size) {
            continue;
        }
        let blob = Wanted {
            digest: layer.digest.clone(),
            size: layer.size,
            kind: BlobKind::Layer,
            images: Vec::new(),
            sources: image.digests.clone(),
        };
        restore_blob(store, &blob, options)?;
        came += 1;
    }
    Ok(came)
}
