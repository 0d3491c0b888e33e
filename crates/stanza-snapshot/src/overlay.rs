//! How overlayfs marks what is hidden (kernel, `Documentation/filesystems/overlayfs.rst`).

use std::path::Path;

use rustix::fd::AsFd;
use rustix::fs::{self, FileType, Mode, Stat, XattrFlags};
use rustix::io::{self, Errno};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use crate::remove::remove_tree;
use crate::store::make_directory;

/// Mounts an overlay, attached nowhere, whose directories are made in the new directory `at`, which is removed again.
/// `userxattr` is for user namespaces.
///
/// # Errors
/// `EINVAL` when the file system of `at` is not taken as an upper layer; `EPERM`, `ENODEV` when the kernel refuses anyway.
pub fn try_overlay(at: &Path, userxattr: bool) -> std::io::Result<()> {
    let result = mount_trial(at, userxattr);
    let removed = remove_tree(at);
    result?;
    removed
}

fn mount_trial(at: &Path, userxattr: bool) -> std::io::Result<()> {
    make_directory(at, 0o700)?;
    for name in ["lower", "upper", "work"] {
        make_directory(&at.join(name), 0o700)?;
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        fsconfig_set_string(&context, key, at.join(name).as_os_str())?;
    }
    if userxattr {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map(drop)?)
}

/// The attribute of a directory that hides everything below it in lower layers.
pub(crate) fn opaque_name(userxattr: bool) -> &'static str {
    if userxattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// Whether an attribute is one of overlayfs's own.
pub(crate) fn is_own_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether this is a whiteout: a character device 0/0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    is_kind(stat, FileType::CharacterDevice) && stat.st_rdev == 0
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    is_kind(stat, FileType::Directory)
}

pub(crate) fn is_kind(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Makes a whiteout. Needs no privilege, also in a user namespace (since Linux 5.8).
pub(crate) fn make_whiteout(parent: impl AsFd, name: &[u8]) -> io::Result<()> {
    fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Makes a directory, open for reading, opaque.
pub(crate) fn make_opaque(directory: impl AsFd, userxattr: bool) -> io::Result<()> {
    fs::fsetxattr(directory, opaque_name(userxattr), b"y", XattrFlags::empty())
}

/// Whether a directory, open for reading, is opaque.
pub(crate) fn is_opaque(directory: impl AsFd, userxattr: bool) -> io::Result<bool> {
    let mut value = [0; 1];
    let length = fs::fgetxattr(directory, opaque_name(userxattr), &mut value[..]);
    is_mark(length, &value)
}

/// The same by path; an error when nothing is there.
pub(crate) fn is_opaque_at(directory: &Path, userxattr: bool) -> io::Result<bool> {
    let mut value = [0; 1];
    let length = fs::lgetxattr(directory, opaque_name(userxattr), &mut value[..]);
    is_mark(length, &value)
}

fn is_mark(length: io::Result<usize>, value: &[u8]) -> io::Result<bool> {
    match length {
        Ok(length) => Ok(length == 1 && value == b"y"),
        // Longer than what the mark is.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}
