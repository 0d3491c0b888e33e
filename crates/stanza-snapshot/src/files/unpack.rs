//! An archive becomes files in a directory.

use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use stanza_tar::{Archive, Content, EntryKind, Header, Limits, Segment};

use super::{BELOW, Bounds, Files, FilesError, IN_ROOT, failed, is_kind, open_by, shown};
use crate::apply::entry::times;
use crate::apply::split;

/// Whose the files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Ownership {
    /// Whose they are in the archive.
    Archive,
    /// Root's.
    Root,
    /// Who unpacks them. Set-user-id and set-group-id bits are taken away, for they would lend this user's rights to a program
    /// that is another's; file capabilities likewise.
    Caller,
}

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct UnpackOptions {
    /// How far entries may lead.
    pub bounds: Bounds,
    /// Whose the files become.
    pub ownership: Ownership,
    /// Make devices; else they are left out and counted.
    pub devices: bool,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unpacked {
    /// Bytes of all files.
    pub bytes: u64,
    /// Devices that were left out.
    pub skipped_devices: u64,
}

impl Files {
    /// Unpacks `archive` into the directory `path`, whose own links are followed. A directory merges with one that is there;
    /// any other entry takes the place of what is there, unless that is a directory.
    ///
    /// # Errors
    /// When `path` is no directory, an entry is refused, or something cannot be read or written. What was unpacked before that
    /// stays.
    pub fn unpack(
        &self,
        archive: &mut dyn Read,
        path: &[u8],
        options: &UnpackOptions,
    ) -> Result<Unpacked, FilesError> {
        let directory = match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOTDIR) => return Err(FilesError::NotDirectory { path: shown(path) }),
            result => result.map_err(failed("open", path))?,
        };
        let mut unpack = Unpack {
            files: self,
            options: *options,
            prefix: path.to_vec(),
            directory,
            parent: None,
            late: Vec::new(),
            unpacked: Unpacked::default(),
        };
        let mut archive = Archive::new(BufReader::with_capacity(128 * 1024, archive), Limits::default());
        while let Some(entry) = archive.next_entry().map_err(FilesError::Archive)? {
            let (header, sparse, mut content) = entry.into_parts();
            unpack.add(&header, sparse.as_deref(), &mut content)?;
        }
        // To the stream's end, so that whoever writes it does not find it closed.
        archive.finish().map_err(FilesError::Archive)?;
        unpack.finish()
    }
}

/// What is set on a directory when everything is in it.
struct Late {
    path: Vec<u8>,
    times: Timestamps,
    mode: Mode,
}

struct Unpack<'a> {
    files: &'a Files,
    options: UnpackOptions,
    /// The path of `directory` beneath the root.
    prefix: Vec<u8>,
    directory: OwnedFd,
    /// The directory of the last entry.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    late: Vec<Late>,
    unpacked: Unpacked,
}

