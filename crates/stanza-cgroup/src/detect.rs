//! Which control groups this machine has: a handful of `statfs` calls, no parsing of mounts in the common case.

use std::io;
use std::path::{Path, PathBuf};

use stanza_spec::{Classify, ErrorKind};

use crate::file;

/// `linux/magic.h`: `CGROUP_SUPER_MAGIC`, `CGROUP2_SUPER_MAGIC`.
const VERSION_1: u64 = 0x0027_e0eb;
const VERSION_2: u64 = 0x6367_7270;

const ROOT: &str = "/sys/fs/cgroup";

/// The control groups of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Version 1, and the hybrid in which a version 2 tree without useful controllers is mounted beside.
    V1(Vec<Hierarchy>),
    /// Version 2 alone.
    V2 {
        /// Where it is mounted.
        root: PathBuf,
        /// The controllers that it has at its root, sorted.
        controllers: Vec<String>,
    },
    /// None is mounted: containers run without limits, and none can be asked for.
    Absent,
}

/// One mounted version 1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Its controllers (`cpu`, `cpuacct`), or `name=systemd`. Never empty.
    pub controllers: Vec<String>,
}

/// Why the control groups could not be found.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// A file of `/proc` or `/sys` cannot be read.
    #[error("read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Classify for DetectError {
    fn kind(&self) -> ErrorKind {
        let DetectError::Read { source, .. } = self;
        ErrorKind::of_io(source)
    }
}

/// Finds the control groups of this machine.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn detect() -> Result<Layout, DetectError> {
    let root = Path::new(ROOT);
    if magic(root) == Some(VERSION_2) {
        return v2(root.to_owned());
    }
    let own = read(Path::new("/proc/self/cgroup"))?;
    match hierarchies(&own, root, &|path| magic(path) == Some(VERSION_1)) {
        Some(hierarchies) if !hierarchies.is_empty() => Ok(Layout::V1(hierarchies)),
        _ => from_mounts(),
    }
}

fn read(path: &Path) -> Result<String, DetectError> {
    let failed = |source| DetectError::Read { path: path.to_owned(), source };
    file::read(path).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn magic(path: &Path) -> Option<u64> {
    u64::try_from(rustix::fs::statfs(path).ok()?.f_type).ok()
}

fn v2(root: PathBuf) -> Result<Layout, DetectError> {
    let mut controllers: Vec<String> =
        read(&root.join("cgroup.controllers"))?.split_whitespace().map(str::to_owned).collect();
    controllers.sort_unstable();
    Ok(Layout::V2 { root, controllers })
}

/// The hierarchies that `/proc/self/cgroup` names, at the places where everybody mounts them: a directory named for
/// all controllers joined by commas, or a link named for one. `None` when one of them is elsewhere.
fn hierarchies(own: &str, root: &Path, is_mounted: &dyn Fn(&Path) -> bool) -> Option<Vec<Hierarchy>> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, names) = (fields.next()?, fields.next()?);
        if names.is_empty() {
            continue;
        }
        let controllers: Vec<String> = names.split(',').map(str::to_owned).collect();
        let joined = names.strip_prefix("name=").unwrap_or(names);
        let candidates = std::iter::once(joined).chain(controllers.iter().map(String::as_str));
        let place = candidates.map(|name| root.join(name)).find(|place| is_mounted(place));
        match place {
            Some(place) => found.push(Hierarchy { root: place, controllers }),
            // A named hierarchy that is not mounted limits nothing, so it is not missed.
            None if names.starts_with("name=") => {}
            None => return None,
        }
    }
    Some(found)
}

/// The unusual case: control groups mounted elsewhere, or only some of them.
fn from_mounts() -> Result<Layout, DetectError> {
    let path = Path::new("/proc/self/mountinfo");
    let failed = |source| DetectError::Read { path: path.to_owned(), source };
    let (hierarchies, unified) = mounts(&file::read_records(path).map_err(failed)?.unwrap_or_default());
    match (hierarchies, unified) {
        (found, _) if !found.is_empty() => Ok(Layout::V1(found)),
        (_, Some(root)) => v2(root),
        _ => Ok(Layout::Absent),
    }
}

/// All version 1 hierarchies and the first version 2 mount in a `mountinfo` (`man 5 proc`).
fn mounts(mountinfo: &str) -> (Vec<Hierarchy>, Option<PathBuf>) {
    const FLAGS: [&str; 8] =
        ["rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "favordynmods", "none"];
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    let mut unified = None;
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let Some(place) = mount.split(' ').nth(4) else { continue };
        let place = PathBuf::from(place.replace("\\040", " "));
        let mut kind = kind.split(' ');
        match (kind.next(), kind.nth(1)) {
            (Some("cgroup2"), _) => unified = unified.or(Some(place)),
            (Some("cgroup"), Some(options)) => {
                let controllers: Vec<String> = options
                    .split(',')
                    .filter(|option| !FLAGS.contains(option) && !option.starts_with("release_agent="))
                    .map(str::to_owned)
                    .collect();
                let known = hierarchies.iter().any(|other| other.controllers == controllers);
                if !known && !controllers.is_empty() {
                    hierarchies.push(Hierarchy { root: place, controllers });
                }
            }
            _ => {}
        }
    }
    (hierarchies, unified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(root: &str, controllers: &[&str]) -> Hierarchy {
        Hierarchy {
            root: root.into(),
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn joined_controllers_are_found_by_directory_or_link() {
        let own = "4:cpu,cpuacct:/\n3:net_cls,net_prio:/x\n2:memory:/a:b\n1:name=systemd:/\n0::/\n";
        let there = ["/c/cpuacct", "/c/net_cls,net_prio", "/c/memory", "/c/systemd"];
        let found = hierarchies(own, Path::new("/c"), &|path| there.contains(&path.to_str().unwrap()));
        let expected = vec![
            hierarchy("/c/cpuacct", &["cpu", "cpuacct"]),
            hierarchy("/c/net_cls,net_prio", &["net_cls", "net_prio"]),
            hierarchy("/c/memory", &["memory"]),
            hierarchy("/c/systemd", &["name=systemd"]),
        ];
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn a_controller_mounted_elsewhere_asks_for_the_mount_table() {
        assert_eq!(hierarchies("2:memory:/\n", Path::new("/c"), &|_| false), None);
        assert_eq!(hierarchies("1:name=elogind:/\n0::/\n", Path::new("/c"), &|_| false), Some(vec![]));
    }

    #[test]
    fn the_mount_table_gives_hierarchies_once() {
        let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /mnt/my\\040cpu rw shared:1 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /cg/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw,nsdelegate
";
        let expected =
            vec![hierarchy("/mnt/my cpu", &["cpu", "cpuacct"]), hierarchy("/cg/systemd", &["name=systemd"])];
        assert_eq!(mounts(text), (expected, Some("/cg/unified".into())));
    }
}
