//! The content store: an OCI image layout that every OCI tool can read.
//!
//! ```text
//! images/
//!   oci-layout            {"imageLayoutVersion":"1.0.0"}
//!   index.json            one descriptor per name; replaced by rename
//!   blobs/sha256/<hex>    manifests, configurations, layers; appear by rename, whole and synced
//!   blobs/sha512/<hex>
//!   .lock                 flock: held while index.json is read, changed and replaced
//!   gc.lock               flock: shared while a writer announces digests, exclusive while blobs are collected
//!   partial/<alg>-<hex>   the first bytes of a blob whose download broke off; flock held by whoever adds to it; aged out
//!   dropped/<algorithm>-<hex>   marks of layers that are absent on purpose (`dropped.rs`)
//!   ingest/<random>/      one per writer: `lease` (flock held by the writer; one protected digest per line) and
//!                         blobs that are not whole yet
//! ```
//!
//! A descriptor carries the full reference in `org.opencontainers.image.ref.name`, the image's id (so that a
//! look-up by id reads one file), and the digest that the registry gave for the name. A descriptor without a name
//! is a dangling image. A manifest of Docker's own type stays what it is, or its digest would change; tools of the
//! family of skopeo list such an entry, but find only the OCI's types by name.
//!
//! # Who may do what, when
//! * A reader takes no lock. It reads `index.json` (one state or the next, never a mixture), then blobs; a blob that
//!   vanished in between sends it back to `index.json`.
//! * A writer announces every digest it is going to rely on in its lease, *then* looks whether the blob is there,
//!   then adds what is missing, then changes the index, then lets the lease go.
//! * The collector holds `gc.lock` alone, reads the leases *first* and the index *second*: what a writer let go in
//!   between is in the index by then. It never waits for a download, only for an announcement.
//! * A lease whose flock is free has a dead owner: its directory is removed.

mod blob;
mod collect;
mod dropped;
mod error;
mod index;
mod ingest;
mod partial;
mod remove;
mod resolve;
mod verify;

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use stanza_spec::{Digest, Reference};

pub use collect::{DiskUsage, Pruned};
pub use error::{RemoveError, ResolveError, StoreError};
pub use ingest::Lease;
pub use remove::Removed;
pub use verify::{BlobFault, BlobKind, KnownBlob, StoreReport, StoredEntry};

pub(crate) use blob::BlobWriter;
pub(crate) use error::IoContext;
pub(crate) use index::{CONTAINERD_NAME, NAME as REF_NAME, NewEntry};
pub(crate) use ingest::{Ingest, SpoolRoom, Spooled};
use partial::PARTIAL;
pub(crate) use partial::{Partial, Wanted};

use crate::compression::Decoder;
use crate::image::Layer;

pub(crate) const LAYOUT: &str = "oci-layout";
pub(crate) const LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
const INDEX_LOCK: &str = ".lock";
const INDEX_RESERVE: &str = ".index.json.reserve";
const COLLECT_LOCK: &str = "gc.lock";
const INGEST: &str = "ingest";
const BLOBS: &str = "blobs";
const DROPPED: &str = "dropped";
const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// Read of a layer's blob at once.
const LAYER_BUFFER: usize = 128 * 1024;

/// The images of one root directory. Cheap to open; holds no lock and no open file.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
}

impl ImageStore {
    /// Opens the store in `root`, and makes it when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made or read, or holds a layout of another version.
    pub fn open(root: &Path) -> Result<ImageStore, StoreError> {
        let store = ImageStore { root: root.to_owned() };
        let path = root.join(LAYOUT);
        match fs::read_to_string(&path) {
            Ok(text) => check_layout(&path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => store.create()?,
            Err(error) => return Err(error).context("read", &path),
        }
        Ok(store)
    }

    /// Makes the layout; `oci-layout` comes last, so that its presence means the rest is there.
    fn create(&self) -> Result<(), StoreError> {
        for algorithm in ALGORITHMS {
            let path = self.root.join(BLOBS).join(algorithm);
            fs::create_dir_all(&path).context("create", &path)?;
        }
        for name in [INGEST, PARTIAL] {
            let path = self.root.join(name);
            fs::create_dir_all(&path).context("create", &path)?;
        }
        let _lock = self.lock_index()?;
        if !self.root.join(INDEX).exists() {
            self.write_index(&index::Index::default())?;
        }
        self.replace(LAYOUT, LAYOUT_TEXT.as_bytes())
    }

    /// Opens a layer as an uncompressed tar stream, told by its first bytes. The diff id is for the reader to check.
    ///
    /// # Errors
    /// When the blob is not there (removed meanwhile) or cannot be read.
    pub fn open_layer(&self, layer: &Layer) -> Result<Box<dyn Read + Send>, StoreError> {
        let path = self.blob_path(&layer.digest);
        let file = self.open_blob(&layer.digest)?;
        let file = BufReader::with_capacity(LAYER_BUFFER, file);
        Ok(Box::new(Decoder::new(file).context("read", &path)?))
    }

    /// Gives what `source` means one more name: an image, or a whole index when the name is that of one. An image that
    /// had this name before and has no other one stays, dangling.
    ///
    /// # Errors
    /// When `target` holds a digest, there is nothing that `source` means, or the index cannot be written.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<(), ResolveError> {
        if target.digest().is_some() || target.tag().is_none() {
            return Err(StoreError::TagDigest { name: target.familiar() }.into());
        }
        self.update_index(|index| {
            let entry = self.find(index, source)?.clone();
            let id = self.read_image(index, &entry)?.id;
            index.set(NewEntry { descriptor: entry, name: Some(target.clone()), id, source: None });
            Ok(())
        })
    }

    /// The directory of the layout.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is when it is there.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.root.join(BLOBS);
        path.push(digest.algorithm());
        path.push(digest.hex());
        path
    }

    /// Whether the blob is there with this size; a file of another size is damaged and counts as absent.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.blob_path(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }
}

fn check_layout(path: &Path, text: &str) -> Result<(), StoreError> {
    if text == LAYOUT_TEXT {
        return Ok(());
    }
    let version = serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|value| value.get("imageLayoutVersion")?.as_str().map(str::to_owned));
    match version {
        Some(version) if version.starts_with("1.") => Ok(()),
        other => Err(StoreError::Layout {
            path: path.to_owned(),
            version: other.unwrap_or_default().escape_debug().to_string(),
        }),
    }
}

/// Opens (and makes) a lock file and takes its flock; the lock goes with the returned file.
fn lock_file(path: &Path, operation: FlockOperation) -> Result<File, StoreError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .context("open the lock", path)?;
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error)).context("lock", path),
        }
    }
}

#[cfg(test)]
mod tests;
