//! Root file systems as disks of machines: one read-only erofs image per stack of layers, made once and shared by every
//! machine that has it through the page cache.
//!
//! ```text
//!   disks/                    0700
//!     <name>.erofs            the files of a stack of layers, merged; whole from the moment it has this name
//!     .lock                   held by who makes one
//!     ingest/                 disks that are being made, as in the store of layers
//! ```
//!
//! The name is a digest of the layers' diff ids, so that a disk is a function of what it is called. Nothing is recorded
//! beside it: its superblock has its size and a checksum of itself. A machine that runs has its disk open, so that one may
//! be removed at any time.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use sha2::{Digest as _, Sha256};
use stanza_spec::{Classify, Digest, ErrorKind, Rootfs};

use crate::erofs::format::{Blocks, SUPERBLOCK, told_blocks, told_checksum};
use crate::ingest::{self, Ingest};
use crate::store::make_directory;
use crate::{ApplyError, ExportError, OwnerMap, erofs, export};

/// The form of disks; another one changes all names.
const VERSION: &str = "stanza disk 1";
/// Bytes between the reader of the layers and the writer of the disk.
const PIPE: usize = 1 << 20;
const SUFFIX: &str = ".erofs";

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The layers cannot be read.
    #[error("cannot read the image's layers for the disk of a machine")]
    Read(#[source] ExportError),
    /// They cannot be written as one.
    #[error("cannot write the image's layers as the disk of a machine")]
    Write(#[source] ApplyError),
    /// The store's own files fail.
    #[error("cannot keep disks of machines in `{}`", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Classify for DiskError {
    fn kind(&self) -> ErrorKind {
        match self {
            DiskError::Read(error) => error.kind(),
            DiskError::Write(error) => error.kind(),
            DiskError::Store { source, .. } => ErrorKind::of_io(source),
        }
    }
}

/// The disks of one store.
#[derive(Clone, Debug)]
pub struct DiskStore {
    path: PathBuf,
}

impl DiskStore {
    /// The disks in this directory, which need not be there yet.
    #[must_use]
    pub fn at(path: &Path) -> DiskStore {
        DiskStore { path: path.to_owned() }
    }

    /// The disk of these layers, the lowest first, where it is there and whole.
    #[must_use]
    pub fn find(&self, layers: &[Digest]) -> Option<PathBuf> {
        let path = self.place(layers);
        is_disk(&path).unwrap_or(false).then_some(path)
    }

    /// The disk of these layers, the lowest first; made of `rootfs`, which is made of them, where it is not there.
    ///
    /// # Errors
    /// When a layer cannot be read, or the disk not be written.
    pub fn make(&self, layers: &[Digest], rootfs: &Rootfs) -> Result<PathBuf, DiskError> {
        if let Some(path) = self.find(layers) {
            return Ok(path);
        }
        let fail = |source| DiskError::Store { path: self.path.clone(), source };
        let _lock = self.lock().map_err(fail)?;
        // Whoever had the lock may have made it.
        if let Some(path) = self.find(layers) {
            return Ok(path);
        }
        let ingest_path = self.path.join("ingest");
        fs::create_dir_all(&ingest_path).map_err(fail)?;
        // What somebody who was killed has left; a failure is the next one's.
        let _ = ingest::clear(&ingest_path);
        let ingest = Ingest::create(&ingest_path).map_err(|error| fail(error.into()))?;
        make_directory(ingest.path(), 0o700).map_err(fail)?;
        let made = ingest.path().join("disk");
        let file = File::options().read(true).write(true).create_new(true).open(&made).map_err(fail)?;
        let path = self.place(layers);
        write(rootfs, &name(layers), &file, &fail)?;
        // Who runs a machine has a user of its own, and sees of all disks this one alone.
        file.set_permissions(PermissionsExt::from_mode(0o444)).map_err(fail)?;
        file.sync_data().map_err(fail)?;
        fs::rename(&made, &path).map_err(fail)?;
        Ok(path)
    }

    /// Removes the disks of all stacks of layers but these; gives the bytes that they took.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub fn keep_only<'l>(&self, stacks: impl IntoIterator<Item = &'l [Digest]>) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let kept: Vec<String> = stacks.into_iter().map(|layers| name(layers) + SUFFIX).collect();
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            result => result?,
        };
        let (mut freed, mut failure) = (0, None);
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(SUFFIX)) else { continue };
            if kept.iter().any(|kept| kept == name) {
                continue;
            }
            let size = entry.metadata().map_or(0, |metadata| metadata.blocks() * 512);
            match fs::remove_file(entry.path()) {
                Ok(()) => freed += size,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(freed), Err)
    }

    fn place(&self, layers: &[Digest]) -> PathBuf {
        self.path.join(name(layers) + SUFFIX)
    }

    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&self.path)?;
        fs::set_permissions(&self.path, PermissionsExt::from_mode(0o700))?;
        let file = File::options().create(true).truncate(false).write(true).open(self.path.join(".lock"))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(file)
    }
}

/// What the disk of these layers is called.
fn name(layers: &[Digest]) -> String {
    let mut hash = Sha256::new();
    hash.update(VERSION);
    for layer in layers {
        hash.update([b'\n']);
        hash.update(layer.as_str());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two threads: one reads the layers, this one writes the disk.
fn write(
    rootfs: &Rootfs,
    name: &str,
    file: &File,
    fail: &dyn Fn(io::Error) -> DiskError,
) -> Result<(), DiskError> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| fail(error.into()))?;
    // A user who may not have so much makes do with less.
    let _ = fcntl_setpipe_size(&writer, PIPE);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || export(rootfs, &OwnerMap::default(), &File::from(writer)));
        let mut tar = BufReader::with_capacity(128 << 10, File::from(reader));
        let store = |source| ApplyError::Store { path: PathBuf::from(name), source };
        let written = erofs::write_disk(&mut tar, name, file, &store).map_err(DiskError::Write);
        // A writer that waits must see that nobody reads any more.
        drop(tar);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (read, written) {
            // The archive was cut because it could not be read further.
            (Err(error), Err(DiskError::Write(ApplyError::Archive(_)))) => Err(DiskError::Read(error)),
            (_, Err(error)) => Err(error),
            (Err(error), Ok(())) => Err(DiskError::Read(error)),
            (Ok(()), Ok(())) => Ok(()),
        }
    })
}

/// Whether a file is a whole disk: its superblock is as it was written, and no block is missing.
///
/// # Errors
/// When it cannot be read.
pub fn is_disk(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let mut superblock = [0; Blocks::DISK.superblock_length()];
    match file.read_exact_at(&mut superblock, SUPERBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        result => result?,
    }
    let blocks = told_checksum(&superblock).and_then(|_| told_blocks(&superblock));
    Ok(blocks.is_some_and(|blocks| {
        file.metadata().is_ok_and(|metadata| metadata.len() == u64::from(blocks) * Blocks::DISK.bytes())
    }))
}
