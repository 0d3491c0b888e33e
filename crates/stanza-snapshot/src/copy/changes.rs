//! What a container changed in its copy: the copy and the layers side by side.
//!
//! A file is modified when its kind, mode, owner, size, time or target is another: what a program that sets the time back
//! after writing changes is not seen, as in Docker's `vfs`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use stanza_spec::Layer;

use super::merge::names;
use super::shifted;
use crate::changes::{Change, ChangeKind, DEPTH, DiffError, failed, is_mount_point, lookup, open_in};
use crate::layer::open_layer;
use crate::overlay::{is_directory, is_kind};

/// What differs between the copy in `root` and `layers`, sorted by path.
pub(crate) fn changes(
    root: &Path,
    layers: &[Layer],
    userxattr: bool,
    shift: u32,
) -> Result<Vec<Change>, DiffError> {
    let top = Path::new("/");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let copy = match fs::open(root, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        result => result.map_err(failed(top))?,
    };
    let mut lowers = Vec::with_capacity(layers.len());
    for layer in layers {
        let opened = open_layer(layer);
        let opened = opened.map_err(|source| DiffError::Read { path: top.to_owned(), source })?;
        lowers.push(Rc::new(opened));
    }
    let mut compare = Compare { userxattr, shift, changes: Vec::new() };
    compare.directory(top, &Rc::new(copy), &lowers, 0)?;
    compare.changes.sort_unstable();
    Ok(compare.changes)
}

struct Compare {
    userxattr: bool,
    shift: u32,
    changes: Vec<Change>,
}

/// What was found in a directory.
#[derive(Clone, Copy, Default)]
struct Found {
    changed: bool,
    /// Something of stanza's, which changed the directory's time.
    own: bool,
}

impl Compare {
    fn add(&mut self, path: &Path, kind: ChangeKind) {
        self.changes.push(Change { path: path.to_owned(), kind });
    }

    /// Compares a directory with what the layers show there.
    fn directory(
        &mut self,
        path: &Path,
        copy: &Rc<OwnedFd>,
        lowers: &[Rc<OwnedFd>],
        depth: usize,
    ) -> Result<Found, DiffError> {
        if depth >= DEPTH {
            return Err(DiffError::TooDeep { path: path.to_owned() });
        }
        let mut all: BTreeSet<Vec<u8>> = names(lowers).map_err(failed(path))?;
        all.extend(names(std::slice::from_ref(copy)).map_err(failed(path))?);
        let mut found = Found::default();
        for name in all {
            let child = path.join(OsStr::from_bytes(&name));
            let now = match fs::statat(copy, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(failed(&child)(error)),
            };
            let before = lookup(lowers, &name, self.userxattr).map_err(failed(&child))?;
            let directory = now.as_ref().is_some_and(is_directory);
            let inside = if directory {
                let opened = Rc::new(open_in(copy, &name).map_err(failed(&child))?);
                self.directory(&child, &opened, &before.directories, depth + 1)?
            } else {
                Found::default()
            };
            let kind = match (&now, &before.stat, before.from.as_deref()) {
                (Some(now), Some(stat), Some(from)) => {
                    let other_target = is_kind(now, FileType::Symlink) && !is_same_target(copy, from, &name);
                    let other = inside.changed || self.differs(now, stat, inside.own) || other_target;
                    other.then_some(ChangeKind::Modified)
                }
                (Some(now), ..) => {
                    // Made to mount on.
                    let point = is_mount_point(&child) && !inside.changed && (directory || now.st_size == 0);
                    let own = point || (inside.own && !inside.changed && child == Path::new("/etc"));
                    found.own |= own;
                    (!own).then_some(ChangeKind::Added)
                }
                (None, Some(_), _) => Some(ChangeKind::Deleted),
                (None, None, _) => None,
            };
            if let Some(kind) = kind {
                self.add(&child, kind);
                found.changed = true;
            }
        }
        Ok(found)
    }

    fn differs(&self, now: &Stat, before: &Stat, ignore_time: bool) -> bool {
        let owner = (shifted(before.st_uid, self.shift), shifted(before.st_gid, self.shift));
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        now.st_mode != before.st_mode
            || (now.st_uid, now.st_gid) != owner
            || now.st_rdev != before.st_rdev
            || (!ignore_time && time(now) != time(before))
            || (!is_directory(now) && now.st_size != before.st_size)
    }
}

fn is_same_target(copy: &OwnedFd, from: &OwnedFd, name: &[u8]) -> bool {
    match (fs::readlinkat(copy, name, Vec::new()), fs::readlinkat(from, name, Vec::new())) {
        (Ok(now), Ok(before)) => now == before,
        _ => false,
    }
}
