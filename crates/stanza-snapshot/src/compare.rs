//! What is different between two images: their layers merged as overlayfs merges them, without mounting.
//!
//! Both sides are walked together. Where both are made of the same layers, nothing can differ and nothing is read; a file
//! that both have from the same layer is the same file. Others are compared by kind, mode, owner, size, time, link target,
//! device number and attributes, and when all of these agree, by content.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use stanza_spec::Layer;

use crate::changes::{Below, DEPTH, lookup};
use crate::layer::open_layer;
use crate::node::{Descriptors, Reader, names};
use crate::overlay::{is_directory, is_own_xattr};
use crate::owners::OwnerMap;
use crate::{Change, ChangeKind, DiffError};

/// What makes `after`, layers with the topmost first, different from `before`: sorted by path, each path once. What is in a
/// new directory is told, what was in a deleted one is not. `userxattr` is where overlayfs's marks are.
///
/// # Errors
/// When a layer cannot be read, or directories are nested too deeply.
pub fn compare(before: &[Layer], after: &[Layer], userxattr: bool) -> Result<Vec<Change>, DiffError> {
    let root = Path::new("/");
    let mut opened: Vec<(&Layer, Rc<OwnedFd>)> = Vec::new();
    for layer in before.iter().chain(after) {
        // Once each: what both have is then the same file, also in an image that is mounted to look into it.
        if !opened.iter().any(|(known, _)| *known == layer) {
            let directory =
                open_layer(layer).map_err(|source| DiffError::Read { path: root.to_owned(), source })?;
            opened.push((layer, Rc::new(directory)));
        }
    }
    let stack = |layers: &[Layer]| -> Vec<Rc<OwnedFd>> {
        let find = |layer| opened.iter().find(|(known, _)| *known == layer);
        layers.iter().filter_map(find).map(|(_, directory)| Rc::clone(directory)).collect()
    };
    let (before, after) = (stack(before), stack(after));
    let descriptors = Descriptors::open()
        .map_err(|source| DiffError::Read { path: PathBuf::from("/proc/self/fd"), source })?;
    let owners = OwnerMap::default();
    let wanted = |name: &[u8]| !is_own_xattr(name);
    let reader = Reader { descriptors: &descriptors, owners: &owners, wanted, of_all: true };
    let mut comparison = Comparison { reader, userxattr, changes: Vec::new() };
    comparison.directory(root, &before, &after, 0)?;
    let mut changes = comparison.changes;
    changes.sort_unstable();
    Ok(changes)
}

struct Comparison<'a> {
    reader: Reader<'a>,
    userxattr: bool,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    fn add(&mut self, path: PathBuf, kind: ChangeKind) {
        self.changes.push(Change { path, kind });
    }

    /// Compares what two stacks of directories show; `true` when something differs.
    fn directory(
        &mut self,
        path: &Path,
        before: &[Rc<OwnedFd>],
        after: &[Rc<OwnedFd>],
        depth: usize,
    ) -> Result<bool, DiffError> {
        if depth >= DEPTH {
            return Err(DiffError::TooDeep { path: path.to_owned() });
        }
        if identities(before).map_err(failed(path))? == identities(after).map_err(failed(path))? {
            return Ok(false);
        }
        let mut all = Vec::new();
        for directory in before.iter().chain(after) {
            all.append(&mut names(directory).map_err(failed(path))?);
        }
        all.sort_unstable();
        all.dedup();
        let count = self.changes.len();
        for name in all {
            let child = path.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&name));
            let find = |stack: &[Rc<OwnedFd>]| lookup(stack, &name, self.userxattr).map_err(failed(&child));
            let (was, is) = (find(before)?, find(after)?);
            match (&was.stat, &is.stat) {
                (None, None) => {}
                (Some(_), None) => self.add(child, ChangeKind::Deleted),
                (None, Some(_)) => self.appeared(&child, ChangeKind::Added, &is, depth)?,
                (Some(a), Some(b)) if is_directory(a) && is_directory(b) => {
                    let inside = self.directory(&child, &was.directories, &is.directories, depth + 1)?;
                    if inside || !self.same(&child, &name, (a, before), (b, after))? {
                        self.add(child, ChangeKind::Modified);
                    }
                }
                (Some(a), Some(b)) => {
                    if !self.same(&child, &name, (a, before), (b, after))? {
                        self.appeared(&child, ChangeKind::Modified, &is, depth)?;
                    }
                }
            }
        }
        Ok(self.changes.len() > count)
    }

    /// Tells of something that is new or took another's place, and of all that is in it.
    fn appeared(&mut self, path: &Path, kind: ChangeKind, is: &Below, depth: usize) -> Result<(), DiffError> {
        self.add(path.to_owned(), kind);
        if is.stat.as_ref().is_some_and(is_directory) {
            self.directory(path, &[], &is.directories, depth + 1)?;
        }
        Ok(())
    }

    /// Whether what two stacks show under one name is the same.
    fn same(
        &self,
        path: &Path,
        name: &[u8],
        (a, before): (&Stat, &[Rc<OwnedFd>]),
        (b, after): (&Stat, &[Rc<OwnedFd>]),
    ) -> Result<bool, DiffError> {
        if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
            return Ok(true);
        }
        let quick = |stat: &Stat| {
            // The size of a directory says nothing of what is in it.
            let size = if is_directory(stat) { 0 } else { stat.st_size };
            (stat.st_mode, stat.st_uid, stat.st_gid, size, stat.st_mtime, stat.st_mtime_nsec, stat.st_rdev)
        };
        if quick(a) != quick(b) {
            return Ok(false);
        }
        let read = |stack| self.read(name, stack).map_err(failed(path));
        let (Some(a), Some(b)) = (read(before)?, read(after)?) else { return Ok(false) };
        if a.header != b.header {
            return Ok(false);
        }
        match (a.content, b.content) {
            (Some(a), Some(b)) => same_content(a.file(), b.file())
                .map_err(|source| DiffError::Read { path: path.to_owned(), source }),
            _ => Ok(true),
        }
    }

    /// What the topmost directory that has the name has there.
    fn read(&self, name: &[u8], stack: &[Rc<OwnedFd>]) -> Result<Option<crate::node::Node>, Errno> {
        for directory in stack {
            if let Some(node) = self.reader.read(directory, name)? {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }
}

/// Which directories these are.
fn identities(stack: &[Rc<OwnedFd>]) -> Result<Vec<(u64, u64)>, Errno> {
    stack.iter().map(|directory| fs::fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))).collect()
}

