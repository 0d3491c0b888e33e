//! `save`: images to a file that other engines read.
//!
//! ```text
//!   docker-archive   oci-layout index.json manifest.json repositories blobs/…     Docker since 25, and all before it
//!   oci-archive      oci-layout index.json blobs/…                                the OCI's layout
//!   oci-dir          the same as a directory
//!   docker-dir       version manifest.json <hex>…                                 skopeo's `dir`
//! ```
//!
//! Blobs go out as they came: nothing is decompressed or compressed, and the kernel copies them. The same images give the
//! same bytes: fixed order, no times, no owners. Documents come first, so that a reader of a stream knows what follows.
//!
//! A manifest is written as the registry gave it, whatever its type; but an OCI archive has the OCI's types, and `dir`
//! Docker's, since their readers look for nothing else. Only then its digest is another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use stanza_spec::{Classify, Digest, ErrorKind, Platform, Reference};
use stanza_tar::{Builder, EntryKind, Header};

use super::directory::VERSION_TEXT;
use crate::document::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, DescribedPlatform, Descriptor, Document, MAX_MANIFEST,
    Manifest, NewManifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST,
};
use crate::hash::sha256;
use crate::image::Image;
use crate::store::{CONTAINERD_NAME, ImageStore, LAYOUT, LAYOUT_TEXT, REF_NAME, ResolveError, StoreError};

/// What an archive looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// What `docker save` writes.
    Docker,
    /// An OCI layout.
    Oci,
    /// skopeo's `dir`: one image, without a name.
    Directory,
}

/// Where an archive goes.
pub enum Target<'a> {
    /// A file or a pipe, from its position; as tar.
    File(&'a File),
    /// A directory that is not there yet, or empty; it appears when it is whole.
    Directory(&'a Path),
}

/// An image to be saved.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The image.
    pub image: Image,
    /// The names that the archive gives it; none when it was asked for by id.
    pub names: Vec<Reference>,
}

