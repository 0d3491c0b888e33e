//! Blobs that are not whole yet and outlive the process that fetches them.
//!
//! `partial/<algorithm>-<hex>` holds the first bytes of a blob. Who holds the file's lock adds to it; others that want the
//! same blob wait for the lock and then find the blob, or go on where the dead owner stopped. The bytes that are kept
//! are hashed again when they are taken up: they must be read anyway, to be unpacked, and a hash that was saved beside
//! them would not notice what happened to the file meanwhile.
//!
//! A partial blob stays when its download fails or its process dies; it goes when its content turns out to be wrong or
//! the disk is full, and otherwise by age, with the collection.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use stanza_spec::Digest;

use super::ImageStore;
use super::error::{IoContext, StoreError};
use crate::hash::Hasher;

/// Where they are, below the store's root.
pub(super) const PARTIAL: &str = "partial";

/// A blob that this process, and no other, is fetching.
pub(crate) struct Partial {
    path: PathBuf,
    target: PathBuf,
    /// Locked.
    file: File,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    /// Bytes that are hashed; the file's position.
    done: u64,
    /// Bytes of an earlier download that are to be read first.
    kept: u64,
}

/// What became of the wish for a blob.
pub(crate) enum Wanted {
    /// It is there: another process has fetched it.
    There,
    /// It is this process's to fetch.
    Ours(Box<Partial>),
}

impl ImageStore {
    /// Takes away a blob that is damaged; nothing there is as good.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(crate) fn discard_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", &path),
            _ => Ok(()),
        }
    }

    /// Takes a blob that is not there upon this process; `waiting` is called before it waits for another one. The digest
    /// must be protected by a lease.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub(crate) fn partial(
        &self,
        digest: &Digest,
        size: u64,
        waiting: &mut dyn FnMut(),
    ) -> Result<Wanted, StoreError> {
        let directory = self.root.join(PARTIAL);
        let path = directory.join(format!("{}-{}", digest.algorithm(), digest.hex()));
        loop {
            let open = || File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let file = match open() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(&directory).context("create", &directory)?;
                    open()
                }
                result => result,
            }
            .context("create", &path)?;
            if !try_lock(&file, &path)? {
                waiting();
                lock(&file, &path)?;
            }
            if self.has_blob(digest, size) {
                // Made by `open` above, or left by a process that was killed after it had copied it.
                if is_named(&file, &path) {
                    let _ = fs::remove_file(&path);
                }
                return Ok(Wanted::There);
            }
            // Renamed or removed while this process waited: the next look decides.
            if !is_named(&file, &path) {
                continue;
            }
            let mut kept = file.metadata().context("read", &path)?.len();
            if kept > size {
                file.set_len(0).context("truncate", &path)?;
                kept = 0;
            }
            return Ok(Wanted::Ours(Box::new(Partial {
                target: self.blob_path(digest),
                path,
                file,
                digest: digest.clone(),
                size,
                hasher: Hasher::like(digest),
                done: 0,
                kept,
            })));
        }
    }
}

impl Partial {
    /// Bytes that are here and hashed.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Reads on in what an earlier download left; nothing at its end.
    pub(crate) fn read_kept(&mut self, buffer: &mut Vec<u8>, limit: usize) -> Result<(), StoreError> {
        let left = self.kept - self.done.min(self.kept);
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).min(left);
        let before = buffer.len();
        let result = (&self.file).take(limit).read_to_end(buffer);
        result.context("read", &self.path)?;
        let new = &buffer[before..];
        self.hasher.update(new);
        self.done += length_of(new);
        if new.is_empty() {
            // Shorter than it was: cut by somebody's hand.
            self.kept = self.done;
        }
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When there are more than the descriptor says (found at the first byte too many), or the disk is full.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let after = self.done.saturating_add(length_of(bytes));
        if after > self.size {
            let digest = self.digest.clone();
            return Err(StoreError::Size { digest, expected: self.size, actual: after });
        }
        self.file.write_all(bytes).context("write", &self.path)?;
        self.hasher.update(bytes);
        self.done = after;
        Ok(())
    }

    /// Whether all bytes are here.
    pub(crate) fn is_whole(&self) -> bool {
        self.done == self.size
    }

    /// Gives the blob its name: its digest is checked, it is synced, then renamed.
    ///
    /// # Errors
    /// When the content is not what the digest names: it is removed then. When the disk fails.
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        let actual = self.hasher.finish();
        if actual != self.digest {
            let _ = fs::remove_file(&self.path);
            return Err(StoreError::Corrupt { expected: self.digest, actual });
        }
        self.file.sync_data().context("sync", &self.path)?;
        fs::rename(&self.path, &self.target).context("rename a blob to", &self.target)
    }

    /// Compares the digest, and keeps nothing.
    ///
    /// # Errors
    /// When the content is not what the digest names.
    pub(crate) fn check(self) -> Result<(), StoreError> {
        let _ = fs::remove_file(&self.path);
        let actual = self.hasher.finish();
        if actual == self.digest {
            Ok(())
        } else {
            Err(StoreError::Corrupt { expected: self.digest, actual })
        }
    }

    /// Removes what is here: it is wrong, or must make room.
    pub(crate) fn discard(self) {
        // What cannot be removed is found by the next download, or by age.
        let _ = fs::remove_file(&self.path);
    }
}

fn try_lock(file: &File, path: &Path) -> Result<bool, StoreError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(io::Error::from(error)).context("lock", path),
    }
}

fn lock(file: &File, path: &Path) -> Result<(), StoreError> {
    loop {
        match flock(file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error)).context("lock", path),
        }
    }
}

/// Whether the path still means this file.
fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(own), Ok(named)) => (own.dev(), own.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
