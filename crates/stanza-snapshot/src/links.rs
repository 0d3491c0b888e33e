//! Hard links to files of lower layers.
//!
//! A layer's directory is a function of its diff id alone, so that images can share it and layers need not wait for each
//! other. A link to a file that another layer has cannot be made in it: `apply` notes it in `links`, beside the layer's
//! files, and it becomes a *link layer*, which lies right above its layer in this image and holds a copy of the file
//! (as overlayfs would make at the first write), with the directories on the way to it. Link layers are layers like
//! others, under a digest of what they depend on: every layer up to theirs.
//!
//! `layers/links` exists when any layer of the store ever had such links; so a start looks at one name and no more.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sha2::Digest as _;
use sha2::Sha256;
use stanza_spec::{Classify, Digest, ErrorKind};

use crate::apply::name::joined;
use crate::changes::{lookup, open_in, open_root};
use crate::copy::copy_content;
use crate::ingest::Ingest;
use crate::overlay::{is_directory, is_own_xattr};
use crate::record::LayerRecord;
use crate::store::FILES;
use crate::tree_digest::TreeSum;
use crate::walk::walk;
use crate::xattrs::read_xattrs;
use crate::{LayerStore, PlanError};

/// Its name beside the layer's files: path, NUL, target, NUL, and so on.
pub(crate) const LINKS: &str = "links";
/// Bytes of names that one layer may note.
const MAX_BYTES: usize = 64 << 20;

/// Why a link to a file of a lower layer cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// No layer below has such a file.
    #[error(
        "refused the hard link `{path}` to `{target}` of the layer `{layer}`: there is no such file, nor in a layer below"
    )]
    NoTarget {
        /// The layer.
        layer: Digest,
        /// The link, escaped.
        path: String,
        /// Its target, escaped.
        target: String,
    },
    /// A layer is not in the store.
    #[error("the layer `{layer}` is not unpacked")]
    Missing {
        /// The layer.
        layer: Digest,
    },
    /// A layer cannot be looked into.
    #[error(transparent)]
    Layer(PlanError),
    /// The file system says no.
    #[error("cannot make the hard links of the layer `{layer}`")]
    Make {
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot take it.
    #[error("cannot store the hard links of the layer `{layer}`")]
    Store {
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: crate::ApplyError,
    },
}

impl Classify for LinksError {
    fn kind(&self) -> ErrorKind {
        match self {
            LinksError::NoTarget { .. } => ErrorKind::Corrupt,
            LinksError::Missing { .. } => ErrorKind::NotFound,
            LinksError::Layer(error) => error.kind(),
            LinksError::Make { source, .. } => ErrorKind::of_io(source),
            LinksError::Store { source, .. } => source.kind(),
        }
    }
}

/// Links that were met and whose targets the layer does not have.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    targets: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

impl Noted {
    /// Notes a link; `false` when there are too many.
    pub(crate) fn add(&mut self, path: Vec<u8>, target: &[u8]) -> bool {
        self.bytes += path.len() + target.len() + 64;
        self.targets.insert(path, target.to_vec());
        self.bytes <= MAX_BYTES
    }

    /// Forgets a link whose place another entry takes.
    pub(crate) fn replace(&mut self, parent: &[u8], name: &[u8]) {
        if !self.targets.is_empty() {
            self.targets.remove(&joined(parent, name));
        }
    }

    /// The content of `links`; `None` when there is nothing to say.
    pub(crate) fn into_bytes(self) -> Option<Vec<u8>> {
        let write = |(path, target): (Vec<u8>, Vec<u8>)| [path, vec![0], target, vec![0]].concat();
        (!self.targets.is_empty()).then(|| self.targets.into_iter().flat_map(write).collect())
    }

    fn from_bytes(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut parts = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec);
        let mut links = Vec::new();
        while let (Some(path), Some(target)) = (parts.next(), parts.next()) {
            links.push((path, target));
        }
        links
    }
}

