//! The child of [`crate::launch()`]: from a clone of the monitor to the container's program.
//!
//! ```text
//!  join cgroups ─ new cgroup namespace ─ wait: ids mapped ─ take host descriptors (binds, /dev/null)
//!    ─ mounts private ─ root file system ─ volumes filled ─ mounts ─ devices ─ sysctls ─ masks
//!    ─ pivot_root, old root gone ─ host name ─ terminal ─ wait: network attached ─ network inside ─ program
//! ```
//!
//! Everything of the host that is needed is opened before the new root is looked at; everything in the new root is
//! found by descriptor beneath it ([`crate::root`]).

mod devices;
mod masks;
mod mounts;

use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use stanza_spec::Rootfs;
use stanza_sys::CloneFlags;

use crate::error::{During, Failure};
use crate::idmap::Prepared;
use crate::launch::{Launch, Stdio, SyncByte};
use crate::process::{Program, set_standard_descriptors};
use crate::root::Root;
use crate::{source, terminal};

pub(crate) use mounts::open_binds;

/// Runs in the child. Returns only with the reason why the program did not start.
pub(crate) fn run(
    launch: &Launch<'_>,
    sync: &UnixStream,
    prepared: Option<&Prepared>,
) -> Result<Infallible, Failure> {
    launch.cgroup.join()?;
    let spec = launch.spec;
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| Failure::configuration("the configuration has no `linux` part"))?;
    let process =
        spec.process().as_ref().ok_or_else(|| Failure::configuration("the configuration has no process"))?;
    let hierarchies = mounts::joined_hierarchies()?;
    if launch.has_cgroup_namespace() {
        // Only now: a namespace's root is the cgroup of the moment.
        stanza_sys::unshare(CloneFlags::CGROUP).during("create a cgroup namespace")?;
    }
    if prepared.is_some() {
        wait_for(sync, SyncByte::Mapped)?;
        become_root()?;
    }
    rustix::process::setsid().during("start a session")?;
    let _ = stanza_sys::join_session_keyring(c"stanza");
    rustix::process::umask(Mode::empty());

    let opened;
    let binds = match prepared {
        Some(prepared) => &prepared.binds,
        None => {
            opened = open_binds(spec.mounts().as_deref().unwrap_or_default())?;
            &opened
        }
    };
    let null = devices::open_null()?;
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", private).during("make the mounts private")?;
    let root = mount_root(
        launch.rootfs,
        prepared,
        spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
    )?;
    for volume in launch.copy_up {
        volume.apply(&root).during_on("fill the volume at", &volume.destination)?;
    }
    let context = mounts::Context { root: &root, hierarchies: &hierarchies, binds };
    let procfs = context.mount_all(spec.mounts().as_deref().unwrap_or_default())?;
    devices::create(&root, linux.devices().as_deref().unwrap_or_default())?;
    if let Some(procfs) = &procfs {
        set_sysctls(procfs, linux)?;
        apply_labels(procfs, process)?;
    }
    masks::read_only(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
    masks::mask(&root, linux.masked_paths().as_deref().unwrap_or_default(), &null)?;
    // The terminal's name is bound while the root can still be mounted on.
    let terminal = match &launch.stdio {
        Stdio::Terminal { size } => Some(open_terminal(&root, *size)?),
        Stdio::Descriptors(_) => None,
    };
    if spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
        masks::make_read_only(root.directory()).during("make the root read-only")?;
    }
    pivot(&root)?;
    drop((root, procfs, null));

    if let Some(name) = spec.hostname() {
        rustix::system::sethostname(name.as_bytes()).during("set the host name")?;
    }
    wait_for(sync, SyncByte::Network)?;
    (launch.inside)().map_err(|text| Failure::plain(crate::error::What::Around(text)))?;
    if let Some(score) = process.oom_score_adj() {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .during("set the out-of-memory score")?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.user().umask().unwrap_or(0o022)));
    use_stdio(launch, terminal, sync)?;
    Program { process, filter: launch.filter }.run(3, true)
}

/// Waits for the parent's word; its end of the socket closed means that it has gone or given up.
fn wait_for(mut sync: &UnixStream, expected: SyncByte) -> Result<(), Failure> {
    let mut byte = [0];
    sync.read_exact(&mut byte).during("hear from the monitor")?;
    if byte[0] == expected as u8 { Ok(()) } else { Err(Failure::configuration("the monitor gave up")) }
}

/// Becomes user 0 of a new user namespace.
fn become_root() -> Result<(), Failure> {
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).during("become root in the user namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).during("become root in the user namespace")
}

