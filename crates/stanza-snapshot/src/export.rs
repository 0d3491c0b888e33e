//! `export`: the files of a container as one flat archive, read from its layers without mounting them.
//!
//! The trees are merged directory by directory as overlayfs merges them, names sorted, so that the same files give the same
//! bytes. The container may be running: everything is read by descriptors, no link is followed, no device opened, and what
//! it moves meanwhile is missed or seen twice, but nothing outside is read. Sockets are left out, as by Docker. A file with
//! several names in one layer is stored once and then linked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind, Layer, Rootfs};
use stanza_tar::{Builder, EntryKind, Header};

use crate::layer::{open_layer, place};
use crate::node::{Descriptors, Node, Reader, names};
use crate::overlay::{is_directory, is_opaque, is_own_xattr, is_whiteout};
use crate::owners::OwnerMap;

/// From here on the kernel copies; below, it would cost more calls than it saves.
const LARGE: u64 = 64 << 10;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Why files are not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// They are not kept in layers, or are this machine's own.
    #[error("the root file system is not made of an image's layers")]
    NotLayered,
    /// A layer cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The path, everything but printable ASCII escaped.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A tree cannot be opened.
    #[error("cannot open the layer `{}`", path.display())]
    Open {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl Classify for ExportError {
    fn kind(&self) -> ErrorKind {
        match self {
            ExportError::NotLayered => ErrorKind::Unsupported,
            ExportError::Read { source, .. }
            | ExportError::Open { source, .. }
            | ExportError::Write(source) => ErrorKind::of_io(source),
        }
    }
}

/// Writes the files of a container. `owners` tells whose its own files are: those of its upper layer, since the lower ones
/// keep the ids of the image.
///
/// # Errors
/// When a layer cannot be read, or the archive not be written.
pub fn export(rootfs: &Rootfs, owners: &OwnerMap, out: &File) -> Result<(), ExportError> {
    let (own, lower, userxattr) = match rootfs {
        Rootfs::Layered { root, parts } if parts.is_empty() => (&root.upper, &root.lower[..], root.userxattr),
        // Everything in it is the container's own.
        Rootfs::Copied { root, userxattr, .. } => (root, &[][..], *userxattr),
        Rootfs::Layered { .. } | Rootfs::Directory(_) => return Err(ExportError::NotLayered),
    };
    let descriptors = Descriptors::open()
        .map_err(|source| ExportError::Open { path: PathBuf::from("/proc/self/fd"), source })?;
    let plain = OwnerMap::default();
    let mut trees = Vec::new();
    let tree = |directory, owners| {
        let wanted = |name: &[u8]| !is_own_xattr(name) && name != b"security.selinux";
        Tree { directory, reader: Reader { descriptors: &descriptors, owners, wanted, of_all: true } }
    };
    match fs::open(own, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(directory) => trees.push(tree(directory, owners)),
        // A container that was never started has no upper layer yet.
        Err(Errno::NOENT) if !lower.is_empty() => {}
        Err(error) => return Err(ExportError::Open { path: own.clone(), source: error.into() }),
    }
    for layer in lower {
        let open = |source| ExportError::Open { path: place(layer).to_owned(), source };
        // A copy with shifted owners has them as the upper layer has.
        let owners = if matches!(layer, Layer::Shifted(_)) { owners } else { &plain };
        trees.push(tree(open_layer(layer).map_err(open)?, owners));
    }
    let mut export = Export {
        out: Builder::new(BufWriter::with_capacity(128 << 10, out)),
        trees: &trees,
        userxattr,
        links: HashMap::new(),
    };
    let mut pending = vec![Pending { path: Vec::new(), members: (0..trees.len()).collect() }];
    while let Some(next) = pending.pop() {
        let mut children = export.directory(&next)?;
        children.reverse();
        pending.append(&mut children);
    }
    export.out.finish().and_then(|mut out| out.flush()).map_err(ExportError::Write)
}

/// The upper layer or a lower one.
struct Tree<'a> {
    directory: OwnedFd,
    reader: Reader<'a>,
}

/// A directory that is to be written.
struct Pending {
    /// Relative, without slashes at its ends; empty is the root.
    path: Vec<u8>,
    /// The trees that have it, topmost first.
    members: Vec<usize>,
}