impl LayerStore {
    /// The layers of an image, lowest first, with a link layer above each that needs one; those that are not there are
    /// made. All layers must be unpacked.
    ///
    /// # Errors
    /// When a link's target is in no layer, or a link layer cannot be made.
    pub fn with_links(&self, layers: &[Digest]) -> Result<Vec<Digest>, LinksError> {
        if rustix::fs::access(self.links_marker(), rustix::fs::Access::EXISTS).is_err() {
            return Ok(layers.to_vec());
        }
        let mut chain = Sha256::new();
        let mut all: Vec<Digest> = Vec::with_capacity(layers.len());
        for layer in layers {
            chain.update(layer.as_str());
            chain.update(b"\n");
            let noted = match std::fs::read(self.member(layer, LINKS)) {
                Ok(bytes) => Noted::from_bytes(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(source) => return Err(LinksError::Make { layer: layer.clone(), source }),
            };
            all.push(layer.clone());
            if noted.is_empty() {
                continue;
            }
            let id = Digest::from_hash(&chain.clone().chain_update(b"links").finalize());
            if !self.contains(&id) {
                self.make_link_layer(&id, &all, &noted)?;
            }
            all.push(id);
        }
        Ok(all)
    }

    /// There when any layer ever noted a link.
    pub(crate) fn links_marker(&self) -> PathBuf {
        self.root().join(LINKS)
    }

    fn make_link_layer(
        &self,
        id: &Digest,
        below: &[Digest],
        links: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), LinksError> {
        let layer = below.last().unwrap_or(id);
        let failed = |source: io::Error| LinksError::Make { layer: layer.clone(), source };
        let mut lowers = Vec::with_capacity(below.len());
        for lower in below.iter().rev() {
            let root = self.open_root(lower).map_err(|error| match error {
                PlanError::Missing { layer } => LinksError::Missing { layer },
                source => LinksError::Layer(source),
            })?;
            lowers.push(Rc::new(root));
        }
        let ingest = Ingest::create(&self.ingest()).map_err(|error| failed(error.into()))?;
        crate::store::make_directory(ingest.path(), 0o700).map_err(failed)?;
        let files = ingest.path().join(FILES);
        crate::store::make_directory(&files, 0o755).map_err(failed)?;
        let root = Rc::new(open_root(&files).map_err(|error| failed(error.into()))?);
        let mut copies = Copies {
            lowers,
            root,
            userxattr: self.rootless(),
            directories: BTreeMap::new(),
            files: HashMap::new(),
        };
        for (path, target) in links {
            let made = copies.add(path, target).map_err(|error| failed(error.into()))?;
            if !made {
                let shown = |path: &[u8]| path.escape_ascii().to_string();
                let (path, target) = (shown(path), shown(target));
                return Err(LinksError::NoTarget { layer: layer.clone(), path, target });
            }
        }
        let root = copies.finish().map_err(|error| failed(error.into()))?;
        let mut sum = TreeSum::default();
        walk(&root, &mut sum, &mut |_, _| {}).map_err(|error| failed(error.source))?;
        let entries = u64::try_from(links.len()).unwrap_or(u64::MAX);
        self.complete(&ingest, id, &LayerRecord::new(entries, &sum.summary()), None, false)
            .map(drop)
            .map_err(|source| LinksError::Store { layer: layer.clone(), source })
    }
}

/// A link layer being made.
struct Copies {
    /// The layers below, topmost first.
    lowers: Vec<Rc<OwnedFd>>,
    root: Rc<OwnedFd>,
    userxattr: bool,
    /// Directories that were made, and what they are copies of; the root is the empty path.
    directories: BTreeMap<Vec<u8>, (Rc<OwnedFd>, Stat)>,
    /// Where the copy of a target is.
    files: HashMap<Vec<u8>, (Rc<OwnedFd>, Vec<u8>)>,
}

impl Copies {
    /// Makes one link; `false` when its target is nowhere.
    fn add(&mut self, path: &[u8], target: &[u8]) -> Result<bool, Errno> {
        let (parent, name) = parted(path);
        let Some(parent) = self.directory(parent)? else { return Ok(false) };
        if let Some((directory, copy)) = self.files.get(target) {
            fs::linkat(directory, &copy[..], &parent, name, AtFlags::empty())?;
            return Ok(true);
        }
        let Some(directory) = self.find(target)? else { return Ok(false) };
        copy_entry(&directory, parted(target).1, &parent, name)?;
        self.files.insert(target.to_vec(), (parent, name.to_vec()));
        Ok(true)
    }

