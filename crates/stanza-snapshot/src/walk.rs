//! Reading a tree back: every entry once, by descriptors, links not followed.
//!
//! One directory is open at a time, and its parents are found again by `..`, so that depth costs neither descriptors nor
//! stack. Nobody else moves directories in a layer.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::overlay::{is_directory, is_kind};
use crate::tree_digest::{ContentDigest, ContentHash, Part, TreeSum, is_content};
use crate::xattrs::{self, Xattrs};

/// Hashed while it is in the processor's cache.
const CHUNK: usize = 128 << 10;

/// What could not be read, and why.
#[derive(Debug)]
pub(crate) struct WalkError {
    /// Path in the tree.
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Adds everything in the tree below `root`, itself included; `see` is shown each entry's path and state.
pub(crate) fn walk(
    root: &OwnedFd,
    sum: &mut TreeSum,
    see: &mut dyn FnMut(&[u8], &Stat),
) -> Result<(), WalkError> {
    let mut walk = Walk { sum, see, path: Vec::new(), linked: HashMap::new(), buffer: vec![0; CHUNK] };
    walk.tree(root).map_err(|error| WalkError { path: to_path(&walk.path), source: error.into() })
}

pub(crate) fn to_path(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    Path::new("/").join(std::ffi::OsStr::from_bytes(path))
}

struct Walk<'a> {
    sum: &'a mut TreeSum,
    see: &'a mut dyn FnMut(&[u8], &Stat),
    path: Vec<u8>,
    /// Content of the files that have several names.
    linked: HashMap<u64, Option<ContentDigest>>,
    buffer: Vec<u8>,
}

/// A directory that is being walked.
struct Level {
    /// Its subdirectories that are still to come.
    left: Vec<Vec<u8>>,
    device: u64,
    inode: u64,
    /// Length of its path.
    length: usize,
}

impl Walk<'_> {
    fn tree(&mut self, root: &OwnedFd) -> Result<(), Errno> {
        let mut current = fs::openat(root, ".", directory_flags(), Mode::empty())?;
        let stat = fs::fstat(&current)?;
        let device = stat.st_dev;
        let mut levels = vec![self.directory(&current, &stat)?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.length);
            if let Some(name) = level.left.pop() {
                self.push(&name);
                let child = fs::openat(&current, &name[..], directory_flags(), Mode::empty())?;
                let stat = fs::fstat(&child)?;
                if stat.st_dev != device {
                    return Err(Errno::XDEV);
                }
                levels.push(self.directory(&child, &stat)?);
                current = child;
                continue;
            }
            levels.pop();
            let Some(above) = levels.last() else { break };
            current = fs::openat(&current, "..", directory_flags(), Mode::empty())?;
            let stat = fs::fstat(&current)?;
            if (stat.st_dev, stat.st_ino) != (above.device, above.inode) {
                return Err(Errno::STALE);
            }
        }
        Ok(())
    }

    fn push(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    /// Adds a directory and what is in it, but for its subdirectories, which it gives.
    fn directory(&mut self, directory: &OwnedFd, stat: &Stat) -> Result<Level, Errno> {
        (self.see)(&self.path, stat);
        let xattrs = read_xattrs(directory.as_fd())?;
        self.sum.add(&self.path, stat, &xattrs, Part::Nothing);
        self.sum.count(stat);
        let length = self.path.len();
        let mut left = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.path.truncate(length);
            self.push(name);
            let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if is_directory(&stat) {
                left.push(name.to_vec());
                continue;
            }
            (self.see)(&self.path, &stat);
            self.entry(directory, name, &stat)?;
        }
        self.path.truncate(length);
        Ok(Level { left, device: stat.st_dev, inode: stat.st_ino, length })
    }

    fn entry(&mut self, parent: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
        let known = self.linked.get(&stat.st_ino).copied();
        if known.is_none() {
            self.sum.count(stat);
        }
        let content = match known {
            Some(content) => content,
            None if is_kind(stat, FileType::RegularFile) => {
                Some(content_at(parent.as_fd(), name, stat, &mut self.buffer)?)
            }
            None => None,
        };
        if stat.st_nlink > 1 {
            self.linked.insert(stat.st_ino, content);
        }
        add_entry(self.sum, parent.as_fd(), name, &self.path, stat, content)
    }
}

/// Adds an entry that is no directory, with the content that is known of it when it is a file.
pub(crate) fn add_entry(
    sum: &mut TreeSum,
    parent: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    stat: &Stat,
    content: Option<ContentDigest>,
) -> Result<(), Errno> {
    let xattrs = read_xattrs_at(parent, name)?;
    match content {
        Some(content) => sum.add(path, stat, &xattrs, Part::Content(&content)),
        None if is_kind(stat, FileType::Symlink) => {
            let target = fs::readlinkat(parent, name, Vec::new())?;
            sum.add(path, stat, &xattrs, Part::Link(target.as_bytes()));
        }
        None => sum.add(path, stat, &xattrs, Part::Nothing),
    }
    Ok(())
}

/// The content of the file `name`. Opened without waiting: what is a pipe by now must not stop anybody.
pub(crate) fn content_at(
    parent: BorrowedFd<'_>,
    name: &[u8],
    stat: &Stat,
    buffer: &mut [u8],
) -> Result<ContentDigest, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::openat(parent, name, flags, Mode::empty())?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let is_sparse = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < size;
    let mut hash = ContentHash::default();
    let mut offset = 0;
    while offset < size {
        if is_sparse {
            // Not every file system tells holes: then everything is data.
            let data = match fs::seek(&file, SeekFrom::Data(offset)) {
                Ok(data) => data.min(size),
                Err(Errno::NXIO) => size,
                Err(_) => offset,
            };
            hash.skip(data - offset);
            offset = data;
        }
        let limit = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            break;
        }
        match rustix::io::pread(&file, &mut buffer[..limit], offset) {
            // Shorter than a moment ago: its size tells the difference.
            Ok(0) => break,
            Ok(length) => {
                hash.update(&buffer[..length]);
                offset += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hash.finish())
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The attributes of an open file that are content.
pub(crate) fn read_xattrs(file: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    xattrs::read_xattrs(
        is_content,
        |list| fs::flistxattr(file, list),
        |name, value| fs::fgetxattr(file, name, value),
    )
}

/// The same of an entry that may be anything, by way of its directory.
fn read_xattrs_at(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Xattrs, Errno> {
    let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
    xattrs::read_xattrs(
        is_content,
        |list| fs::llistxattr(&path[..], list),
        |name, value| fs::lgetxattr(&path[..], name, value),
    )
}
