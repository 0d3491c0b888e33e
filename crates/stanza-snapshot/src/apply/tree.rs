//! The tree that a layer becomes: every path is resolved beneath its root, by descriptors.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::rc::Rc;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::entry::Place;
use super::fingerprint::Fingerprint;
use super::name::joined;
use super::{Applied, ApplyError};
use crate::links::Noted;
use crate::overlay::{is_directory, is_kind, is_whiteout, make_opaque};
use crate::remove::remove_at;
use crate::tree_digest::{Summary, TreeSum};
use crate::walk::walk;

/// Symbolic links followed on the way to one entry, as the kernel counts (`man 7 path_resolution`).
pub(crate) const LINKS: usize = 40;

/// Bytes of directories' paths that are remembered to set their times at the end.
const LATE_BYTES: usize = 128 << 20;

/// Never through a magic link, and never out of the layer: `..` at its root is its root, `/` as well.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A layer being unpacked.
pub(super) struct Tree {
    pub(super) root: Rc<OwnedFd>,
    pub(super) rootless: bool,
    /// The directory of the last entry: archives are sorted by directory, mostly.
    parent: Option<(Vec<u8>, Parent)>,
    /// Of the directories that are there, by where they are: no part of these paths is a link.
    late: BTreeMap<Vec<u8>, Late>,
    late_bytes: usize,
    /// Hard links to files that this layer does not have.
    pub(super) links: Noted,
    pub(super) applied: Applied,
    /// Of what is there so far, but for directories: those are added when everything is in them.
    pub(super) sum: Fingerprint,
}

/// A directory that entries go into.
#[derive(Clone)]
pub(super) struct Parent {
    /// Where it is, which is not what the archive calls it when that leads through a link.
    pub(super) path: Rc<[u8]>,
    pub(super) directory: Rc<OwnedFd>,
}

/// What is set on a directory when everything is in it: entries made in it would change its time, and take over its
/// group and its default access control list.
pub(super) struct Late {
    pub(super) times: Timestamps,
    pub(super) mode: Option<Mode>,
    pub(super) default_acl: Option<Vec<u8>>,
    /// It has extended attributes.
    pub(super) xattrs: bool,
    /// It is there because something is in it: the layer did not describe it yet.
    pub(super) implied: bool,
}

impl Tree {
    /// Makes the layer's root directory at `path`.
    pub(super) fn create(path: &Path, rootless: bool) -> io::Result<Tree> {
        crate::store::make_directory(path, 0o755)?;
        let root = fs::open(path, directory_flags(OFlags::RDONLY), Mode::empty())?;
        // What the store's own directory may hand down is not the layer's.
        for list in ["system.posix_acl_default", "system.posix_acl_access"] {
            let _ = fs::fremovexattr(&root, list);
        }
        Ok(Tree {
            root: Rc::new(root),
            rootless,
            parent: None,
            late: BTreeMap::from([(Vec::new(), Late::implied())]),
            late_bytes: 0,
            links: Noted::default(),
            applied: Applied::default(),
            sum: Fingerprint::default(),
        })
    }

