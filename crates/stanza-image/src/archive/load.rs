//! `load`: images that another engine has written to a file.

use std::io::{self, Read};
use std::path::Path;

use stanza_spec::{Classify, Digest, ErrorKind, Reference, ReferenceError};
use stanza_tar::TarError;

use super::spool::Contents;
use super::{docker, oci};
use crate::document::{Descriptor, DocumentError};
use crate::policy::{ArchiveKind, Gate, PolicyError};
use crate::progress::{Progress, ProgressEvent};
use crate::store::{ImageStore, Ingest, NewEntry, Spooled, StoreError};

/// An image that an archive brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The name it got; `None` when the archive has none for it.
    pub name: Option<Reference>,
    /// Its id.
    pub image: Digest,
}

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The stream fails or does not decompress.
    #[error("cannot read the archive")]
    Read {
        /// What it said.
        source: io::Error,
    },
    /// It is no tar archive, or a damaged one.
    #[error("cannot read the archive")]
    Tar(#[from] TarError),
    /// A tar archive, but not of an image.
    #[error("the archive holds no image: neither `manifest.json` nor `index.json`")]
    NotAnImage,
    /// A file of the archive is missing, or not what it should be.
    #[error("cannot use `{path}` of the archive: {reason}")]
    Path {
        /// The file, control characters escaped.
        path: String,
        /// Why.
        reason: String,
    },
    /// A document of the archive does not pass the checks.
    #[error("cannot use the document `{path}` of the archive: {reason}")]
    Document {
        /// The file or the digest.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob or a layer is not what its digest says.
    #[error("`{path}` of the archive has the digest `{actual}`, expected `{expected}`")]
    Digest {
        /// The file.
        path: String,
        /// What the archive's documents promise.
        expected: Digest,
        /// What there is.
        actual: Digest,
    },
    /// A tag that is no reference.
    #[error("the archive names an image `{name}`")]
    Name {
        /// The tag, control characters escaped.
        name: String,
        /// Why it is none.
        source: ReferenceError,
    },
    /// An index has several images and none for this machine.
    #[error("the archive has nothing for `{wanted}`, only for `{}`", available.join("`, `"))]
    Platform {
        /// This machine's platform.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The policy does not let it in.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    pub(super) fn path(path: &str, reason: &str) -> LoadError {
        LoadError::Path { path: path.escape_debug().to_string(), reason: reason.to_owned() }
    }

    pub(super) fn document(path: &str, error: &DocumentError) -> LoadError {
        let reason = match error {
            DocumentError::Json(source) => format!("{error}: {source}"),
            other => other.to_string(),
        };
        LoadError::Document { path: path.escape_debug().to_string(), reason }
    }
}

impl Classify for LoadError {
    fn kind(&self) -> ErrorKind {
        match self {
            LoadError::Read { source } => match ErrorKind::of_io(source) {
                ErrorKind::Internal => ErrorKind::Corrupt,
                kind => kind,
            },
            LoadError::Tar(_)
            | LoadError::Path { .. }
            | LoadError::Document { .. }
            | LoadError::Digest { .. } => ErrorKind::Corrupt,
            LoadError::NotAnImage | LoadError::Name { .. } => ErrorKind::InvalidArgument,
            LoadError::Platform { .. } => ErrorKind::NotFound,
            LoadError::Policy(error) => error.kind(),
            LoadError::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            LoadError::NotAnImage => {
                Some("an archive of a root file system is taken by `stanza import`".to_owned())
            }
            LoadError::Policy(error) => error.hint(),
            LoadError::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// An image whose blobs are in the store, not in the index yet.
pub(super) struct Assembled {
    pub(super) descriptor: Descriptor,
    pub(super) id: Digest,
    pub(super) names: Vec<Reference>,
}

/// How an archive is loaded.
pub struct LoadOptions<'a> {
    /// The file that the archive is, for the policy's scopes; `None` for a stream.
    pub path: Option<&'a Path>,
    /// The policy that it must meet; `None` is the user's or the system's (containers-policy.json(5)).
    pub signature_policy: Option<&'a Path>,
    /// Is told what happens.
    pub progress: &'a mut dyn Progress,
}

/// Loads the images of a docker-archive (`docker save`) or an oci-archive, plain or compressed with gzip or zstd, from
/// any stream. The index changes only when all of them are whole.
///
/// # Errors
/// When the stream fails, the archive is not one of an image, the policy does not let it in, or a part of it does not pass the checks.
pub fn load(
    store: &ImageStore,
    archive: Box<dyn Read>,
    options: &mut LoadOptions<'_>,
) -> Result<Vec<Loaded>, LoadError> {
    let gate = Gate::load(options.signature_policy)?;
    load_through(&gate, store, archive, options)
}

/// [`load`], with the policy given.
fn load_through(
    gate: &Gate,
    store: &ImageStore,
    archive: Box<dyn Read>,
    options: &mut LoadOptions<'_>,
) -> Result<Vec<Loaded>, LoadError> {
    let ingest = store.ingest()?;
    let contents = Contents::read(&ingest, archive)?;
    let (is_oci, is_docker) =
        (contents.has("index.json") && contents.has("oci-layout"), contents.has("manifest.json"));
    // An archive of both forms must be let in as either.
    for (kind, is_kind) in [(ArchiveKind::Oci, is_oci), (ArchiveKind::Docker, is_docker)] {
        if is_kind {
            gate.admit_archive(kind, options.path)?;
        }
    }
    let mut loader = Loader { store, ingest: &ingest, contents: &contents, progress: options.progress };
    let images = match (is_oci, is_docker) {
        (true, false) => oci::assemble(&mut loader)?,
        // Docker writes both since version 25; the layout keeps the digests of the registry.
        (true, true) => match oci::assemble(&mut loader) {
            Err(LoadError::Path { .. }) => docker::assemble(&mut loader)?,
            images => docker::add_names(&loader, images?)?,
        },
        (false, true) => docker::assemble(&mut loader)?,
        (false, false) => return Err(LoadError::NotAnImage),
    };
    ingest.sync()?;
    let (loaded, changes) = store.update_index(|index| {
        let mut loaded = Vec::new();
        let mut changes = Vec::new();
        for image in images {
            let names: Vec<Option<Reference>> =
                if image.names.is_empty() { vec![None] } else { image.names.into_iter().map(Some).collect() };
            let mut changed = false;
            for name in names {
                changed |= index.set(NewEntry {
                    descriptor: image.descriptor.clone(),
                    name: name.clone(),
                    id: image.id.clone(),
                    source: None,
                });
                loaded.push(Loaded { name, image: image.id.clone() });
            }
            changes.push((image.id, changed));
        }
        Ok::<_, LoadError>((loaded, changes))
    })?;
    for (image, changed) in &changes {
        loader.progress.event(ProgressEvent::Complete { image, changed: *changed });
    }
    Ok(loaded)
}

/// What both forms of archive need.
pub(super) struct Loader<'a, 's> {
    pub(super) store: &'s ImageStore,
    pub(super) ingest: &'a Ingest<'s>,
    pub(super) contents: &'a Contents,
    pub(super) progress: &'a mut dyn Progress,
}

impl Loader<'_, '_> {
    /// Makes a spooled file a layer blob of the store, announced.
    pub(super) fn adopt_layer(&mut self, file: &Spooled) -> Result<(), LoadError> {
        let (digest, size) = (&file.digest, file.size);
        self.ingest.protect([digest])?;
        if self.store.has_blob(digest, size) {
            self.progress.event(ProgressEvent::LayerExists { digest, size });
            return Ok(());
        }
        self.progress.event(ProgressEvent::LayerStarted { digest, size });
        self.ingest.adopt(file)?;
        self.progress.event(ProgressEvent::LayerDone { digest, size });
        Ok(())
    }
}

/// A tag of an archive, which must be a reference with a tag.
pub(super) fn parse_name(name: &str) -> Result<Reference, LoadError> {
    name.parse().map_err(|source| LoadError::Name { name: name.escape_debug().to_string(), source })
}

#[cfg(test)]
mod tests;
