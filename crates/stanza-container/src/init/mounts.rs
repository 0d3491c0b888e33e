//! The mounts of an OCI configuration, in order, each found and attached by descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    FileType, Mode, OFlags, StatVfsMountFlags, fstat, fstatfs, fstatvfs, mkdirat, openat, readlinkat,
    symlinkat,
};
use rustix::io::Errno;
use stanza_spec::RootfsPart;
use stanza_spec::oci::runtime::{Linux, Mount, Spec};
use stanza_sys::{Handle, MountAttributes};

use super::hierarchies::{self, Hierarchy, Kind};
use crate::copy_up::copy_directory;
use crate::error::{During, Failure, LaunchError};
use crate::id_maps::IdMaps;
use crate::mount_options::{MS_SLAVE, MountOptions, propagation};
use crate::root::Root;
use crate::{idmap, source};

/// A part of the root file system as a detached mount, and where it goes.
pub(super) fn make_part(part: &RootfsPart) -> Result<(PathBuf, OwnedFd), Failure> {
    let attributes = MountAttributes { set: MountAttributes::READ_ONLY, ..MountAttributes::default() };
    match part {
        RootfsPart::Overlay { destination, layers } => {
            Ok((destination.clone(), source::overlay(layers).mounting(destination)?))
        }
        RootfsPart::ReadOnlyBind { destination, source: path } => {
            // In a user namespace mounts below are locked to their parents and must come along.
            let mount = source::clone_tree(path, false)
                .or_else(|_| source::clone_tree(path, true))
                .mounting(destination)?;
            source::set_attributes(&mount, true, &attributes).mounting(destination)?;
            Ok((destination.clone(), mount))
        }
    }
}

fn options_of(mount: &Mount) -> MountOptions {
    MountOptions::parse(mount.options().as_deref().unwrap_or_default())
}

/// Whether the configuration brings a /dev of the host's, which is then left as it is.
pub(super) fn bind_device_directory(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        mount.destination().components().eq(Path::new("/dev").components())
            && options_of(mount).binds(mount.typ().as_deref()).is_some()
    })
}

/// The sources of all bind mounts, opened in the host's view before anything is mounted: one entry a mount.
pub(crate) fn open_binds(mounts: &[Mount], spec: &Spec) -> Result<Vec<Option<OwnedFd>>, Failure> {
    let open = |mount: &Mount| {
        let options = options_of(mount);
        match options.binds(mount.typ().as_deref()) {
            Some(recursive) if !options.remount => open_bind(mount, &options, recursive, spec).map(Some),
            _ => Ok(None),
        }
    };
    mounts.iter().map(open).collect()
}

fn open_bind(
    mount: &Mount,
    options: &MountOptions,
    recursive: bool,
    spec: &Spec,
) -> Result<OwnedFd, Failure> {
    let path = mount.source().as_deref().unwrap_or(Path::new(""));
    let tree = match options.source_link || options.copy_link {
        true => source::clone_link(path),
        false => source::clone_tree(path, recursive),
    };
    let tree = tree
        .or_else(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            // Mounts below are locked to their parents in a user namespace.
            Some(Errno::INVAL) if !recursive => source::clone_tree(path, true),
            _ => Err(error),
        })
        .during_on("open the mount source", path)?;
    let maps = IdMaps::new(mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
    if options.idmap.is_some() || !maps.is_empty() {
        let namespace = match maps.is_empty() {
            true => idmap::user_namespace(spec.linux().as_ref()),
            false => idmap::namespace_of(&maps),
        };
        let namespace = namespace.map_err(LaunchError::into_failure)?;
        idmap::translate(&tree, &namespace, options.idmap.unwrap_or(false))
            .during_on("translate the owners of the mount source", path)?;
    }
    Ok(tree)
}

