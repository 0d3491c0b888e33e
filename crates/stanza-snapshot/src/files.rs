//! Files in and out of a tree, as tar archives: the two halves of `cp`, and what a path is.
//!
//! ```text
//!   Files (a root, by descriptor)   stat(path)                     what is there
//!                                   pack(path, name) ─▶ archive    a file or directory, under the name it shall have
//!                                   unpack(archive, directory)     into a directory that is there
//! ```
//!
//! The tree may belong to a container that runs and is hostile. Every path is resolved by the kernel beneath the root, as if
//! that were `/` (openat2 with `RESOLVE_IN_ROOT`), each time anew, and what is found is used by descriptor: a link that is
//! swapped in leads elsewhere in the container at most. Where the tree is the host's and the archive comes from a container
//! ([`Bounds::Below`]), nothing in the archive leads out of the directory it is unpacked in, and no link in its place is
//! followed, whether the archive has brought it or it was there.

mod pack;
mod unpack;

use std::io;

use rustix::fd::OwnedFd;
use rustix::fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stanza_spec::{Classify, ErrorKind};
use stanza_tar::TarError;

pub use unpack::{Ownership, UnpackOptions, Unpacked};

use crate::node::Descriptors;
use crate::owners::OwnerMap;

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const BELOW: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// How far the entries of an archive may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bounds {
    /// Anywhere beneath the root, by links that are there: the tree and the archive are one party's.
    Root,
    /// Nowhere but below the directory, by no link.
    Below,
}

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link, and its target as it is written.
    Link(Vec<u8>),
    /// A device, pipe or socket.
    Other,
}

/// Why files cannot be copied. Paths are as given or as in the archive, with everything but printable ASCII escaped.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no such path.
    #[error("no such file or directory: `{path}`")]
    NotFound {
        /// The path.
        path: String,
    },
    /// The place to unpack to is no directory.
    #[error("extraction point `{path}` is not a directory")]
    NotDirectory {
        /// The path.
        path: String,
    },
    /// A socket, which no archive holds.
    #[error("cannot copy `{path}`: it is a socket")]
    Socket {
        /// The path.
        path: String,
    },
    /// A directory stands where a file is to go.
    #[error("cannot overwrite directory `{path}` with non-directory")]
    OverDirectory {
        /// The path.
        path: String,
    },
    /// A file stands where a directory is to go.
    #[error("cannot overwrite non-directory `{path}` with directory")]
    OverFile {
        /// The path.
        path: String,
    },
    /// An entry that is refused.
    #[error("refused the entry `{path}` of the archive: {reason}")]
    Refused {
        /// The entry.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path cannot be read or written.
    #[error("cannot {action} `{path}`")]
    Path {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Archive(#[source] TarError),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl Classify for FilesError {
    fn kind(&self) -> ErrorKind {
        match self {
            FilesError::NotFound { .. } => ErrorKind::NotFound,
            FilesError::NotDirectory { .. }
            | FilesError::OverDirectory { .. }
            | FilesError::OverFile { .. } => ErrorKind::Conflict,
            FilesError::Socket { .. } => ErrorKind::Unsupported,
            FilesError::Archive(TarError::Read { source, .. }) => ErrorKind::of_io(source),
            FilesError::Refused { .. } | FilesError::Archive(_) => ErrorKind::Corrupt,
            FilesError::Path { source, .. } | FilesError::Write(source) => ErrorKind::of_io(source),
        }
    }
}

/// A tree of files.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
    descriptors: Descriptors,
    owners: OwnerMap,
}

impl Files {
    /// The tree beneath `root`. `descriptors` is this process's `/proc/self/fd`, which may be out of reach by now.
    #[must_use]
    pub fn beneath(root: OwnedFd, descriptors: OwnedFd, owners: OwnerMap) -> Files {
        Files { root, descriptors: Descriptors::from(descriptors), owners }
    }

    /// This machine's.
    ///
    /// # Errors
    /// When `/` cannot be opened.
    pub fn of_host() -> io::Result<Files> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::openat(CWD, "/", flags, Mode::empty())?;
        Ok(Files { root, descriptors: Descriptors::open()?, owners: OwnerMap::default() })
    }

    /// What `path` is; a link at its end is not followed, unless a slash comes after it. `None`: nothing.
    ///
    /// # Errors
    /// When it cannot be looked at. A path that leads through a file is such an error.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Found>, FilesError> {
        let found = match self.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(failed("look at", path))?,
        };
        let stat = fs::fstat(&found).map_err(failed("look at", path))?;
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Directory,
            FileType::RegularFile => Found::File,
            FileType::Symlink => {
                let target = fs::readlinkat(&found, "", Vec::new()).map_err(failed("read the link", path))?;
                Found::Link(target.into_bytes())
            }
            _ => Found::Other,
        }))
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        open_by(&self.root, path, flags, IN_ROOT)
    }
}

/// Opens `path` below `directory` as `resolve` says; the empty path is the directory.
fn open_by(directory: &OwnedFd, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    // The kernel gives up on `..` when anything is renamed or mounted anywhere meanwhile (`man 2 openat2`, EAGAIN).
    for _ in 0..128 {
        match fs::openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

fn is_kind(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// A path that is safe to print.
fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

fn failed<'a>(action: &'static str, path: &'a [u8]) -> impl FnOnce(Errno) -> FilesError + 'a {
    move |error| match error {
        Errno::NOENT => FilesError::NotFound { path: shown(path) },
        error => FilesError::Path { action, path: shown(path), source: error.into() },
    }
}
