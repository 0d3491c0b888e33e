//! From any guest of a template to this one.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use rustix::time::{ClockId, Timespec, clock_settime};
use stanza_spec::{ErrorKind, Layer, OverlayLayers, Rootfs};

use super::agent::under_run;
use super::dns::Relay;
use super::{devices, failed, files, network};
use crate::wire::{Disk, GuestConfig, Refusal, Root, Upper};

/// The fewest random bytes that make a guest different from its siblings.
const LEAST_ENTROPY: usize = 32;

/// Makes the guest what `config` says; in a `machine` of its own also what that takes.
///
/// Randomness first: nothing that comes after may be what a sibling has.
pub(super) fn configure(
    config: &GuestConfig,
    machine: bool,
) -> Result<(Option<Rootfs>, Option<Relay>), Refusal> {
    if machine {
        if config.entropy.0.len() < LEAST_ENTROPY {
            let message = format!("a guest needs {LEAST_ENTROPY} random bytes of its host");
            return Err(Refusal::new(ErrorKind::InvalidArgument, message));
        }
        stanza_sys::add_entropy(&config.entropy.0).map_err(failed("cannot renew the random numbers"))?;
    }
    if let Some((seconds, nanoseconds)) = config.clock {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        clock_settime(ClockId::Realtime, time)
            .map_err(|error| failed("cannot set the clock")(error.into()))?;
    }
    if let Some(name) = &config.hostname {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|error| failed(format!("cannot set the host name `{name}`"))(error.into()))?;
    }
    if let Some(id) = &config.machine_id {
        fs::create_dir_all("/etc")
            .and_then(|()| fs::write("/etc/machine-id", format!("{id}\n")))
            .map_err(failed("cannot write `/etc/machine-id`"))?;
    }
    if machine && config.rescan {
        fs::write("/sys/bus/pci/rescan", "1").map_err(failed("cannot look for new devices"))?;
    }
    if machine {
        devices::load_modules("late").map_err(internal)?;
        network::configure(&config.interfaces)?;
    }
    for (name, value) in &config.sysctls {
        let path = Path::new("/proc/sys").join(name.trim_start_matches('/'));
        let set = || {
            files::check(&path)?;
            files::set(&path.to_string_lossy(), value)
        };
        set().map_err(failed(format!("cannot set the kernel's `{name}` to `{value}`")))?;
    }
    for share in &config.shares {
        let flags = if share.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_at(&share.target, &share.tag, "virtiofs", flags, "")?;
    }
    for disk in &config.disks {
        let flags = if disk.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_disk(&disk.disk, &disk.target, flags)?;
    }
    let rootfs = root(&config.root)?;
    let relay = config.dns_relay.then(Relay::open).transpose();
    Ok((rootfs, relay.map_err(failed("cannot listen on 127.0.0.11:53"))?))
}

fn internal(message: String) -> Refusal {
    Refusal::new(ErrorKind::Internal, message)
}

/// The plan of the container's root, whose overlay the container's own first process mounts.
fn root(root: &Root) -> Result<Option<Rootfs>, Refusal> {
    let (lower, upper) = match root {
        Root::None => return Ok(None),
        Root::Directory(path) => return Ok(Some(Rootfs::Directory(path.clone()))),
        Root::Overlay { lower, upper } => (lower, upper),
    };
    let image = under_run("image");
    mount_disk(lower, &image, MountFlags::RDONLY)?;
    let place = under_run("writable");
    match upper {
        Upper::Memory(size) => {
            let data = size.map_or_else(|| "mode=755".to_owned(), |size| format!("mode=755,size={size}"));
            mount_at(&place, "tmpfs", "tmpfs", MountFlags::NODEV, &data)?;
        }
        Upper::Disk(disk) => mount_disk(disk, &place, MountFlags::NODEV | MountFlags::NOATIME)?,
    }
    let (upper, work) = (place.join("upper"), place.join("work"));
    for directory in [&upper, &work] {
        fs::create_dir_all(directory).map_err(failed(format!("cannot create `{}`", directory.display())))?;
    }
    let layers = OverlayLayers { lower: vec![Layer::Directory(image)], upper, work, userxattr: false };
    Ok(Some(Rootfs::Layered { root: layers, parts: Vec::new() }))
}

fn mount_disk(disk: &Disk, target: &Path, flags: MountFlags) -> Result<(), Refusal> {
    let device: PathBuf = devices::disk(&disk.serial).map_err(internal)?;
    mount_at(target, &device.to_string_lossy(), disk.file_system.name(), flags, "")
}

fn mount_at(target: &Path, source: &str, kind: &str, flags: MountFlags, data: &str) -> Result<(), Refusal> {
    let what = || format!("cannot mount the {kind} `{source}` on `{}`", target.display());
    files::check(target).and_then(|()| fs::create_dir_all(target)).map_err(failed(what()))?;
    let data = CString::new(data).map_err(|error| failed(what())(error.into()))?;
    mount(source, target, kind, flags, data.as_c_str()).map_err(|error| failed(what())(error.into()))
}
