//! What a container changed, as Docker's `diff` tells it: read from the upper layers and those below, without mounting.
//!
//! The upper tree is walked, and beside it, directory by directory, the lower directories that overlayfs would merge.
//! A whiteout is a deletion, also of what an opaque directory hides; a file that a lower layer has is modified; a
//! directory is modified when its own mode, owner or time is another, or when something in it changed. What stanza
//! itself put there is left out: empty mount points, and what the plan of the image `host` hides.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind, OverlayLayers, Rootfs, RootfsPart};

use crate::layer::open_layer;
use crate::overlay::{is_directory, is_kind, is_opaque, is_whiteout};

/// Directories below one another that are followed.
pub(crate) const DEPTH: usize = 256;

/// Made in an upper layer so that something can be mounted on it.
pub(crate) const MOUNT_POINTS: [&str; 6] =
    ["/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// One difference between a container and its image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is new: Docker's `A`.
    Added,
    /// It or something in it is different: Docker's `C`.
    Modified,
    /// It is gone: Docker's `D`.
    Deleted,
}

/// Why changes cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The root file system is a directory that something else made: there is nothing to compare it with.
    #[error("a root file system from a bundle has no layers to compare")]
    NotLayered,
    /// A layer cannot be read.
    #[error("cannot compare `{}` with the layers below", path.display())]
    Read {
        /// Absolute path in the container.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Directories are nested more deeply than can be followed.
    #[error("`{}` is more than `{DEPTH}` directories deep", path.display())]
    TooDeep {
        /// Absolute path in the container.
        path: PathBuf,
    },
}

impl Classify for DiffError {
    fn kind(&self) -> ErrorKind {
        match self {
            DiffError::NotLayered | DiffError::TooDeep { .. } => ErrorKind::Unsupported,
            DiffError::Read { source, .. } => ErrorKind::of_io(source),
        }
    }
}

/// What the container with this root file system changed, sorted by path, each path once. An upper layer that was not
/// made yet has no changes. A container that runs may change while it is read.
///
/// # Errors
/// When the root file system has no layers, or a layer cannot be read.
pub fn changes(rootfs: &Rootfs) -> Result<Vec<Change>, DiffError> {
    let (root, parts) = match rootfs {
        Rootfs::Directory(_) => return Err(DiffError::NotLayered),
        Rootfs::Copied { root, layers, userxattr, shift } => {
            return crate::copy::changes(root, layers, *userxattr, *shift);
        }
        Rootfs::Layered { root, parts } => (root, parts),
    };
    let mut own: HashSet<PathBuf> = HashSet::new();
    if let Ok(list) = std::fs::read(root.upper.with_file_name(crate::host::HIDDEN)) {
        let paths = list.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        own.extend(paths.map(|path| PathBuf::from(OsStr::from_bytes(path))));
    }
    let mut walk = Walk { own, userxattr: root.userxattr, changes: Vec::new() };
    walk.overlay(Path::new("/"), root)?;
    for part in parts {
        if let RootfsPart::Overlay { destination, layers } = part {
            walk.overlay(destination, layers)?;
        }
    }
    let mut changes = walk.changes;
    changes.sort_unstable();
    changes.dedup_by(|a, b| a.path == b.path);
    Ok(changes)
}

struct Walk {
    /// What stanza put into the upper layers.
    own: HashSet<PathBuf>,
    userxattr: bool,
    changes: Vec<Change>,
}

/// The directories of the lower layers at a path, topmost first.
#[derive(Clone, Copy)]
struct Lower<'a> {
    directories: &'a [Rc<OwnedFd>],
    /// No opaque directory hides them.
    shown: bool,
}

/// What was found in a directory.
#[derive(Clone, Copy, Default)]
struct Found {
    changed: bool,
    /// Something of stanza's, which changed the directory's time.
    own: bool,
    entries: bool,
}

