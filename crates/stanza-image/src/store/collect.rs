//! Removing what nothing leads to: the collector, and the account of what takes space.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use stanza_spec::Digest;

use super::error::{IoContext, StoreError};
use super::index::Index;
use super::ingest::LEASE;
use super::{ALGORITHMS, BLOBS, COLLECT_LOCK, INGEST, ImageStore, PARTIAL, lock_file};
use crate::document::{Descriptor, MAX_INDEX_DEPTH, MAX_MANIFEST};
use crate::image::Image;
use crate::outline::Outline;

/// What a prune took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names taken away, as listings show them.
    pub untagged: Vec<String>,
    /// The ids of removed images, then the blobs that went.
    pub deleted: Vec<Digest>,
    /// Bytes that are free now.
    pub reclaimed: u64,
}

/// What the store takes on disk, in bytes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// How many images there are, each counted once.
    pub images: usize,
    /// How many blobs.
    pub blobs: usize,
    /// All blobs together.
    pub size: u64,
    /// Blobs that no image leads to: free after a prune, unless a pull is under way.
    pub unreferenced: u64,
    /// Partial blobs of pulls under way, or of dead ones.
    pub partial: u64,
    /// What came of downloads that were cut, kept to go on with.
    pub kept: u64,
}

/// What a collection removed.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) deleted: Vec<Digest>,
    pub(super) bytes: u64,
}

