//! A container's changes, or several layers, become one layer: a tar stream as image-spec's `layer.md` has it.
//!
//! ```text
//!   trees, topmost first            upper/            or   layer 3, layer 2, …
//!   below, topmost first            layer 3, …        or   layer 1, …         none: nothing is marked as hidden
//!        │ directory by directory, merged as overlayfs merges, names sorted
//!        ▼
//!   ./  a/  a/.wh..wh..opq  a/.wh.gone  a/file  a/dir/ …                      each directory before what is in it
//! ```
//!
//! The same trees give the same bytes: names are sorted, whiteouts have no owner and no time, nothing says when or by whom
//! the layer was written. A file with several names is stored once and then linked. What stanza put there to mount on, and
//! sockets, are left out; overlayfs's own attributes are turned into marks or dropped.
//!
//! A container whose root file system is a copy of its layers has no upper tree: what the two do not have in common is told
//! by comparing them, and written in the order of its paths ([`write_difference`]).
//!
//! Directories are found by their path beneath the tree's root, no link followed, for the container may be running: what it
//! moves meanwhile is missed or seen twice, but nothing outside is read.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind, Layer};
use stanza_tar::{Builder, EntryKind, Header};

use crate::changes::MOUNT_POINTS;
use crate::layer::{open_layer, place};
use crate::node::{Descriptors, Node, Reader, names};
use crate::overlay::{is_directory, is_opaque, is_own_xattr, is_whiteout};
use crate::owners::OwnerMap;
use crate::{Change, ChangeKind, DiffError};

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// What becomes one layer.
#[derive(Clone, Debug)]
pub struct LayerSource {
    /// What a container has written: a directory in overlay form, above everything else.
    pub own: Option<PathBuf>,
    /// Layers that are written, the topmost first.
    pub trees: Vec<Layer>,
    /// The layers below, the topmost first, stanza's own base left out; with none, what is hidden is not marked.
    pub below: Vec<Layer>,
    /// Overlay's marks are in `user.overlay.*`.
    pub userxattr: bool,
    /// Whose the files in `own` are; layers have the owners that they show.
    pub owners: OwnerMap,
}

/// Why a layer cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A name that means something else in a layer.
    #[error(
        "`{path}` cannot be stored in a layer: a name that begins with `.wh.` stands for a deletion there"
    )]
    Name {
        /// The path, everything but printable ASCII escaped.
        path: String,
    },
    /// What a directory or file holds is elsewhere.
    #[error("`{path}` cannot be stored in a layer: overlayfs has kept a reference in place of its content")]
    Redirected {
        /// The path, escaped.
        path: String,
    },
    /// A tree cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The path, escaped.
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
    /// A copy cannot be compared with its layers.
    #[error(transparent)]
    Compare(#[from] DiffError),
    /// The stream cannot be written.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
}

