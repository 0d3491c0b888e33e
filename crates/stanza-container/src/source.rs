//! Detached mounts: made or cloned by descriptor, attached nowhere yet, so that what is mounted and where it goes are
//! both decided before either can be changed by anybody else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use stanza_spec::OverlayLayers;
use stanza_sys::{MountAttributes, mount_set_attributes};

/// A clone of the mount tree at `path` of the host's view (all of it when `recursive`).
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(CWD, path, flags)?)
}

/// A clone of the mount tree that `descriptor` stands in, from there down.
pub(crate) fn clone_of(descriptor: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(descriptor, "", flags)?)
}

/// Changes a detached mount, and what is below it when `recursive`.
pub(crate) fn set_attributes(
    mount: impl AsFd,
    recursive: bool,
    attributes: &MountAttributes,
) -> io::Result<()> {
    if *attributes == MountAttributes::default() {
        return Ok(());
    }
    mount_set_attributes(mount.as_fd(), c"", recursive, attributes)
}

/// A new mount of the file system type `kind` with its options; `attributes` are `MOUNT_ATTR_*`.
pub(crate) fn new_mount(
    kind: &str,
    source: &str,
    data: &[(String, Option<String>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !source.is_empty() {
        fsconfig_set_string(&context, "source", source)?;
    }
    for (key, value) in data {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, key.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    let bits = u32::try_from(attributes).map_err(|_| Errno::INVAL)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(bits))?)
}

/// A new overlay mount of `layers`.
pub(crate) fn overlay(layers: &OverlayLayers) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    set_lower(&context, layers)?;
    fsconfig_set_string(&context, "upperdir", &layers.upper)?;
    fsconfig_set_string(&context, "workdir", &layers.work)?;
    if layers.userxattr {
        fsconfig_set_flag(&context, "userxattr")?;
    } else {
        // A directory renamed across layers is copied, not redirected, so that the upper layer alone tells what changed
        // (`diff`, `commit`), whatever the kernel's defaults are. `userxattr` implies it.
        fsconfig_set_string(&context, "redirect_dir", "off")?;
        fsconfig_set_string(&context, "metacopy", "off")?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// One `lowerdir+` a layer has no limit of length and needs no escaping, but a kernel from 6.8 on; before that, all in
/// one string of at most 255 bytes (fsconfig's limit), with `:` and `\` escaped.
fn set_lower(context: &OwnedFd, layers: &OverlayLayers) -> io::Result<()> {
    for (index, layer) in layers.lower.iter().enumerate() {
        match fsconfig_set_string(context, "lowerdir+", layer) {
            Ok(()) => {}
            Err(Errno::INVAL) if index == 0 => {
                let mut joined = Vec::new();
                for layer in &layers.lower {
                    if !joined.is_empty() {
                        joined.push(b':');
                    }
                    for byte in std::os::unix::ffi::OsStrExt::as_bytes(layer.as_os_str()) {
                        if matches!(byte, b':' | b'\\') {
                            joined.push(b'\\');
                        }
                        joined.push(*byte);
                    }
                }
                fsconfig_set_string(context, "lowerdir", joined)?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Attaches a detached mount on top of what `target` is.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}
