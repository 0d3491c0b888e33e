//! One entry of a directory as an archive describes it, read by descriptors: the container whose directory it is may run,
//! be hostile, and swap what is there at any moment.
//!
//! A name is opened once, without following it and without its driver hearing of it (`O_PATH`); what it is, is asked of that
//! descriptor, and only a regular file or a directory is opened further, through the descriptor. So no device is ever
//! opened and no pipe waited for, whatever is put in the place of a file between two calls.

use std::fs::File;
use std::io::{self, Read};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use stanza_tar::{EntryKind, Header};

use crate::owners::OwnerMap;
use crate::xattrs::{Xattrs, read_xattrs};

/// This process's descriptors, by the procfs of the moment when it was opened: what is at /proc later does not matter.
#[derive(Debug)]
pub(crate) struct Descriptors(OwnedFd);

impl From<OwnedFd> for Descriptors {
    fn from(directory: OwnedFd) -> Descriptors {
        Descriptors(directory)
    }
}

impl Descriptors {
    /// Opens `/proc/self/fd`.
    pub(crate) fn open() -> io::Result<Descriptors> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Descriptors(fs::openat(CWD, "/proc/self/fd", flags, Mode::empty())?))
    }

    /// Opens what an `O_PATH` descriptor stands for.
    pub(crate) fn reopen(&self, found: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        fs::openat(&self.0, found.as_raw_fd().to_string(), flags | OFlags::CLOEXEC, Mode::empty())
    }
}

/// An entry.
#[derive(Debug)]
pub(crate) struct Node {
    /// What an archive says of it; the path is empty, and the size is that of the moment when it was opened.
    pub(crate) header: Header,
    pub(crate) stat: Stat,
    /// The content of a regular file.
    pub(crate) content: Option<Content>,
}

/// How entries are read.
pub(crate) struct Reader<'a> {
    pub(crate) descriptors: &'a Descriptors,
    pub(crate) owners: &'a OwnerMap,
    /// Which extended attributes are told.
    pub(crate) wanted: fn(&[u8]) -> bool,
    /// Also those of links, pipes and devices, which have them by name only: `/proc` must be this process's.
    pub(crate) of_all: bool,
}

impl Reader<'_> {
    /// The entry `name`; `None` when it is gone, or a socket, which no archive holds.
    pub(crate) fn read(&self, parent: impl AsFd, name: &[u8]) -> Result<Option<Node>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match fs::openat(parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result?,
        };
        self.describe(&found)
    }

    /// What an `O_PATH` descriptor stands for.
    pub(crate) fn describe(&self, found: &OwnedFd) -> Result<Option<Node>, Errno> {
        let mut stat = fs::fstat(found)?;
        let mut header = Header::default();
        let mut content = None;
        header.kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = self.descriptors.reopen(found.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK)?;
                stat = fs::fstat(&file)?;
                header.size = u64::try_from(stat.st_size).unwrap_or(0);
                header.xattrs = self.xattrs(&file)?;
                content = Some(Content { file: File::from(file), left: header.size, failure: None });
                EntryKind::File
            }
            FileType::Directory => {
                let directory = self.descriptors.reopen(found.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
                header.xattrs = self.xattrs(&directory)?;
                EntryKind::Directory
            }
            FileType::Symlink => {
                header.link = fs::readlinkat(found, "", Vec::new())?.into_bytes();
                EntryKind::Symlink
            }
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::CharacterDevice,
            FileType::BlockDevice => EntryKind::BlockDevice,
            _ => return Ok(None),
        };
        if self.of_all && !matches!(header.kind, EntryKind::File | EntryKind::Directory) {
            let path = format!("/proc/self/fd/{}", found.as_raw_fd());
            header.xattrs = read_xattrs(
                self.wanted,
                |buffer| fs::listxattr(&*path, buffer),
                |name, buffer| fs::getxattr(&*path, name, buffer),
            )?;
        }
        let (uid, gid) = self.owners.inside(stat.st_uid, stat.st_gid);
        if matches!(header.kind, EntryKind::CharacterDevice | EntryKind::BlockDevice) {
            header.device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        }
        header.mode = stat.st_mode & 0o7777;
        (header.uid, header.gid) = (uid.into(), gid.into());
        header.mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        Ok(Some(Node { header, stat, content }))
    }

    fn xattrs(&self, file: &OwnedFd) -> Result<Xattrs, Errno> {
        read_xattrs(
            self.wanted,
            |buffer| fs::flistxattr(file, buffer),
            |name, buffer| fs::fgetxattr(file, name, buffer),
        )
    }
}

/// A file's content, as long as its header says: one that shrinks while it is read is filled up with zeros, one that grows is
/// cut.
#[derive(Debug)]
pub(crate) struct Content {
    file: File,
    left: u64,
    /// The file's own failure, which would be hidden in the writer's.
    pub(crate) failure: Option<io::Error>,
}

impl Content {
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let count = match self.file.read(&mut buffer[..room]) {
            Ok(0) => {
                buffer[..room].fill(0);
                room
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failure = Some(error);
                return Err(told);
            }
        };
        self.left -= count as u64;
        Ok(count)
    }
}

/// The names in a directory, sorted, without `.` and `..`.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        match entry?.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    names.sort_unstable();
    Ok(names)
}