impl Classify for LayerError {
    fn kind(&self) -> ErrorKind {
        match self {
            LayerError::Name { .. } => ErrorKind::InvalidArgument,
            LayerError::Redirected { .. } => ErrorKind::Unsupported,
            LayerError::Compare(error) => error.kind(),
            LayerError::Read { source, .. } | LayerError::Open { source, .. } | LayerError::Write(source) => {
                ErrorKind::of_io(source)
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            LayerError::Name { .. } => Some("remove or rename it in the container".to_owned()),
            LayerError::Compare(error) => error.hint(),
            _ => None,
        }
    }
}

/// Writes the layer; gives the number of its entries.
///
/// # Errors
/// When a tree cannot be read, holds what no layer can, or the stream cannot be written.
pub fn write_layer(source: &LayerSource, out: &mut dyn Write) -> Result<u64, LayerError> {
    let descriptors = Descriptors::open()
        .map_err(|source| LayerError::Open { path: PathBuf::from("/proc/self/fd"), source })?;
    let open = |layer: &Layer| {
        open_layer(layer).map_err(|source| LayerError::Open { path: place(layer).to_owned(), source })
    };
    let plain = OwnerMap::default();
    let mut trees = Vec::with_capacity(source.trees.len() + 1);
    if let Some(own) = &source.own {
        let directory = open(&Layer::Directory(own.clone()))?;
        trees.push(Tree { directory, reader: reader(&descriptors, &source.owners) });
    }
    for layer in &source.trees {
        trees.push(Tree { directory: open(layer)?, reader: reader(&descriptors, &plain) });
    }
    let below = source.below.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut writer = Writer {
        out: Builder::new(out),
        trees,
        below,
        userxattr: source.userxattr,
        plain: reader(&descriptors, &plain),
        links: HashMap::new(),
        entries: 0,
    };
    let all: Vec<usize> = (0..writer.trees.len()).collect();
    let mut pending = vec![Pending { path: Vec::new(), members: all, hides: false }];
    while let Some(next) = pending.pop() {
        let mut children = writer.directory(&next)?;
        children.reverse();
        pending.append(&mut children);
    }
    writer.out.finish().map_err(LayerError::Write)?;
    Ok(writer.entries)
}

/// Writes what the copy of layers in `root` has otherwise than `layers`, the topmost first; gives the number of its entries.
/// `shift` is what was added to the owners when it was copied, and `owners` tells whose its files are.
///
/// # Errors
/// When something cannot be read, is named as no entry of a layer may be, or the stream cannot be written.
pub fn write_difference(
    root: &Path,
    layers: &[Layer],
    (userxattr, shift): (bool, u32),
    owners: &OwnerMap,
    out: &mut dyn Write,
) -> Result<u64, LayerError> {
    let open = |source: io::Error| LayerError::Open { path: root.to_owned(), source };
    let changes = crate::copy::changes(root, layers, userxattr, shift)?;
    let descriptors = Descriptors::open()
        .map_err(|source| LayerError::Open { path: PathBuf::from("/proc/self/fd"), source })?;
    let copy = Layer::Directory(root.to_owned());
    let tree = Tree { directory: open_layer(&copy).map_err(open)?, reader: reader(&descriptors, owners) };
    let plain = OwnerMap::default();
    let mut writer = Writer {
        out: Builder::new(out),
        trees: vec![tree],
        below: layers.first().map(open_layer).transpose().map_err(open)?.into_iter().collect(),
        userxattr,
        plain: reader(&descriptors, &plain),
        links: HashMap::new(),
        entries: 0,
    };
    let top = writer.trees[0].reader.read(&writer.trees[0].directory, b".").map_err(failed(b""))?;
    if let Some(top) = top {
        writer.root(top)?;
    }
    for change in &changes {
        writer.change(change)?;
    }
    writer.out.finish().map_err(LayerError::Write)?;
    Ok(writer.entries)
}

fn reader<'a>(descriptors: &'a Descriptors, owners: &'a OwnerMap) -> Reader<'a> {
    Reader { descriptors, owners, wanted: is_stored_xattr, of_all: true }
}

/// Attributes that belong to a file rather than to the machine it is on.
fn is_stored_xattr(name: &[u8]) -> bool {
    let belongs = name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default");
    belongs && !is_own_xattr(name)
}

/// A directory that is to be written.
struct Pending {
    /// Relative, without slashes at its ends; empty is the root.
    path: Vec<u8>,
    /// The trees that have it, topmost first.
    members: Vec<usize>,
    /// It hides what is below the trees.
    hides: bool,
}

/// What is written.
struct Tree<'a> {
    directory: OwnedFd,
    reader: Reader<'a>,
}

struct Writer<'a> {
    out: Builder<&'a mut dyn Write>,
    trees: Vec<Tree<'a>>,
    below: Vec<OwnedFd>,
    userxattr: bool,
    /// For what is below.
    plain: Reader<'a>,
    /// Files with several names, by device and inode, and the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
}