struct Export<'a> {
    out: Builder<BufWriter<&'a File>>,
    trees: &'a [Tree<'a>],
    userxattr: bool,
    /// Files with several names, by device and inode, and the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Export<'_> {
    /// Writes a directory and what is in it but for its directories, which are given back.
    fn directory(&mut self, pending: &Pending) -> Result<Vec<Pending>, ExportError> {
        let path = &pending.path;
        let mut directories: Vec<(usize, OwnedFd)> = Vec::with_capacity(pending.members.len());
        for member in &pending.members {
            let directory = match open_beneath(&self.trees[*member].directory, path) {
                // The container has moved it away.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                result => result.map_err(failed(path))?,
            };
            let opaque = is_opaque(&directory, self.userxattr).map_err(failed(path))?;
            directories.push((*member, directory));
            if opaque {
                break;
            }
        }
        let Some((member, top)) = directories.first() else { return Ok(Vec::new()) };
        if !path.is_empty() {
            let node = self.trees[*member].reader.read(top, b".").map_err(failed(path))?;
            let Some(node) = node else { return Ok(Vec::new()) };
            let header = Header { path: [&path[..], b"/"].concat(), ..node.header };
            self.out.start(&header).map_err(ExportError::Write)?;
        }
        let mut all = Vec::new();
        for (_, directory) in &directories {
            all.append(&mut names(directory).map_err(failed(path))?);
        }
        all.sort_unstable();
        all.dedup();
        let mut children = Vec::new();
        for name in all {
            children.extend(self.name(path, &name, &directories)?);
        }
        Ok(children)
    }

    /// Writes what `name` is; a directory is given back.
    fn name(
        &mut self,
        parent: &[u8],
        name: &[u8],
        directories: &[(usize, OwnedFd)],
    ) -> Result<Option<Pending>, ExportError> {
        let path = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
        let mut members = Vec::new();
        for (member, directory) in directories {
            let stat = match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                result => result.map_err(failed(&path))?,
            };
            if is_directory(&stat) {
                members.push(*member);
                continue;
            }
            // A file or a whiteout below a directory: nothing deeper shows through.
            if members.is_empty() && !is_whiteout(&stat) {
                self.file(&path, name, *member, directory)?;
            }
            break;
        }
        Ok((!members.is_empty()).then_some(Pending { path, members }))
    }

    fn file(
        &mut self,
        path: &[u8],
        name: &[u8],
        member: usize,
        directory: &OwnedFd,
    ) -> Result<(), ExportError> {
        let node = self.trees[member].reader.read(directory, name).map_err(failed(path))?;
        let Some(Node { mut header, stat, content }) = node else { return Ok(()) };
        if header.kind == EntryKind::Directory || is_whiteout(&stat) {
            // It was something else a moment ago.
            return Ok(());
        }
        header.path = path.to_vec();
        if stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
            if first != path {
                header.kind = EntryKind::HardLink;
                header.link.clone_from(first);
                header.xattrs.clear();
                header.size = 0;
                return self.out.start(&header).map_err(ExportError::Write);
            }
        }
        match content {
            Some(content) if header.size >= LARGE => self.large(&header, content.file()),
            Some(mut content) => self.out.append(&header, &mut content).map_err(|error| {
                // Of the two that may have failed, the file says so itself.
                content.failure.take().map_or(ExportError::Write(error), |source| ExportError::Read {
                    path: shown(path),
                    source,
                })
            }),
            None => self.out.append(&header, &mut io::empty()).map_err(ExportError::Write),
        }
    }

    /// copy_file_range(2), or splice(2) into a pipe. A file that shrinks meanwhile is filled up with zeros.
    fn large(&mut self, header: &Header, file: &File) -> Result<(), ExportError> {
        let mut copy = || {
            self.out.start(header)?;
            self.out.get_mut().flush()?;
            let mut out: &File = self.out.get_mut().get_ref();
            let copied = io::copy(&mut file.take(header.size), &mut out)?;
            let missing = header.size.saturating_sub(copied);
            io::copy(&mut io::repeat(0).take(missing), &mut self.out.get_mut())?;
            self.out.pad(header.size)
        };
        copy().map_err(ExportError::Write)
    }
}

fn open_beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Without links and `..` the kernel never asks for another try (`man 2 openat2`, EAGAIN).
    fs::openat2(root.as_fd(), path, flags, Mode::empty(), BENEATH)
}

fn shown(path: &[u8]) -> String {
    format!("/{}", path.escape_ascii())
}

fn failed(path: &[u8]) -> impl FnOnce(Errno) -> ExportError + '_ {
    move |error| ExportError::Read { path: shown(path), source: error.into() }
}
