//! What each entry of a layer becomes.

use std::io::BufRead;

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use stanza_tar::{Content, Entry, EntryKind, Header, Segment};

use super::ApplyError;
use super::name::{Meaning, joined, meaning, split};
use super::tree::{Late, Parent, Tree};
use crate::overlay::{is_directory, is_own_xattr, is_whiteout, make_opaque, make_whiteout};
use crate::tree_digest::ContentHash;

/// Set after everything else: `chown` takes it away.
const CAPABILITY: &[u8] = b"security.capability";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Seconds that ext4 holds (34 bits, from 1901 to 2446); other times become the nearest.
const TIMES: std::ops::RangeInclusive<i64> = -(1 << 31)..=15_032_385_535;

/// Where an entry goes.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Where the parent is.
    pub(super) path: &'a [u8],
    pub(super) parent: &'a OwnedFd,
    pub(super) name: &'a [u8],
}

impl Tree {
    /// Adds one entry of the archive.
    pub(super) fn add<R: BufRead>(&mut self, entry: Entry<'_, R>) -> Result<(), ApplyError> {
        let (header, sparse, mut content) = entry.into_parts();
        self.applied.entries += 1;
        let meaning =
            meaning(&header.path).map_err(|reason| ApplyError::Name { path: shown(&header.path), reason })?;
        let (parent_path, name) = match meaning {
            Meaning::Nothing => return Ok(()),
            Meaning::Opaque { directory } => {
                return self.opaque(&directory).map_err(failed(&header, "make opaque"));
            }
            Meaning::Whiteout { parent, name } => {
                return self.whiteout(&parent, &name).map_err(failed(&header, "make the whiteout"));
            }
            Meaning::Root => return self.root(&header),
            Meaning::Entry { parent, name } => (parent, name),
        };
        let parent = self.parent(&parent_path).map_err(failed(&header, "make the directory of"))?;
        self.links.replace(&parent_path, &name);
        let Parent { path, directory: parent } = &parent;
        let place = Place { path, parent, name: &name };
        match header.kind {
            EntryKind::File => self.file(place, &header, sparse.as_deref(), &mut content),
            EntryKind::Directory => self.directory(place, &header),
            EntryKind::HardLink => self.hard_link(place, &parent_path, &header),
            EntryKind::Symlink => {
                let make = || fs::symlinkat(&header.link[..], parent, &name[..]);
                self.create_entry(place, make).map_err(failed(&header, "make the link"))?;
                self.describe(place, &header)
            }
            EntryKind::Fifo => self.special(place, &header, FileType::Fifo),
            EntryKind::CharacterDevice => self.special(place, &header, FileType::CharacterDevice),
            EntryKind::BlockDevice => self.special(place, &header, FileType::BlockDevice),
        }
    }

