//! /dev: the devices every container has, those asked for, and the usual links.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, major, makedev, minor, mknodat, openat, symlinkat};
use rustix::io::Errno;
use stanza_spec::oci::runtime::{LinuxDevice, LinuxDeviceType};
use stanza_sys::Handle;

use crate::error::{During, Failure};
use crate::root::Root;
use crate::source;

/// Name, major and minor number of the default devices (runtime-spec, "Default Devices"); all mode 666.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// The host's /dev/null, checked to be it (CVE-2025-31133): paths are masked with it.
pub(super) fn open_null() -> Result<Handle, Failure> {
    let null = openat(CWD, "/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .during("open /dev/null")?;
    let stat = fstat(&null).during("inspect /dev/null")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
        || (major(stat.st_rdev), minor(stat.st_rdev)) != (1, 3)
    {
        return Err(Failure::configuration("/dev/null is not the null device"));
    }
    Ok(null.into())
}

/// Fills /dev.
pub(super) fn create(root: &Root, devices: &[LinuxDevice]) -> Result<(), Failure> {
    let directory = root.ensure_directory(Path::new("/dev")).during("make /dev")?;
    let mut may_make_nodes = true;
    for (name, high, low) in DEFAULT {
        if may_make_nodes {
            match mknodat(
                &directory,
                name,
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o666),
                makedev(high, low),
            ) {
                Ok(()) | Err(Errno::EXIST) => continue,
                // A user namespace: the host's nodes are bound in their place.
                Err(Errno::PERM) => may_make_nodes = false,
                Err(error) => return Err(error).during_on("make the device", Path::new(name)),
            }
        }
        bind(root, &Path::new("/dev").join(name)).during_on("bind the device", Path::new(name))?;
    }
    for (target, name) in LINKS {
        match symlinkat(target, &directory, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).during_on("make the link", Path::new(name)),
        }
    }
    for device in devices {
        create_one(root, device, may_make_nodes).during_on("make the device", device.path())?;
    }
    Ok(())
}

fn create_one(root: &Root, device: &LinuxDevice, may_make_nodes: bool) -> io::Result<()> {
    if !may_make_nodes {
        return bind(root, device.path());
    }
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let number = |value: i64| u32::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let number = makedev(number(device.major())?, number(device.minor())?);
    let (parent, name) = root.ensure_parent(device.path())?;
    let mode = Mode::from_raw_mode(device.file_mode().unwrap_or(0o666));
    match mknodat(&parent, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::PERM) => return bind(root, device.path()),
        Err(error) => return Err(error.into()),
    }
    let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    if (uid, gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn bind(root: &Root, path: &Path) -> io::Result<()> {
    let tree = source::clone_tree(path, false)?;
    source::attach(tree, root.ensure_file(path)?)
}
