//! Unpacking one layer.
//!
//! ```text
//!   stream -> hash -> tar reader -> name -> tree (descriptors beneath the layer's root) -> entry (what it becomes)
//!                |                                                                             |
//!                '------ compare with the diff id when the stream has ended ------ rename ----'
//! ```
//!
//! Rules (image-spec, `layer.md`), where tar and its readers leave room:
//! * A name is refused when it is empty, holds `..` or a NUL, or is a malformed whiteout; a leading `/` and `.` mean
//!   nothing. Symbolic links of this layer on the way to an entry are followed as if the layer's root were `/`, so
//!   they lead nowhere else. A link in its place is replaced, never followed.
//! * A whiteout hides what lower layers have. An entry of the same name in the same layer wins, before or after it; a
//!   directory then is opaque.
//! * The last of several entries of one name counts, except that directories merge.
//! * A hard link to a file that this layer does not have is noted, to be made where the layers below are known
//!   ([`crate::links`]): the layer's directory is shared by every image with this diff id, and what it holds must not
//!   depend on the layers that some other image has below it.
//! * Devices are made by root only; without root they are skipped and counted. A device 0/0 would be a whiteout and is
//!   skipped always. Extended attributes of overlayfs itself are dropped.
//! * Directories that the layer does not describe are 0755, belong to root, and are of 1970.

pub(crate) mod entry;
mod error;
mod fingerprint;
pub(crate) mod name;
pub(crate) mod tree;

use std::io::{self, BufRead};

use sha2::Digest as _;
use sha2::{Sha256, Sha512};
use stanza_spec::Digest;
use stanza_tar::{Archive, Limits};

pub use error::ApplyError;
pub(crate) use name::split;

use crate::ingest::Ingest;
use crate::links::LINKS;
use crate::passing::{Passing, Witness};
use crate::record::LayerRecord;
use crate::store::FILES;
use crate::{LayerStore, RemoveError, StorageDriver};

/// What became of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// It was there already, or somebody else was faster.
    pub existed: bool,
    /// Entries read.
    pub entries: u64,
    /// Devices that were not made: without root, or a device 0/0.
    pub skipped_devices: u64,
    /// Extended attributes that were not set: overlayfs's own, and without root those that need more privilege.
    pub skipped_xattrs: u64,
}

impl LayerStore {
    /// Unpacks a layer from its uncompressed tar stream. It becomes visible when it is whole and the stream's digest,
    /// trailing bytes included, is `diff_id`; when it is there already, the stream is not read.
    ///
    /// Any number of processes may apply one layer at once; the first to finish wins, all succeed. A layer that is there
    /// in a form that this kernel does not mount, or damaged so that it is seen at once, gives way.
    ///
    /// # Errors
    /// When the stream fails or is not the archive that `diff_id` names, when an entry is refused, or when the file
    /// system says no. Nothing is left behind then.
    pub fn apply(&self, diff_id: &Digest, tar: &mut dyn BufRead) -> Result<Applied, ApplyError> {
        if self.is_usable(diff_id) {
            return Ok(Applied { existed: true, ..Applied::default() });
        }
        self.unpack(diff_id, tar, false)
    }

    /// Unpacks a layer once more and puts it in the place of the one that is there, at once. The caller knows that
    /// nothing has that one mounted.
    ///
    /// # Errors
    /// As [`LayerStore::apply`]; what is there stays then.
    pub fn renew(&self, diff_id: &Digest, tar: &mut dyn BufRead) -> Result<Applied, ApplyError> {
        self.unpack(diff_id, tar, true)
    }

