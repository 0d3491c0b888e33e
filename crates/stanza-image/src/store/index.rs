//! `index.json`: the names, and the only roots of the store.

use std::fs::{self, File};
use std::io::{self, Write};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use stanza_spec::{Digest, Reference};

use super::blob::read_bounded;
use super::error::{IoContext, StoreError};
use super::{INDEX, INDEX_LOCK, INDEX_RESERVE, ImageStore, lock_file};
use crate::document::{Descriptor, OCI_INDEX};
use crate::image::Image;

/// The name of an entry: the full reference.
pub(crate) const NAME: &str = "org.opencontainers.image.ref.name";
/// The full name of an image, as containerd and Docker write it.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The image's id (digest of its configuration), so that a look-up by id opens no manifest.
const ID: &str = "io.github.stanza-containers.image-id";
/// The digest that the registry gave for the name: of an index, when the image came out of one.
const SOURCE: &str = "io.github.stanza-containers.source-digest";
/// The shortest reserve in bytes.
const SMALLEST_RESERVE: usize = 16 << 10;
/// More than a hundred thousand names.
const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// The content of `index.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
}

impl Default for Index {
    fn default() -> Index {
        Index { schema_version: 2, media_type: Some(OCI_INDEX.to_owned()), manifests: Vec::new() }
    }
}

/// An image to be entered into the index.
pub(crate) struct NewEntry {
    /// The manifest.
    pub(crate) descriptor: Descriptor,
    /// The name it gets; `None` enters a dangling image.
    pub(crate) name: Option<Reference>,
    /// The digest of its configuration.
    pub(crate) id: Digest,
    /// The registry's digest for the name.
    pub(crate) source: Option<Digest>,
}

impl Descriptor {
    /// The name of an index entry, as it is written.
    pub(crate) fn name(&self) -> Option<&str> {
        self.annotations.get(NAME).map(String::as_str)
    }

    /// The name of an index entry, when it is a reference.
    pub(crate) fn reference(&self) -> Option<Reference> {
        self.name()?.parse().ok()
    }

    /// The image id that an index entry carries; entries of other tools have none.
    pub(crate) fn image_id(&self) -> Option<Digest> {
        self.annotations.get(ID)?.parse().ok()
    }

    /// The registry's digest for the name.
    pub(crate) fn source_digest(&self) -> Option<Digest> {
        self.annotations.get(SOURCE)?.parse().ok()
    }
}

impl Index {
    /// Enters an image, and takes its name from whichever image had it. Gives `true` when something changed.
    pub(crate) fn set(&mut self, new: NewEntry) -> bool {
        let NewEntry { mut descriptor, name, id, source } = new;
        let name = name.map(|name| name.to_string());
        let digest = descriptor.digest.clone();
        descriptor.annotations.clear();
        descriptor.annotations.insert(ID.to_owned(), id.to_string());
        if let Some(source) = source {
            descriptor.annotations.insert(SOURCE.to_owned(), source.to_string());
        }
        let id = Some(id);
        let Some(name) = name else {
            if self.manifests.iter().any(|entry| entry.digest == digest || entry.image_id() == id) {
                return false;
            }
            self.manifests.push(descriptor);
            return true;
        };
        descriptor.annotations.insert(NAME.to_owned(), name.clone());
        if self.manifests.contains(&descriptor) {
            return false;
        }
        self.unname(&name);
        // The image is not dangling any more.
        self.manifests
            .retain(|entry| entry.name().is_some() || (entry.digest != digest && entry.image_id() != id));
        self.manifests.push(descriptor);
        true
    }

    /// Takes the name `name` away; an image without another name stays as a dangling one.
    pub(crate) fn unname(&mut self, name: &str) {
        let Some(at) = self.manifests.iter().position(|entry| entry.name() == Some(name)) else {
            return;
        };
        let mut entry = self.manifests.remove(at);
        // One image may have several manifests: the same layers compressed in other ways.
        let id = entry.image_id();
        let is_same =
            |other: &Descriptor| other.digest == entry.digest || (id.is_some() && other.image_id() == id);
        if !self.manifests.iter().any(is_same) {
            entry.annotations.remove(NAME);
            entry.annotations.remove(SOURCE);
            self.manifests.push(entry);
        }
    }
}

impl ImageStore {
    /// Reads the index; needs no lock, because it is replaced whole.
    pub(crate) fn read_index(&self) -> Result<Index, StoreError> {
        let path = self.root.join(INDEX);
        let bytes = read_bounded(&path, MAX_INDEX).context("read", &path)?;
        serde_json::from_slice(&bytes).map_err(|source| StoreError::Index { path, source })
    }

    pub(super) fn lock_index(&self) -> Result<File, StoreError> {
        lock_file(&self.root.join(INDEX_LOCK), FlockOperation::LockExclusive)
    }

    /// Reads the index, changes it and replaces it, alone.
    pub(crate) fn update_index<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.lock_index()?;
        let mut index = self.read_index()?;
        let before = index.manifests.clone();
        let result = change(&mut index)?;
        if index.manifests != before {
            self.write_index(&index)?;
        }
        Ok(result)
    }

    /// Enters an image, and reads it back in the same moment: by the next, somebody may have removed it. Its blobs must be
    /// protected by a lease. Gives `true` when something changed.
    pub(crate) fn enter(&self, new: NewEntry) -> Result<(Image, bool), StoreError> {
        self.update_index(|index| {
            let (digest, id) = (new.descriptor.digest.clone(), new.id.clone());
            let changed = index.set(new);
            let entry = index
                .manifests
                .iter()
                .find(|entry| entry.digest == digest)
                .or_else(|| index.manifests.iter().find(|entry| entry.image_id().as_ref() == Some(&id)))
                .ok_or(StoreError::Missing { digest })?;
            Ok((self.read_image(index, entry)?, changed))
        })
    }

    /// Replaces the index. The index lock must be held.
    ///
    /// An index that does not become longer is replaced on a full disk, too: whoever removes images wants room. For that a
    /// reserve lies beside it, which is given up then, and made again when there is room.
    pub(super) fn write_index(&self, index: &Index) -> Result<(), StoreError> {
        let path = self.root.join(INDEX);
        let reserve = self.root.join(INDEX_RESERVE);
        let json = |source| StoreError::Index { path: path.clone(), source };
        let bytes = serde_json::to_vec(index).map_err(json)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match self.replace(INDEX, &bytes) {
            Err(StoreError::Io { source, .. })
                if source.kind() == io::ErrorKind::StorageFull
                    && fs::metadata(&path).is_ok_and(|old| old.len() >= length)
                    && fs::remove_file(&reserve).is_ok() =>
            {
                self.replace(INDEX, &bytes)?;
            }
            result => result?,
        }
        if fs::metadata(&reserve).map_or(true, |old| old.len() < length) {
            let zeros = vec![0; bytes.len().saturating_mul(2).max(SMALLEST_RESERVE)];
            // Without room for it there is none, and half of one is none.
            if fs::write(&reserve, zeros).is_err() {
                let _ = fs::remove_file(&reserve);
            }
        }
        Ok(())
    }

    /// Replaces a file of the store by rename, synced. The index lock must be held: the temporary name is fixed.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.root.join(name);
        let temporary = self.root.join(format!(".{name}.new"));
        let mut file = File::create(&temporary).context("create", &temporary)?;
        file.write_all(bytes).context("write", &temporary)?;
        file.sync_data().context("sync", &temporary)?;
        fs::rename(&temporary, &target).context("rename a file to", &target)?;
        File::open(&self.root).and_then(|root| root.sync_all()).context("sync", &self.root)
    }
}
