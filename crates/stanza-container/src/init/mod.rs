//! The child of [`crate::launch()`]: from a clone of its starter to the container's program.
//!
//! ```text
//!  join cgroups ─ join namespaces ─ new cgroup namespace ─ wait: ids mapped ─ take host descriptors (binds, /dev/null)
//!    ─ mounts private ─ root file system ─ volumes filled ─ mounts ─ devices ─ sysctls ─ masks ─ wait: network attached
//!    ─ wait: hooks run ─ pivot_root, old root gone ─ host name ─ terminal ─ user, filter ─ gate ─ program
//! ```
//!
//! Everything of the host that is needed is opened before the new root is looked at; everything in the new root is
//! found by descriptor beneath it ([`crate::root`]).

mod devices;
mod hierarchies;
mod masks;
mod mounts;

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use stanza_spec::Rootfs;
use stanza_spec::oci::runtime::{Linux, LinuxNamespaceType, Process};
use stanza_sys::{CloneFlags, Handle, MountAttributes};

use self::hierarchies::Hierarchy;
use crate::error::{During, Failure, What};
use crate::idmap::Prepared;
use crate::launch::{Launch, Stdio};
use crate::line::{Line, Reply};
use crate::mount_options::propagation;
use crate::namespaces::{Namespaces, become_root};
use crate::process::{Program, set_standard_descriptors};
use crate::root::Root;
use crate::{scheduling, source, terminal};

pub(crate) use masks::make_read_only;
pub(crate) use mounts::{mount_one, open_binds};

/// Runs in the child. Returns only with the reason why the program did not start.
pub(crate) fn run(
    launch: &Launch<'_>,
    namespaces: &Namespaces,
    line: &Line,
    prepared: Option<&Prepared>,
) -> Result<Infallible, Failure> {
    let spec = launch.spec;
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| Failure::configuration("the configuration has no `linux` part"))?;
    let process =
        spec.process().as_ref().ok_or_else(|| Failure::configuration("the configuration has no process"))?;
    let hierarchies = enter(launch, namespaces, line, linux)?;
    let terminal = build(launch, line, prepared, linux, &hierarchies)?;
    use_stdio(&launch.stdio, terminal, line)?;
    let manner = &launch.manner;
    let program = Program {
        process,
        filter: launch.filter,
        limited: namespaces.has_own(LinuxNamespaceType::User),
        landlock: launch.landlock,
    };
    let ready = program.prepare(manner, line)?;
    line.say_ready().during("tell that all is ready")?;
    if let Some(gate) = &manner.gate {
        gate.wait()?;
    }
    let hooked = launch.attendant.before_program().map_err(|text| Failure::plain(What::Around(text)));
    // A hook's start has marked them all to be closed.
    stanza_sys::keep_across_exec(3, manner.close_from());
    let failure = match hooked {
        Ok(()) => ready.execute(),
        Err(failure) => failure,
    };
    if let Some(gate) = &manner.gate {
        gate.say_failed(&failure);
    }
    Err(failure)
}

/// Gets into the control groups and namespaces, as their root; the control groups that it is then to show.
fn enter(
    launch: &Launch<'_>,
    namespaces: &Namespaces,
    line: &Line,
    linux: &Linux,
) -> Result<Vec<Hierarchy>, Failure> {
    // An intermediate process has done it for its sibling.
    if !namespaces.need_intermediate() {
        if launch.attendant.places() {
            line.wait_for(Reply::Placed)?;
        }
        launch.before_namespaces()?;
        namespaces.join()?;
    }
    let mounts = launch.spec.mounts().as_deref().unwrap_or_default();
    let hierarchies = hierarchies::find(mounts, namespaces)?;
    if namespaces.has_new(CloneFlags::CGROUP) {
        // Only now: a namespace's root is the cgroup of the moment.
        stanza_sys::unshare(CloneFlags::CGROUP).during("create a cgroup namespace")?;
    }
    if namespaces.has_new(CloneFlags::USER) {
        line.wait_for(Reply::Mapped)?;
        become_root()?;
    }
    if !namespaces.has_new(CloneFlags::PID) {
        // Others are here: nobody may trace this process before it is its program (CVE-2016-9962).
        set_dumpable_behavior(DumpableBehavior::NotDumpable).during("hide from tracing")?;
    }
    rustix::process::setsid().during("start a session")?;
    launch.manner.join_keyring()?;
    rustix::process::umask(Mode::empty());
    if namespaces.has_new(CloneFlags::NETWORK) {
        stanza_sys::bring_up_loopback().during("bring up the loopback interface")?;
    }
    if let Some(personality) = linux.personality() {
        scheduling::apply_personality(personality)?;
    }
    if let Some(policy) = linux.memory_policy() {
        scheduling::apply_memory_policy(policy)?;
    }
    Ok(hierarchies)
}

