//! What of a container is outside of its image: bound directories, masked files, control groups, namespaces that it joins,
//! and standard descriptors that lead out. criu is told of each by a key at the dump, and what to put there at the restore;
//! keys and the file with the descriptors are runc's, so that images can be exchanged.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use stanza_cgroup::Cgroup;
use stanza_spec::oci::runtime::{LinuxNamespaceType, Mount, Spec};

use super::Message;
use super::options::{field, number_of};
use crate::failure::{Doing, Failure};

/// The file in the image with the names of the standard descriptors.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

/// What covers masked files, and their key.
const MASK: &str = "/dev/null";

/// A mount of a process's mount namespace (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    number: u64,
    /// What of the file system is its root.
    root: String,
    point: String,
    kind: String,
}

fn parse_mounts(table: &str) -> Vec<Seen> {
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let number = fields.next()?.parse().ok()?;
        let (root, point) = (fields.nth(2)?, fields.next()?);
        let kind = file_system.split(' ').next()?.to_owned();
        Some(Seen { number, root: unescaped(root), point: unescaped(point), kind })
    };
    table.lines().filter_map(parse).collect()
}

/// Blanks and backslashes are written as octal numbers.
fn unescaped(text: &str) -> String {
    let mut plain = text.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, character);
    }
    plain
}

fn binds(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.typ().as_deref() == Some("bind") || options.iter().any(|word| word == "bind" || word == "rbind")
}

fn is_cgroup(mount: &Mount) -> bool {
    !binds(mount) && matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"))
}

/// Where `destination` is in the root file system, links followed: so the kernel names the mount.
fn place_of(rootfs: &Path, destination: &Path) -> PathBuf {
    let resolved = || -> Option<PathBuf> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = openat(CWD, rootfs, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(&root, destination, flags, Mode::empty(), resolve).ok()?;
        let name = readlinkat(CWD, format!("/proc/self/fd/{}", number_of(&found)), Vec::new()).ok()?;
        let name = PathBuf::from(name.into_string().ok()?);
        Some(Path::new("/").join(name.strip_prefix(rootfs).ok()?))
    };
    resolved().unwrap_or_else(|| {
        let parts = destination.components().filter(|part| matches!(part, Component::Normal(_)));
        Path::new("/").join(parts.collect::<PathBuf>())
    })
}

/// Namespaces that the container joins: the kernel's name, the key, the path.
fn joined(spec: &Spec) -> impl Iterator<Item = (&'static str, &'static str, &Path)> {
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    listed.iter().filter_map(|namespace| {
        let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())?;
        match namespace.typ() {
            LinuxNamespaceType::Network => Some(("net", "extRootNetNS", path)),
            LinuxNamespaceType::Pid => Some(("pid", "extRootPidNS", path)),
            _ => None,
        }
    })
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| Failure::Configuration(format!("{} is not UTF-8", path.display())))
}

/// The devices that every container has. Where it cannot make them they are the host's, bound.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// The devices of a configuration and those that are always there.
fn devices(spec: &Spec) -> impl Iterator<Item = &str> {
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    listed.iter().filter_map(|device| device.path().to_str()).chain(DEVICES)
}

/// Marks the name of a null device among the descriptors.
const NULL: &str = "null:";