impl Writer<'_> {
    /// Writes a directory and what is in it but for its directories, which are given back.
    fn directory(&mut self, pending: &Pending) -> Result<Vec<Pending>, LayerError> {
        let path = &pending.path;
        let mut hides = pending.hides;
        let mut directories: Vec<(usize, OwnedFd)> = Vec::with_capacity(pending.members.len());
        for member in &pending.members {
            let directory = match open_beneath(&self.trees[*member].directory, path) {
                // The container has moved it away.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                result => result.map_err(failed(path))?,
            };
            if has_xattr(&directory, self.userxattr, "redirect").map_err(failed(path))? {
                return Err(LayerError::Redirected { path: shown(path) });
            }
            let opaque = is_opaque(&directory, self.userxattr).map_err(failed(path))?;
            directories.push((*member, directory));
            if opaque {
                hides = true;
                break;
            }
        }
        let Some((member, top)) = directories.first() else { return Ok(Vec::new()) };
        let top = self.trees[*member].reader.read(top, b".").map_err(failed(path))?;
        let Some(top) = top else { return Ok(Vec::new()) };
        if path.is_empty() {
            self.root(top)?;
        } else {
            self.entry([&path[..], b"/"].concat(), top.header, None)?;
        }
        if hides && !self.below.is_empty() {
            self.mark(path, b".wh..wh..opq")?;
        }
        let mut all = Vec::new();
        for (_, directory) in &directories {
            all.append(&mut names(directory).map_err(failed(path))?);
        }
        all.sort_unstable();
        all.dedup();
        let mut children = Vec::new();
        for name in all {
            children.extend(self.name(path, &name, &directories, hides)?);
        }
        Ok(children)
    }

    /// Writes what `name` is; a directory is given back.
    fn name(
        &mut self,
        parent: &[u8],
        name: &[u8],
        directories: &[(usize, OwnedFd)],
        hidden: bool,
    ) -> Result<Option<Pending>, LayerError> {
        let path = join(parent, name);
        let mut members = Vec::new();
        let mut hides = false;
        for (member, directory) in directories {
            let stat = match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                result => result.map_err(failed(&path))?,
            };
            if is_directory(&stat) {
                members.push(*member);
                continue;
            }
            if !members.is_empty() {
                // A file or a whiteout below a directory: nothing deeper shows through.
                hides = true;
                break;
            }
            if is_whiteout(&stat) {
                if !hidden && !self.below.is_empty() {
                    self.mark(parent, &[b".wh.", name].concat())?;
                }
                return Ok(None);
            }
            check_name(&path, name)?;
            if self.is_mount_point(&path, directory, name, &stat) {
                return Ok(None);
            }
            self.file(path, name, *member, directory)?;
            return Ok(None);
        }
        let Some(first) = members.first() else { return Ok(None) };
        check_name(&path, name)?;
        if let Some((_, directory)) = directories.iter().find(|(member, _)| member == first)
            && members.len() == 1
            && let Ok(stat) = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            && self.is_mount_point(&path, directory, name, &stat)
        {
            return Ok(None);
        }
        Ok(Some(Pending { path, members, hides }))
    }

    /// Writes what one path of a copy is, if it has been changed.
    fn change(&mut self, change: &Change) -> Result<(), LayerError> {
        let path = change.path.as_os_str().as_bytes();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        if change.kind == ChangeKind::Deleted {
            return self.mark(parent, &[b".wh.", name].concat());
        }
        let directory = match open_beneath(&self.trees[0].directory, parent) {
            // The container has moved it away.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            result => result.map_err(failed(path))?,
        };
        check_name(path, name)?;
        let found = match fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            result => result.map_err(failed(path))?,
        };
        if is_directory(&found) {
            let node = self.trees[0].reader.read(&directory, name).map_err(failed(path))?;
            let Some(node) = node.filter(|node| node.header.kind == EntryKind::Directory) else {
                return Ok(());
            };
            return self.entry([path, b"/"].concat(), node.header, None);
        }
        self.file(path.to_vec(), name, 0, &directory)
    }

    fn file(
        &mut self,
        path: Vec<u8>,
        name: &[u8],
        member: usize,
        directory: &OwnedFd,
    ) -> Result<(), LayerError> {
        let node = self.trees[member].reader.read(directory, name).map_err(failed(&path))?;
        let Some(node) = node else { return Ok(()) };
        let Node { mut header, stat, mut content } = node;
        if let Some(content) = &content
            && has_xattr(content.file(), self.userxattr, "metacopy").map_err(failed(&path))?
        {
            return Err(LayerError::Redirected { path: shown(&path) });
        }
        if header.kind == EntryKind::Directory || is_whiteout(&stat) {
            // It was something else a moment ago.
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.clone());
            if *first != path {
                header =
                    Header { kind: EntryKind::HardLink, link: first.clone(), xattrs: Vec::new(), ..header };
                content = None;
            }
        }
        self.entry(path, header, content)
    }

    /// The root is described when it is another than below.
    fn root(&mut self, top: Node) -> Result<(), LayerError> {
        let header = Header { path: Vec::new(), mtime: (0, 0), ..top.header };
        let below = match self.below.first() {
            Some(root) => self.plain.read(root, b".").map_err(failed(b""))?.map(|node| node.header),
            None => Some(Header { kind: EntryKind::Directory, mode: 0o755, ..Header::default() }),
        };
        let below = below.map(|below| Header { path: Vec::new(), mtime: (0, 0), ..below });
        if below.as_ref() == Some(&header) {
            return Ok(());
        }
        let mtime = (top.stat.st_mtime, u32::try_from(top.stat.st_mtime_nsec).unwrap_or(0));
        self.entry(b"./".to_vec(), Header { mtime, ..header }, None)
    }

    /// Writes an entry without content that stands for something hidden.
    fn mark(&mut self, parent: &[u8], name: &[u8]) -> Result<(), LayerError> {
        let header = Header { mode: 0o600, ..Header::default() };
        self.entry(join(parent, name), header, None)
    }

    fn entry(
        &mut self,
        path: Vec<u8>,
        header: Header,
        content: Option<crate::node::Content>,
    ) -> Result<(), LayerError> {
        let header = Header { path, ..header };
        let result = match content {
            None => self.out.append(&header, &mut io::empty()),
            Some(mut content) => self.out.append(&header, &mut content).map_err(|error| {
                // Of the two that may have failed, the file says so itself.
                content.failure.take().unwrap_or(error)
            }),
        };
        self.entries += 1;
        result.map_err(LayerError::Write)
    }

    /// Whether this was made for stanza to mount on: empty, where stanza mounts, and in no layer.
    fn is_mount_point(&self, path: &[u8], directory: &OwnedFd, name: &[u8], stat: &Stat) -> bool {
        let absolute = [b"/", path].concat();
        if !MOUNT_POINTS.iter().any(|point| point.as_bytes() == absolute) {
            return false;
        }
        let empty = match is_directory(stat) {
            false => stat.st_size == 0,
            true => open_beneath(directory, name)
                .and_then(|found| names(&found))
                .is_ok_and(|names| names.is_empty()),
        };
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        empty && !self.below.iter().any(|layer| fs::statat(layer, path, AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }
}

fn check_name(path: &[u8], name: &[u8]) -> Result<(), LayerError> {
    if name.starts_with(b".wh.") {
        return Err(LayerError::Name { path: shown(path) });
    }
    Ok(())
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn open_beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Without links and `..` the kernel never asks for another try (`man 2 openat2`, EAGAIN).
    fs::openat2(root, path, flags, Mode::empty(), BENEATH)
}

/// Whether overlayfs has set this attribute of its own.
fn has_xattr(file: impl rustix::fd::AsFd, userxattr: bool, name: &str) -> Result<bool, Errno> {
    let family = if userxattr { "user" } else { "trusted" };
    match fs::fgetxattr(file, format!("{family}.overlay.{name}"), &mut [0; 1][..]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", path.escape_ascii())
}

fn failed(path: &[u8]) -> impl FnOnce(Errno) -> LayerError + '_ {
    move |error| LayerError::Read { path: shown(path), source: error.into() }
}