    /// The directory of a lower layer that has this file. Links on the way are not followed: an
    /// archive names the file itself.
    fn find(&self, path: &[u8]) -> Result<Option<Rc<OwnedFd>>, Errno> {
        let (parent, name) = parted(path);
        // Not the layer of the link itself: what it has of this name came after the link.
        let Some(merged) = Self::merged(&self.lowers[1..], parent, self.userxattr)? else { return Ok(None) };
        let below = lookup(&merged, name, self.userxattr)?;
        let is_file = below.stat.as_ref().is_some_and(|stat| !is_directory(stat));
        Ok(below.from.filter(|_| is_file))
    }

    /// The directories that merge at `path`, topmost first.
    fn merged(
        lowers: &[Rc<OwnedFd>],
        path: &[u8],
        userxattr: bool,
    ) -> Result<Option<Vec<Rc<OwnedFd>>>, Errno> {
        let mut merged = lowers.to_vec();
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let below = lookup(&merged, part, userxattr)?;
            if below.directories.is_empty() {
                return Ok(None);
            }
            merged = below.directories;
        }
        Ok(Some(merged))
    }

    /// The directory `path` of the link layer; `None` when the layers below have none there.
    fn directory(&mut self, path: &[u8]) -> Result<Option<Rc<OwnedFd>>, Errno> {
        if let Some((known, _)) = self.directories.get(path) {
            return Ok(Some(Rc::clone(known)));
        }
        let Some(merged) = Self::merged(&self.lowers, path, self.userxattr)? else { return Ok(None) };
        let Some(like) = merged.first() else { return Ok(None) };
        let made = if path.is_empty() {
            Rc::clone(&self.root)
        } else {
            let (parent, name) = parted(path);
            let Some(parent) = self.directory(parent)? else { return Ok(None) };
            fs::mkdirat(&parent, name, Mode::RWXU)?;
            Rc::new(open_in(&parent, name)?)
        };
        let stat = fs::fstat(like)?;
        fs::fchown(&made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        fs::fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        copy_xattrs(like, &made)?;
        self.directories.insert(path.to_vec(), (Rc::clone(&made), stat));
        Ok(Some(made))
    }

    /// Sets the directories' times, which entries made in them have changed.
    fn finish(self) -> Result<Rc<OwnedFd>, Errno> {
        for (directory, stat) in self.directories.values() {
            fs::futimens(directory, &times(stat))?;
        }
        Ok(self.root)
    }
}

/// Copies what is no directory, with everything that is known of it.
fn copy_entry(from: &OwnedFd, original: &[u8], to: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let stat = fs::statat(from, original, AtFlags::SYMLINK_NOFOLLOW)?;
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = fs::openat(from, original, flags, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            copy_content(&source, &copy, size)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            fs::fchown(&copy, owner.0, owner.1)?;
            fs::fchmod(&copy, mode)?;
            copy_xattrs(&source, &copy)?;
            fs::futimens(&copy, &times(&stat))
        }
        FileType::Symlink => {
            let target = fs::readlinkat(from, original, Vec::new())?;
            fs::symlinkat(&target, to, name)?;
            fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
        }
        kind => {
            fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            fs::chmodat(to, name, mode, AtFlags::empty())?;
            fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
        }
    }
}

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let wanted = |name: &[u8]| !is_own_xattr(name);
    let found = read_xattrs(
        wanted,
        |list| fs::flistxattr(from, list),
        |name, value| fs::fgetxattr(from, name, value),
    )?;
    found.iter().try_for_each(|(name, value)| fs::fsetxattr(to, &name[..], value, XattrFlags::empty()))
}

fn times(stat: &Stat) -> Timestamps {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos };
    Timestamps { last_access: time, last_modification: time }
}

/// The directory and the last part of a path of plain parts.
fn parted(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