/// Makes the new root and goes there.
fn build(
    launch: &Launch<'_>,
    line: &Line,
    prepared: Option<&Prepared>,
    linux: &Linux,
    hierarchies: &[Hierarchy],
) -> Result<Option<terminal::Terminal>, Failure> {
    let spec = launch.spec;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let opened;
    let binds = match prepared {
        Some(prepared) => &prepared.binds,
        None => {
            opened = open_binds(mounts, spec)?;
            &opened
        }
    };
    let null = devices::open_null()?;
    let host_procfs = open_procfs()?;
    let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", private).during("make the mounts private")?;
    let read_only = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    let root = mount_root(launch.rootfs, prepared, read_only)?;
    for volume in launch.copy_up {
        volume.apply(&root).during_on("fill the volume at", &volume.destination)?;
    }
    let context = mounts::Context { root: &root, hierarchies, binds, linux, make: &source::new_mount };
    let procfs = context.mount_all(mounts)?;
    let procfs = procfs.as_ref().unwrap_or(&host_procfs);
    if !mounts::bind_device_directory(mounts) {
        devices::create(&root, linux.devices().as_deref().unwrap_or_default())?;
    }
    set_sysctls(procfs, linux)?;
    if let Some(process) = spec.process() {
        apply_labels(procfs, process)?;
    }
    masks::read_only(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
    masks::mask(&root, linux.masked_paths().as_deref().unwrap_or_default(), &null)?;
    // The terminal's name is bound while the root can still be mounted on.
    let terminal = match &launch.stdio {
        Stdio::Terminal { size } => Some(open_terminal(&root, *size)?),
        Stdio::Descriptors(_) | Stdio::Inherit => None,
    };
    if let Some(process) = spec.process().as_ref().filter(|_| read_only) {
        make_working_directory(&root, process);
    }
    line.wait_for(Reply::Network)?;
    if launch.attendant.waits_for_mounts() {
        line.say_mounted().during("tell that all is mounted")?;
        line.wait_for(Reply::Hooked)?;
    }
    rustix::process::fchdir(root.directory()).during("enter the new root")?;
    launch.attendant.before_pivot().map_err(|text| Failure::plain(What::Around(text)))?;
    if read_only {
        masks::make_read_only(root.directory()).during("make the root read-only")?;
    }
    if launch.manner.no_pivot {
        move_root(&root)?
    } else {
        pivot()?
    }
    if let Some(word) = linux.rootfs_propagation() {
        set_root_propagation(word)?;
    }
    if let Some(name) = spec.hostname() {
        rustix::system::sethostname(name.as_bytes()).during("set the host name")?;
    }
    if let Some(name) = spec.domainname() {
        rustix::system::setdomainname(name.as_bytes()).during("set the domain name")?;
    }
    Ok(terminal)
}

/// The host's, or whatever the caller has at /proc.
pub(crate) fn open_procfs() -> Result<Handle, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, "/proc", flags, Mode::empty()).map(Handle::from).during("open /proc")
}

/// In a root that will be read-only the working directory is made now; a failure shows when it is entered.
fn make_working_directory(root: &Root, process: &Process) {
    let path = process.cwd();
    if path.is_absolute() && path != Path::new("/") && root.open(path, OFlags::PATH).is_err() {
        let _ = root.ensure_directory(path);
    }
}

/// `shared`, `rslave`, …, for the mount at `/`.
fn set_root_propagation(word: &str) -> Result<(), Failure> {
    let (bits, recursive) = propagation(word).ok_or_else(|| {
        Failure::configuration(format!(
            "rootfsPropagation `{word}` is not one of shared, slave, private, unbindable"
        ))
    })?;
    let attributes = MountAttributes { propagation: bits, ..MountAttributes::default() };
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during("open the new root")?;
    source::set_attributes(&root, recursive, &attributes).during("set the propagation of the root")
}

