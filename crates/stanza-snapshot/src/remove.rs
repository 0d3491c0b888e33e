//! Removing a tree that a container may have filled on purpose.
//!
//! Works on directory descriptors only, so nothing outside the tree can be reached by swapping a directory for a link;
//! never enters a mount (`RESOLVE_NO_XDEV`, which bind mounts of the same file system do not pass either). Trees
//! deeper than [`DEPTH`] are made flat: the directory at the limit is moved to the top, under a name of its own, and
//! removed from there, so neither descriptors nor stack grow with the depth.

use std::io;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, IFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories held open at once.
const DEPTH: usize = 64;

/// Removes `path` and everything in it; nothing there is success.
///
/// Everything that can be removed is removed, also after a failure: immutable and append-only flags are taken off,
/// directories without permission bits are opened up.
///
/// # Errors
/// The first failure. A mount inside the tree is one ([`io::ErrorKind::CrossesDevices`] or `ResourceBusy`): it stays.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no directory entry"));
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::open(parent, flags, Mode::empty()) {
        Ok(parent) => remove_at(parent.as_fd(), name.as_encoded_bytes()).map_err(io::Error::from),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes the entry `name` of `parent` and everything in it.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let Some(top) = remove_or_open(parent, name)? else { return Ok(()) };
    let mut tree = Tree { top: &top, moved: 0, failure: None };
    loop {
        let before = tree.moved;
        tree.failure = None;
        tree.empty(top.as_fd(), 1);
        // What was moved to the top may have been missed by the pass that moved it.
        if tree.moved == before {
            break;
        }
    }
    match (unlink(parent, name, AtFlags::REMOVEDIR), tree.failure) {
        (Ok(()) | Err(Errno::NOENT), _) => Ok(()),
        (Err(_), Some(first)) => Err(first),
        (Err(error), None) => Err(error),
    }
}

struct Tree<'a> {
    top: &'a OwnedFd,
    /// Directories moved to the top so far.
    moved: u64,
    failure: Option<Errno>,
}

impl Tree<'_> {
    /// Removes what is in `directory`, which is `depth` levels below the tree's parent.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) {
        let entries = match Dir::read_from(directory) {
            Ok(entries) => entries,
            Err(error) => return self.fail(error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.fail(error),
            };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if let Err(error) = self.remove(directory, name, depth) {
                self.fail(error);
            }
        }
    }

    fn remove(&mut self, parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), Errno> {
        let Some(directory) = remove_or_open(parent, name)? else { return Ok(()) };
        if depth >= DEPTH {
            drop(directory);
            return self.move_up(parent, name);
        }
        self.empty(directory.as_fd(), depth + 1);
        drop(directory);
        match unlink(parent, name, AtFlags::REMOVEDIR) {
            // What holds it has been told already, or has been moved up from below after this directory was read.
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.failure.is_some() => Ok(()),
            result => result,
        }
    }

    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let target = format!(".stanza-remove-{}", self.moved);
            match fs::renameat_with(parent, name, self.top, &target, fs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => return result,
            }
        }
    }

    fn fail(&mut self, error: Errno) {
        self.failure.get_or_insert(error);
    }
}

/// Removes what is not a directory, or an empty one; opens a directory that holds something. `None`: it is gone.
fn remove_or_open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    match unlink(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        // Whatever else is wrong, also with a mount, opening tells.
        Err(_) => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let open = || fs::openat2(parent, name, flags, Mode::empty(), resolve);
    match open() {
        Err(Errno::ACCESS) => {
            open_up(parent, name)?;
            open().map(Some)
        }
        result => result.map(Some),
    }
}

/// Gives the owner all rights to a directory that cannot be opened for lack of them. By way of a descriptor, because
/// there is no `fchmodat` that does not follow links before Linux 6.6.
fn open_up(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    use rustix::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(parent, name, flags, Mode::empty())?;
    fs::chmod(format!("/proc/self/fd/{}", directory.as_raw_fd()), Mode::RWXU)
}

/// Unlinks; when flags or permission bits are in the way, takes them off and tries again.
fn unlink(parent: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, flags) {
        Err(Errno::PERM | Errno::ACCESS) => {
            let entry_flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
            let _ = make_mutable(parent);
            // Only files and directories have such flags; opening anything else could have effects.
            let plain = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
                matches!(
                    fs::FileType::from_raw_mode(stat.st_mode),
                    fs::FileType::RegularFile | fs::FileType::Directory
                )
            });
            if plain && let Ok(entry) = fs::openat2(parent, name, entry_flags, Mode::empty(), resolve) {
                let _ = make_mutable(entry.as_fd());
            }
            fs::unlinkat(parent, name, flags)
        }
        result => result,
    }
}

/// Takes off what keeps a file, or the entries of a directory, from being removed.
fn make_mutable(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = fs::ioctl_getflags(file)?;
    let stuck = IFlags::IMMUTABLE | IFlags::APPEND;
    if flags.intersects(stuck) {
        fs::ioctl_setflags(file, flags.difference(stuck))?;
    }
    let stat = fs::fstat(file)?;
    if crate::overlay::is_directory(&stat) && stat.st_mode & 0o700 != 0o700 {
        fs::fchmod(file, Mode::from_raw_mode(stat.st_mode | 0o700))?;
    }
    Ok(())
}
