//! The walls round the machine itself: the program that runs the guest is contained as any container is, and has less.
//!
//! It sees the host's `/usr` and its own files, all read-only but for the disk that the container writes; it has namespaces, a
//! user and a group of its own, no capability, no way to get one, and the control groups of its container. What it needs besides
//! are descriptors, which it is started with.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use stanza_spec::oci::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxDevice, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, PosixRlimitBuilder, PosixRlimitType, Process,
    RootBuilder, Spec, User,
};
use stanza_vmm::{Accelerator, Command};

/// Where the machine's files are, as its program sees them.
const HOME: &str = "/machine";
/// Where programs and their libraries are, on a host of any kind.
const SYSTEM: [&str; 6] = ["/usr", "/lib", "/lib64", "/bin", "/nix/store", "/gnu/store"];

/// How many files a server may have open, one for each that the guest knows; fewer where the monitor may have fewer.
const SERVER_FILES: u64 = 1 << 20;

/// A file that the program opens.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    source: PathBuf,
    inside: PathBuf,
    writable: bool,
}

impl Seen {
    /// A file that is only read.
    pub(super) fn read(source: &Path, name: &str) -> Seen {
        Seen { source: source.to_owned(), inside: Path::new(HOME).join(name), writable: false }
    }

    /// A file that is written too.
    pub(super) fn written(source: &Path, name: &str) -> Seen {
        Seen { writable: true, ..Seen::read(source, name) }
    }

    /// Its path, as the program has it.
    pub(super) fn path(&self) -> PathBuf {
        self.inside.clone()
    }
}

/// Makes the directory that is the program's root, with the links that the host's has.
pub(super) fn make_root(root: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).recursive(true).create(root)?;
    for name in SYSTEM {
        let Ok(target) = fs::read_link(name) else { continue };
        match std::os::unix::fs::symlink(target, root.join(name.trim_start_matches('/'))) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// How the program is contained.
pub(super) fn spec(command: &Command, files: &[Seen], user: u32, accelerator: Accelerator) -> Spec {
    let devices = (accelerator == Accelerator::Kvm).then(|| vec![kvm(user)]);
    contained(command, user, capabilities(&[]), mounts(files), devices)
}

/// How the program that serves a directory is contained: it is root, for files belong to many, with the capabilities for that,
/// and those by which it gives the others up (`CAP_SYS_CHROOT`, `CAP_SETPCAP`).
pub(super) fn server_spec(command: &Command, source: &Path, inside: &Path, read_only: bool) -> Spec {
    let names = [
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Setgid,
        Capability::Setuid,
        Capability::Mknod,
        Capability::Setfcap,
        Capability::SysChroot,
        Capability::Setpcap,
    ];
    let mut mounts = mounts(&[]);
    let access: &[&str] = if read_only { &["ro", "rro"] } else { &["rw"] };
    mounts.push(mount(inside, "bind", source, &[&["rbind", "nodev", "nosuid", "rprivate"], access].concat()));
    // Of its own processes alone.
    mounts.push(mount(Path::new("/proc"), "proc", Path::new("proc"), &["ro", "nosuid", "noexec", "nodev"]));
    let mut spec = contained(command, 0, capabilities(&names), mounts, None);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let files = files.map_or(SERVER_FILES, |most| most.min(SERVER_FILES));
    let limit =
        PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(files).hard(files).build();
    if let Some(process) = spec.process_mut() {
        process.set_rlimits(limit.ok().map(|limit| vec![limit]));
    }
    spec
}

fn contained(
    command: &Command,
    user: u32,
    capabilities: LinuxCapabilities,
    mounts: Vec<Mount>,
    devices: Option<Vec<LinuxDevice>>,
) -> Spec {
    let mut identity = User::default();
    identity.set_uid(user).set_gid(user);
    let words = std::iter::once(command.program.as_os_str())
        .chain(command.arguments.iter().map(std::ffi::OsString::as_os_str))
        // Made of this program's own words and paths, which are UTF-8.
        .map(|word| word.to_string_lossy().into_owned());
    let mut process = Process::default();
    process
        .set_terminal(Some(false))
        .set_user(identity)
        .set_args(Some(words.collect()))
        .set_env(Some(vec!["PATH=/usr/bin:/bin".to_owned(), "HOME=/".to_owned()]))
        .set_cwd(PathBuf::from("/"))
        .set_capabilities(Some(capabilities))
        .set_rlimits(None)
        .set_no_new_privileges(Some(true));
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces()))
        .set_resources(None)
        .set_masked_paths(None)
        .set_readonly_paths(None)
        .set_devices(devices);
    let root = RootBuilder::default().path("rootfs").readonly(true).build().unwrap_or_default();
    let mut spec = Spec::default();
    spec.set_root(Some(root))
        .set_process(Some(process))
        .set_mounts(Some(mounts))
        .set_linux(Some(linux))
        .set_hostname(Some("machine".to_owned()))
        .set_hooks(None)
        .set_annotations(None);
    spec
}

fn capabilities(names: &[Capability]) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    let these = Some(names.iter().copied().collect());
    let none = Some(std::collections::HashSet::new());
    sets.set_bounding(these.clone())
        .set_effective(these.clone())
        .set_inheritable(none.clone())
        .set_permitted(these)
        .set_ambient(none);
    sets
}

fn namespaces() -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as T;
    [T::Mount, T::Cgroup, T::Pid, T::Ipc, T::Uts, T::Network]
        .into_iter()
        .filter_map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().ok())
        .collect()
}

fn kvm(user: u32) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(PathBuf::from("/dev/kvm"))
        .set_typ(LinuxDeviceType::C)
        .set_major(10)
        .set_minor(232)
        .set_file_mode(Some(0o600))
        .set_uid(Some(user))
        .set_gid(Some(user));
    device
}

fn mount(destination: &Path, kind: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.to_owned())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

fn mounts(files: &[Seen]) -> Vec<Mount> {
    let system = SYSTEM
        .iter()
        .map(Path::new)
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()));
    let mut mounts: Vec<Mount> = system
        .map(|path| mount(path, "bind", path, &["bind", "ro", "nosuid", "nodev", "rprivate"]))
        .collect();
    mounts.push(mount(
        Path::new("/dev"),
        "tmpfs",
        Path::new("tmpfs"),
        &["nosuid", "noexec", "mode=755", "size=64k"],
    ));
    mounts.extend(files.iter().map(|file| {
        let access = if file.writable { "rw" } else { "ro" };
        mount(&file.inside, "bind", &file.source, &["bind", access, "nosuid", "nodev", "noexec", "rprivate"])
    }));
    mounts
}