/// Tells criu what not to dump of the container with the first process `pid` and all `pids`; the names of the first process's
/// standard descriptors, and after them those of files of the host that some process has open under another number: a shell
/// puts its own standard descriptors there while it has others.
pub(crate) fn leave_out(
    options: &mut Message,
    spec: &Spec,
    rootfs: &Path,
    pid: i32,
    pids: &[u32],
) -> Result<Vec<String>, Failure> {
    let path = format!("/proc/{pid}/mountinfo");
    let seen = parse_mounts(&fs::read_to_string(&path).doing("read", &path)?);
    let mut leave = |point: &str| options.pair(field::EXTERNAL_MOUNT, point, point);
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for mount in mounts.iter().filter(|mount| binds(mount)) {
        leave(text(&place_of(rootfs, mount.destination()))?);
    }
    for mount in mounts.iter().filter(|mount| is_cgroup(mount)) {
        let top = place_of(rootfs, mount.destination());
        let below =
            |seen: &&Seen| seen.kind.starts_with("cgroup") && Path::new(&seen.point).starts_with(&top);
        seen.iter().filter(below).for_each(|seen| leave(&seen.point));
    }
    // A masked file is a bound one, a masked directory an empty file system of its own. runc calls all of the former by one key.
    let linux = spec.linux().as_ref();
    let masked = linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
    let keyed = masked.iter().map(|path| (path.as_str(), MASK)).chain(devices(spec).map(|path| (path, path)));
    for (path, key) in keyed {
        if seen.iter().any(|seen| seen.point == path && seen.root != "/") {
            options.pair(field::EXTERNAL_MOUNT, path, key);
        }
    }
    for (kind, key, path) in joined(spec) {
        let inode = fs::metadata(path).doing("look at the namespace", path)?.ino();
        options.text(field::EXTERNAL, &format!("{kind}[{inode}]:{key}"));
    }
    let own = |number: u32| descriptor_name(pid.unsigned_abs(), number, &seen);
    let mut names: Vec<String> = (0..3).map(|number| own(number).unwrap_or_default()).collect();
    for name in pids.iter().flat_map(|pid| of_the_host(*pid, &seen)) {
        if !names.iter().any(|known| known == name.trim_start_matches(NULL) || *known == name) {
            names.push(name);
        }
    }
    for name in
        names.iter().map(|name| name.trim_start_matches(NULL)).filter(|name| name.starts_with("file["))
    {
        options.text(field::EXTERNAL, name);
    }
    Ok(names)
}

/// The files and null devices of the host that the process `pid` has open.
fn of_the_host(pid: u32, seen: &[Seen]) -> Vec<String> {
    let null = rustix::fs::makedev(1, 3);
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let name = |number: u32| {
        let metadata = fs::metadata(format!("/proc/{pid}/fd/{number}")).ok()?;
        let is_null = metadata.file_type().is_char_device() && metadata.rdev() == null;
        let name = descriptor_name(pid, number, seen).filter(|name| name.starts_with("file["))?;
        match is_null {
            true => Some(format!("{NULL}{name}")),
            false => metadata.is_file().then_some(name),
        }
    };
    numbers.filter_map(name).collect()
}

/// How criu names a descriptor: a pipe by what its link says, a file or device of the host by mount and inode.
fn descriptor_name(pid: u32, number: u32, seen: &[Seen]) -> Option<String> {
    let path = format!("/proc/{pid}/fd/{number}");
    let name = fs::read_link(&path).ok()?.into_os_string().into_string().ok()?;
    let metadata = fs::metadata(&path).ok()?;
    if !(metadata.is_file() || metadata.file_type().is_char_device()) {
        return Some(name);
    }
    let table = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let mount: u64 = table.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    match seen.iter().any(|seen| seen.number == mount) {
        true => Some(name),
        false => Some(format!("file[{mount:x}:{:x}]", metadata.ino())),
    }
}

/// What a restored container gets from outside; open until criu has it.
#[derive(Debug, Default)]
pub(crate) struct Supplies(Vec<(String, OwnedFd)>);

