//! `load`: images that another engine has written to a file.
//!
//! ```text
//!   contents  what is where              documents  manifests and configurations, checked      all on this thread
//!                                            |
//!                                         layers  copied, hashed, unpacked                     several threads
//!                                            |
//!                       everything becomes a blob, then the index changes                      all or nothing
//! ```

use std::path::Path;

use stanza_spec::{Digest, Platform, Reference};

use super::contents::{Contents, Source};
use super::error::LoadError;
use super::layers::{LayerBlob, LayerList, Worker};
use super::{directory, docker, oci};
use crate::document::{Descriptor, NewManifest, OCI_MANIFEST};
use crate::policy::{ArchiveKind, Gate};
use crate::progress::{Progress, ProgressEvent};
use crate::sink::LayerSink;
use crate::store::{ImageStore, Ingest, NewEntry, Spooled};

/// An image that an archive brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The name it got; `None` when the archive has none for it.
    pub name: Option<Reference>,
    /// Its id.
    pub image: Digest,
}

/// What decides whether an archive is let in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Admission<'a> {
    /// The file that the archive is, for the policy's scopes; `None` for a stream.
    pub path: Option<&'a Path>,
    /// The policy that it must meet; `None` is the user's or the system's (containers-policy.json(5)).
    pub policy: Option<&'a Path>,
}

/// How an archive is loaded.
pub struct LoadOptions<'a> {
    /// Which image to take from an index that has several.
    pub platform: Platform,
    /// What decides whether it is let in.
    pub admission: Admission<'a>,
    /// Unpacks the layers while they come in; without one, nothing is unpacked.
    pub sink: Option<&'a dyn LayerSink>,
    /// Is told of every step.
    pub progress: &'a mut dyn Progress,
}

/// An image whose documents are checked, not in the index yet.
pub(super) struct Assembled {
    pub(super) manifest: ManifestPlan,
    pub(super) id: Digest,
    /// Its layers, lowest first.
    pub(super) diff_ids: Vec<Digest>,
    pub(super) names: Vec<Reference>,
}

/// The manifest of an image to be.
pub(super) enum ManifestPlan {
    /// The archive has it.
    Kept(Descriptor),
    /// It is made here, when the digests of these layers are known.
    New {
        /// Of the configuration.
        config: Descriptor,
        /// Places in the list of layers.
        layers: Vec<usize>,
    },
}

/// Loads the images of an archive: what `docker save` writes, an OCI layout, or skopeo's `dir`; as a tar file, plain or
/// compressed with gzip or zstd, or as a directory. The store changes only when all of them are whole.
///
/// # Errors
/// When the source fails, is not an archive of an image, or a part of it does not pass the checks.
pub fn load(
    store: &ImageStore,
    source: Source,
    options: &mut LoadOptions<'_>,
) -> Result<Vec<Loaded>, LoadError> {
    let gate = Gate::load(options.admission.policy)?;
    load_through(&gate, store, source, options)
}

/// [`load`], with the policy given.
fn load_through(
    gate: &Gate,
    store: &ImageStore,
    source: Source,
    options: &mut LoadOptions<'_>,
) -> Result<Vec<Loaded>, LoadError> {
    let ingest = store.ingest()?;
    let contents = Contents::read(store, &ingest, source)?;
    let form = Form::of(&contents);
    for kind in form.kinds(contents.is_directory()) {
        gate.admit_archive(*kind, options.admission.path)?;
    }
    let mut loader = Loader {
        ingest: &ingest,
        contents: &contents,
        platform: options.platform.clone(),
        layers: LayerList::default(),
        documents: Vec::new(),
    };
    let images = match form {
        Form::Directory => directory::assemble(&mut loader)?,
        Form::Oci => oci::assemble(&mut loader)?,
        // Docker writes both since version 25; the layout keeps the digests of the registry.
        Form::Both => match oci::assemble(&mut loader) {
            Err(LoadError::Path { .. }) => {
                (loader.layers, loader.documents) = (LayerList::default(), Vec::new());
                docker::assemble(&mut loader)?
            }
            images => docker::add_names(&loader, images?)?,
        },
        Form::Docker => docker::assemble(&mut loader)?,
        Form::Unknown => return Err(LoadError::NotAnImage),
    };
    let layers = std::mem::take(&mut loader.layers);
    let worker = Worker { store, ingest: &ingest, sink: options.sink, progress: &mut *options.progress };
    let blobs = worker.run(layers)?;
    if let Some(sink) = options.sink {
        images.iter().try_for_each(|image| sink.stack(&image.diff_ids))?;
    }
    let images: Vec<(Descriptor, Digest, Vec<Reference>)> = images
        .into_iter()
        .map(|image| {
            let descriptor = match image.manifest {
                ManifestPlan::Kept(descriptor) => descriptor,
                ManifestPlan::New { config, layers } => loader.new_manifest(&config, &layers, &blobs)?,
            };
            Ok((descriptor, image.id, image.names))
        })
        .collect::<Result<_, LoadError>>()?;
    // Nothing can be wrong with the archive any more.
    let spooled = blobs.iter().filter_map(|blob| blob.spooled.as_deref());
    for blob in spooled.chain(&loader.documents) {
        ingest.protect([&blob.digest])?;
        ingest.adopt(blob)?;
    }
    ingest.sync()?;
    enter(store, images, options.progress)
}

