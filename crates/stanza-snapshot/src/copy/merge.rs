//! Copying what the layers show together.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use stanza_spec::Layer;

use super::shifted;
use crate::changes::{DEPTH, lookup, open_in};
use crate::layer::open_layer;
use crate::overlay::{is_kind, is_own_xattr, make_whiteout};
use crate::remove::remove_tree;

/// Set after the owner, which takes it away.
const CAPABILITY: &[u8] = b"security.capability";

/// Copies `layers`, topmost first, into the new directory `target`; one that is there already stays as it is. `shift` is
/// added to the owners' ids. Nothing is left when it fails.
pub(crate) fn copy_layers(target: &Path, layers: &[Layer], userxattr: bool, shift: u32) -> io::Result<()> {
    ensure(target, layers, Copy::new(userxattr, shift, false))
}

/// As [`copy_layers`] of one layer, in the form in which layers are stored: what hides lower layers is copied as well.
pub(crate) fn copy_layer(target: &Path, layer: &Path, userxattr: bool, shift: u32) -> io::Result<()> {
    ensure(target, &[Layer::Directory(layer.to_owned())], Copy::new(userxattr, shift, true))
}

fn ensure(target: &Path, layers: &[Layer], copy: Copy) -> io::Result<()> {
    if std::fs::symlink_metadata(target).is_ok() {
        return Ok(());
    }
    // Under another name until it is whole: a container's directory outlives a command that is killed.
    let draft = target.with_extension("new");
    remove_tree(&draft)?;
    let result = copy.run(&draft, layers).and_then(|()| std::fs::rename(&draft, target));
    if result.is_err() {
        // The first failure is what the caller must hear.
        let _ = remove_tree(&draft);
    }
    result
}

struct Copy {
    /// The directory that is filled; there from the first step on.
    root: Option<OwnedFd>,
    userxattr: bool,
    shift: u32,
    /// Marks of overlayfs are copied, and what they hide is not looked for.
    marks: bool,
    /// Files with several names that were copied, and where to.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Copy {
    fn new(userxattr: bool, shift: u32, marks: bool) -> Copy {
        Copy { root: None, userxattr, shift, marks, links: HashMap::new() }
    }

    fn run(mut self, target: &Path, layers: &[Layer]) -> io::Result<()> {
        let mut opened = Vec::with_capacity(layers.len());
        for layer in layers {
            opened.push(Rc::new(open_layer(layer)?));
        }
        crate::store::make_directory(target, 0o700)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let to = fs::open(target, flags, Mode::empty())?;
        self.root = Some(to.try_clone()?);
        self.directory(&opened, &to, &[], 0)?;
        match opened.first() {
            Some(top) => self.describe(top, b".", &to, b".", &fs::fstat(top)?),
            None => Ok(()),
        }
    }

    /// Copies what `from`, directories of several layers, shows into `to`.
    fn directory(&mut self, from: &[Rc<OwnedFd>], to: &OwnedFd, path: &[u8], depth: usize) -> io::Result<()> {
        if depth >= DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        for name in names(from)? {
            let found = lookup(from, &name, self.userxattr)?;
            let (Some(stat), Some(source)) = (found.stat, found.from) else {
                if self.marks {
                    make_whiteout(to, &name)?;
                }
                continue;
            };
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(&name);
            if found.directories.is_empty() {
                self.entry(&source, &name, to, &stat, below)?;
                continue;
            }
            fs::mkdirat(to, &name[..], Mode::RWXU)?;
            let directory = open_in(to, &name)?;
            self.directory(&found.directories, &directory, &below, depth + 1)?;
            // Last: what is made in it changes its time and takes over its group and its default list.
            self.describe(&source, &name, to, &name, &stat)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        name: &[u8],
        to: &OwnedFd,
        stat: &Stat,
        path: Vec<u8>,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let (Some(first), Some(root)) = (self.links.get(&key), &self.root) {
                match fs::linkat(root, &first[..], to, name, AtFlags::empty()) {
                    Ok(()) => return Ok(()),
                    // Too far down to name, or more links than the file system holds: a copy is as good.
                    Err(Errno::NAMETOOLONG | Errno::MLINK) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.links.insert(key, path);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = fs::openat(from, name, flags, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                copy_content(&source, &target, u64::try_from(stat.st_size).unwrap_or(0))?;
            }
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(&*target, to, name)?;
            }
            kind => fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)?,
        }
        self.describe(from, name, to, name, stat)
    }