impl ImageStore {
    /// Removes every image that `unwanted` says yes to, with all its names; then every blob that nothing leads to,
    /// and what dead writers left. An image that is dangling, or that no container uses, is for the caller to tell.
    ///
    /// # Errors
    /// When the store cannot be read or changed; what was removed before stays removed.
    pub fn prune(&self, unwanted: &dyn Fn(&Image) -> bool) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        self.update_index(|index| {
            let mut gone: Vec<Image> = Vec::new();
            for entry in &index.manifests {
                if gone.iter().any(|image| image.manifest == entry.digest) {
                    continue;
                }
                let Ok(image) = self.read_image(index, entry) else { continue };
                if unwanted(&image) {
                    gone.push(image);
                }
            }
            index.manifests.retain(|entry| {
                !gone.iter().any(|image| {
                    image.manifest == entry.digest || entry.image_id().as_ref() == Some(&image.id)
                })
            });
            for image in gone {
                pruned.untagged.extend(image.names.iter().map(stanza_spec::Reference::familiar));
                if !pruned.deleted.contains(&image.id) {
                    pruned.deleted.push(image.id);
                }
            }
            Ok::<_, StoreError>(())
        })?;
        let collected = self.collect()?;
        let blobs = collected.deleted.into_iter().filter(|digest| !pruned.deleted.contains(digest));
        let blobs: Vec<Digest> = blobs.collect();
        pruned.deleted.extend(blobs);
        pruned.reclaimed = collected.bytes;
        Ok(pruned)
    }

    /// What the store takes on disk.
    ///
    /// # Errors
    /// When the index or a directory cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let reachable = self.reachable(&self.read_index()?)?;
        let mut usage = DiskUsage { images: self.list()?.len(), ..DiskUsage::default() };
        self.each_blob(|digest, size| {
            usage.blobs += 1;
            usage.size += size;
            if !reachable.contains(&digest) {
                usage.unreferenced += size;
            }
            Ok(())
        })?;
        let ingest = self.root.join(INGEST);
        for room in fs::read_dir(&ingest).context("list", &ingest)?.flatten() {
            usage.partial += directory_size(&room.path());
        }
        usage.kept = directory_size(&self.root.join(PARTIAL));
        Ok(usage)
    }

    /// Removes every blob that neither the index nor a live writer's lease protects, and the rooms of dead writers.
    pub(super) fn collect(&self) -> Result<Collected, StoreError> {
        let _alone = lock_file(&self.root.join(COLLECT_LOCK), FlockOperation::LockExclusive)?;
        let mut collected = Collected::default();
        // Leases first, index second: who lets go in between has entered the index before.
        let mut keep = self.leased(&mut collected)?;
        keep.extend(self.reachable(&self.read_index()?)?);
        self.each_blob(|digest, size| {
            if keep.contains(&digest) {
                return Ok(());
            }
            let path = self.blob_path(&digest);
            match fs::remove_file(&path) {
                Ok(()) => {
                    collected.deleted.push(digest);
                    collected.bytes += size;
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error).context("remove", &path),
            }
        })?;
        self.clear_marks(&keep);
        Ok(collected)
    }

    /// Removes downloads that were cut longer than `age` ago, and whatever else is as old there; gives the bytes. One that
    /// somebody goes on with is younger.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn clear_partials(&self, age: Duration) -> Result<u64, StoreError> {
        let directory = self.root.join(PARTIAL);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error).context("list", &directory),
        };
        let mut bytes = 0;
        for entry in entries {
            let entry = entry.context("list", &directory)?;
            let Ok(metadata) = entry.metadata() else { continue };
            let is_old =
                metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed > age));
            // Whoever goes on with it holds its lock.
            if is_old && !is_locked(&entry.path()) && fs::remove_file(entry.path()).is_ok() {
                bytes += metadata.blocks() * 512;
            }
        }
        Ok(bytes)
    }

    /// The digests that live writers announced.
    ///
    /// # Errors
    /// When a lease cannot be read.
    pub fn leases(&self) -> Result<HashSet<Digest>, StoreError> {
        // Alone: a writer must not find its new lease locked by somebody who looks.
        let _alone = lock_file(&self.root.join(COLLECT_LOCK), FlockOperation::LockExclusive)?;
        self.announced()
    }

    /// The same for whoever holds the collector's lock.
    pub(super) fn announced(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut announced = HashSet::new();
        let ingest = self.root.join(INGEST);
        for room in fs::read_dir(&ingest).context("list", &ingest)? {
            let room = room.context("list", &ingest)?.path();
            if let Some(text) = read_lease(&room.join(LEASE)).context("read", &room)? {
                announced.extend(text.lines().filter_map(|line| line.parse::<Digest>().ok()));
            }
        }
        Ok(announced)
    }

    /// Removes what writers that were killed left in their rooms. Not when there is nothing, and not while somebody
    /// announces or collects: the next writer comes soon enough. What fails is told by the collection.
    pub(super) fn clear_dead_rooms(&self) {
        let is_empty = fs::read_dir(self.root.join(INGEST)).is_ok_and(|mut rooms| rooms.next().is_none());
        if is_empty {
            return;
        }
        let Ok(lock) = File::open(self.root.join(COLLECT_LOCK)) else { return };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = self.leased(&mut Collected::default());
        }
    }

    /// The digests of all live leases; dead writers' rooms are removed on the way.
    fn leased(&self, collected: &mut Collected) -> Result<HashSet<Digest>, StoreError> {
        let mut protected = HashSet::new();
        let ingest = self.root.join(INGEST);
        for room in fs::read_dir(&ingest).context("list", &ingest)? {
            let room = room.context("list", &ingest)?.path();
            match read_lease(&room.join(LEASE)) {
                Ok(Some(text)) => {
                    protected.extend(text.lines().filter_map(|line| line.parse::<Digest>().ok()))
                }
                // A writer that ends removes its room itself, at the same time as this.
                Ok(None) => {
                    let size = directory_size(&room);
                    match fs::remove_dir_all(&room) {
                        Ok(()) => collected.bytes += size,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error).context("remove", &room),
                    }
                }
                Err(error) => return Err(error).context("read", &room),
            }
        }
        Ok(protected)
    }

    /// Every digest that the index leads to. A missing manifest leads nowhere; a damaged one stops the collection,
    /// because what it leads to is unknown.
    fn reachable(&self, index: &Index) -> Result<HashSet<Digest>, StoreError> {
        let mut reachable = HashSet::new();
        let mut open: Vec<(Descriptor, u32)> =
            index.manifests.iter().map(|entry| (entry.clone(), 0)).collect();
        while let Some((entry, depth)) = open.pop() {
            if !reachable.insert(entry.digest.clone()) {
                continue;
            }
            let bytes = match self.read_blob(&entry.digest, MAX_MANIFEST) {
                Ok(bytes) => bytes,
                Err(StoreError::Missing { .. }) => continue,
                Err(error) => return Err(error),
            };
            // What runs and what lies beside it in an index, as attestations do.
            let outline = Outline::parse(&bytes)
                .map_err(|reason| StoreError::Document { digest: entry.digest.clone(), reason })?;
            reachable.extend(outline.blobs.into_iter().map(|blob| blob.digest));
            if depth < MAX_INDEX_DEPTH {
                open.extend(outline.documents.into_iter().map(|child| (child, depth + 1)));
            }
        }
        Ok(reachable)
    }

    pub(super) fn each_blob(
        &self,
        mut visit: impl FnMut(Digest, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for algorithm in ALGORITHMS {
            let path = self.root.join(BLOBS).join(algorithm);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context("list", &path),
            };
            for entry in entries {
                let entry = entry.context("list", &path)?;
                let Some(name) = entry.file_name().to_str().map(|hex| format!("{algorithm}:{hex}")) else {
                    continue;
                };
                // What is no blob is not ours to remove.
                let Ok(digest) = name.parse() else { continue };
                let Ok(metadata) = entry.metadata() else { continue };
                visit(digest, metadata.len())?;
            }
        }
        Ok(())
    }
}

/// Whether a process holds a lock on a file.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| {
        matches!(flock(&file, FlockOperation::NonBlockingLockExclusive), Err(rustix::io::Errno::WOULDBLOCK))
    })
}

/// The lease's text when its writer lives, `None` when it is dead.
fn read_lease(path: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(Some(text))
        }
        Err(error) => Err(error.into()),
    }
}

/// The bytes of the files in a flat directory; what vanishes meanwhile counts nothing.
fn directory_size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}
