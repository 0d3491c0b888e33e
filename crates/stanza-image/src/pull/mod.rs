//! Pulling: from a reference to an image in the store.
//!
//! ```text
//! name -> index? -> manifest for the platform -> announce all digests -> config, layers (what is not there yet)
//!      -> manifest -> sync -> index.json
//! ```
//!
//! Nothing has a name before all of it is there, so a pull that dies leaves at most a room in `ingest/` and whole
//! blobs without a name, which the next collection clears. Layers come one after the other; each is hashed while
//! it is written, and a download that broke off goes on where it stopped.

mod download;
mod error;
mod restore;

use stanza_spec::{Digest, Platform, Reference};

pub use error::PullError;
pub use restore::{RestoreOptions, restore_blob, restore_layers};

use crate::document::{
    Choice, Descriptor, Document, DocumentError, MAX_INDEX_DEPTH, Manifest, choose, parse_config,
};
use crate::hash::{digest_like, sha256};
use crate::image::{Image, platform_of};
use crate::progress::{Progress, ProgressEvent};
use crate::registry::{CredentialFiles, Http, Registry, RetryPolicy, Transport};
use crate::store::{ImageStore, Ingest, NewEntry};

/// Most indexes that are opened on the way to one manifest.
const MAX_INDEXES: u32 = 32;

/// What a pull is to bring, and how.
pub struct PullOptions<'a> {
    /// The platform to choose from an index.
    pub platform: Platform,
    /// `false` accepts any certificate, and plain http, from a registry.
    pub tls_verify: bool,
    /// Is told what happens.
    pub progress: &'a mut dyn Progress,
}

/// What a pull reaches the world by.
pub(crate) struct Surroundings<'a> {
    pub(crate) transport: &'a dyn Transport,
    pub(crate) retry: RetryPolicy,
    pub(crate) credentials: &'a CredentialFiles,
}

/// Fetches an image from its registry into the store, and gives it the name `reference` there. Blobs that are in the
/// store are not fetched again; the name is asked for anew each time.
///
/// # Errors
/// When the registry cannot be reached or refuses, what it sends does not pass the checks, there is nothing for the
/// platform, or the store cannot take it. Nothing in the store has changed then.
pub fn pull(
    store: &ImageStore,
    reference: &Reference,
    options: &mut PullOptions<'_>,
) -> Result<Image, PullError> {
    let transport = Http::default();
    let credentials = CredentialFiles::of_user();
    let surroundings =
        Surroundings { transport: &transport, retry: RetryPolicy::default(), credentials: &credentials };
    pull_with(store, reference, options, &surroundings)
}

/// [`pull`], with the network given.
pub(crate) fn pull_with(
    store: &ImageStore,
    reference: &Reference,
    options: &mut PullOptions<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Image, PullError> {
    let registry = Registry::new(
        reference,
        options.tls_verify,
        surroundings.transport,
        surroundings.retry,
        surroundings.credentials,
    );
    let mut pull = Pull { registry, reference, platform: &options.platform, progress: options.progress };
    let found = pull.find_manifest()?;
    pull.fetch(store, &found)
}

struct Pull<'a> {
    registry: Registry<'a>,
    reference: &'a Reference,
    platform: &'a Platform,
    progress: &'a mut dyn Progress,
}

/// The manifest that was found for the platform.
struct Found {
    /// What the registry has under the name: often an index.
    source: Digest,
    descriptor: Descriptor,
    bytes: Vec<u8>,
    manifest: Manifest,
}