/// Attaches the root file system and its parts in this mount namespace.
pub(crate) fn mount_root(
    rootfs: &Rootfs,
    prepared: Option<&Prepared>,
    read_only: bool,
) -> Result<Root, Failure> {
    // The mount goes over a directory that exists for sure: this namespace never looks at what is below. The root of a new
    // user namespace may not be able to reach stanza's own directories, but it can reach /proc, needed no more.
    let place = match (prepared, rootfs) {
        // A directory that can be reached is as good, and leaves /proc in view.
        (_, Rootfs::Directory(path) | Rootfs::Copied { root: path, .. })
            if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() =>
        {
            path
        }
        (Some(_), _) => Path::new("/proc"),
        (None, Rootfs::Directory(path) | Rootfs::Copied { root: path, .. }) => path,
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
    if prepared.is_some() {
        // Cloned by the parent it may be a peer of the host's mounts, and pivot_root(2) takes no such root.
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(place, downstream).during("make the mounts private")?;
    }
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
        Rootfs::Directory(path) | Rootfs::Copied { root: path, .. } => {
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

/// Makes the working directory the root of this mount namespace and forgets the old one.
fn pivot() -> Result<(), Failure> {
    // Both on one place: the old root lies on top of the new one, and is taken off (pivot_root(2), "Notes").
    rustix::process::pivot_root(".", ".").during("change the root")?;
    // The host's mounts do not hear of it: what is here has been downstream of them from the start.
    unmount(".", UnmountFlags::DETACH).during("leave the host's root")?;
    rustix::process::chdir("/").during("enter the new root")
}

/// As [`pivot`], where the root of the namespace is a ramdisk, which cannot be changed: the new root is put over it.
fn move_root(root: &Root) -> Result<(), Failure> {
    let below = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during("open the root")?;
    source::attach(root.directory(), &below).during("move the new root")?;
    rustix::process::chroot(".").during("change the root")?;
    rustix::process::chdir("/").during("enter the new root")
}

/// Writes a file below a procfs that nobody else can have covered.
fn write_proc(procfs: impl AsFd, path: &str, value: &str) -> std::io::Result<()> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match openat2(&procfs, path, flags, Mode::empty(), resolve) {
        // Before Linux 5.6. What lies over the file is no procfs, or another file of one, which does no harm.
        Err(rustix::io::Errno::NOSYS) => {
            let file = openat(&procfs, path, flags | OFlags::NOFOLLOW, Mode::empty())?;
            match rustix::fs::fstatfs(&file)?.f_type {
                PROC_SUPER_MAGIC => file,
                _ => return Err(rustix::io::Errno::XDEV.into()),
            }
        }
        other => other?,
    };
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// `net.ipv4.conf.eth0/1.forwarding` and `net/ipv4/conf/eth0.1/forwarding` are the same: the first separator tells
/// (sysctl(8)).
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name.to_owned(),
        _ => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    }
}

fn set_sysctls(procfs: &Handle, linux: &Linux) -> Result<(), Failure> {
    for (name, value) in linux.sysctl().iter().flatten() {
        let path = format!("sys/{}", sysctl_path(name));
        write_proc(procfs, &path, value).during_on("set the sysctl", Path::new(name))?;
    }
    Ok(())
}

/// AppArmor's and SELinux's labels take effect at the next exec.
pub(crate) fn apply_labels(procfs: &Handle, process: &Process) -> Result<(), Failure> {
    if let Some(profile) = process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty()) {
        let value = format!("exec {profile}");
        write_proc(procfs, "thread-self/attr/apparmor/exec", &value)
            .or_else(|_| write_proc(procfs, "thread-self/attr/exec", &value))
            .during_on("apply the AppArmor profile", Path::new(profile))?;
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
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

/// Makes the terminal or the pipes the program's standard descriptors; the controller goes to the starter.
pub(crate) fn use_stdio(
    stdio: &Stdio,
    terminal: Option<terminal::Terminal>,
    line: &Line,
) -> Result<(), Failure> {
    match (stdio, terminal) {
        (Stdio::Descriptors([stdin, stdout, stderr]), _) => set_standard_descriptors([stdin, stdout, stderr]),
        (Stdio::Inherit, _) => Ok(()),
        (Stdio::Terminal { .. }, Some(terminal)) => {
            line.say_terminal(terminal.controller.as_fd()).during("hand over the terminal")?;
            rustix::process::ioctl_tiocsctty(&terminal.user).during("take the terminal")?;
            set_standard_descriptors([&terminal.user, &terminal.user, &terminal.user])
        }
        (Stdio::Terminal { .. }, None) => Err(Failure::configuration("the terminal was not opened")),
    }
}
