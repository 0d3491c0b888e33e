//! Layers made visible in the caller's own mount namespace, to be looked at: the one mount that outlives its maker.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{UnmountFlags, unmount};
use stanza_spec::OverlayLayers;
use stanza_sys::MountAttributes;

use crate::source;

/// Mounts a view of layers (an empty `upper`) on the directory `target`, read-only. Set-user-id bits and devices in it do
/// nothing: whoever reaches the place is a user of the machine, not of a container.
///
/// # Errors
/// When the kernel does not take the layers, or there is no such directory.
pub fn mount_view(layers: &OverlayLayers, target: &Path) -> io::Result<()> {
    let mount = source::overlay(layers)?;
    let inert = MountAttributes::READ_ONLY | MountAttributes::NOSUID | MountAttributes::NODEV;
    let attributes = MountAttributes { set: inert, ..MountAttributes::default() };
    source::set_attributes(&mount, false, &attributes)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    source::attach(mount, openat(CWD, target, flags, Mode::empty())?)
}

/// Takes a view off again; `force` also when somebody is in it.
///
/// # Errors
/// `EBUSY` when somebody is in it, `EINVAL` when nothing is mounted there.
pub fn unmount_view(target: &Path, force: bool) -> io::Result<()> {
    let flags = if force { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    Ok(unmount(target, flags | UnmountFlags::NOFOLLOW)?)
}