impl Pull<'_> {
    /// From the name to the manifest for the platform.
    fn find_manifest(&mut self) -> Result<Found, PullError> {
        let (digest, bytes, document) = match self.reference.digest() {
            Some(digest) => self.fetch_document(digest.as_str(), Some(digest), None)?,
            None => self.fetch_document(self.reference.tag().unwrap_or("latest"), None, None)?,
        };
        self.progress.event(ProgressEvent::Resolved { digest: &digest });
        let source = digest.clone();
        let mut fetched = 0;
        let found = self.descend(source.clone(), digest, bytes, document, 0, &mut fetched)?;
        found.ok_or_else(|| self.no_platform(Vec::new()))
    }

    /// The manifest in a document, or in the document that an index leads to. `None` when an entry without a
    /// platform turned out to have nothing for ours.
    fn descend(
        &mut self,
        source: Digest,
        digest: Digest,
        bytes: Vec<u8>,
        document: Document,
        depth: u32,
        fetched: &mut u32,
    ) -> Result<Option<Found>, PullError> {
        let children = match document {
            Document::Manifest(manifest) => {
                let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let descriptor = Descriptor::new(manifest.media_type, digest, size);
                return Ok(Some(Found { source, descriptor, bytes, manifest }));
            }
            Document::Index(children) => children,
        };
        if depth >= MAX_INDEX_DEPTH {
            return Err(self.shape(&digest, "its indexes are nested too deeply"));
        }
        let candidates: Vec<&Descriptor> = match choose(&children, self.platform) {
            Choice::One(child) => vec![child],
            Choice::Unnamed(unnamed) => unnamed,
            Choice::Nothing(available) if depth == 0 => return Err(self.no_platform(available)),
            Choice::Nothing(_) => return Ok(None),
        };
        for child in candidates {
            *fetched += 1;
            if *fetched > MAX_INDEXES {
                return Err(self.shape(&digest, "it leads to too many other documents"));
            }
            let known = child.is_index() || !child.media_type.is_empty();
            let sent = known.then_some(child.media_type.as_str());
            let (digest, bytes, document) =
                self.fetch_document(child.digest.as_str(), Some(&child.digest), sent)?;
            if u64::try_from(bytes.len()).ok() != Some(child.size) {
                return Err(self.shape(&digest, "its size is not what the index says"));
            }
            if let Some(found) = self.descend(source.clone(), digest, bytes, document, depth + 1, fetched)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Fetches and parses a document; by digest it must have this digest, and `expected` type when an index named it.
    fn fetch_document(
        &mut self,
        name: &str,
        digest: Option<&Digest>,
        expected: Option<&str>,
    ) -> Result<(Digest, Vec<u8>, Document), PullError> {
        let progress = &mut *self.progress;
        let raw = self.registry.manifest(name, &mut |attempt, delay| {
            progress.event(ProgressEvent::Retrying { attempt, delay });
        })?;
        let claimed = digest.or(raw.digest.as_ref());
        let actual = claimed.map_or_else(|| sha256(&raw.bytes), |claimed| digest_like(claimed, &raw.bytes));
        if let Some(claimed) = claimed
            && *claimed != actual
        {
            return Err(PullError::Digest {
                what: format!("manifest of `{}`", self.reference.familiar()),
                expected: claimed.clone(),
                actual,
            });
        }
        let document = Document::parse(&raw.bytes, raw.content_type.as_deref())
            .map_err(|error| self.document(&actual, error))?;
        if let Some(expected) = expected {
            Document::parse(&raw.bytes, Some(expected)).map_err(|error| self.document(&actual, error))?;
        }
        Ok((actual, raw.bytes, document))
    }

    /// Brings everything the manifest names, then the name.
    fn fetch(&mut self, store: &ImageStore, found: &Found) -> Result<Image, PullError> {
        let ingest = store.ingest()?;
        let manifest = &found.manifest;
        let blobs = manifest.layers.iter().map(|layer| &layer.digest);
        ingest.protect(blobs.chain([&manifest.config.digest, &found.descriptor.digest]))?;
        self.fetch_config(store, &ingest, manifest)?;
        for (at, layer) in manifest.layers.iter().enumerate() {
            // One blob may be a layer several times.
            if !manifest.layers[..at].contains(layer) {
                self.fetch_layer(store, &ingest, layer)?;
            }
        }
        ingest.store_bytes(&found.descriptor.digest, &found.bytes)?;
        ingest.sync()?;
        let name = match self.reference.digest() {
            // The digest is the name: a tag beside it says nothing more.
            Some(digest) => self.reference.with_digest(digest.clone()),
            None => self.reference.clone(),
        };
        let entry = NewEntry {
            descriptor: found.descriptor.clone(),
            name: Some(name),
            id: manifest.config.digest.clone(),
            source: Some(found.source.clone()),
        };
        let (image, changed) = store.enter(entry)?;
        drop(ingest);
        self.progress.event(ProgressEvent::Complete { image: &image.id, changed });
        Ok(image)
    }

    /// Brings the configuration, and refuses it before any layer comes when it is no good.
    fn fetch_config(
        &mut self,
        store: &ImageStore,
        ingest: &Ingest<'_>,
        manifest: &Manifest,
    ) -> Result<(), PullError> {
        let config = &manifest.config;
        if !store.has_blob(&config.digest, config.size) {
            download::fetch_blob(&self.registry, ingest, config, &mut Quiet(self.progress))?;
        }
        let bytes = store.read_blob(&config.digest, crate::document::MAX_CONFIG)?;
        let (parsed, _) = parse_config(&bytes, manifest.layers.len())
            .map_err(|error| self.document(&config.digest, error))?;
        let found = platform_of(&parsed);
        if !found.satisfies(self.platform) {
            self.progress.event(ProgressEvent::PlatformDiffers { found: &found, wanted: self.platform });
        }
        Ok(())
    }

    fn fetch_layer(
        &mut self,
        store: &ImageStore,
        ingest: &Ingest<'_>,
        layer: &Descriptor,
    ) -> Result<(), PullError> {
        let Descriptor { digest, size, .. } = layer;
        // One that was dropped is not needed: whoever needs it fetches it.
        if store.has_blob(digest, *size) || store.is_dropped(digest) {
            self.progress.event(ProgressEvent::LayerExists { digest, size: *size });
            return Ok(());
        }
        self.progress.event(ProgressEvent::LayerStarted { digest, size: *size });
        download::fetch_blob(&self.registry, ingest, layer, self.progress)?;
        self.progress.event(ProgressEvent::LayerDone { digest, size: *size });
        Ok(())
    }

    fn no_platform(&self, available: Vec<String>) -> PullError {
        PullError::Platform {
            reference: self.reference.familiar(),
            wanted: self.platform.to_string(),
            available,
        }
    }

    fn shape(&self, digest: &Digest, reason: &str) -> PullError {
        self.document(digest, DocumentError::Shape(reason.to_owned()))
    }

    fn document(&self, digest: &Digest, error: DocumentError) -> PullError {
        let reference = self.reference.familiar();
        match error {
            DocumentError::Schema1 => PullError::Schema1 { reference },
            DocumentError::Json(source) => {
                PullError::Document { reference, digest: digest.clone(), reason: source.to_string() }
            }
            other => PullError::Document { reference, digest: digest.clone(), reason: other.to_string() },
        }
    }
}

/// Passes on repetitions alone: a configuration is no layer to show.
struct Quiet<'a>(&'a mut dyn Progress);

impl Progress for Quiet<'_> {
    fn event(&mut self, event: ProgressEvent<'_>) {
        if matches!(event, ProgressEvent::Retrying { .. }) {
            self.0.event(event);
        }
    }
}

#[cfg(test)]
mod tests;
