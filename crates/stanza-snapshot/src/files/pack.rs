//! A file or directory becomes an archive.

use std::collections::HashMap;
use std::io::{self, Write};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use stanza_tar::{Builder, EntryKind, Header};

use super::{BELOW, Files, FilesError, failed, open_by, shown};
use crate::node::{Content, Node, Reader, names};

/// What an archive that leaves a container, or comes in, says besides owner, mode and time.
fn is_packed_xattr(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !crate::overlay::is_own_xattr(name)) || name == b"security.capability"
}

impl Files {
    /// Writes what `path` is as an archive in which it is called `name`: `name`, or `name/`, `name/a`, …; with `.` for a
    /// name `./`, `./a`, …. A link at the end of `path` is written as a link, unless a slash follows it. Sockets in a directory are
    /// left out. Gives the bytes of all files.
    ///
    /// # Errors
    /// When there is no such path, it is a socket, or something cannot be read or written.
    pub fn pack(&self, path: &[u8], name: &[u8], out: &mut dyn Write) -> Result<u64, FilesError> {
        let found = self.open(path, OFlags::PATH | OFlags::NOFOLLOW).map_err(failed("open", path))?;
        let reader = Reader {
            descriptors: &self.descriptors,
            owners: &self.owners,
            wanted: is_packed_xattr,
            of_all: false,
        };
        let mut pack = Pack { out: Builder::new(out), reader, source: path, links: HashMap::new(), bytes: 0 };
        let node = pack.reader.describe(&found).map_err(failed("read", path))?;
        let node = node.ok_or_else(|| FilesError::Socket { path: shown(path) })?;
        if node.header.kind == EntryKind::Directory {
            let top = self
                .descriptors
                .reopen(found.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(failed("open", path))?;
            pack.entry([name, b"/"].concat(), node.header, None)?;
            pack.directories(&top, name)?;
        } else {
            pack.entry(name.to_vec(), node.header, node.content)?;
        }
        pack.out.finish().map_err(FilesError::Write)?;
        Ok(pack.bytes)
    }
}

struct Pack<'a> {
    out: Builder<&'a mut dyn Write>,
    reader: Reader<'a>,
    /// For messages.
    source: &'a [u8],
    /// Files with several names, by device and inode, and the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    bytes: u64,
}

impl Pack<'_> {
    /// Writes all that is below `top`, each directory's files before its directories.
    fn directories(&mut self, top: &OwnedFd, name: &[u8]) -> Result<(), FilesError> {
        let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(path) = pending.pop() {
            let directory = match open_by(top, &path, OFlags::RDONLY | OFlags::DIRECTORY, BELOW) {
                // The container has moved it away.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                result => result.map_err(|error| self.failed(&path, error))?,
            };
            let mut children = Vec::new();
            for entry in names(&directory).map_err(|error| self.failed(&path, error))? {
                let child = if path.is_empty() { entry.clone() } else { [&path[..], b"/", &entry].concat() };
                let node = match self.reader.read(&directory, &entry) {
                    // Swapped for something else between two calls.
                    Err(Errno::NOENT | Errno::NXIO) | Ok(None) => continue,
                    result => result.map_err(|error| self.failed(&child, error))?,
                };
                let Some(Node { mut header, stat, mut content }) = node else { continue };
                let mut full = [name, b"/", &child].concat();
                if header.kind == EntryKind::Directory {
                    full.push(b'/');
                    children.push(child);
                } else if stat.st_nlink > 1 {
                    let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| full.clone());
                    if *first != full {
                        let link = first.clone();
                        header = Header { kind: EntryKind::HardLink, link, xattrs: Vec::new(), ..header };
                        content = None;
                    }
                }
                self.entry(full, header, content)?;
            }
            pending.extend(children.into_iter().rev());
        }
        Ok(())
    }

    fn entry(&mut self, path: Vec<u8>, header: Header, content: Option<Content>) -> Result<(), FilesError> {
        let header = Header { path, ..header };
        let Some(mut content) = content else {
            return self.out.append(&header, &mut io::empty()).map_err(FilesError::Write);
        };
        self.bytes += header.size;
        self.out.append(&header, &mut content).map_err(|error| match content.failure.take() {
            Some(source) => FilesError::Path { action: "read", path: shown(&header.path), source },
            None => FilesError::Write(error),
        })
    }

    fn failed(&self, path: &[u8], error: Errno) -> FilesError {
        let path = shown(&[self.source, b"/", path].concat());
        FilesError::Path { action: "read", path, source: error.into() }
    }
}