/// What the mounts are made in.
pub(super) struct Context<'a> {
    pub(super) root: &'a Root,
    pub(super) hierarchies: &'a [Hierarchy],
    pub(super) binds: &'a [Option<OwnedFd>],
    pub(super) linux: &'a Linux,
    /// How a new file system is made.
    pub(super) make: &'a Make<'a>,
}

/// Makes a file system as [`source::new_mount`] does.
pub(crate) type Make<'a> = dyn Fn(&str, &str, &[(String, Option<String>)], u64) -> io::Result<Handle> + 'a;

/// Makes one mount in a container that runs; `tree` is the opened source of one that binds.
pub(crate) fn mount_one(
    root: &Root,
    mount: &Mount,
    tree: Option<OwnedFd>,
    linux: &Linux,
    make: &Make<'_>,
) -> Result<(), Failure> {
    let context = Context { root, hierarchies: &[], binds: &[tree], linux, make };
    context.mount_all(std::slice::from_ref(mount)).map(drop)
}

impl Context<'_> {
    /// Makes all mounts; returns a descriptor of the procfs at /proc when there is one.
    pub(super) fn mount_all(&self, mounts: &[Mount]) -> Result<Option<Handle>, Failure> {
        let mut procfs = None;
        for (index, mount) in mounts.iter().enumerate() {
            let destination = mount.destination();
            let options = options_of(mount);
            let kind = mount.typ().as_deref().unwrap_or("none");
            let tree = self.binds.get(index).and_then(Option::as_ref);
            if options.remount {
                self.remount(destination, &options).mounting(destination)?;
                continue;
            }
            check_procfs(destination, kind, tree)?;
            if let Some(tree) = tree {
                self.bind(tree, destination, &options).mounting(destination)?;
            } else if kind == "cgroup" {
                self.cgroup(destination, &options).mounting(destination)?;
            } else {
                let target = self.place_for(kind, destination)?;
                let made = self.file_system(kind, mount, &options, &target).mounting(destination)?;
                if kind == "proc" && destination == Path::new("/proc") {
                    procfs = Some(made);
                }
            }
        }
        Ok(procfs)
    }

    /// Changes the attributes of the mount that is there.
    fn remount(&self, destination: &Path, options: &MountOptions) -> io::Result<()> {
        let place = self.root.open(destination, OFlags::PATH)?;
        set_attributes(&place, &options.attributes)?;
        source::set_attributes(&place, true, &options.recursive)?;
        self.propagate(&place, options)
    }

    fn propagate(&self, mount: &Handle, options: &MountOptions) -> io::Result<()> {
        let Some((bits, recursive)) = options.propagation else { return Ok(()) };
        let attributes = MountAttributes { propagation: bits, ..MountAttributes::default() };
        source::set_attributes(mount, recursive, &attributes)
    }

    fn bind(&self, tree: &OwnedFd, destination: &Path, options: &MountOptions) -> io::Result<()> {
        let kind = FileType::from_raw_mode(fstat(tree)?.st_mode);
        if options.copy_link && kind.is_symlink() {
            return self.copy_link(tree, destination);
        }
        let target = match (options.destination_link, kind.is_dir()) {
            (true, _) => match self.root.open(destination, OFlags::PATH | OFlags::NOFOLLOW) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => match kind.is_dir() {
                    true => self.root.ensure_directory(destination)?,
                    false => self.root.ensure_file(destination)?,
                },
                found => found?,
            },
            (false, true) => self.root.ensure_directory(destination)?,
            (false, false) => self.root.ensure_file(destination)?,
        };
        // Before its attributes are set: kernels without mount_setattr change attached mounts only. Nobody else is here.
        source::attach(tree, target)?;
        set_attributes(tree, &options.attributes)?;
        source::set_attributes(tree, true, &options.recursive)?;
        // What nobody decided hears of the host's mounts, and tells the host nothing, as all of the container's root.
        let root = self.linux.rootfs_propagation().as_deref().and_then(propagation);
        let (bits, recursive) = options.propagation.or(root).unwrap_or((MS_SLAVE, true));
        let attributes = MountAttributes { propagation: bits, ..MountAttributes::default() };
        source::set_attributes(tree, recursive, &attributes)
    }

    /// Makes the same link at the destination; one that is there must be the same.
    fn copy_link(&self, link: &OwnedFd, destination: &Path) -> io::Result<()> {
        let target = readlinkat(link, "", Vec::new())?;
        let (parent, name) = self.root.ensure_parent(destination)?;
        match symlinkat(target.as_c_str(), &parent, name) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if readlinkat(&parent, name, Vec::new()).is_ok_and(|there| there == target) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where a new file system goes.
    fn place_for(&self, kind: &str, destination: &Path) -> Result<Handle, Failure> {
        if !matches!(kind, "proc" | "sysfs") {
            return self.root.ensure_directory(destination).mounting(destination);
        }
        // procfs and sysfs over a link would put them, and what is masked in them, elsewhere (CVE-2019-19921).
        let open = || self.root.open(destination, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW);
        let found = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.root.ensure_directory(destination).and_then(|_| open())
            }
            other => other,
        };
        match found {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => Err(
                Failure::configuration(format!("filesystem {kind:?} must be mounted on ordinary directory")),
            ),
            other => other.mounting(destination),
        }
    }

    fn file_system(
        &self,
        kind: &str,
        mount: &Mount,
        options: &MountOptions,
        target: &Handle,
    ) -> io::Result<Handle> {
        let name = mount.source().as_deref().and_then(Path::to_str).unwrap_or(kind);
        let mut data = options.data.clone();
        if kind == "tmpfs" && !data.iter().any(|(key, _)| key == "mode") {
            // It looks like the directory that it covers.
            data.push(("mode".to_owned(), Some(format!("{:o}", fstat(target)?.st_mode & 0o7777))));
        }
        if let Some(label) = self.linux.mount_label().as_deref().filter(|_| labels_apply(kind)) {
            data.push(("context".to_owned(), Some(label.to_owned())));
        }
        let late = if options.copy_up { options.attributes.set } else { 0 };
        let made = (self.make)(kind, name, &data, options.attributes.set & !late)?;
        if options.copy_up {
            let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let from = openat(target, ".", directory, Mode::empty())?;
            copy_directory(&from, &openat(&made, ".", directory, Mode::empty())?)?;
        }
        source::attach(&made, target)?;
        let attributes = MountAttributes { set: late, ..MountAttributes::default() };
        source::set_attributes(&made, false, &attributes)?;
        source::set_attributes(&made, true, &options.recursive)?;
        self.propagate(&made, options)?;
        Ok(made)
    }

    /// The control groups as a container may see them: its own only.
    fn cgroup(&self, destination: &Path, options: &MountOptions) -> io::Result<()> {
        let target = self.root.ensure_directory(destination)?;
        let set = MountAttributes { set: options.attributes.set, ..MountAttributes::default() };
        if let [Hierarchy { kind: Kind::V2, part }] = self.hierarchies {
            return match part {
                None => source::attach(source::new_mount("cgroup2", "cgroup", &[], set.set)?, target),
                Some(part) => {
                    source::attach(part, target)?;
                    source::set_attributes(part, false, &set)
                }
            };
        }
        let data = [("mode".to_owned(), Some("755".to_owned()))];
        let top = source::new_mount("tmpfs", "tmpfs", &data, 0)?;
        source::attach(&top, &target)?;
        let mut made = Vec::new();
        for hierarchy in self.hierarchies {
            let Kind::V1(controllers) = &hierarchy.kind else { continue };
            let name = controllers.strip_prefix("name=").unwrap_or(controllers);
            mkdirat(&top, name, Mode::from_raw_mode(0o755))?;
            match &hierarchy.part {
                Some(part) => source::attach_below(part, &top, name)?,
                None => {
                    let data = hierarchies::mount_options(controllers);
                    let mount = source::new_mount("cgroup", "cgroup", &data, 0)?;
                    source::attach_below(&mount, &top, name)?;
                    made.push(mount);
                }
            }
            for alias in name.split(',').filter(|alias| *alias != name) {
                symlinkat(name, &top, alias)?;
            }
        }
        // All of them at once, where the kernel can.
        match source::set_attributes(&top, true, &set) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSYS) => {
                let parts = self.hierarchies.iter().filter_map(|hierarchy| hierarchy.part.as_ref());
                parts
                    .chain(&made)
                    .chain([&top])
                    .try_for_each(|mount| source::set_attributes(mount, false, &set))
            }
            other => other,
        }
    }
}

