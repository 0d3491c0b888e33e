//! Pulling: from a reference to an image in the store.
//!
//! ```text
//! name -> index? -> manifest for the platform -> policy -> announce all digests -> config, layers (what is not there yet)
//!      -> manifest -> sync -> index.json
//! ```
//!
//! Nothing has a name before all of it is there, so a pull that dies leaves at most a room in `ingest/`, partial blobs,
//! from where the next pull goes on, and whole blobs without a name, which the next collection clears.

mod download;
mod error;
mod every;
mod layers;
mod restore;

use std::cell::RefCell;
use std::path::Path;

use stanza_spec::{Digest, Platform, Reference};

use download::Step;
pub use error::PullError;
use layers::{Layers, Wish};
pub(crate) use restore::restore_from;
pub use restore::{RestoreOptions, restore_blob, restore_layers};

use crate::document::{
    Choice, Descriptor, Document, DocumentError, MAX_INDEX_DEPTH, Manifest, choose, parse_config,
};
use crate::hash::{digest_like, sha256};
use crate::image::{Image, platform_of};
use crate::policy::Gate;
use crate::progress::{Progress, ProgressEvent};
use crate::registry::{
    CredentialFiles, RegistriesConfig, Registry, RegistryError, RetryPolicy, Source, Transport,
};
use crate::remote::Connections;
use crate::sink::LayerSink;
use crate::store::{ImageStore, Ingest, NewEntry};

/// Most indexes that are opened on the way to one manifest.
const MAX_INDEXES: u32 = 32;

/// What to take from an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// The image that fits best.
    One(Platform),
    /// All of it; this machine's is unpacked.
    All,
}

impl Default for Platforms {
    /// This machine's.
    fn default() -> Platforms {
        Platforms::One(Platform::host())
    }
}

/// What a pull is to bring, and how.
pub struct PullOptions<'a> {
    /// What to take from an index.
    pub platforms: Platforms,
    /// `false` accepts any certificate, and plain http, from a registry.
    pub tls_verify: bool,
    /// Unpacks layers while they come in; without it they are stored only.
    pub sink: Option<&'a dyn LayerSink>,
    /// Layers that come in at once, 1 or more; [`PullOptions::CONCURRENCY`] is usual.
    pub concurrency: usize,
    /// The policy that the image must meet; `None` is the user's or the system's (containers-policy.json(5)).
    pub signature_policy: Option<&'a Path>,
    /// Is told what happens.
    pub progress: &'a mut dyn Progress,
}

impl PullOptions<'_> {
    /// Layers at once: enough to keep two processors and a line busy, few enough to be kind to a registry.
    pub const CONCURRENCY: usize = 4;
}

/// What a pull reaches the world by.
pub(crate) struct Surroundings<'a> {
    pub(crate) transport: &'a dyn Transport,
    pub(crate) retry: RetryPolicy,
    pub(crate) credentials: &'a CredentialFiles,
    pub(crate) registries: &'a RegistriesConfig,
}

impl<'a> Surroundings<'a> {
    /// Where an image comes from: mirrors, then the registry.
    pub(crate) fn source(
        &self,
        reference: &Reference,
        tls_verify: bool,
    ) -> Result<Source<'a>, RegistryError> {
        let Surroundings { transport, retry, credentials, registries } = *self;
        Source::new(reference, tls_verify, registries, transport, retry, credentials)
    }

    /// The registry of a name itself, mirrors aside: what is written to, and asked about itself.
    pub(crate) fn registry(
        &self,
        reference: &Reference,
        tls_verify: bool,
    ) -> Result<Registry<'a>, RegistryError> {
        let Surroundings { transport, retry, credentials, registries } = *self;
        let own = registries.endpoints(reference)?.pop();
        let (reference, insecure) =
            own.as_ref().map_or((reference, false), |own| (&own.reference, own.insecure));
        Ok(Registry::new(reference, tls_verify && !insecure, transport, retry, credentials))
    }
}

/// Fetches an image from its registry into the store, and gives it the name `reference` there. Blobs that are in the
/// store are not fetched again; the name is asked for anew each time.
///
/// # Errors
/// When the registry cannot be reached or refuses, the policy does not let the image in, what the registry sends does not pass the checks, there is nothing for the
/// platform, or the store cannot take it. Nothing in the store has changed then.
pub fn pull(
    store: &ImageStore,
    reference: &Reference,
    options: &mut PullOptions<'_>,
) -> Result<Image, PullError> {
    let connections = Connections::load()?;
    let gate = Gate::load(options.signature_policy)?;
    pull_with(store, reference, options, &connections.surroundings(), &gate)
}

/// [`pull`], with the network given.
pub(crate) fn pull_with(
    store: &ImageStore,
    reference: &Reference,
    options: &mut PullOptions<'_>,
    surroundings: &Surroundings<'_>,
    gate: &Gate,
) -> Result<Image, PullError> {
    let registry = surroundings.source(reference, options.tls_verify)?;
    let host = Platform::host();
    let pull = Pull {
        registry,
        reference,
        platform: match &options.platforms {
            Platforms::One(platform) => platform,
            Platforms::All => &host,
        },
        sink: options.sink,
        concurrency: options.concurrency,
        progress: RefCell::new(&mut *options.progress),
    };
    let top = pull.find_top()?;
    let transport = surroundings.transport;
    let admit = |digest: &Digest, bytes: &[u8]| {
        gate.admit_pull(reference, (digest, bytes), pull.registry.current(), transport)
            .map_err(PullError::from)
    };
    if options.platforms == Platforms::All && matches!(top.document, Document::Index(_)) {
        return pull.fetch_every(store, top, &admit);
    }
    let found = pull.choose_manifest(top)?;
    admit(&found.descriptor.digest, &found.bytes)?;
    pull.fetch(store, &found)
}