/// Why images were not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A name leads to no image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The image is for something else.
    #[error("the image `{name}` is made for `{found}`, not for `{wanted}`")]
    Platform {
        /// What was asked for.
        name: String,
        /// What the image says.
        found: String,
        /// The platform asked for.
        wanted: String,
    },
    /// A blob is not there, or not whole.
    #[error("the image `{name}` cannot be saved: its blob `{digest}` is not in the store")]
    Missing {
        /// A name of the image, or its id.
        name: String,
        /// The blob.
        digest: Digest,
    },
    /// The form holds one image.
    #[error("a directory of this form holds one image, and `{count}` were given")]
    Several {
        /// How many there are.
        count: usize,
    },
    /// Docker's manifest has no name for the compression.
    #[error("the layer `{0}` is compressed with zstd, for which Docker's manifest has no name")]
    Compression(Digest),
    /// There is something at the target.
    #[error("the directory `{}` is there already, and not empty", .0.display())]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for SaveError {
    fn kind(&self) -> ErrorKind {
        match self {
            SaveError::Resolve(error) => error.kind(),
            SaveError::Platform { .. } | SaveError::Missing { .. } => ErrorKind::NotFound,
            SaveError::Several { .. } => ErrorKind::InvalidArgument,
            SaveError::Compression(_) => ErrorKind::Unsupported,
            SaveError::Exists(_) => ErrorKind::AlreadyExists,
            SaveError::Write(source) => ErrorKind::of_io(source),
            SaveError::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SaveError::Resolve(error) => error.hint(),
            SaveError::Missing { name, .. } => Some(format!("fetch it again with `stanza pull {name}`")),
            SaveError::Several { .. } => Some("save them one by one".to_owned()),
            SaveError::Compression(_) => Some("save it in one of the OCI's forms".to_owned()),
            SaveError::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// The images that `texts` mean, each once. A name with a tag means itself, one without all tags of the repository, and an
/// id the image without its names, as Docker has it.
///
/// # Errors
/// When a name leads nowhere, or to an image for another platform.
pub fn select(
    store: &ImageStore,
    texts: &[&str],
    platform: Option<&Platform>,
) -> Result<Vec<Selected>, SaveError> {
    let mut all: Vec<Selected> = Vec::new();
    for text in texts {
        let found = select_one(store, text)?;
        if let Some(wanted) = platform {
            for one in &found {
                let is = one.image.platform();
                if !is.satisfies(wanted) {
                    let (name, found, wanted) = ((*text).to_owned(), is.to_string(), wanted.to_string());
                    return Err(SaveError::Platform { name, found, wanted });
                }
            }
        }
        for one in found {
            match all.iter_mut().find(|other| other.image.manifest == one.image.manifest) {
                Some(other) => {
                    other.names.extend(one.names);
                    other.names.sort();
                    other.names.dedup();
                }
                None => all.push(one),
            }
        }
    }
    Ok(all)
}

fn select_one(store: &ImageStore, text: &str) -> Result<Vec<Selected>, SaveError> {
    let last = text.rsplit('/').next().unwrap_or_default();
    let reference = text.parse::<Reference>().ok();
    if let Some(reference) = reference.as_ref().filter(|_| !last.contains([':', '@'])) {
        let of_repository = |mut image: Image| {
            let is_one =
                |name: &Reference| name.tag().is_some() && name.repository() == reference.repository();
            let names: Vec<Reference> = image.names.extract_if(.., |name| is_one(name)).collect();
            (!names.is_empty()).then_some(Selected { image, names })
        };
        let found: Vec<Selected> = store.list()?.into_iter().filter_map(of_repository).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let image = store.resolve(text)?;
    let names = reference.filter(|name| name.tag().is_some() && image.names.contains(name));
    Ok(vec![Selected { image, names: names.into_iter().collect() }])
}

/// Writes images.
///
/// # Errors
/// When a blob is missing, or the target cannot be written. A directory is removed then; what is in a file by then stays.
pub fn save(
    store: &ImageStore,
    images: &[Selected],
    form: ArchiveForm,
    target: Target<'_>,
) -> Result<(), SaveError> {
    // What is announced stays while it is copied.
    let ingest = store.ingest()?;
    let mut parts = Parts { store, documents: Vec::new(), blobs: Vec::new() };
    let mut entries = Vec::new();
    for one in images {
        let blobs = one.image.layers.iter().map(|layer| &layer.digest);
        ingest.protect(blobs.chain([&one.image.id, &one.image.manifest]))?;
        entries.push(parts.image(one, form)?);
    }
    match form {
        ArchiveForm::Docker => {
            parts.layout(&index(images, &entries, form))?;
            parts.docker_documents(images)?;
        }
        ArchiveForm::Oci => parts.layout(&index(images, &entries, form))?,
        ArchiveForm::Directory => {
            if images.len() != 1 {
                return Err(SaveError::Several { count: images.len() });
            }
            parts.documents.push(("version".to_owned(), format!("{VERSION_TEXT}1.1\n").into_bytes()));
        }
    }
    match target {
        Target::File(file) => parts.write_tar(file),
        Target::Directory(path) => parts.write_directory(path),
    }
}

/// What an archive is made of.
struct Parts<'a> {
    store: &'a ImageStore,
    /// Path and content.
    documents: Vec<(String, Vec<u8>)>,
    /// Path, digest and size.
    blobs: Vec<(String, Digest, u64)>,
}

impl Parts<'_> {
    /// Adds the parts of an image; gives the descriptor of its manifest.
    fn image(&mut self, one: &Selected, form: ArchiveForm) -> Result<Descriptor, SaveError> {
        let image = &one.image;
        let name = one
            .names
            .first()
            .or(image.names.first())
            .map_or_else(|| image.id.to_string(), Reference::familiar);
        let missing = |digest: &Digest| SaveError::Missing { name: name.clone(), digest: digest.clone() };
        let bytes = match self.store.read_blob(&image.manifest, MAX_MANIFEST) {
            Err(StoreError::Missing { digest }) => return Err(missing(&digest)),
            other => other?,
        };
        let document =
            Document::parse(&bytes, None).map_err(|error| StoreError::document(&image.manifest, &error))?;
        let Document::Manifest(manifest) = document else {
            return Err(ResolveError::NotFound { name }.into());
        };
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if !self.store.has_blob(&blob.digest, blob.size) {
                return Err(missing(&blob.digest));
            }
        }
        let (media_type, bytes) = match form {
            ArchiveForm::Oci if manifest.media_type != OCI_MANIFEST => (OCI_MANIFEST, to_oci(&manifest)),
            ArchiveForm::Directory if manifest.media_type != DOCKER_MANIFEST => {
                (DOCKER_MANIFEST, to_docker(&manifest)?)
            }
            _ => (manifest.media_type, bytes),
        };
        let digest = sha256(&bytes);
        let digest = if media_type == manifest.media_type { image.manifest.clone() } else { digest };
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let path = |digest: &Digest| match form {
            ArchiveForm::Directory => digest.hex().to_owned(),
            _ => format!("blobs/{}/{}", digest.algorithm(), digest.hex()),
        };
        let of_manifest = match form {
            ArchiveForm::Directory => "manifest.json".to_owned(),
            _ => path(&digest),
        };
        if !self.documents.iter().any(|(path, _)| *path == of_manifest) {
            self.documents.push((of_manifest, bytes));
        }
        for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
            if !self.blobs.iter().any(|(_, digest, _)| *digest == blob.digest) {
                self.blobs.push((path(&blob.digest), blob.digest.clone(), blob.size));
            }
        }
        let mut descriptor = Descriptor::new(media_type, digest, size);
        let platform = image.platform();
        descriptor.platform = Some(DescribedPlatform {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
        });
        Ok(descriptor)
    }

    /// The documents of a layout, before all others.
    fn layout(&mut self, index: &Index) -> Result<(), SaveError> {
        self.documents.insert(0, (LAYOUT.to_owned(), LAYOUT_TEXT.as_bytes().to_vec()));
        self.documents.insert(1, ("index.json".to_owned(), json(index)?));
        Ok(())
    }

    /// What Docker before 25, and everything that reads its archives, looks for.
    fn docker_documents(&mut self, images: &[Selected]) -> Result<(), SaveError> {
        let path = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm(), digest.hex());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut entries = Vec::new();
        for one in images {
            let layers = &one.image.layers;
            for name in &one.names {
                if let (Some(tag), Some(top)) = (name.tag(), layers.last()) {
                    let tags = repositories.entry(name.familiar_repository()).or_default();
                    tags.insert(tag.to_owned(), top.digest.hex().to_owned());
                }
            }
            entries.push(DockerEntry {
                config: path(&one.image.id),
                repo_tags: one.names.iter().map(Reference::familiar).collect(),
                layers: layers.iter().map(|layer| path(&layer.digest)).collect(),
            });
        }
        self.documents.insert(2, ("manifest.json".to_owned(), json(&entries)?));
        if !repositories.is_empty() {
            self.documents.insert(3, ("repositories".to_owned(), json(&repositories)?));
        }
        Ok(())
    }

    fn write_tar(&self, file: &File) -> Result<(), SaveError> {
        let mut archive = Builder::new(file);
        let header = |path: &str, kind, mode, size| Header {
            path: path.as_bytes().to_vec(),
            kind,
            mode,
            size,
            ..Header::default()
        };
        for (path, bytes) in &self.documents {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let header = header(path, EntryKind::File, 0o644, size);
            archive.append(&header, &mut &bytes[..]).map_err(SaveError::Write)?;
        }
        for (path, digest, size) in &self.blobs {
            let blob = self.open(digest)?;
            archive.start(&header(path, EntryKind::File, 0o644, *size)).map_err(SaveError::Write)?;
            // Files both, so this is copy_file_range(2), or splice(2) when the target is a pipe.
            let copied = io::copy(&mut (&blob).take(*size), archive.get_mut()).map_err(SaveError::Write)?;
            if copied != *size {
                return Err(
                    StoreError::Size { digest: digest.clone(), expected: *size, actual: copied }.into()
                );
            }
            archive.pad(*size).map_err(SaveError::Write)?;
        }
        archive.finish().map_err(SaveError::Write)?;
        Ok(())
    }

    /// Writes beside the target, and renames.
    fn write_directory(&self, target: &Path) -> Result<(), SaveError> {
        if fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(SaveError::Exists(target.to_owned()));
        }
        let name = target.file_name().ok_or_else(|| SaveError::Exists(target.to_owned()))?;
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| SaveError::Write(error.into()))?;
        let room = format!(".{}.{:016x}", name.to_string_lossy(), u64::from_ne_bytes(random));
        let room = target.with_file_name(room);
        let written = self.fill(&room).and_then(|()| fs::rename(&room, target).map_err(SaveError::Write));
        if written.is_err() {
            // The failure itself is what is told.
            let _ = fs::remove_dir_all(&room);
        }
        written
    }

    fn fill(&self, directory: &Path) -> Result<(), SaveError> {
        fs::create_dir(directory).map_err(SaveError::Write)?;
        let create = |path: &str| {
            let path = directory.join(path);
            if let Some(above) = path.parent() {
                fs::create_dir_all(above)?;
            }
            File::create_new(path)
        };
        for (path, bytes) in &self.documents {
            create(path).and_then(|mut file| file.write_all(bytes)).map_err(SaveError::Write)?;
        }
        for (path, digest, size) in &self.blobs {
            let blob = self.open(digest)?;
            let mut file = create(path).map_err(SaveError::Write)?;
            let copied = io::copy(&mut (&blob).take(*size), &mut file).map_err(SaveError::Write)?;
            if copied != *size {
                return Err(
                    StoreError::Size { digest: digest.clone(), expected: *size, actual: copied }.into()
                );
            }
        }
        Ok(())
    }

    fn open(&self, digest: &Digest) -> Result<File, SaveError> {
        File::open(self.store.blob_path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { digest: digest.clone() }.into(),
            _ => SaveError::Write(error),
        })
    }
}

