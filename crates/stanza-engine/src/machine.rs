//! What planning must know of this machine and this process; each asked for only when something depends on it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use rustix::process::{Resource, getrlimit};

/// The bits of the capabilities that this process may give.
pub(crate) fn available_capabilities() -> u64 {
    rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits())
}

/// CAP_SYS_RESOURCE by number (capabilities(7)).
const SYS_RESOURCE: u64 = 24;

/// Whether hard limits may be raised.
pub(crate) fn may_raise_limits() -> bool {
    available_capabilities() >> SYS_RESOURCE & 1 == 1
}

/// This process's hard limit of Docker's name; `None` when there is none.
pub(crate) fn hard_limit(name: &str) -> Option<u64> {
    let resource = match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    };
    getrlimit(resource).maximum
}

/// AppArmor profiles made for containers, the preferred one first.
const APPARMOR_PROFILES: [&str; 2] = ["stanza-default", "docker-default"];

/// The AppArmor profile that containers get by default: one made for them that the kernel has loaded.
pub(crate) fn apparmor_profile() -> Option<&'static str> {
    // One failing `open` where there is no AppArmor. Each line is a name and a mode in parentheses.
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").ok()?;
    let is_loaded = |name: &str| loaded.lines().any(|line| line.split(" (").next() == Some(name));
    APPARMOR_PROFILES.into_iter().find(|name| is_loaded(name))
}

/// Processors that this process may run on.
pub(crate) fn cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| usize::try_from(set.count()).unwrap_or(1))
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Entries of /dev that are not the machine's: mounts and links that every container has of its own.
const NOT_DEVICES: [&str; 6] = ["console", "fd", "mqueue", "pts", "shm", ".udev"];

/// The devices of the machine, for a privileged container.
pub(crate) fn host_devices() -> Vec<LinuxDevice> {
    let mut devices = Vec::new();
    collect_devices(Path::new("/dev"), 0, &mut devices);
    devices.sort_by(|a, b| a.path().cmp(b.path()));
    devices
}

/// Deeper than any driver nests its nodes.
const DEPTH: usize = 8;

fn collect_devices(directory: &Path, depth: usize, devices: &mut Vec<LinuxDevice>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if depth == 0 && NOT_DEVICES.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if depth < DEPTH {
                collect_devices(&entry.path(), depth + 1, devices);
            }
        } else if kind.is_char_device() || kind.is_block_device() {
            devices.extend(device(entry.path(), kind.is_block_device()));
        }
    }
}

fn device(path: PathBuf, block: bool) -> Option<LinuxDevice> {
    let metadata = fs::symlink_metadata(&path).ok()?;
    let number = metadata.rdev();
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(if block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .major(i64::from(rustix::fs::major(number)))
        .minor(i64::from(rustix::fs::minor(number)))
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .ok()
}