    fn unpack(&self, diff_id: &Digest, tar: &mut dyn BufRead, replace: bool) -> Result<Applied, ApplyError> {
        if self.driver() == StorageDriver::Erofs {
            return self.unpack_erofs(diff_id, tar, replace);
        }
        let ingest = Ingest::create(&self.ingest()).map_err(|error| self.ingest_failed(error.into()))?;
        crate::store::make_directory(ingest.path(), 0o700).map_err(|error| self.ingest_failed(error))?;
        let mut unpacked = tree::Tree::create(&ingest.path().join(FILES), self.rootless())
            .map_err(|error| self.ingest_failed(error))?;

        let mut archive = Archive::new(Passing::new(tar, Hash::like(diff_id)), Limits::default());
        while let Some(entry) = archive.next_entry().map_err(ApplyError::Archive)? {
            unpacked.add(entry)?;
        }
        let actual = archive.finish().map_err(ApplyError::Archive)?.into_witness().finish();
        if actual != *diff_id {
            return Err(ApplyError::DiffId { expected: diff_id.clone(), actual });
        }
        let (mut applied, summary, links) = unpacked.finish()?;
        let record = LayerRecord::new(applied.entries, &summary);
        applied.existed = !self.complete(&ingest, diff_id, &record, links, replace)?;
        Ok(applied)
    }

    /// Writes what is known of a layer whose files are there, and gives it its name; `false` when somebody else has done
    /// so and it shall not be replaced.
    pub(crate) fn complete(
        &self,
        ingest: &Ingest,
        diff_id: &Digest,
        record: &LayerRecord,
        links: Option<Vec<u8>>,
        replace: bool,
    ) -> Result<bool, ApplyError> {
        if let Some(links) = links {
            std::fs::write(ingest.path().join(LINKS), links)
                .and_then(|()| std::fs::write(self.links_marker(), b""))
                .map_err(|error| self.ingest_failed(error))?;
        }
        record.write(ingest.path()).map_err(|error| self.ingest_failed(error))?;
        let replace = replace || (self.contains(diff_id) && !self.is_usable(diff_id));
        if replace && self.exchange(ingest, diff_id)? {
            return Ok(true);
        }
        self.publish(ingest, diff_id)
    }

    /// Gives the unpacked layer its name; `false` when somebody else has done so. What is there without a record, an
    /// older version's layer, gives way.
    fn publish(&self, ingest: &Ingest, diff_id: &Digest) -> Result<bool, ApplyError> {
        use rustix::fs::{CWD, RenameFlags, renameat, renameat_with};
        use rustix::io::Errno;
        let target = self.home(diff_id);
        loop {
            let result = match renameat_with(CWD, ingest.path(), CWD, &target, RenameFlags::NOREPLACE) {
                // Some file systems know no flags. A plain rename replaces an empty directory at most.
                Err(Errno::INVAL) => renameat(CWD, ingest.path(), CWD, &target),
                result => result,
            };
            match result {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST | Errno::NOTEMPTY) if self.contains(diff_id) => return Ok(false),
                Err(Errno::EXIST | Errno::NOTEMPTY) => match self.remove(diff_id) {
                    Ok(()) | Err(RemoveError::NotFound(_)) => {}
                    Err(RemoveError::Remove { source, .. }) => return Err(self.ingest_failed(source)),
                },
                Err(error) => return Err(self.ingest_failed(error.into())),
            }
        }
    }

    /// Swaps the unpacked layer with the one that is there, which then goes with the ingest directory. `false` when none
    /// is there.
    fn exchange(&self, ingest: &Ingest, diff_id: &Digest) -> Result<bool, ApplyError> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        let target = self.home(diff_id);
        match renameat_with(CWD, ingest.path(), CWD, &target, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // A file system without this way: for a moment there is no layer.
            Err(Errno::INVAL) => match self.remove(diff_id) {
                Ok(()) | Err(RemoveError::NotFound(_)) => Ok(false),
                Err(RemoveError::Remove { source, .. }) => Err(self.ingest_failed(source)),
            },
            Err(error) => Err(self.ingest_failed(error.into())),
        }
    }

    pub(crate) fn ingest_failed(&self, source: io::Error) -> ApplyError {
        ApplyError::Store { path: self.ingest(), source }
    }
}

/// The hash of a stream that passes, with the algorithm of a digest.
pub(crate) enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hash {
    pub(crate) fn like(digest: &Digest) -> Hash {
        match digest.algorithm() {
            "sha512" => Hash::Sha512(Sha512::new()),
            _ => Hash::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Hash::Sha256(hash) => Digest::from_hash(&hash.finalize()),
            Hash::Sha512(hash) => Digest::from_hash(&hash.finalize()),
        }
    }
}

impl Witness for Hash {
    fn see(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Sha512(hash) => hash.update(bytes),
        }
        Ok(())
    }
}