/// Makes the index name the images.
fn enter(
    store: &ImageStore,
    images: Vec<(Descriptor, Digest, Vec<Reference>)>,
    progress: &mut dyn Progress,
) -> Result<Vec<Loaded>, LoadError> {
    let (loaded, changes) = store.update_index(|index| {
        let mut loaded = Vec::new();
        let mut changes = Vec::new();
        for (descriptor, id, names) in images {
            let names: Vec<Option<Reference>> =
                if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
            let mut changed = false;
            for name in names {
                changed |= index.set(NewEntry {
                    descriptor: descriptor.clone(),
                    name: name.clone(),
                    id: id.clone(),
                    source: None,
                });
                loaded.push(Loaded { name, image: id.clone() });
            }
            changes.push((id, changed));
        }
        Ok::<_, LoadError>((loaded, changes))
    })?;
    for (image, changed) in &changes {
        progress.event(ProgressEvent::Complete { image, changed: *changed });
    }
    Ok(loaded)
}

/// What an archive is, by its files.
#[derive(Clone, Copy)]
enum Form {
    /// Of skopeo's `dir`.
    Directory,
    Oci,
    Docker,
    Both,
    Unknown,
}

impl Form {
    fn of(contents: &Contents) -> Form {
        if directory::is_one(contents) {
            return Form::Directory;
        }
        let is_oci = contents.has("index.json") && contents.has("oci-layout");
        match (is_oci, contents.has("manifest.json")) {
            (true, false) => Form::Oci,
            (true, true) => Form::Both,
            (false, true) => Form::Docker,
            (false, false) => Form::Unknown,
        }
    }

    /// What a policy must let in: an archive of two forms as either. The layout as a `directory` is a transport of its own
    /// (containers-policy.json(5), "Supported transports"); Docker's form is an archive always.
    fn kinds(self, directory: bool) -> &'static [ArchiveKind] {
        match (self, directory) {
            (Form::Directory, _) => &[ArchiveKind::Directory],
            (Form::Oci, true) => &[ArchiveKind::Layout],
            (Form::Oci, false) => &[ArchiveKind::Oci],
            (Form::Docker, _) => &[ArchiveKind::Docker],
            (Form::Both, true) => &[ArchiveKind::Layout, ArchiveKind::Docker],
            (Form::Both, false) => &[ArchiveKind::Oci, ArchiveKind::Docker],
            (Form::Unknown, _) => &[],
        }
    }
}

/// What all forms of archive need.
pub(super) struct Loader<'a, 's> {
    pub(super) ingest: &'a Ingest<'s>,
    pub(super) contents: &'a Contents,
    pub(super) platform: Platform,
    pub(super) layers: LayerList,
    /// Manifests and configurations, checked.
    documents: Vec<Spooled>,
}

impl Loader<'_, '_> {
    /// Keeps a document that passed the checks; gives its digest.
    pub(super) fn keep(&mut self, like: Option<&Digest>, bytes: &[u8]) -> Result<Digest, LoadError> {
        let mut writer = self.ingest.spool(like)?;
        writer.append(bytes)?;
        let spooled = self.ingest.finish(writer)?;
        let digest = spooled.digest.clone();
        self.documents.push(spooled);
        Ok(digest)
    }

    fn new_manifest(
        &mut self,
        config: &Descriptor,
        layers: &[usize],
        blobs: &[LayerBlob],
    ) -> Result<Descriptor, LoadError> {
        let layers: Vec<Descriptor> = layers.iter().map(|at| blobs[*at].descriptor()).collect();
        let manifest = NewManifest { schema_version: 2, media_type: OCI_MANIFEST, config, layers: &layers };
        let bytes = manifest.bytes();
        let digest = self.keep(None, &bytes)?;
        Ok(Descriptor::new(OCI_MANIFEST, digest, length(&bytes)))
    }
}

/// The length of something in memory.
pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// A tag of an archive, which must be a reference with a tag.
pub(super) fn parse_name(name: &str) -> Result<Reference, LoadError> {
    name.parse().map_err(|source| LoadError::Name { name: name.escape_debug().to_string(), source })
}

#[cfg(test)]
mod tests;
