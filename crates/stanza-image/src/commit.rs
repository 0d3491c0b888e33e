//! `commit`: one new layer over those of an image, or in place of the upper ones, becomes an image.
//!
//! ```text
//!  caller writes the tar ─▶ sha256 (diff id) ─▶ compress.rs ─▶ sha256 (digest) ─▶ ingest/ ─▶ blob
//!  parent's configuration ─▶ changed ─▶ blob ─▶ manifest ─▶ blob ─▶ index.json, by one rename
//! ```
//!
//! The parent's layers are the same blobs, byte for byte. Its configuration is changed as JSON, so that what the OCI does not
//! describe (`Healthcheck`, `OnBuild`, `Shell`, a vendor's own) stays. Killed at any moment it leaves the store as it was, and
//! an ingest directory that the next collection clears.

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use stanza_spec::oci::image::Config;
use stanza_spec::{Classify, Digest, ErrorKind, Instant, Platform, Reference};

use crate::changes;
use crate::compress::{Compressor, LayerCompression};
use crate::document::{Descriptor, MAX_CONFIG, MAX_LAYERS, NewManifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::hash::{Hasher, sha256};
use crate::image::{Image, Layer};
use crate::store::{BlobWriter, ImageStore, Ingest, NewEntry, ResolveError, StoreError};

/// What an image is to be, besides its new layer.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// The image below; `None` starts from nothing.
    pub parent: Option<Image>,
    /// How many of its layers stay, counted from the lowest; the others are in the new layer. More than it has: all.
    pub keep: usize,
    /// What a container of it runs and how, before `changes`; `None` leaves the parent's.
    pub config: Option<Config>,
    /// Instructions as in a Dockerfile: those of [`crate::import()`], `HEALTHCHECK` and `ONBUILD`.
    pub changes: Vec<String>,
    /// Who made it; empty is nobody.
    pub author: String,
    /// The comment in the history.
    pub message: String,
    /// The command that made the layer, for the history.
    pub created_by: String,
    /// How the new layer is compressed.
    pub compression: LayerCompression,
    /// The name it gets.
    pub name: Option<Reference>,
}

