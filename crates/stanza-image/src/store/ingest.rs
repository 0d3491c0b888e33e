//! A writer's room in `ingest/`: its lease and its unfinished blobs.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use stanza_spec::Digest;

use super::blob::BlobWriter;
use super::error::{IoContext, StoreError};
use super::{COLLECT_LOCK, INGEST, ImageStore, lock_file};

pub(super) const LEASE: &str = "lease";

/// One writer's lease and temporary files; dropping it removes both.
pub(crate) struct Ingest<'a> {
    store: &'a ImageStore,
    directory: PathBuf,
    /// Locked for as long as this process lives: who finds it unlocked may clear the directory.
    lease: File,
    files: Cell<u32>,
    /// What is there under a blob's name does not count: it is damaged.
    replaces: Cell<bool>,
}

/// A whole file in the ingest directory, hashed, not (yet) a blob. It goes with its directory.
#[derive(Debug)]
pub(crate) struct Spooled {
    path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Keeps digests from being collected for as long as it lives, whether an image leads to them or not.
pub struct Lease<'a> {
    _room: Ingest<'a>,
}

impl ImageStore {
    /// Announces digests, of blobs or of unpacked layers: nobody collects them from now on, until the lease is dropped. What
    /// was gone before stays gone.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn lease<'d>(&self, digests: impl IntoIterator<Item = &'d Digest>) -> Result<Lease<'_>, StoreError> {
        let room = self.ingest()?;
        room.protect(digests)?;
        Ok(Lease { _room: room })
    }

    /// Makes a room for a writer.
    pub(crate) fn ingest(&self) -> Result<Ingest<'_>, StoreError> {
        let mut random = [0_u8; 8];
        let ingest = self.root.join(INGEST);
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(std::io::Error::from)
            .context("choose a random name in", &ingest)?;
        let name = format!("{:016x}", u64::from_ne_bytes(random));
        let directory = ingest.join(name);
        self.clear_dead_rooms();
        // Under the shared lock, so that the collector cannot meet the lease before it is locked.
        let _announcing = lock_file(&self.root.join(COLLECT_LOCK), FlockOperation::LockShared)?;
        fs::create_dir(&directory).context("create", &directory)?;
        let path = directory.join(LEASE);
        let lease =
            File::options().create_new(true).read(true).append(true).open(&path).context("create", &path)?;
        flock(&lease, FlockOperation::NonBlockingLockExclusive)
            .map_err(std::io::Error::from)
            .context("lock", &path)?;
        Ok(Ingest { store: self, directory, lease, files: Cell::new(0), replaces: Cell::new(false) })
    }
}

impl Ingest<'_> {
    /// Announces digests: from now on, and until this lease goes, the collector leaves them alone.
    pub(crate) fn protect<'d>(
        &self,
        digests: impl IntoIterator<Item = &'d Digest>,
    ) -> Result<(), StoreError> {
        let mut lines = String::new();
        for digest in digests {
            lines.push_str(digest.as_str());
            lines.push('\n');
        }
        let _announcing = lock_file(&self.store.root.join(COLLECT_LOCK), FlockOperation::LockShared)?;
        (&self.lease).write_all(lines.as_bytes()).context("write", &self.directory.join(LEASE))
    }

    /// From now on, blobs take the place of what is there under their names.
    pub(crate) fn replace(&self) {
        self.replaces.set(true);
    }

    fn has(&self, digest: &Digest, size: u64) -> bool {
        !self.replaces.get() && self.store.has_blob(digest, size)
    }

    /// Starts a blob whose digest and size are known.
    pub(crate) fn writer(&self, digest: &Digest, size: u64) -> Result<BlobWriter, StoreError> {
        BlobWriter::create(self.next_path(), Some((digest.clone(), size)))
    }

    /// Starts a file whose content is to be found out; hashed with the algorithm of `like`, or sha256.
    pub(crate) fn spool(&self, like: Option<&Digest>) -> Result<BlobWriter, StoreError> {
        let writer = BlobWriter::create(self.next_path(), None)?;
        Ok(match like {
            Some(digest) => writer.hash_like(digest),
            None => writer,
        })
    }

    /// Whether so many more bytes have room: a claim that cannot be true costs nothing.
    pub(crate) fn check_room(&self, size: u64) -> Result<(), StoreError> {
        let found = rustix::fs::statvfs(&self.directory).map_err(std::io::Error::from);
        let enough = found.and_then(|room| {
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            if size > free { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        enough.context("find room in", &self.directory)
    }

    /// A place for a file that is spooled later, by whatever thread.
    pub(crate) fn room(&self, like: &Digest) -> SpoolRoom {
        SpoolRoom { path: self.next_path(), like: like.clone() }
    }

    fn next_path(&self) -> PathBuf {
        let number = self.files.get();
        self.files.set(number + 1);
        self.directory.join(number.to_string())
    }

    /// Checks a finished blob and gives it its name.
    pub(crate) fn commit(&self, writer: BlobWriter) -> Result<(), StoreError> {
        let spooled = self.finish(writer)?;
        self.adopt(&spooled)
    }

    /// Ends a spooled file.
    #[expect(clippy::unused_self, reason = "a spooled file must not outlive its ingest directory")]
    pub(crate) fn finish(&self, writer: BlobWriter) -> Result<Spooled, StoreError> {
        let (path, digest, size) = writer.finish()?;
        Ok(Spooled { path, digest, size })
    }

    /// Makes a spooled file a blob: synced first, then renamed. The digest must be protected.
    pub(crate) fn adopt(&self, spooled: &Spooled) -> Result<(), StoreError> {
        let target = self.store.blob_path(&spooled.digest);
        if self.has(&spooled.digest, spooled.size) {
            return Ok(());
        }
        File::open(&spooled.path).and_then(|file| file.sync_data()).context("sync", &spooled.path)?;
        fs::rename(&spooled.path, &target).context("rename a blob to", &target)?;
        self.store.unmark(&spooled.digest);
        Ok(())
    }

    /// Stores a small document as a blob, announced; gives its digest.
    pub(crate) fn store_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.protect([digest])?;
        if self.has(digest, size) {
            return Ok(());
        }
        let mut writer = self.writer(digest, size)?;
        writer.append(bytes)?;
        self.commit(writer)
    }

    /// Makes the renames durable: to be called before the index names the blobs.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        for algorithm in super::ALGORITHMS {
            let path = self.store.root.join(super::BLOBS).join(algorithm);
            File::open(&path).and_then(|directory| directory.sync_all()).context("sync", &path)?;
        }
        Ok(())
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is found by the next collection: its lease is free.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where a file is going to be spooled: nothing is open yet.
#[derive(Debug)]
pub(crate) struct SpoolRoom {
    path: PathBuf,
    like: Digest,
}

impl SpoolRoom {
    /// Starts the file; hashed with the algorithm of the digest that it was made for.
    pub(crate) fn open(self) -> Result<BlobWriter, StoreError> {
        Ok(BlobWriter::create(self.path, None)?.hash_like(&self.like))
    }
}

impl Spooled {
    /// Where it is until it is adopted.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }
}
