//! Layers' blobs that are absent on purpose: dropped to save space, because their registry has them.
//!
//! ```text
//! images/dropped/<algorithm>-<hex>    empty; made before the blob goes, removed after it came again
//! ```
//!
//! An image with dropped blobs is whole for whoever runs it, because its layers are unpacked. Who needs a blob itself
//! (`save`, `push`, a layer that is not unpacked) fetches it again first. A mark beside a blob that is there means
//! nothing: a crash may leave one.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use stanza_spec::Digest;

use super::error::{IoContext, StoreError};
use super::{COLLECT_LOCK, DROPPED, ImageStore, lock_file};
use crate::image::Image;

impl ImageStore {
    fn mark_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(DROPPED).join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }

    /// Whether a blob is absent on purpose.
    #[must_use]
    pub fn is_dropped(&self, digest: &Digest) -> bool {
        self.mark_path(digest).exists()
    }

    /// Drops the blobs of layers, which a registry must have; gives the bytes that are free now. What a writer announced
    /// stays.
    ///
    /// # Errors
    /// When a file cannot be made or removed; what went before is gone.
    pub fn drop_blobs(&self, digests: &[Digest]) -> Result<u64, StoreError> {
        let directory = self.root.join(DROPPED);
        fs::create_dir_all(&directory).context("create", &directory)?;
        let _alone = lock_file(&self.root.join(COLLECT_LOCK), FlockOperation::LockExclusive)?;
        let leased = self.announced()?;
        let mut bytes = 0;
        for digest in digests.iter().filter(|digest| !leased.contains(digest)) {
            let path = self.blob_path(digest);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let mark = self.mark_path(digest);
            File::create(&mark).context("create", &mark)?;
            match fs::remove_file(&path) {
                Ok(()) => bytes += metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("remove", &path),
            }
        }
        Ok(bytes)
    }

    /// The blob is there again.
    pub(super) fn unmark(&self, digest: &Digest) {
        // A mark beside a blob means nothing.
        let _ = fs::remove_file(self.mark_path(digest));
    }

    /// Removes marks of blobs that nothing leads to any more, or that are there.
    pub(super) fn clear_marks(&self, keep: &HashSet<Digest>) {
        for entry in fs::read_dir(self.root.join(DROPPED)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.replacen('-', ":", 1).parse::<Digest>().ok());
            let Some(digest) = digest else { continue };
            if !keep.contains(&digest) || self.blob_path(&digest).exists() {
                self.unmark(&digest);
            }
        }
    }

    /// Remembers that an image is used now: the time of access of its manifest.
    pub fn touch(&self, image: &Image) {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        // What is used is then told less exactly; nothing more.
        let _ = utimensat(CWD, self.blob_path(&image.manifest), &times, AtFlags::empty());
    }

    /// When an image was used last, in nanoseconds since 1970, as far as that is known: the time it came in, at least.
    #[must_use]
    pub fn last_use(&self, image: &Image) -> i128 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(self.blob_path(&image.manifest)).map_or(0, |metadata| {
            let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            nanos(metadata.atime(), metadata.atime_nsec()).max(nanos(metadata.mtime(), metadata.mtime_nsec()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    #[test]
    fn what_is_announced_is_not_dropped_and_a_mark_goes_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&directory.path().join("images")).unwrap();
        let blobs = [sha256(b"one"), sha256(b"two"), sha256(b"never")];
        let ingest = store.ingest().unwrap();
        ingest.store_bytes(&blobs[0], b"one").unwrap();
        ingest.store_bytes(&blobs[1], b"two").unwrap();
        assert_eq!(store.drop_blobs(&blobs).unwrap(), 0);
        assert!(blobs.iter().all(|digest| !store.is_dropped(digest)));
        drop(ingest);
        let lease = store.lease([&blobs[0]]).unwrap();
        assert_eq!(store.drop_blobs(&blobs).unwrap(), 3);
        assert_eq!(blobs.each_ref().map(|digest| store.is_dropped(digest)), [false, true, false]);
        assert!(!store.has_blob(&blobs[1], 3) && store.has_blob(&blobs[0], 3));
        // It comes again: it is not absent any more.
        store.ingest().unwrap().store_bytes(&blobs[1], b"two").unwrap();
        assert!(store.has_blob(&blobs[1], 3) && !store.is_dropped(&blobs[1]));
        // A mark of what nothing leads to goes with the next collection; what is leased stays.
        assert_eq!(store.drop_blobs(&blobs[1..2]).unwrap(), 3);
        store.prune(&|_| false).unwrap();
        assert!(!store.is_dropped(&blobs[1]) && store.has_blob(&blobs[0], 3));
        drop(lease);
        store.prune(&|_| false).unwrap();
        assert!(!store.has_blob(&blobs[0], 3));
    }
}
