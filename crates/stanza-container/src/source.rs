//! Detached mounts: made or cloned by descriptor, attached nowhere yet, so that what is mounted and where it goes are
//! both decided before either can be changed by anybody else.

use std::borrow::Cow;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    mount, mount_change, mount_remount, move_mount, open_tree, unmount,
};
use stanza_spec::{ErofsWay, Layer, OverlayLayers};
use stanza_sys::{Handle, MountAttributes, mount_erofs, mount_set_attributes};

/// A clone of the mount tree at `path` of the host's view (all of it when `recursive`).
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(CWD, path, flags)?)
}

/// As [`clone_tree`], of a symbolic link itself.
pub(crate) fn clone_link(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    Ok(open_tree(CWD, path, flags)?)
}

/// A clone of the mount tree that `descriptor` stands in, from there down.
pub(crate) fn clone_of(descriptor: BorrowedFd<'_>, recursive: bool) -> io::Result<Handle> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(descriptor, "", flags)?.into())
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
    let mount = mount.as_fd();
    match mount_set_attributes(mount, c"", recursive, attributes) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSYS) => {
            set_attributes_by_name(mount, recursive, attributes)
        }
        other => other,
    }
}

/// As [`set_attributes`] of an attached mount before Linux 5.12: by mount(2), which changes one mount at a time, and all that
/// mounts below have in common is their propagation.
fn set_attributes_by_name(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &MountAttributes,
) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    if attributes.propagation != 0 {
        let mut bits = MountPropagationFlags::from_bits_retain(
            u32::try_from(attributes.propagation).map_err(|_| Errno::INVAL)?,
        );
        bits.set(MountPropagationFlags::REC, recursive);
        mount_change(&path, bits)?;
    }
    if attributes.set == 0 && attributes.clear == 0 {
        return Ok(());
    }
    if attributes.set & MountAttributes::IDMAP != 0 || (recursive && has_mounts_below(mount)?) {
        return Err(Errno::NOSYS.into());
    }
    let has = fstatvfs(mount)?.f_flag;
    let mut flags = MountFlags::BIND;
    for (attribute, seen, flag) in [
        (MountAttributes::READ_ONLY, StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (MountAttributes::NOSUID, StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (MountAttributes::NODEV, StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (MountAttributes::NOEXEC, StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (MountAttributes::NOATIME, StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (MountAttributes::NODIRATIME, StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (MountAttributes::STRICTATIME, StatVfsMountFlags::empty(), MountFlags::STRICTATIME),
    ] {
        let kept = has.contains(seen) && !seen.is_empty() && attributes.clear & attribute == 0;
        flags.set(flag, kept || attributes.set & attribute != 0);
    }
    Ok(mount_remount(&path, flags, "")?)
}

/// Whether anything is mounted below, by the kernel's number of the mount.
fn has_mounts_below(mount: BorrowedFd<'_>) -> io::Result<bool> {
    let text = stanza_sys::read_proc(&format!("/proc/self/fdinfo/{}", mount.as_raw_fd()))?;
    let number =
        text.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim).ok_or(Errno::NOSYS)?;
    let table = stanza_sys::read_proc("/proc/self/mountinfo")?;
    Ok(table.lines().any(|line| line.split(' ').nth(1) == Some(number)))
}

/// A new mount of the file system type `kind` with its options; `attributes` are `MOUNT_ATTR_*`.
pub(crate) fn new_mount(
    kind: &str,
    source: &str,
    data: &[(String, Option<String>)],
    attributes: u64,
) -> io::Result<Handle> {
    let context = Handle::from(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?);
    let context = context.as_fd();
    if !source.is_empty() {
        fsconfig_set_string(context, "source", source)?;
    }
    for (key, value) in data {
        match value {
            Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(context, key.as_str())?,
        }
    }
    fsconfig_create(context)?;
    let bits = u32::try_from(attributes).map_err(|_| Errno::INVAL)?;
    Ok(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(bits))?.into())
}

/// A new overlay mount of `layers`.
///
/// One `lowerdir+` a layer has no limit of length, but needs Linux 6.8 (an older one writes a line into the kernel's log for
/// each try, so its version is asked). Older kernels take all lower layers as one string, which `fsconfig` limits to 255
/// bytes; a plain `mount(2)` takes a page.
pub(crate) fn overlay(layers: &OverlayLayers) -> io::Result<OwnedFd> {
    let mut images = Vec::new();
    for layer in layers.lower.iter().filter(|layer| matches!(layer, Layer::Erofs { .. })) {
        images.push(mount_layer(layer)?);
    }
    let mut mounted = images.iter();
    let path = |layer| match layer {
        &(Layer::Directory(ref path) | Layer::Shifted(ref path)) => Cow::Borrowed(path.as_path()),
        Layer::Erofs { .. } => Cow::Owned(mounted.next().map(descriptor_path).unwrap_or_default()),
    };
    overlay_of(&layers.lower.iter().map(path).collect::<Vec<_>>(), layers)
}

/// Where a descriptor can be found by name.
pub(crate) fn descriptor_path(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// A mount of one layer, attached nowhere. The kernel parses an erofs image here: one of this program's own, whose record
/// was compared when the plan was made; images that others made are never in a plan.
pub(crate) fn mount_layer(layer: &Layer) -> io::Result<OwnedFd> {
    match layer {
        Layer::Directory(path) | Layer::Shifted(path) => clone_tree(path, false),
        Layer::Erofs { index, tar, way } => {
            let open = |path: &Path| openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            mount_erofs(open(index)?.as_fd(), open(tar)?.as_fd(), *way == ErofsWay::Loop)
        }
    }
}

/// As [`overlay`], with `lower` in place of its lower layers.
pub(crate) fn overlay_of(lower: &[Cow<'_, Path>], layers: &OverlayLayers) -> io::Result<OwnedFd> {
    if kernel_is_at_least((6, 8)) {
        return overlay_with(layers, &|context| {
            lower.iter().try_for_each(|layer| fsconfig_set_string(context, "lowerdir+", layer.as_ref()))
        });
    }
    let joined = join(lower)?;
    if joined.text.len() > LONGEST_STRING {
        return overlay_by_name(layers, &joined);
    }
    overlay_with(layers, &|context| fsconfig_set_string(context, "lowerdir", &*joined.text))
}

/// Whether this kernel is that version or a later one.
pub(crate) fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    let name = rustix::system::uname();
    let mut numbers =
        name.release().to_str().unwrap_or_default().split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0u32), numbers.next().unwrap_or(0)) >= wanted
}

/// `fsconfig` takes strings of 255 bytes.
const LONGEST_STRING: usize = 255;

fn is_view(layers: &OverlayLayers) -> bool {
    layers.upper.as_os_str().is_empty()
}

fn overlay_with(
    layers: &OverlayLayers,
    set_lower: &dyn Fn(&OwnedFd) -> rustix::io::Result<()>,
) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    set_lower(&context)?;
    if !is_view(layers) {
        fsconfig_set_string(&context, "upperdir", &layers.upper)?;
        fsconfig_set_string(&context, "workdir", &layers.work)?;
    }
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

/// Layers as one `lowerdir` string, each by a descriptor: short, and nothing in it needs escaping.
struct Joined {
    text: String,
    /// What `text` refers to; open until the mount is made.
    descriptors: Vec<OwnedFd>,
}

fn join(lower: &[Cow<'_, Path>]) -> io::Result<Joined> {
    let mut joined = Joined { text: String::new(), descriptors: Vec::with_capacity(lower.len()) };
    for layer in lower {
        let descriptor = openat(CWD, layer.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if !joined.text.is_empty() {
            joined.text.push(':');
        }
        joined.text.push_str(&format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        joined.descriptors.push(descriptor);
    }
    Ok(joined)
}

/// `mount(2)` takes a page of options, enough for some 240 layers. It mounts by name in this mount namespace, so the mount
/// is cloned and taken off again at once.
fn overlay_by_name(layers: &OverlayLayers, joined: &Joined) -> io::Result<OwnedFd> {
    let options = if layers.userxattr { "userxattr" } else { "redirect_dir=off,metacopy=off" };
    let (upper, work) = (layers.upper.display(), layers.work.display());
    let (place, writes) = if is_view(layers) {
        (&layers.work, String::new())
    } else {
        (&layers.upper, format!(",upperdir={upper},workdir={work}"))
    };
    let data = format!("lowerdir={}{writes},{options}", joined.text);
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    mount("overlay", place, "overlay", MountFlags::empty(), Some(data.as_c_str()))?;
    let clone = clone_tree(place, false);
    unmount(place, UnmountFlags::DETACH)?;
    clone
}

/// Attaches a detached mount on top of what `target` is.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// Attaches a detached mount on `name` in a directory that nobody else has a way to.
pub(crate) fn attach_below(mount: impl AsFd, directory: impl AsFd, name: &str) -> io::Result<()> {
    Ok(move_mount(mount, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