impl Walk {
    fn overlay(&mut self, destination: &Path, layers: &OverlayLayers) -> Result<(), DiffError> {
        let failed = || failed(destination);
        let upper = match open_root(&layers.upper) {
            Err(Errno::NOENT) => return Ok(()),
            result => result.map_err(failed())?,
        };
        let mut lowers = Vec::new();
        for lower in &layers.lower {
            let opened = open_layer(lower)
                .map_err(|error| DiffError::Read { path: destination.to_owned(), source: error })?;
            lowers.push(Rc::new(opened));
        }
        let found = self.directory(destination, &upper, Lower { directories: &lowers, shown: true }, 0)?;
        // What changed in a part is a change of the directories above it.
        if found.changed {
            for above in destination.ancestors().filter(|above| *above != Path::new("/")) {
                self.add(above, ChangeKind::Modified);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, kind: ChangeKind) {
        self.changes.push(Change { path: path.to_owned(), kind });
    }

    /// Compares a directory of the upper layer with those below it; none of them: everything in it is new.
    fn directory(
        &mut self,
        path: &Path,
        upper: &OwnedFd,
        lower: Lower<'_>,
        depth: usize,
    ) -> Result<Found, DiffError> {
        if depth >= DEPTH {
            return Err(DiffError::TooDeep { path: path.to_owned() });
        }
        let mut found = Found::default();
        let mut names = Vec::new();
        for entry in Dir::read_from(upper).map_err(failed(path))? {
            let entry = entry.map_err(failed(path))?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(name.to_vec()),
            }
        }
        found.entries = !names.is_empty();
        for name in names {
            let child = path.join(OsStr::from_bytes(&name));
            let stat = match fs::statat(upper, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                // The container removed it meanwhile.
                Err(Errno::NOENT) => continue,
                result => result.map_err(failed(&child))?,
            };
            let one = self.entry(&child, &name, &stat, upper, lower, depth)?;
            found.changed |= one.changed;
            found.own |= one.own;
        }
        Ok(found)
    }

    fn entry(
        &mut self,
        path: &Path,
        name: &[u8],
        stat: &Stat,
        upper: &OwnedFd,
        lower: Lower<'_>,
        depth: usize,
    ) -> Result<Found, DiffError> {
        const OWN: Found = Found { changed: false, own: true, entries: true };
        let below = lookup(lower.directories, name, self.userxattr).map_err(failed(path))?;
        if is_whiteout(stat) {
            if self.own.contains(path) {
                return Ok(OWN);
            }
            let changed = below.stat.is_some();
            if changed {
                self.add(path, ChangeKind::Deleted);
            }
            return Ok(Found { changed, own: false, entries: true });
        }
        let kind = if below.stat.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        if !is_directory(stat) {
            let empty = is_kind(stat, FileType::RegularFile) && stat.st_size == 0;
            if kind == ChangeKind::Added && empty && is_mount_point(path) {
                return Ok(OWN);
            }
            self.add(path, kind);
            return Ok(Found { changed: true, own: false, entries: true });
        }

        let directory = open_in(upper, name).map_err(failed(path))?;
        let opaque = is_opaque(&directory, self.userxattr).map_err(failed(path))?;
        let is_own = opaque && self.own.contains(path);
        let hides = (opaque || !lower.shown) && !is_own;
        let directories = if is_own { &[][..] } else { &below.directories[..] };
        let found = self.directory(path, &directory, Lower { directories, shown: !hides }, depth + 1)?;
        let mut changed = found.changed;
        if hides {
            changed |= self.hidden(path, &directory, directories)?;
        }
        let differs = match (kind, &below.stat) {
            (ChangeKind::Added, _) | (_, None) => {
                let only_own =
                    (!found.entries && is_mount_point(path)) || (found.own && path == Path::new("/etc"));
                !only_own
            }
            // Mounting over an entry of stanza's own needs no other time than that of its making.
            (_, Some(below)) => !is_own && !same_directory(stat, below, found.own),
        };
        if changed || differs {
            self.add(path, kind);
            return Ok(Found { changed: true, own: false, entries: true });
        }
        Ok(OWN)
    }

    /// Tells what an opaque directory does not show any more; `true` when there is something.
    fn hidden(&mut self, path: &Path, upper: &OwnedFd, lowers: &[Rc<OwnedFd>]) -> Result<bool, DiffError> {
        let mut gone: Vec<Vec<u8>> = Vec::new();
        for lower in lowers {
            for entry in Dir::read_from(lower).map_err(failed(path))? {
                let name = entry.map_err(failed(path))?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    gone.push(name);
                }
            }
        }
        gone.sort_unstable();
        gone.dedup();
        let mut any = false;
        for name in gone {
            let stays = fs::statat(upper, &name[..], AtFlags::SYMLINK_NOFOLLOW).is_ok();
            let was = lookup(lowers, &name, self.userxattr).map_err(failed(path))?.stat.is_some();
            if was && !stays {
                let child = path.join(std::ffi::OsString::from_vec(name));
                self.add(&child, ChangeKind::Deleted);
                any = true;
            }
        }
        Ok(any)
    }
}

/// What the lower layers have at a name.
pub(crate) struct Below {
    pub(crate) stat: Option<Stat>,
    /// The layer's directory in which it was found.
    pub(crate) from: Option<Rc<OwnedFd>>,
    /// The directories that merge there, topmost first.
    pub(crate) directories: Vec<Rc<OwnedFd>>,
}

/// Looks for `name` in the directories of several layers, topmost first, as overlayfs does.
pub(crate) fn lookup(lowers: &[Rc<OwnedFd>], name: &[u8], userxattr: bool) -> Result<Below, Errno> {
    let mut below = Below { stat: None, from: None, directories: Vec::new() };
    for lower in lowers {
        let stat = match fs::statat(lower, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            result => result?,
        };
        if !is_directory(&stat) {
            // A file below a directory does not merge; a whiteout ends the search.
            if below.stat.is_none() && !is_whiteout(&stat) {
                below.stat = Some(stat);
                below.from = Some(Rc::clone(lower));
            }
            break;
        }
        let directory = open_in(lower, name)?;
        let opaque = is_opaque(&directory, userxattr)?;
        below.stat.get_or_insert(stat);
        below.from.get_or_insert_with(|| Rc::clone(lower));
        below.directories.push(Rc::new(directory));
        if opaque {
            break;
        }
    }
    Ok(below)
}

/// Whether a directory of the upper layer is only there because something in it is.
fn same_directory(upper: &Stat, lower: &Stat, ignore_time: bool) -> bool {
    let what = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    what(upper) == what(lower) && (ignore_time || time(upper) == time(lower))
}

pub(crate) fn is_mount_point(path: &Path) -> bool {
    MOUNT_POINTS.iter().any(|point| path == Path::new(point))
}

pub(crate) fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

pub(crate) fn open_in(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

pub(crate) fn failed(path: &Path) -> impl FnOnce(Errno) -> DiffError {
    let path = path.to_owned();
    move |error| DiffError::Read { path, source: error.into() }
}