impl Unpack<'_> {
    fn add<R: BufRead>(
        &mut self,
        header: &Header,
        sparse: Option<&[Segment]>,
        content: &mut Content<'_, R>,
    ) -> Result<(), FilesError> {
        let refuse = |reason| FilesError::Refused { path: shown(&header.path), reason };
        let Some((parent_path, name)) = split(&header.path).map_err(refuse)? else {
            // The directory itself stays as it is.
            return match header.kind {
                EntryKind::Directory => Ok(()),
                _ => Err(refuse("it is the directory that everything goes to")),
            };
        };
        let fail = |action| failed(action, &header.path);
        let is_device = matches!(header.kind, EntryKind::CharacterDevice | EntryKind::BlockDevice);
        if is_device && (!self.options.devices || header.device == (0, 0)) {
            self.unpacked.skipped_devices += 1;
            return Ok(());
        }
        let parent = self.parent(&parent_path, &header.path)?;
        let there = match fs::statat(&parent, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            result => Some(result.map_err(fail("look at"))?),
        };
        let over_directory = there.as_ref().is_some_and(|stat| is_kind(stat, FileType::Directory));
        if header.kind == EntryKind::Directory {
            if there.is_some() && !over_directory {
                return Err(FilesError::OverFile { path: shown(without_slash(&header.path)) });
            }
            return self.make_directory(&parent, &parent_path, &name, header, over_directory);
        }
        if over_directory {
            return Err(FilesError::OverDirectory { path: shown(without_slash(&header.path)) });
        }
        if header.kind == EntryKind::HardLink {
            return self.hard_link(&parent, &name, header, there.as_ref());
        }
        if there.is_some() {
            fs::unlinkat(&parent, &name[..], AtFlags::empty()).map_err(fail("replace"))?;
        }
        match header.kind {
            EntryKind::File => return self.file(&parent, &name, header, sparse, content),
            EntryKind::Symlink => {
                fs::symlinkat(&header.link[..], &parent, &name[..]).map_err(fail("make the link"))?;
            }
            kind => {
                let kind = match kind {
                    EntryKind::Fifo => FileType::Fifo,
                    EntryKind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::CharacterDevice,
                };
                let device = fs::makedev(header.device.0, header.device.1);
                // The mode is whole from the start: a link could be in its place before chmod(2).
                fs::mknodat(&parent, &name[..], kind, self.mode(header), device).map_err(fail("make"))?;
            }
        }
        if let Some((uid, gid)) = self.owner(header)? {
            fs::chownat(&parent, &name[..], Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(fail("set the owner of"))?;
        }
        fs::utimensat(&parent, &name[..], &times(header), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fail("set the times of"))
    }

    fn file<R: BufRead>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        header: &Header,
        sparse: Option<&[Segment]>,
        content: &mut Content<'_, R>,
    ) -> Result<(), FilesError> {
        let fail = |action| failed(action, &header.path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(fail("make the file"))?;
        let whole = [Segment { offset: 0, length: content.left() }];
        let mut holes = sparse.is_some();
        for segment in sparse.unwrap_or(&whole) {
            holes |= copy(content, &file, *segment, header)?;
        }
        if holes {
            fs::ftruncate(&file, header.size).map_err(fail("set the size of"))?;
        }
        self.unpacked.bytes += header.size;
        self.describe(&file, header)?;
        fs::futimens(&file, &times(header)).map_err(fail("set the times of"))
    }

    /// Owner, mode and attributes of a file or directory.
    fn describe(&self, file: &OwnedFd, header: &Header) -> Result<(), FilesError> {
        let fail = |action| failed(action, &header.path);
        if let Some((uid, gid)) = self.owner(header)? {
            fs::fchown(file, Some(uid), Some(gid)).map_err(fail("set the owner of"))?;
        }
        if header.kind == EntryKind::File {
            fs::fchmod(file, self.mode(header)).map_err(fail("set the mode of"))?;
        }
        for (name, value) in &header.xattrs {
            let plain = name.starts_with(b"user.") && !crate::overlay::is_own_xattr(name);
            let capability = name == b"security.capability" && self.options.ownership != Ownership::Caller;
            if !plain && !capability {
                continue;
            }
            match fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                // The file system there has none.
                Err(Errno::OPNOTSUPP) => {}
                result => result.map_err(fail("set the extended attributes of"))?,
            }
        }
        Ok(())
    }

    fn make_directory(
        &mut self,
        parent: &OwnedFd,
        parent_path: &[u8],
        name: &[u8],
        header: &Header,
        there: bool,
    ) -> Result<(), FilesError> {
        let fail = |action| failed(action, &header.path);
        if !there {
            fs::mkdirat(parent, name, Mode::RWXU).map_err(fail("make the directory"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(parent, name, flags, Mode::empty()).map_err(fail("open"))?;
        self.describe(&directory, header)?;
        let path = if parent_path.is_empty() { name.to_vec() } else { [parent_path, b"/", name].concat() };
        self.late.push(Late { path, times: times(header), mode: self.mode(header) });
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        header: &Header,
        there: Option<&Stat>,
    ) -> Result<(), FilesError> {
        let fail = |action| failed(action, &header.path);
        let refuse = |reason| FilesError::Refused { path: shown(&header.path), reason };
        let (target_parent, target) =
            split(&header.link).map_err(refuse)?.ok_or_else(|| refuse("it is a link to a directory"))?;
        let target_parent = self.open(&target_parent).map_err(fail("find the target of the link"))?;
        let stat = fs::statat(&target_parent, &target[..], AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fail("find the target of the link"))?;
        if let Some(there) = there {
            if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(());
            }
            fs::unlinkat(parent, name, AtFlags::empty()).map_err(fail("replace"))?;
        }
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one more name of that link.
        fs::linkat(&target_parent, &target[..], parent, name, AtFlags::empty()).map_err(fail("make the link"))
    }

    /// The directory `path`, made when it is not there; `entry` is for messages.
    fn parent(&mut self, path: &[u8], entry: &[u8]) -> Result<Rc<OwnedFd>, FilesError> {
        if let Some((known, directory)) = &self.parent
            && known == path
        {
            return Ok(Rc::clone(directory));
        }
        let directory = match self.open(path) {
            Err(Errno::NOENT) => self.make_parents(path),
            result => result,
        };
        let directory = Rc::new(directory.map_err(|error| match error {
            Errno::LOOP | Errno::XDEV if self.options.bounds == Bounds::Below => {
                FilesError::Refused { path: shown(entry), reason: "it leads through a symbolic link" }
            }
            error => failed("open the directory of", entry)(error),
        })?);
        self.parent = Some((path.to_vec(), Rc::clone(&directory)));
        Ok(directory)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.options.bounds {
            Bounds::Below => open_by(&self.directory, path, flags, BELOW),
            Bounds::Root if path.is_empty() => rustix::io::fcntl_dupfd_cloexec(&self.directory, 3),
            Bounds::Root => {
                open_by(&self.files.root, &[&self.prefix[..], b"/", path].concat(), flags, IN_ROOT)
            }
        }
    }

    fn make_parents(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut directory = self.open(b"")?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            directory = match self.open(&path[..end]) {
                Err(Errno::NOENT) => {
                    let name = &path[start..end];
                    fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))?;
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    fs::openat(&directory, name, flags, Mode::empty())?
                }
                result => result?,
            };
            start = end + 1;
        }
        Ok(directory)
    }

    /// Sets what had to wait, the last made first: a directory's mode may keep its owner from what is in it.
    fn finish(self) -> Result<Unpacked, FilesError> {
        for late in self.late.iter().rev() {
            let found = match self.open(&late.path) {
                // Swapped for something else since.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                result => result.map_err(failed("open", &late.path))?,
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = self.files.descriptors.reopen(found.as_fd(), flags);
            directory
                .and_then(|directory| {
                    fs::fchmod(&directory, late.mode)?;
                    fs::futimens(&directory, &late.times)
                })
                .map_err(failed("set the mode and times of", &late.path))?;
        }
        Ok(self.unpacked)
    }

    fn mode(&self, header: &Header) -> Mode {
        let lends = header.kind != EntryKind::Directory && self.options.ownership == Ownership::Caller;
        Mode::from_raw_mode(header.mode & if lends { 0o1777 } else { 0o7777 })
    }

    fn owner(&self, header: &Header) -> Result<Option<(Uid, Gid)>, FilesError> {
        let (uid, gid) = match self.options.ownership {
            Ownership::Caller => return Ok(None),
            Ownership::Root => (0, 0),
            Ownership::Archive => (header.uid, header.gid),
        };
        // 2³² - 1 is "leave it" to the kernel.
        let id = |number: u64| u32::try_from(number).ok().filter(|id| *id != u32::MAX);
        let stored = id(uid).zip(id(gid)).and_then(|(uid, gid)| self.files.owners.outside(uid, gid));
        let (uid, gid) = stored.ok_or_else(|| FilesError::Refused {
            path: shown(&header.path),
            reason: "its owner is no user or group of the container",
        })?;
        Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid))))
    }
}

/// Zeros from this many bytes on are not written: archives have no holes, and a file of 1 TiB of them costs a container nothing.
const HOLE: usize = 4096;

/// Copies the next bytes of the archive to their place in `file`; whether there are holes.
fn copy<R: BufRead>(
    content: &mut Content<'_, R>,
    file: &OwnedFd,
    segment: Segment,
    header: &Header,
) -> Result<bool, FilesError> {
    let Segment { mut offset, length: mut left } = segment;
    let mut holes = false;
    while left > 0 {
        let bytes = match content.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) => return Err(FilesError::Archive(content.failure(error))),
        };
        let limit = usize::try_from(left).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(limit)];
        if bytes.is_empty() {
            let error = std::io::ErrorKind::UnexpectedEof.into();
            return Err(FilesError::Archive(content.failure(error)));
        }
        let written = if bytes.len() >= HOLE && bytes.iter().all(|byte| *byte == 0) {
            holes = true;
            bytes.len()
        } else {
            match rustix::io::pwrite(file, bytes, offset) {
                Err(Errno::INTR) => 0,
                result => result.map_err(failed("write", &header.path))?,
            }
        };
        content.consume(written);
        offset += written as u64;
        left -= written as u64;
    }
    Ok(holes)
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}