/// Attaches the root file system and its parts in this mount namespace.
fn mount_root(rootfs: &Rootfs, prepared: Option<&Prepared>, read_only: bool) -> Result<Root, Failure> {
    // The mount goes over a directory that exists for sure: this namespace never looks at what is below. The root of a new
    // user namespace may not be able to reach stanza's own directories, but it can reach /proc, needed no more.
    let place = match (prepared, rootfs) {
        (Some(_), _) => Path::new("/proc"),
        (None, Rootfs::Directory(path)) => path,
        (None, Rootfs::Layered { root, .. }) => &root.upper,
    };
    let made;
    // The parts' layers may lie below the place that the root covers, so all are made before any is attached.
    let Prepared { root, parts, .. } = match prepared {
        Some(prepared) => prepared,
        None => {
            made = make_root(rootfs)?;
            &made
        }
    };
    let step = "open the root file system";
    let below = openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during_on(step, place)?;
    source::attach(root, &below).mounting(Path::new("/"))?;
    let root = Root::open_at(place).during_on(step, place)?;
    for (destination, mount) in parts {
        let stat = rustix::fs::fstat(mount).mounting(destination)?;
        let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        let target =
            if directory { root.ensure_directory(destination) } else { root.ensure_file(destination) };
        source::attach(mount, target.mounting(destination)?).mounting(destination)?;
        if read_only {
            masks::make_read_only(mount).mounting(destination)?;
        }
    }
    Ok(root)
}

fn make_root(rootfs: &Rootfs) -> Result<Prepared, Failure> {
    match rootfs {
        Rootfs::Directory(path) => {
            let root = source::clone_tree(path, true).during_on("clone the root file system", path)?;
            Ok(Prepared { root, parts: Vec::new(), binds: Vec::new() })
        }
        Rootfs::Layered { root, parts } => Ok(Prepared {
            parts: parts.iter().map(mounts::make_part).collect::<Result<_, _>>()?,
            root: source::overlay(root).mounting(Path::new("/"))?,
            binds: Vec::new(),
        }),
    }
}

/// Makes `root` the root of this mount namespace and forgets the old one.
fn pivot(root: &Root) -> Result<(), Failure> {
    rustix::process::fchdir(root.directory()).during("enter the new root")?;
    // Both on one place: the old root lies on top of the new one, and is taken off (pivot_root(2), "Notes").
    rustix::process::pivot_root(".", ".").during("change the root")?;
    // The old root's mounts must not hear of it.
    mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .during("detach from the host's mounts")?;
    unmount(".", UnmountFlags::DETACH).during("leave the host's root")?;
    rustix::process::chdir("/").during("enter the new root")
}

/// Writes a file below a procfs that nobody else can have covered.
fn write_proc(procfs: &OwnedFd, path: &str, value: &str) -> std::io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let file = openat2(procfs, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

fn set_sysctls(procfs: &OwnedFd, linux: &stanza_spec::oci::runtime::Linux) -> Result<(), Failure> {
    for (name, value) in linux.sysctl().iter().flatten() {
        let path = format!("sys/{}", name.replace('.', "/"));
        write_proc(procfs, &path, value).during_on("set the sysctl", Path::new(name))?;
    }
    Ok(())
}

/// AppArmor's and SELinux's labels take effect at the next exec.
pub(crate) fn apply_labels(
    procfs: &OwnedFd,
    process: &stanza_spec::oci::runtime::Process,
) -> Result<(), Failure> {
    if let Some(profile) = process.apparmor_profile() {
        let value = format!("exec {profile}");
        write_proc(procfs, "thread-self/attr/apparmor/exec", &value)
            .or_else(|_| write_proc(procfs, "thread-self/attr/exec", &value))
            .during_on("apply the AppArmor profile", Path::new(profile))?;
    }
    if let Some(label) = process.selinux_label() {
        write_proc(procfs, "thread-self/attr/exec", label)
            .during_on("apply the SELinux label", Path::new(label))?;
    }
    Ok(())
}

/// A terminal, also bound to /dev/console where programs expect it.
fn open_terminal(root: &Root, size: Option<(u16, u16)>) -> Result<terminal::Terminal, Failure> {
    let terminal = terminal::open(root, size).during("open a terminal")?;
    let console = root.ensure_file(Path::new("/dev/console")).during("make /dev/console")?;
    let bound = source::clone_of(terminal.user.as_fd(), false).during("clone the terminal")?;
    source::attach(&bound, &console).mounting(Path::new("/dev/console"))?;
    Ok(terminal)
}

/// Makes the terminal or the pipes the program's standard descriptors; the controller goes to the monitor.
fn use_stdio(
    launch: &Launch<'_>,
    terminal: Option<terminal::Terminal>,
    sync: &UnixStream,
) -> Result<(), Failure> {
    match (&launch.stdio, terminal) {
        (Stdio::Descriptors([stdin, stdout, stderr]), _) => set_standard_descriptors([stdin, stdout, stderr]),
        (Stdio::Terminal { .. }, Some(terminal)) => {
            crate::launch::send_controller(sync, &terminal.controller).during("hand over the terminal")?;
            rustix::process::ioctl_tiocsctty(&terminal.user).during("take the terminal")?;
            set_standard_descriptors([&terminal.user, &terminal.user, &terminal.user])
        }
        (Stdio::Terminal { .. }, None) => Err(Failure::configuration("the terminal was not opened")),
    }
}

/// The whole of a small file of the host.
fn read_host_file(path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}