/// Sets and clears what was asked for. In a user namespace a bit that the source has locked cannot be cleared; that matters
/// only when it is set.
fn set_attributes(mount: impl AsFd, attributes: &MountAttributes) -> io::Result<()> {
    let mount = mount.as_fd();
    match source::set_attributes(mount, false, attributes) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && attributes.clear != 0 => {
            let clear = attributes.clear & MountAttributes::ATIME_MASK;
            let clear = if attributes.set & MountAttributes::ATIME_MASK == 0 { 0 } else { clear };
            source::set_attributes(mount, false, &MountAttributes { clear, ..*attributes })?;
            if locked(mount, attributes.clear)? { Err(error) } else { Ok(()) }
        }
        other => other,
    }
}

/// Whether one of `bits` is on.
fn locked(mount: BorrowedFd<'_>, bits: u64) -> io::Result<bool> {
    let flags = fstatvfs(mount)?.f_flag;
    let pairs = [
        (MountAttributes::READ_ONLY, StatVfsMountFlags::RDONLY),
        (MountAttributes::NOSUID, StatVfsMountFlags::NOSUID),
        (MountAttributes::NODEV, StatVfsMountFlags::NODEV),
        (MountAttributes::NOEXEC, StatVfsMountFlags::NOEXEC),
    ];
    Ok(pairs.iter().any(|(attribute, flag)| bits & attribute != 0 && flags.contains(*flag)))
}

