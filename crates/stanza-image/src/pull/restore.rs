//! Bringing blobs of known images again: those that were dropped, lost or damaged.

use stanza_spec::{Digest, Reference};

use std::io::{self, Read};

use super::{PullError, Surroundings};
use crate::document::MAX_MANIFEST;
use crate::hash::digest_like;
use crate::image::Image;
use crate::progress::{Progress, ProgressEvent};
use crate::registry::{CredentialFiles, Http, Registry, RegistryError, RetryPolicy};
use crate::store::{BlobKind, ImageStore, Ingest, KnownBlob, StoreError};

/// Hashed while it is in the processor's cache.
const CHUNK: usize = 128 * 1024;

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
    blob: &KnownBlob,
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
    let KnownBlob { digest, size, kind, .. } = blob;
    let ingest = store.ingest()?;
    ingest.protect([digest])?;
    ingest.replace();
    if *kind != BlobKind::Manifest {
        options.progress.event(ProgressEvent::LayerStarted { digest, size: *size });
        fetch(&registry, &ingest, digest, *size, options.progress)?;
        options.progress.event(ProgressEvent::LayerDone { digest, size: *size });
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

/// Fetches a blob into the store, as often as the connection breaks, from where it broke.
fn fetch(
    registry: &Registry<'_>,
    ingest: &Ingest<'_>,
    digest: &Digest,
    size: u64,
    progress: &mut dyn Progress,
) -> Result<(), PullError> {
    let policy = *registry.retry_policy();
    let mut writer = ingest.writer(digest, size)?;
    let mut buffer = vec![0; CHUNK];
    let (mut done, mut failures, mut broken) = (0, 0, None);
    while done < size || size == 0 {
        let answer = registry.blob(digest, done, &mut |attempt, delay| {
            progress.event(ProgressEvent::Retrying { attempt, delay });
        });
        let mut blob = match answer {
            Ok(blob) => blob,
            // The rest cannot be had by itself.
            Err(RegistryError::Status { status: 416, .. } | RegistryError::Answer { .. }) if done > 0 => {
                writer = ingest.writer(digest, size)?;
                done = 0;
                registry.blob(digest, 0, &mut |_, _| {})?
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(actual) = blob.size.filter(|actual| *actual != size) {
            return Err(PullError::Size { digest: digest.clone(), expected: size, actual });
        }
        if blob.offset != done {
            writer = ingest.writer(digest, size)?;
            done = 0;
        }
        loop {
            match blob.body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    // One byte too many is refused here.
                    writer.append(&buffer[..count])?;
                    done += count as u64;
                    progress.event(ProgressEvent::LayerBytes { digest, done, size });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        if done == size {
            break;
        }
        failures += 1;
        if failures >= policy.tries {
            let digest = digest.clone();
            return Err(PullError::Truncated { digest, received: done, expected: size, source: broken });
        }
        let delay = policy.delay(failures);
        progress.event(ProgressEvent::Retrying { attempt: failures + 1, delay });
        (policy.sleep)(delay);
    }
    Ok(ingest.commit(writer)?)
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
        let blob = KnownBlob {
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
