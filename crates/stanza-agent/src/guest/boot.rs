//! From the kernel's hands to the host's: what any guest of a template does.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{Resource, Rlimit, chdir, chroot, setrlimit};
use rustix::system::{RebootCommand, reboot};

use super::{devices, files};

/// The name of the virtio-serial port, as the machine's maker gives it.
const PORT: &str = "stanza.agent";

/// Modules that the channel needs: one file name a line, in the order in which they are loaded.
const EARLY: &str = "early";

/// Descriptors that a program in the guest may have: what systemd gives its services.
const DESCRIPTORS: (u64, u64) = (1024, 524_288);

/// Mounts, loads and opens what it takes to be talked to.
pub(super) fn start() -> Result<OwnedFd, String> {
    let (safe, devices) = (
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        MountFlags::NOSUID | MountFlags::NOEXEC,
    );
    leave_initial_root()?;
    mount_new("devtmpfs", "/dev", devices, None)?;
    mount_new("proc", "/proc", safe, None)?;
    mount_new("sysfs", "/sys", safe, None)?;
    mount_new("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755"))?;
    // A kernel without it runs containers without limits; which is told when one is asked for.
    match mount_new("cgroup2", "/sys/fs/cgroup", safe, None) {
        Ok(()) => delegate()?,
        Err(error) => say(&error),
    }
    let (current, maximum) = DESCRIPTORS;
    let limit = Rlimit { current: Some(current), maximum: Some(maximum) };
    setrlimit(Resource::Nofile, limit)
        .map_err(|error| format!("cannot set the limit of descriptors: {error}"))?;
    devices::load_modules(EARLY)?;
    open_port()
}

/// The root that the kernel made can neither be left by `pivot_root` nor covered for good; a second mount of it can, so that a
/// container's root is changed here as anywhere else.
fn leave_initial_root() -> Result<(), String> {
    let step = |error: Errno| format!("cannot leave the initial root: {error}");
    fs::create_dir_all("/root").map_err(|error| format!("cannot create `/root`: {error}"))?;
    mount_bind("/", "/root").map_err(step)?;
    chdir("/root").map_err(step)?;
    mount_move(".", "/").map_err(step)?;
    chroot(".").map_err(step)?;
    chdir("/").map_err(step)
}

fn mount_new(
    kind: &str,
    target: &str,
    flags: MountFlags,
    data: Option<&std::ffi::CStr>,
) -> Result<(), String> {
    // Below /sys all is made by the kernel.
    let _ = fs::create_dir_all(target);
    match mount(kind, target, kind, flags, data) {
        // The kernel may have mounted /dev by itself.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(format!("cannot mount {kind} on `{target}`: {error}")),
    }
}

/// Every controller for whoever is below.
fn delegate() -> Result<(), String> {
    let failed = |error| format!("cannot delegate the controllers of cgroups: {error}");
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").map_err(failed)?;
    for controller in controllers.split_whitespace() {
        files::set("/sys/fs/cgroup/cgroup.subtree_control", &format!("+{controller}")).map_err(failed)?;
    }
    Ok(())
}

fn open_port() -> Result<OwnedFd, String> {
    let path = devices::wait_for(|| port().map_err(|error| format!("cannot look for the channel: {error}")))?
        .ok_or_else(|| format!("the machine has no virtio-serial port `{PORT}`"))?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // The device file comes a moment after the port.
    let opened = devices::wait_for(|| match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(port) => Ok(Some(port)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(format!("cannot open `{}`: {error}", path.display())),
    })?;
    opened.ok_or_else(|| format!("`{}` does not appear", path.display()))
}

fn port() -> std::io::Result<Option<PathBuf>> {
    let ports = match fs::read_dir("/sys/class/virtio-ports") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    for entry in ports {
        let entry = entry?;
        // A port without a name yet has an empty file, or none.
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// Says something on the console, by way of the kernel's log.
pub(super) fn say(text: &str) {
    if let Ok(mut log) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        // Each write is a line of its own. There is nobody else to tell.
        let _ = log.write_all(format!("<3>stanza-agent: {text}").as_bytes());
    }
}

/// Says why there is no agent, and ends the machine.
pub(super) fn give_up(reason: &str) -> ! {
    say(reason);
    power_off()
}

/// Ends the machine. What is written to disks is on them.
pub(super) fn power_off() -> ! {
    rustix::fs::sync();
    // One that cannot be powered off is started again, which ends it where its maker does not allow that (`-no-reboot`).
    for command in [RebootCommand::PowerOff, RebootCommand::Restart, RebootCommand::Halt] {
        let _ = reboot(command);
    }
    // The kernel panics when its first process ends.
    loop {
        sleep(Duration::from_secs(3600));
    }
}