impl Supplies {
    /// Opens the namespaces that the configuration names, and this process's standard descriptors by the names that the dump
    /// gave them.
    pub(crate) fn open(spec: &Spec, image: &Path) -> Result<Supplies, Failure> {
        let mut supplies = Vec::new();
        for (_, key, path) in joined(spec) {
            supplies
                .push((key.to_owned(), OwnedFd::from(File::open(path).doing("open the namespace", path)?)));
        }
        let path = image.join(DESCRIPTORS);
        // criu of itself writes no such file.
        let names: Vec<String> = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => serde_json::from_slice(&other.doing("read", &path)?)
                .map_err(|error| Failure::Configuration(format!("{}: {error}", path.display())))?,
        };
        let null = File::options().read(true).write(true).open("/dev/null").doing("open", "/dev/null")?;
        for (number, marked) in names.iter().enumerate() {
            let name = marked.trim_start_matches(NULL);
            let outside = name.starts_with("pipe:") || name.starts_with("file[");
            if !outside || supplies.iter().any(|(known, _)| known == name) {
                continue;
            }
            let given = match number {
                _ if name != marked => null.as_fd(),
                0 => rustix::stdio::stdin(),
                2 => rustix::stdio::stderr(),
                // What was a file of the dump's caller is one of this one's.
                _ => rustix::stdio::stdout(),
            };
            // criu has its own under the first three numbers.
            let copy = rustix::io::fcntl_dupfd_cloexec(given, 3).step("copy a descriptor")?;
            supplies.push((name.to_owned(), copy));
        }
        Ok(Supplies(supplies))
    }

    /// All of them, to be inherited.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|(_, descriptor)| descriptor.as_fd()).collect()
    }

    /// Tells criu what goes where; `cgroup` is the container's.
    pub(crate) fn tell(
        &self,
        options: &mut Message,
        spec: &Spec,
        rootfs: &Path,
        cgroup: &Cgroup,
    ) -> Result<(), Failure> {
        for (key, descriptor) in &self.0 {
            let mut inherited = Message::default();
            inherited.text(1, key);
            inherited.number(2, number_of(descriptor));
            options.message(field::INHERITED, &inherited);
        }
        let mut put = |point: &str, source: &str| options.pair(field::EXTERNAL_MOUNT, point, source);
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        for mount in mounts.iter().filter(|mount| binds(mount)) {
            let source = mount.source().as_deref().unwrap_or(Path::new(""));
            put(text(&place_of(rootfs, mount.destination()))?, text(source)?);
        }
        for mount in mounts.iter().filter(|mount| is_cgroup(mount)) {
            let top = place_of(rootfs, mount.destination());
            for (controllers, directory) in cgroup.directories() {
                let name = controllers.strip_prefix("name=").unwrap_or(&controllers);
                // Version 2 has no name, and is mounted at the top.
                let point = if name.is_empty() { top.clone() } else { top.join(name) };
                put(text(&point)?, text(&directory)?);
            }
        }
        let linux = spec.linux().as_ref();
        for path in linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default() {
            put(path, MASK);
        }
        put(MASK, MASK);
        for path in devices(spec) {
            put(path, path);
        }
        Ok(())
    }
}

/// Destinations of mounts in the root file system itself, which must be there before criu mounts on them, and whether each is
/// a directory. Those on another mount are in its own content.
pub(crate) fn mount_points(spec: &Spec) -> Vec<(&Path, bool)> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let destinations = mounts.iter().map(|mount| mount.destination().as_path());
    let covered = |path: &Path| {
        destinations.clone().any(|other| other != path && other != Path::new("/") && path.starts_with(other))
    };
    let is_directory = |mount: &Mount| {
        !binds(mount) || mount.source().as_deref().is_none_or(|source| source.is_dir() || !source.exists())
    };
    mounts
        .iter()
        .filter(|mount| !covered(mount.destination()))
        .map(|mount| (mount.destination().as_path(), is_directory(mount)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_mounts_is_read() {
        let table = "25 20 0:26 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu\n\
            26 20 0:5 /null /proc/k\\040core rw master:2 - devtmpfs udev rw\nbroken\n";
        let seen = parse_mounts(table);
        assert_eq!(seen.len(), 2);
        assert_eq!(
            (seen[0].number, seen[0].point.as_str(), seen[0].kind.as_str()),
            (25, "/sys/fs/cgroup/cpu", "cgroup")
        );
        assert_eq!((seen[1].root.as_str(), seen[1].point.as_str()), ("/null", "/proc/k core"));
    }

    #[test]
    fn only_what_no_other_mount_covers_is_made_in_the_root() {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.2.0",
            "mounts": [
                {"destination": "/dev", "type": "tmpfs"},
                {"destination": "/dev/pts", "type": "devpts"},
                {"destination": "/etc/hosts", "type": "bind", "source": "/proc/self/mounts"},
                {"destination": "/devel", "type": "bind", "source": "/"}
            ]
        }))
        .unwrap();
        let points = mount_points(&spec);
        let expected = [("/dev", true), ("/etc/hosts", false), ("/devel", true)];
        assert_eq!(points, expected.map(|(path, directory)| (Path::new(path), directory)));
    }

    #[test]
    fn links_in_the_root_are_followed_as_in_the_container() {
        let top = std::env::temp_dir().join(format!("stanza-criu-{}", std::process::id()));
        fs::create_dir_all(top.join("run/x")).unwrap();
        std::os::unix::fs::symlink("/run", top.join("link")).unwrap();
        assert_eq!(place_of(&top, Path::new("/link/x")), Path::new("/run/x"));
        assert_eq!(place_of(&top, Path::new("//none/./y/")), Path::new("/none/y"));
        fs::remove_dir_all(&top).unwrap();
    }
}