/// Why an image was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// An instruction that cannot be used.
    #[error("cannot apply the change `{change}`: {reason}")]
    Change {
        /// The instruction, control characters escaped.
        change: String,
        /// What is wrong.
        reason: String,
    },
    /// The caller could not write the layer.
    #[error("cannot write the new layer")]
    Layer(#[source] io::Error),
    /// More layers than an image may have.
    #[error("the image would have more than `{MAX_LAYERS}` layers")]
    TooManyLayers,
    /// The configuration cannot be made.
    #[error("cannot write the image's configuration")]
    Config(#[source] serde_json::Error),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image vanished as soon as it was there.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl Classify for CommitError {
    fn kind(&self) -> ErrorKind {
        match self {
            CommitError::Change { .. } => ErrorKind::InvalidArgument,
            CommitError::Layer(source) => ErrorKind::of_io(source),
            CommitError::TooManyLayers => ErrorKind::Exhausted,
            CommitError::Config(_) => ErrorKind::Internal,
            CommitError::Store(error) => error.kind(),
            CommitError::Resolve(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CommitError::TooManyLayers => Some("make one of several with `--squash`".to_owned()),
            CommitError::Store(error) => error.hint(),
            CommitError::Resolve(error) => error.hint(),
            _ => None,
        }
    }
}

/// Makes an image. `write_layer` writes the new layer's tar archive. An empty one is no layer, but a line of the history, as
/// Docker has it.
///
/// # Errors
/// When a change cannot be used, `write_layer` fails, a layer of the parent is not in the store any more, or the store cannot
/// take the image. The store is as it was, then.
pub fn commit(
    store: &ImageStore,
    new: &NewImage,
    write_layer: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<Image, CommitError> {
    if let Some(name) = new.name.as_ref().filter(|name| name.digest().is_some()) {
        return Err(StoreError::TagDigest { name: name.familiar() }.into());
    }
    let mut document = base(store, new)?;
    change(&mut document, new)?;
    let kept: Vec<Layer> =
        new.parent.iter().flat_map(|parent| parent.layers.iter()).take(new.keep).cloned().collect();
    let ingest = store.ingest()?;
    ingest.protect(kept.iter().map(|layer| &layer.digest))?;
    if let Some(lost) = kept.iter().find(|layer| !store.has_blob(&layer.digest, layer.size)) {
        return Err(StoreError::Missing { digest: lost.digest.clone() }.into());
    }
    let layer = store_layer(&ingest, new.compression, write_layer)?;
    let mut diff_ids: Vec<Digest> = kept.iter().map(|layer| layer.diff_id.clone()).collect();
    let mut layers: Vec<Descriptor> = kept.iter().map(descriptor).collect();
    let is_empty = layer.is_none();
    if let Some((diff_id, descriptor)) = layer {
        diff_ids.push(diff_id);
        layers.push(descriptor);
    }
    if layers.len() > MAX_LAYERS {
        return Err(CommitError::TooManyLayers);
    }
    describe(&mut document, new, &diff_ids, kept.len(), is_empty);

    let bytes = serde_json::to_vec(&document).map_err(CommitError::Config)?;
    let id = sha256(&bytes);
    ingest.store_bytes(&id, &bytes)?;
    let config = Descriptor::new(OCI_CONFIG, id.clone(), bytes.len() as u64);
    let manifest =
        NewManifest { schema_version: 2, media_type: OCI_MANIFEST, config: &config, layers: &layers };
    let bytes = serde_json::to_vec(&manifest).map_err(CommitError::Config)?;
    let digest = sha256(&bytes);
    ingest.store_bytes(&digest, &bytes)?;
    ingest.sync()?;
    let descriptor = Descriptor::new(OCI_MANIFEST, digest, bytes.len() as u64);
    store.update_index(|index| {
        index.set(NewEntry { descriptor, name: new.name.clone(), id: id.clone(), source: None });
        Ok::<_, StoreError>(())
    })?;
    drop(ingest);
    Ok(store.resolve(id.as_str())?)
}

/// The parent's configuration, or an empty one of this machine's platform.
fn base(store: &ImageStore, new: &NewImage) -> Result<Map<String, Value>, CommitError> {
    let Some(parent) = &new.parent else {
        let platform = Platform::host();
        let mut base = Map::new();
        base.insert("architecture".to_owned(), platform.architecture.into());
        base.insert("os".to_owned(), platform.os.into());
        base.extend(platform.variant.map(|variant| ("variant".to_owned(), variant.into())));
        return Ok(base);
    };
    let bytes = store.read_blob(&parent.id, MAX_CONFIG)?;
    let mut base: Map<String, Value> = serde_json::from_slice(&bytes).map_err(CommitError::Config)?;
    // What the builder of the parent noted of its own containers is not true of this image.
    for key in
        ["container", "container_config", "docker_version", "id", "parent", "moby.buildkit.buildinfo.v1"]
    {
        base.remove(key);
    }
    Ok(base)
}

/// Sets what a container of the image runs. What `Config` does not know is left as it is.
fn change(document: &mut Map<String, Value>, new: &NewImage) -> Result<(), CommitError> {
    let mut extra = match document.remove("config") {
        Some(Value::Object(config)) => config,
        _ => Map::new(),
    };
    let mut config = match &new.config {
        Some(config) => config.clone(),
        None => new.parent.as_ref().and_then(|parent| parent.config.config().clone()).unwrap_or_default(),
    };
    for change in &new.changes {
        changes::apply_all(&mut config, &mut extra, change)
            .map_err(|reason| CommitError::Change { change: change.escape_debug().to_string(), reason })?;
    }
    for key in [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        // Docker's, of the container that the parent was built in.
        "Hostname",
        "Domainname",
        "Image",
    ] {
        extra.remove(key);
    }
    // By way of a map, so that labels are sorted and the same image has the same id.
    if let Value::Object(known) = serde_json::to_value(&config).map_err(CommitError::Config)? {
        extra.extend(known);
    }
    document.insert("config".to_owned(), Value::Object(extra));
    Ok(())
}

/// Sets everything but `config`.
fn describe(
    document: &mut Map<String, Value>,
    new: &NewImage,
    diff_ids: &[Digest],
    kept: usize,
    is_empty: bool,
) {
    let created = Instant::now().rfc3339();
    let history = match document.remove("history") {
        Some(Value::Array(history)) => history,
        _ => Vec::new(),
    };
    let parent_layers = new.parent.as_ref().map_or(0, |parent| parent.layers.len());
    let mut history = if kept < parent_layers { history_of(history, kept) } else { history };
    let mut entry = Map::new();
    entry.insert("created".to_owned(), created.clone().into());
    for (key, text) in [("created_by", &new.created_by), ("author", &new.author), ("comment", &new.message)] {
        if !text.is_empty() {
            entry.insert(key.to_owned(), text.as_str().into());
        }
    }
    if is_empty {
        entry.insert("empty_layer".to_owned(), true.into());
    }
    history.push(Value::Object(entry));
    document.insert("created".to_owned(), created.into());
    if new.author.is_empty() {
        document.remove("author");
    } else {
        document.insert("author".to_owned(), new.author.as_str().into());
    }
    document.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
    document.insert("history".to_owned(), history.into());
}

/// The lines of the history that made the lowest `layers` layers.
fn history_of(history: Vec<Value>, layers: usize) -> Vec<Value> {
    let mut made = 0;
    history
        .into_iter()
        .take_while(|line| {
            let is_empty = line.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
            made += usize::from(!is_empty);
            made <= layers
        })
        .collect()
}

/// A layer of the parent in an OCI manifest: Docker's names for the same bytes are not mixed with the OCI's.
fn descriptor(layer: &Layer) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => format!("{OCI_LAYER}+gzip"),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{OCI_LAYER}+zstd"),
        "application/vnd.docker.image.rootfs.diff.tar" => OCI_LAYER.to_owned(),
        other => other.to_owned(),
    };
    Descriptor::new(&media_type, layer.digest.clone(), layer.size)
}

/// The bytes of an archive without entries.
const EMPTY_ARCHIVE: u64 = 1024;

/// Stores the layer as a blob; `None` when it has no entries.
fn store_layer(
    ingest: &Ingest<'_>,
    compression: LayerCompression,
    write_layer: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<Option<(Digest, Descriptor)>, CommitError> {
    let compressor = Compressor::new(ingest.spool(None)?, compression).map_err(failed)?;
    let mut hashed = Hashed { inner: compressor, hasher: Hasher::sha256(), length: 0 };
    write_layer(&mut hashed).map_err(failed)?;
    let Hashed { inner, hasher, length } = hashed;
    let writer: BlobWriter = inner.finish().map_err(failed)?;
    if length <= EMPTY_ARCHIVE {
        return Ok(None);
    }
    let layer = ingest.finish(writer)?;
    ingest.protect([&layer.digest])?;
    ingest.adopt(&layer)?;
    let media_type = format!("{OCI_LAYER}{}", compression.suffix());
    Ok(Some((hasher.finish(), Descriptor::new(&media_type, layer.digest.clone(), layer.size))))
}

/// The store's own failure when it is one, which a writer can only hand on as an `io::Error`.
fn failed(error: io::Error) -> CommitError {
    match error.downcast::<StoreError>() {
        Ok(error) => error.into(),
        Err(error) => CommitError::Layer(error),
    }
}

/// Hashes and counts what it hands on.
struct Hashed<W: Write> {
    inner: W,
    hasher: Hasher,
    length: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(name: &str) -> Vec<u8> {
        let mut builder = stanza_tar::Builder::new(Vec::new());
        let header = stanza_tar::Header { path: name.into(), ..stanza_tar::Header::default() };
        builder.append(&header, &mut io::empty()).unwrap();
        builder.finish().unwrap()
    }

    fn make(store: &ImageStore, new: &NewImage, name: &str) -> Image {
        let bytes = if name.is_empty() { vec![0; 1024] } else { tar(name) };
        commit(store, new, &mut |out| out.write_all(&bytes)).unwrap()
    }

    fn text(store: &ImageStore, image: &Image) -> Value {
        serde_json::from_slice(&store.read_blob(&image.id, MAX_CONFIG).unwrap()).unwrap()
    }

    #[test]
    fn layers_are_put_on_top_and_squashed() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path()).unwrap();
        let mut new = NewImage { created_by: "one".to_owned(), ..NewImage::default() };
        let first = make(&store, &new, "a");
        new = NewImage {
            parent: Some(first.clone()),
            keep: usize::MAX,
            changes: vec!["HEALTHCHECK CMD true".to_owned(), "LABEL b=1 a=2".to_owned()],
            created_by: "two".to_owned(),
            author: "me".to_owned(),
            name: Some("room:1".parse().unwrap()),
            ..NewImage::default()
        };
        let second = make(&store, &new, "b");
        assert_eq!(second.layers.len(), 2);
        assert_eq!(second.layers[0], first.layers[0]);
        let document = text(&store, &second);
        assert_eq!(document["author"], "me");
        assert_eq!(document["config"]["Healthcheck"], json!({ "Test": ["CMD-SHELL", "true"] }));

        // What the typed configuration does not know goes on; an empty layer is a line of the history only.
        new = NewImage { parent: Some(second.clone()), keep: usize::MAX, ..NewImage::default() };
        let third = make(&store, &new, "");
        assert_eq!(third.layers, second.layers);
        let document = text(&store, &third);
        assert_eq!(document["config"]["Healthcheck"], json!({ "Test": ["CMD-SHELL", "true"] }));
        assert_eq!(document["config"]["Labels"], json!({ "a": "2", "b": "1" }));
        assert_eq!(document["history"].as_array().unwrap().len(), 3);
        assert_eq!(document["history"][2]["empty_layer"], true);
        assert_eq!(document.get("author"), None);

        new = NewImage {
            parent: Some(third),
            keep: 1,
            created_by: "squash".to_owned(),
            compression: LayerCompression::Zstd,
            ..NewImage::default()
        };
        let squashed = make(&store, &new, "b");
        let lines: Vec<Value> = text(&store, &squashed)["history"].as_array().unwrap().clone();
        let lines: Vec<_> = lines.iter().map(|line| line["created_by"].as_str().unwrap()).collect();
        assert_eq!(lines, ["one", "squash"]);
        assert_eq!(squashed.layers[1].diff_id, second.layers[1].diff_id);
        assert_eq!(squashed.layers[1].media_type, format!("{OCI_LAYER}+zstd"));
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path()).unwrap();
        let new = NewImage { changes: vec!["RUN x".to_owned()], ..NewImage::default() };
        let error = commit(&store, &new, &mut |_| Ok(())).unwrap_err();
        assert!(matches!(error, CommitError::Change { .. }), "{error}");
        let error = commit(&store, &NewImage::default(), &mut |out| {
            out.write_all(&tar("a"))?;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(store.list().unwrap().len(), 0);
        let left = |name: &str| std::fs::read_dir(directory.path().join(name)).unwrap().count();
        assert_eq!((left("ingest"), left("blobs/sha256")), (0, 0));
    }
}