struct Pull<'a> {
    registry: Source<'a>,
    reference: &'a Reference,
    platform: &'a Platform,
    sink: Option<&'a dyn LayerSink>,
    concurrency: usize,
    progress: RefCell<&'a mut dyn Progress>,
}

/// What the registry has under a name.
struct Top {
    digest: Digest,
    bytes: Vec<u8>,
    document: Document,
}

/// The manifest that was found for the platform.
#[derive(Clone)]
struct Found {
    /// What the registry has under the name: often an index.
    source: Digest,
    descriptor: Descriptor,
    bytes: Vec<u8>,
    manifest: Manifest,
}

impl Pull<'_> {
    fn tell(&self, event: ProgressEvent<'_>) {
        self.progress.borrow_mut().event(event);
    }

    /// What the registry has under the name.
    fn find_top(&self) -> Result<Top, PullError> {
        let (digest, bytes, document) = match self.reference.digest() {
            Some(digest) => self.fetch_document(digest.as_str(), Some(digest), None)?,
            None => self.fetch_document(self.reference.tag().unwrap_or("latest"), None, None)?,
        };
        self.tell(ProgressEvent::Resolved { digest: &digest });
        Ok(Top { digest, bytes, document })
    }

    /// The manifest for the platform.
    fn choose_manifest(&self, top: Top) -> Result<Found, PullError> {
        let Top { digest, bytes, document } = top;
        let mut fetched = 0;
        let found = self.descend(digest.clone(), digest, bytes, document, 0, &mut fetched)?;
        found.ok_or_else(|| self.no_platform(Vec::new()))
    }

    /// The manifest in a document, or in the document that an index leads to. `None` when an entry without a
    /// platform turned out to have nothing for ours.
    fn descend(
        &self,
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
        &self,
        name: &str,
        digest: Option<&Digest>,
        expected: Option<&str>,
    ) -> Result<(Digest, Vec<u8>, Document), PullError> {
        let raw = self.registry.manifest(name, &mut |attempt, delay| {
            self.tell(ProgressEvent::Retrying { attempt, delay });
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
    fn fetch(&self, store: &ImageStore, found: &Found) -> Result<Image, PullError> {
        let ingest = store.ingest()?;
        let manifest = &found.manifest;
        let blobs = manifest.layers.iter().map(|layer| &layer.digest);
        ingest.protect(blobs.chain([&manifest.config.digest, &found.descriptor.digest]))?;
        let layers = Layers::new(&self.registry, store, self.sink, self.concurrency);
        let diff_ids = self.fetch_config(store, &layers, manifest)?;
        // What is unpacked is nobody's before the image has its name.
        ingest.protect(&diff_ids)?;
        let mut wishes: Vec<Wish<'_>> = Vec::with_capacity(diff_ids.len());
        for (blob, diff_id) in manifest.layers.iter().zip(&diff_ids) {
            // One blob may be a layer several times.
            if !wishes.iter().any(|wish| wish.blob == blob) {
                wishes.push(Wish { blob, diff_id: Some(diff_id) });
            }
        }
        layers.fetch(&wishes, *self.progress.borrow_mut())?;
        if let Some(sink) = self.sink {
            sink.stack(&diff_ids)?;
        }
        ingest.store_bytes(&found.descriptor.digest, &found.bytes)?;
        ingest.sync()?;
        self.name_it(store, ingest, &found.descriptor, &manifest.config.digest, &found.source)
    }

    /// Gives what is there its name.
    fn name_it(
        &self,
        store: &ImageStore,
        ingest: Ingest<'_>,
        descriptor: &Descriptor,
        id: &Digest,
        source: &Digest,
    ) -> Result<Image, PullError> {
        let name = match self.reference.digest() {
            // The digest is the name: a tag beside it says nothing more.
            Some(digest) => self.reference.with_digest(digest.clone()),
            None => self.reference.clone(),
        };
        let entry = NewEntry {
            descriptor: descriptor.clone(),
            name: Some(name),
            id: id.clone(),
            source: Some(source.clone()),
        };
        let (image, changed) = store.enter(entry)?;
        drop(ingest);
        self.tell(ProgressEvent::Complete { image: &image.id, changed });
        Ok(image)
    }

    /// Brings the configuration, and refuses it before any layer comes when it is no good. Gives the diff ids.
    fn fetch_config(
        &self,
        store: &ImageStore,
        layers: &Layers<'_>,
        manifest: &Manifest,
    ) -> Result<Vec<Digest>, PullError> {
        let config = &manifest.config;
        layers.blob(config, &|step| {
            // A configuration is no layer to show; repetitions are.
            if let Step::Retrying(..) = step {
                step.show(config, *self.progress.borrow_mut());
            }
        })?;
        let bytes = store.read_blob(&config.digest, crate::document::MAX_CONFIG)?;
        let (parsed, diff_ids) = parse_config(&bytes, manifest.layers.len())
            .map_err(|error| self.document(&config.digest, error))?;
        let found = platform_of(&parsed);
        if !found.satisfies(self.platform) {
            self.tell(ProgressEvent::PlatformDiffers { found: &found, wanted: self.platform });
        }
        Ok(diff_ids)
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

#[cfg(test)]
mod tests;