    fn opaque(&mut self, path: &[u8]) -> Result<(), Errno> {
        let Parent { path, .. } = self.parent(path)?;
        let directory = self.open(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.has_xattrs(&path);
        make_opaque(&directory, self.rootless)
    }

    /// Hides what lower layers have at `name`. What this layer has there stays; a directory hides what it would merge
    /// with.
    fn whiteout(&mut self, path: &[u8], name: &[u8]) -> Result<(), Errno> {
        let Parent { path, directory: parent } = &self.parent(path)?;
        match Tree::stat(parent, name)? {
            None => {
                make_whiteout(parent, name)?;
                self.sum.special(path, parent, name, b"", false)
            }
            Some(stat) if is_directory(&stat) => {
                self.has_xattrs(&joined(path, name));
                make_opaque(open_directory(parent, name)?, self.rootless)
            }
            Some(_) => Ok(()),
        }
    }

    fn root(&mut self, header: &Header) -> Result<(), ApplyError> {
        if header.kind != EntryKind::Directory {
            let reason = "it is the layer's root and not a directory";
            return Err(ApplyError::Name { path: shown(&header.path), reason });
        }
        let root = std::rc::Rc::clone(&self.root);
        self.describe_directory(&root, header, Vec::new())
    }

    fn file<R: BufRead>(
        &mut self,
        place @ Place { path, parent, name }: Place<'_>,
        header: &Header,
        sparse: Option<&[Segment]>,
        content: &mut Content<'_, R>,
    ) -> Result<(), ApplyError> {
        let (uid, gid) = owner(header)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        let file = self.create_entry(place, make).map_err(failed(header, "make the file"))?;
        let mut hash = ContentHash::default();
        match sparse {
            None => {
                let length = content.left();
                copy(content, &file, 0, length, header, &mut hash)?;
            }
            Some(segments) => {
                let mut end = 0;
                for segment in segments {
                    hash.skip(segment.offset - end);
                    copy(content, &file, segment.offset, segment.length, header, &mut hash)?;
                    end = segment.offset + segment.length;
                }
                hash.skip(header.size - end);
                fs::ftruncate(&file, header.size).map_err(failed(header, "set the size of"))?;
            }
        }
        // The group of a new file is this process's, for directories get their set-group-id bit at the end.
        if (header.uid, header.gid) != (0, 0) {
            fs::fchown(&file, Some(uid), Some(gid)).map_err(chown_failed(header))?;
        }
        fs::fchmod(&file, mode(header)).map_err(failed(header, "set the mode of"))?;
        self.set_xattrs(header, |name, value| fs::fsetxattr(&file, name, value, XattrFlags::empty()))?;
        fs::futimens(&file, &times(header)).map_err(failed(header, "set the times of"))?;
        self.sum.file(path, name, &file, !header.xattrs.is_empty(), hash).map_err(failed(header, "look at"))
    }

    fn directory(
        &mut self,
        place @ Place { path, parent, name }: Place<'_>,
        header: &Header,
    ) -> Result<(), ApplyError> {
        let fail = || failed(header, "make the directory");
        let make = || fs::mkdirat(parent, name, Mode::RWXU);
        let mut hides = false;
        match make() {
            Err(Errno::EXIST) => {
                let stat = Tree::stat(parent, name).map_err(fail())?;
                if !stat.as_ref().is_some_and(is_directory) {
                    hides = stat.as_ref().is_some_and(is_whiteout);
                    self.discard(place).map_err(fail())?;
                    make().map_err(fail())?;
                }
            }
            result => result.map_err(fail())?,
        }
        let directory = open_directory(parent, name).map_err(fail())?;
        if hides {
            make_opaque(&directory, self.rootless).map_err(fail())?;
        }
        let path = joined(path, name);
        if hides {
            self.has_xattrs(&path);
        }
        self.describe_directory(&directory, header, path)
    }

    fn describe_directory(
        &mut self,
        directory: &OwnedFd,
        header: &Header,
        path: Vec<u8>,
    ) -> Result<(), ApplyError> {
        let (uid, gid) = owner(header)?;
        let mode = mode(header);
        fs::fchown(directory, Some(uid), Some(gid)).map_err(chown_failed(header))?;
        fs::fchmod(directory, mode.difference(Mode::SGID)).map_err(failed(header, "set the mode of"))?;
        let mut default_acl = None;
        self.set_xattrs(header, |name, value| {
            if name == DEFAULT_ACL {
                default_acl = Some(value.to_vec());
                return Ok(());
            }
            fs::fsetxattr(directory, name, value, XattrFlags::empty())
        })?;
        let mode = mode.contains(Mode::SGID).then_some(mode);
        let xattrs = !header.xattrs.is_empty();
        self.set_late(path, Late { times: times(header), mode, default_acl, xattrs, implied: false })
    }

    /// `given` is what the archive calls the directory.
    fn hard_link(
        &mut self,
        place @ Place { path, parent, name }: Place<'_>,
        given: &[u8],
        header: &Header,
    ) -> Result<(), ApplyError> {
        let refuse =
            |reason| ApplyError::Link { path: shown(&header.path), target: shown(&header.link), reason };
        let fail = || failed(header, "make the hard link");
        let (target_parent, target_name) =
            split(&header.link).map_err(&refuse)?.ok_or_else(|| refuse("its target is a directory"))?;
        let found = match self.open(&target_parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(directory) => {
                Tree::stat(&directory, &target_name).map_err(fail())?.map(|stat| (directory, stat))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => return Err(fail()(error)),
        };
        let Some((target_parent, target)) = found.filter(|(_, stat)| !is_whiteout(stat)) else {
            if Tree::stat(parent, name).map_err(fail())?.is_some() {
                self.discard(place).map_err(fail())?;
            }
            let noted = self.links.add(joined(given, name), &joined(&target_parent, &target_name));
            return if noted {
                Ok(())
            } else {
                Err(refuse("there are too many links to files of lower layers"))
            };
        };
        if is_directory(&target) {
            return Err(refuse("its target is a directory"));
        }
        match Tree::stat(parent, name).map_err(fail())? {
            // A link to itself: removing what is in its place would lose the file.
            Some(stat) if (stat.st_dev, stat.st_ino) == (target.st_dev, target.st_ino) => return Ok(()),
            Some(_) => self.discard(place).map_err(fail())?,
            None => {}
        }
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one more name of that link.
        fs::linkat(&target_parent, &target_name[..], parent, name, AtFlags::empty()).map_err(fail())?;
        self.sum.hard_link(path, parent, name, &target).map_err(failed(header, "look at"))
    }

    fn special(&mut self, place: Place<'_>, header: &Header, kind: FileType) -> Result<(), ApplyError> {
        let Place { parent, name, .. } = place;
        let (major, minor) = header.device;
        if kind != FileType::Fifo && (self.rootless || (major, minor) == (0, 0)) {
            self.applied.skipped_devices += 1;
            return Ok(());
        }
        let device = fs::makedev(major, minor);
        let make = || fs::mknodat(parent, name, kind, Mode::empty(), device);
        self.create_entry(place, make).map_err(failed(header, "make the device"))?;
        self.describe(place, header)
    }

    /// Sets owner, mode, attributes and times of what cannot be opened: links, pipes and devices.
    fn describe(
        &mut self,
        Place { path: parent_path, parent, name }: Place<'_>,
        header: &Header,
    ) -> Result<(), ApplyError> {
        let (uid, gid) = owner(header)?;
        if (header.uid, header.gid) != (0, 0) {
            fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(chown_failed(header))?;
        }
        if header.kind != EntryKind::Symlink {
            // Just made, by this process, in a directory that is nobody else's: no link to follow.
            fs::chmodat(parent, name, mode(header), AtFlags::empty())
                .map_err(failed(header, "set the mode of"))?;
        }
        let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
        self.set_xattrs(header, |name, value| fs::lsetxattr(&path[..], name, value, XattrFlags::empty()))?;
        fs::utimensat(parent, name, &times(header), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(header, "set the times of"))?;
        self.sum
            .special(parent_path, parent, name, &header.link, !header.xattrs.is_empty())
            .map_err(failed(header, "look at"))
    }

    fn set_xattrs(
        &mut self,
        header: &Header,
        mut set: impl FnMut(&[u8], &[u8]) -> Result<(), Errno>,
    ) -> Result<(), ApplyError> {
        let is_last = |name: &[u8]| name == CAPABILITY;
        let first = header.xattrs.iter().filter(|(name, _)| !is_last(name));
        for (name, value) in first.chain(header.xattrs.iter().filter(|(name, _)| is_last(name))) {
            if is_own_xattr(name) {
                self.applied.skipped_xattrs += 1;
                continue;
            }
            let privileged = name.starts_with(b"security.") || name.starts_with(b"trusted.");
            match set(name, value) {
                Err(Errno::PERM | Errno::OPNOTSUPP) if self.rootless && privileged => {
                    self.applied.skipped_xattrs += 1;
                }
                result => result.map_err(failed(header, "set the extended attributes of"))?,
            }
        }
        Ok(())
    }
}

/// Copies the next `length` bytes of the archive to `offset` in `file`, straight from the archive's buffer, and hashes
/// them on the way.
fn copy<R: BufRead>(
    content: &mut Content<'_, R>,
    file: &OwnedFd,
    mut offset: u64,
    length: u64,
    header: &Header,
    hash: &mut ContentHash,
) -> Result<(), ApplyError> {
    let mut left = length;
    while left > 0 {
        let bytes = match content.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) => return Err(ApplyError::Archive(content.failure(error))),
        };
        let limit = usize::try_from(left).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(limit)];
        if bytes.is_empty() {
            let error = std::io::ErrorKind::UnexpectedEof.into();
            return Err(ApplyError::Archive(content.failure(error)));
        }
        let written = match rustix::io::pwrite(file, bytes, offset) {
            Err(Errno::INTR) => 0,
            result => result.map_err(failed(header, "write"))?,
        };
        hash.update(&bytes[..written]);
        content.consume(written);
        offset += written as u64;
        left -= written as u64;
    }
    Ok(())
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