/// `index.json` of a layout.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Every name is an entry; an image without a name has one entry without.
fn index(images: &[Selected], entries: &[Descriptor], form: ArchiveForm) -> Index {
    let mut manifests = Vec::new();
    for (one, entry) in images.iter().zip(entries) {
        if one.names.is_empty() {
            manifests.push(entry.clone());
        }
        for name in &one.names {
            let mut entry = entry.clone();
            // Docker has the bare tag in the OCI's annotation and the name in containerd's; podman and skopeo, which
            // write the OCI's forms, ask by the full name.
            let mut text = name.to_string();
            if form == ArchiveForm::Docker {
                entry.annotations.insert(CONTAINERD_NAME.to_owned(), text);
                text = name.tag().unwrap_or_default().to_owned();
            }
            entry.annotations.insert(REF_NAME.to_owned(), text);
            manifests.push(entry);
        }
    }
    Index { schema_version: 2, media_type: OCI_INDEX, manifests }
}

fn json(document: &impl Serialize) -> Result<Vec<u8>, SaveError> {
    serde_json::to_vec(document).map_err(|error| SaveError::Write(error.into()))
}

/// The same manifest with the OCI's media types.
fn to_oci(manifest: &Manifest) -> Vec<u8> {
    let layer = |layer: &Descriptor| {
        let suffix = layer.media_type.strip_prefix(DOCKER_LAYER).unwrap_or_default().replace('.', "+");
        let mut layer = layer.clone();
        if layer.media_type.starts_with(DOCKER_LAYER) {
            layer.media_type = format!("{OCI_LAYER}{suffix}");
        }
        layer
    };
    converted(manifest, OCI_MANIFEST, OCI_CONFIG, manifest.layers.iter().map(layer).collect())
}

/// The same manifest with Docker's media types.
fn to_docker(manifest: &Manifest) -> Result<Vec<u8>, SaveError> {
    let layer = |layer: &Descriptor| {
        let suffix = match layer.media_type.strip_prefix(OCI_LAYER) {
            Some("+zstd") => return Err(SaveError::Compression(layer.digest.clone())),
            Some("+gzip") => ".gzip",
            _ => "",
        };
        let mut layer = layer.clone();
        layer.media_type = format!("{DOCKER_LAYER}{suffix}");
        Ok(layer)
    };
    let layers = manifest.layers.iter().map(layer).collect::<Result<_, SaveError>>()?;
    Ok(converted(manifest, DOCKER_MANIFEST, DOCKER_CONFIG, layers))
}

fn converted(manifest: &Manifest, media_type: &str, config_type: &str, layers: Vec<Descriptor>) -> Vec<u8> {
    let mut config = manifest.config.clone();
    config_type.clone_into(&mut config.media_type);
    NewManifest { schema_version: 2, media_type, config: &config, layers: &layers }.bytes()
}