    /// Sets what had to wait, and tells what is there, and the links that are left to be made, as [`crate::links`] keeps
    /// them.
    pub(super) fn finish(mut self) -> Result<(Applied, Summary, Option<Vec<u8>>), ApplyError> {
        let late = std::mem::take(&mut self.late);
        for (path, late) in &late {
            let result = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW).and_then(
                |directory| {
                    late.set(&directory)?;
                    self.sum.directory(path, &directory, late)
                },
            );
            result.map_err(|error| ApplyError::Entry {
                path: path.escape_ascii().to_string(),
                action: "set the times of",
                source: error.into(),
            })?;
        }
        if self.sum.irregular {
            let mut sum = TreeSum::default();
            walk(&self.root, &mut sum, &mut |_, _| {}).map_err(|error| ApplyError::Entry {
                path: error.path.as_os_str().as_encoded_bytes().escape_ascii().to_string(),
                action: "read back",
                source: error.source,
            })?;
            return Ok((self.applied, sum.summary(), self.links.into_bytes()));
        }
        Ok((self.applied, self.sum.tree.summary(), self.links.into_bytes()))
    }

    /// Remembers what to set on a directory at the end.
    pub(super) fn set_late(&mut self, path: Vec<u8>, late: Late) -> Result<(), ApplyError> {
        self.late_bytes += path.len() + late.default_acl.as_ref().map_or(0, Vec::len) + size_of::<Late>();
        if self.late_bytes > LATE_BYTES {
            return Err(ApplyError::TooManyDirectories { limit: LATE_BYTES });
        }
        match self.late.entry(path) {
            Slot::Occupied(mut known) => {
                let xattrs = known.get().xattrs || late.xattrs;
                // Where somebody else is first, this is a second description of a directory that merges with the first.
                if !late.implied {
                    known.insert(Late { xattrs, ..late });
                }
            }
            Slot::Vacant(slot) => {
                slot.insert(late);
            }
        }
        Ok(())
    }

    /// The directory at `path` has extended attributes by now.
    pub(super) fn has_xattrs(&mut self, path: &[u8]) {
        match self.late.get_mut(path) {
            Some(late) => late.xattrs = true,
            None => self.sum.irregular = true,
        }
    }

    /// Opens `path`, links of the layer followed as if its root were `/`.
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        open_in_root(&self.root, path, flags, IN_ROOT)
    }

    /// The directory `path`, made when it is not there.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<Parent, Errno> {
        if path.is_empty() {
            return Ok(Parent { path: Rc::default(), directory: Rc::clone(&self.root) });
        }
        if let Some((known, parent)) = &self.parent
            && known == path
        {
            return Ok(parent.clone());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = match open_in_root(&self.root, path, flags, IN_ROOT | ResolveFlags::NO_SYMLINKS) {
            Err(Errno::LOOP) => {
                // What the archive calls it is not where it is.
                self.sum.irregular = true;
                self.make_path(path)?
            }
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_path(path)?,
            result => Parent { path: path.into(), directory: Rc::new(result?) },
        };
        self.parent = Some((path.to_vec(), parent.clone()));
        Ok(parent)
    }

    /// Walks `path` part by part and makes what is missing, also where a link of the layer points to nothing yet.
    fn make_path(&mut self, path: &[u8]) -> Result<Parent, Errno> {
        let mut walked: Vec<Vec<u8>> = Vec::new();
        let mut left: VecDeque<Vec<u8>> = parts(path).collect();
        let mut directory = Rc::clone(&self.root);
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == b".." {
                walked.pop();
                directory = self.reopen(&walked)?;
                continue;
            }
            match fs::statat(&directory, &part[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_directory(&stat) => {}
                Ok(stat) if is_kind(&stat, FileType::Symlink) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = fs::readlinkat(&directory, &part[..], Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        walked.clear();
                        directory = Rc::clone(&self.root);
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(part);
                    }
                    continue;
                }
                Ok(stat) if is_whiteout(&stat) => {
                    self.sum.irregular = true;
                    fs::unlinkat(&directory, &part[..], AtFlags::empty())?;
                    self.make_implied(&directory, &walked, &part, true)?;
                }
                Ok(_) => return Err(Errno::NOTDIR),
                Err(Errno::NOENT) => self.make_implied(&directory, &walked, &part, false)?,
                Err(error) => return Err(error),
            }
            let flags = directory_flags(OFlags::PATH | OFlags::NOFOLLOW);
            directory = Rc::new(fs::openat(&directory, &part[..], flags, Mode::empty())?);
            walked.push(part);
        }
        Ok(Parent { path: walked.join(&b'/').into(), directory })
    }

    fn reopen(&self, walked: &[Vec<u8>]) -> Result<Rc<OwnedFd>, Errno> {
        if walked.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        self.open(&walked.join(&b'/'), OFlags::PATH | OFlags::DIRECTORY).map(Rc::new)
    }

    /// A directory that the layer does not describe, in the one at `walked`.
    fn make_implied(
        &mut self,
        parent: &OwnedFd,
        walked: &[Vec<u8>],
        name: &[u8],
        opaque: bool,
    ) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(0o755);
        fs::mkdirat(parent, name, mode)?;
        let flags = directory_flags(OFlags::RDONLY | OFlags::NOFOLLOW);
        let directory = fs::openat(parent, name, flags, Mode::empty())?;
        fs::fchmod(&directory, mode)?;
        if opaque {
            make_opaque(&directory, self.rootless)?;
        }
        let path = joined(&walked.join(&b'/'), name);
        // More than what is remembered of directories is refused by whoever describes one.
        self.set_late(path, Late { xattrs: opaque, ..Late::implied() }).map_err(|_| Errno::NOMEM)
    }

    /// What is at `name`, links not followed; `None` is nothing.
    pub(super) fn stat(parent: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
        match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an entry; what is in its place goes.
    pub(super) fn create_entry<T>(
        &mut self,
        place: Place<'_>,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make() {
            Err(Errno::EXIST) => {
                self.discard(place)?;
                make()
            }
            result => result,
        }
    }

    /// Removes what an entry replaces.
    pub(super) fn discard(&mut self, Place { path, parent, name }: Place<'_>) -> Result<(), Errno> {
        // The way to the remembered directory may have led through it.
        self.parent = None;
        self.sum.irregular = true;
        let path = joined(path, name);
        if self.late.remove(&path).is_some() {
            // What was to be set on a directory is not for another one that comes in its place, nor for what is in that.
            let (first, end) = ([&path[..], b"/"].concat(), [&path[..], b"0"].concat());
            while let Some((below, _)) = self.late.range(first.clone()..end.clone()).next() {
                let below = below.clone();
                self.late.remove(&below);
            }
        }
        remove_at(parent.as_fd(), name)
    }
}

impl Late {
    /// Of a directory that the layer does not describe. Its time is not now: what a layer holds is a function of its
    /// diff id.
    fn implied() -> Late {
        let time = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Late { times, mode: None, default_acl: None, xattrs: false, implied: true }
    }

    fn set(&self, directory: &OwnedFd) -> Result<(), Errno> {
        if let Some(mode) = self.mode {
            fs::fchmod(directory, mode)?;
        }
        if let Some(list) = &self.default_acl {
            fs::fsetxattr(directory, "system.posix_acl_default", list, fs::XattrFlags::empty())?;
        }
        fs::futimens(directory, &self.times)
    }
}

pub(crate) fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}

fn directory_flags(flags: OFlags) -> OFlags {
    flags | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn open_in_root(root: &OwnedFd, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    // The kernel gives up on `..` when anything is renamed or mounted anywhere meanwhile (`man 2 openat2`, EAGAIN).
    for _ in 0..128 {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}