/// The ids, both below 2³² - 1, which the kernel takes for "leave it".
pub(crate) fn owner(header: &Header) -> Result<(Uid, Gid), ApplyError> {
    let id = |number| u32::try_from(number).ok().filter(|id| *id != u32::MAX);
    match (id(header.uid), id(header.gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(ApplyError::Owner { path: shown(&header.path), uid: header.uid, gid: header.gid }),
    }
}

pub(crate) fn mode(header: &Header) -> Mode {
    Mode::from_raw_mode(header.mode & 0o7777)
}

pub(crate) fn times(header: &Header) -> Timestamps {
    let (seconds, nanos) = header.mtime;
    let clamped = seconds.clamp(*TIMES.start(), *TIMES.end());
    let time = Timespec { tv_sec: clamped, tv_nsec: if clamped == seconds { i64::from(nanos) } else { 0 } };
    Timestamps { last_access: time, last_modification: time }
}

fn chown_failed(header: &Header) -> impl FnOnce(Errno) -> ApplyError {
    move |error| match error {
        Errno::INVAL => ApplyError::Unmapped { path: shown(&header.path), uid: header.uid, gid: header.gid },
        error => failed(header, "set the owner of")(error),
    }
}

pub(crate) fn failed(header: &Header, action: &'static str) -> impl FnOnce(Errno) -> ApplyError {
    move |error| ApplyError::Entry { path: shown(&header.path), action, source: error.into() }
}

/// A path that is safe to print.
pub(crate) fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}