/// Files of /proc that lxcfs and others cover with something true of the container.
const COVERED: [&str; 12] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
    "pressure",
];

/// Nothing but a procfs may be at /proc, and nothing below it that a runtime relies on (CVE-2019-16884).
fn check_procfs(destination: &Path, kind: &str, tree: Option<&OwnedFd>) -> Result<(), Failure> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let clean = cleaned(destination);
    let Ok(below) = clean.strip_prefix("proc") else { return Ok(()) };
    let name = destination.display();
    if below.as_os_str().is_empty() {
        let is_procfs = match tree {
            Some(tree) => fstatfs(tree).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC),
            None => kind == "proc",
        };
        if is_procfs {
            return Ok(());
        }
        return Err(Failure::configuration(format!(
            "\"{name}\" cannot be mounted because it is not of type proc"
        )));
    }
    if COVERED.iter().any(|file| Path::new(file) == below) {
        return Ok(());
    }
    Err(Failure::configuration(format!("\"{name}\" cannot be mounted because it is inside /proc")))
}

/// Without the leading slash, `.` and `..`.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// SELinux's label of a mount; kinds that have no files of their own take none.
fn labels_apply(kind: &str) -> bool {
    !matches!(kind, "proc" | "sysfs" | "mqueue") && Path::new("/sys/fs/selinux/enforce").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_procfs_goes_over_proc_and_only_known_files_below() {
        let check = |path: &str, kind: &str| check_procfs(Path::new(path), kind, None).is_ok();
        assert!(check("/proc", "proc") && check("/proc/../proc/", "proc") && check("/procs", "tmpfs"));
        assert!(!check("/proc", "tmpfs") && !check("/x/../proc", "tmpfs"));
        assert!(check("/proc/uptime", "bind") && check("proc/sys/kernel/ns_last_pid", "bind"));
        assert!(!check("/proc/self/attr", "tmpfs") && !check("/proc/sys", "bind"));
    }
}
