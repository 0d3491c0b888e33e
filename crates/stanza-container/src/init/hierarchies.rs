//! The control group hierarchies of this process, as a container's `/sys/fs/cgroup` shows them.
//!
//! In a cgroup namespace a hierarchy can be mounted anew, and shows what is below the container's cgroup. Without, that
//! part of the host's mount is bound: a new mount would show the whole host (CVE-2023-25809).

use std::path::{Path, PathBuf};

use stanza_spec::oci::runtime::{LinuxNamespaceType, Mount};
use stanza_sys::{Handle, read_proc};

use crate::error::{During, Failure};
use crate::namespaces::Namespaces;
use crate::source;

/// A hierarchy to show.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub(super) kind: Kind,
    /// The container's part of the host's mount; `None` to mount it anew.
    pub(super) part: Option<Handle>,
}

/// Which hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Version 1, by its controllers (`cpu,cpuacct`) or its name (`name=systemd`).
    V1(String),
    /// Version 2.
    V2,
}

/// The hierarchies in which this process has a cgroup, when `mounts` want any shown; those in whose root cgroup it stands are
/// the host's business, unless there is nothing else.
///
/// Called before a new cgroup namespace is made, in which all cgroups look like roots; in one that was joined they do.
pub(super) fn find(mounts: &[Mount], namespaces: &Namespaces) -> Result<Vec<Hierarchy>, Failure> {
    if !mounts.iter().any(|mount| mount.typ().as_deref() == Some("cgroup")) {
        return Ok(Vec::new());
    }
    let text = read_proc("/proc/self/cgroup").during("read /proc/self/cgroup")?;
    let mut kinds = parse(&text, namespaces.joins(LinuxNamespaceType::Cgroup));
    if is_version_2(Path::new("/sys/fs/cgroup")) {
        // Whatever else the kernel has, it is not mounted.
        kinds =
            text.lines().filter_map(|line| Some((Kind::V2, line.strip_prefix("0::")?.to_owned()))).collect();
    }
    if namespaces.has_own(LinuxNamespaceType::Cgroup) {
        return Ok(kinds.into_iter().map(|(kind, _)| Hierarchy { kind, part: None }).collect());
    }
    let table = read_proc("/proc/self/mountinfo").during("read /proc/self/mountinfo")?;
    let mut found = Vec::new();
    for (kind, path) in kinds {
        // One that is mounted nowhere here cannot be shown.
        if let Some(place) = place_of(&table, &kind, Path::new(&path)) {
            let part = source::clone_tree(&place, true).during_on("open the cgroup", &place)?;
            found.push(Hierarchy { kind, part: Some(part.into()) });
        }
    }
    Ok(found)
}

fn is_version_2(path: &Path) -> bool {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC)
}

/// Each with the path of this process's cgroup in it; those at their root only `with_roots`.
fn parse(text: &str, with_roots: bool) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    let mut unified = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            unified = Some((Kind::V2, path.to_owned()));
        } else if with_roots || path != "/" {
            found.push((Kind::V1(controllers.to_owned()), path.to_owned()));
        }
    }
    if found.is_empty() { unified.into_iter().collect() } else { found }
}

/// The directory of cgroup `path`, by the table of mounts (proc_pid_mountinfo(5)).
fn place_of(table: &str, kind: &Kind, path: &Path) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = file_system.split(' ');
        let (name, options) = (fields.next()?, fields.nth(1)?);
        let fits = match kind {
            Kind::V2 => name == "cgroup2",
            Kind::V1(controllers) => {
                name == "cgroup"
                    && controllers.split(',').all(|wanted| options.split(',').any(|has| has == wanted))
            }
        };
        let below = path.strip_prefix(root).ok().filter(|_| fits)?;
        Some(Path::new(point).join(below))
    })
}

/// What a version 1 hierarchy is mounted with.
pub(super) fn mount_options(controllers: &str) -> Vec<(String, Option<String>)> {
    match controllers.strip_prefix("name=") {
        Some(name) => vec![("none".to_owned(), None), ("name".to_owned(), Some(name.to_owned()))],
        None => controllers.split(',').map(|controller| (controller.to_owned(), None)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hierarchies_with_a_cgroup_of_ones_own_count() {
        let text = "9:name=systemd:/\n8:pids:/stanza/x\n2:cpu,cpuacct:/stanza/x\n0::/\n";
        let own = || "/stanza/x".to_owned();
        assert_eq!(
            parse(text, false),
            [(Kind::V1("pids".into()), own()), (Kind::V1("cpu,cpuacct".into()), own())]
        );
        assert_eq!(parse("0::/user.slice\n", false), [(Kind::V2, "/user.slice".to_owned())]);
        assert_eq!(parse(text, true).len(), 3);
        assert_eq!(mount_options("cpu,cpuacct"), [("cpu".into(), None), ("cpuacct".into(), None)]);
    }

    #[test]
    fn a_cgroup_is_found_below_its_mount() {
        let table = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     31 25 0:27 /docker /sys/fs/cgroup/pids rw shared:1 - cgroup cgroup rw,pids\n";
        let cpu = Kind::V1("cpu,cpuacct".into());
        assert_eq!(
            place_of(table, &cpu, Path::new("/a/b")),
            Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/b"))
        );
        let pids = Kind::V1("pids".into());
        assert_eq!(
            place_of(table, &pids, Path::new("/docker/x")),
            Some(PathBuf::from("/sys/fs/cgroup/pids/x"))
        );
        assert_eq!(place_of(table, &pids, Path::new("/other")), None);
    }
}