fn same_content(mut a: &File, mut b: &File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = a.read(&mut left)?;
        if count == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        if b.read_exact(&mut right[..count]).is_err() || left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(Errno) -> DiffError {
    let path = path.to_owned();
    move |error| DiffError::Read { path, source: error.into() }
}

/// What a layer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerSummary {
    /// Regular files, each name counted.
    pub files: u64,
    /// Directories, the layer's root not counted.
    pub directories: u64,
    /// Links, devices and pipes.
    pub others: u64,
    /// Paths of lower layers that it hides: whiteouts, and directories that hide what is below them.
    pub hidden: u64,
    /// Bytes of its files; one with several names counts once, and of a sparse file what it takes on disk.
    pub size: u64,
    /// The largest files, the largest first: absolute path and bytes.
    pub largest: Vec<(PathBuf, u64)>,
}

/// Looks through an unpacked layer, whose root directory `top` is; tells at most `largest` of its files.
///
/// # Errors
/// When it cannot be read.
pub fn summarize(top: &OwnedFd, userxattr: bool, largest: usize) -> Result<LayerSummary, DiffError> {
    let root = Path::new("/");
    let mut summary = LayerSummary::default();
    let mut seen = std::collections::HashSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let shown = || root.join(&path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        let directory = fs::openat(top, here, flags, Mode::empty()).map_err(failed(&shown()))?;
        if crate::overlay::is_opaque(&directory, userxattr).map_err(failed(&shown()))? {
            summary.hidden += 1;
        }
        for name in names(&directory).map_err(failed(&shown()))? {
            let child = path.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&name));
            let stat = fs::statat(&directory, &name[..], AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed(&root.join(&child)))?;
            if is_directory(&stat) {
                summary.directories += 1;
                waiting.push(child);
                continue;
            }
            if crate::overlay::is_whiteout(&stat) {
                summary.hidden += 1;
                continue;
            }
            let is_file = crate::overlay::is_kind(&stat, fs::FileType::RegularFile);
            if is_file {
                summary.files += 1;
            } else {
                summary.others += 1;
            }
            if stat.st_nlink == 1 || seen.insert(stat.st_ino) {
                let number = |number: i64| u64::try_from(number).unwrap_or(0);
                let size = number(stat.st_size).min(number(stat.st_blocks).saturating_mul(512));
                summary.size += size;
                if is_file && largest > 0 {
                    let at = summary.largest.partition_point(|(_, other)| *other >= size);
                    if at < largest {
                        summary.largest.insert(at, (root.join(child), size));
                        summary.largest.truncate(largest);
                    }
                }
            }
        }
    }
    Ok(summary)
}