    /// Gives an entry the owner, mode, attributes and times that it has in its layer.
    fn describe(
        &self,
        from: &OwnedFd,
        from_name: &[u8],
        to: &OwnedFd,
        name: &[u8],
        stat: &Stat,
    ) -> io::Result<()> {
        let owner = (shifted(stat.st_uid, self.shift), shifted(stat.st_gid, self.shift));
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        match fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            // An owner that this user namespace does not have shows as nobody's and cannot be given.
            Err(Errno::INVAL) if self.userxattr => {}
            result => result?,
        }
        if !is_kind(stat, FileType::Symlink) {
            // Just made, in a directory that is nobody else's: no link to follow.
            fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
        self.xattrs(&by_name(from, from_name), &by_name(to, name))?;
        let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
        let times = Timestamps {
            last_access: time(stat.st_mtime, stat.st_mtime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        Ok(fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn xattrs(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        // As large as the kernel lets a list be (`XATTR_LIST_MAX`).
        let mut list = Vec::with_capacity(64 << 10);
        match fs::llistxattr(from, spare_capacity(&mut list)) {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            result => result?,
        };
        for name in list.split(|byte| *byte == 0) {
            if name.is_empty() || (is_own_xattr(name) && !self.marks) {
                continue;
            }
            let mut value = Vec::with_capacity(64 << 10);
            fs::lgetxattr(from, name, spare_capacity(&mut value))?;
            if name == CAPABILITY && self.shift != 0 && value.len() == 20 {
                // Version 2 is for the machine's root; version 3 names whose root may have them (capabilities(7)).
                value[3] = 3;
                value.extend(self.shift.to_le_bytes());
            }
            let privileged = name.starts_with(b"security.") || name.starts_with(b"trusted.");
            match fs::lsetxattr(to, name, &value, XattrFlags::empty()) {
                Err(Errno::PERM | Errno::OPNOTSUPP) if self.userxattr && privileged => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// All names in directories of several layers, hidden ones included.
pub(super) fn names(directories: &[Rc<OwnedFd>]) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let mut names = BTreeSet::new();
    for directory in directories {
        for entry in Dir::read_from(directory)? {
            match entry?.file_name().to_bytes() {
                b"." | b".." => {}
                name => {
                    names.insert(name.to_vec());
                }
            }
        }
    }
    Ok(names)
}

fn by_name(directory: &OwnedFd, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat()
}

/// Copies a file's content: shared where the file system can, else its data without its holes.
pub(crate) fn copy_content(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    if size == 0 || fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let data = match fs::seek(from, SeekFrom::Data(at)) {
            // The rest is a hole.
            Err(Errno::NXIO) => break,
            // The file system does not know: all of it is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            result => result?,
        };
        let end = match fs::seek(from, SeekFrom::Hole(data)) {
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
            result => result?.min(size),
        };
        copy_range(from, to, data, end)?;
        at = end.max(data + 1);
    }
    Ok(fs::ftruncate(to, size)?)
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        let (mut source, mut target) = (at, at);
        let copied = if buffer.is_empty() {
            fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), length)
        } else {
            Err(Errno::XDEV)
        };
        at += match copied {
            // Shorter than it was a moment ago: layers do not change, so it is damaged.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => copied as u64,
            // Across file systems, and where the kernel refuses to do it by itself.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                buffer.resize(128 << 10, 0);
                let length = length.min(buffer.len());
                let read = rustix::io::pread(from, &mut buffer[..length], at)?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let mut written = 0;
                while written < read {
                    written += rustix::io::pwrite(to, &buffer[written..read], at + written as u64)?;
                }
                read as u64
            }
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(())
}
