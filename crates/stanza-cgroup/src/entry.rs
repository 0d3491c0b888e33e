//! How a process gets into a container's cgroups: the container's first one, and later ones by `exec`.
//!
//! On version 1 a child with one thread writes `0` to each `tasks` file, before it has namespaces of its own; on version 2 it is
//! cloned into the directory, or writes `0` to the directory's `cgroup.procs`.

use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind};

use crate::cgroup::{Cgroup, ControlError, failed};
use crate::file;
use crate::plan::{Group, Version};

/// Why there is no such cgroup to enter. The texts are runc's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubError {
    /// A comma with no controller before or after it.
    #[error("invalid --cgroup argument: {0} (empty <controller> prefix)")]
    EmptyController(String),
    /// The same controller twice.
    #[error("invalid --cgroup argument(s): controller {0} specified multiple times")]
    Repeated(String),
    /// Several paths, and one of them for all controllers.
    #[error("invalid --cgroup argument: {0} (missing <controller>: prefix)")]
    NoController(String),
    /// The container has no cgroup in such a hierarchy.
    #[error("unknown controller {0} in SubCgroupPaths")]
    UnknownController(String),
    /// Not below the container's cgroup.
    #[error("{0} is not a sub cgroup path")]
    NotBelow(String),
    /// The container has no such cgroup.
    #[error("error adding pid 0 to cgroups: failed to write 0: open {}: no such file or directory", .0.display())]
    Missing(PathBuf),
}

impl Classify for SubError {
    fn kind(&self) -> ErrorKind {
        match self {
            SubError::Missing(_) | SubError::UnknownController(_) => ErrorKind::NotFound,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

impl Cgroup {
    /// Version 1: the paths of the `tasks` files. A child with one thread opens each and writes `0`, which moves it without
    /// the lock that a write of a pid to `cgroup.procs` waits milliseconds for. Empty on version 2.
    #[must_use]
    pub fn tasks_paths(&self) -> Vec<PathBuf> {
        match self.version {
            Version::V1 => self.groups.iter().map(|group| group.directory().join("tasks")).collect(),
            Version::V2 | Version::None => Vec::new(),
        }
    }

    /// The directories of the cgroups by their controllers (`cpu,cpuacct`, `name=systemd`; empty on version 2), as runc's
    /// `cgroup_paths` has them.
    pub fn directories(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.groups.iter().map(|group| match self.version {
            Version::V1 => (group.controllers.join(","), group.directory()),
            Version::V2 | Version::None => (String::new(), group.directory()),
        })
    }

    /// Version 2: the cgroup below this one that a process of the container is in now. A container that has handed controllers
    /// down, as one with systemd inside, takes no process into its own cgroup any more (`EBUSY`), and `exec` goes to where its
    /// first process is. `None` when that is not below, and on version 1, which has no such rule.
    ///
    /// # Errors
    /// When `/proc/<pid>/cgroup` cannot be read.
    pub fn beside(&self, pid: u32) -> Result<Option<Cgroup>, ControlError> {
        let (Version::V2, [group]) = (self.version, self.groups.as_slice()) else { return Ok(None) };
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = file::read(&path).map_err(|source| failed("read", &path, source))?.unwrap_or_default();
        let place = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let below = Path::new(place).starts_with(&group.path) && Path::new(place).components().all(plain);
        let at = |place: &str| Group { path: place.into(), ..group.clone() };
        Ok(below.then(|| Cgroup { version: self.version, groups: vec![at(place)] }))
    }

    /// The cgroups below these that `exec --cgroup` names: one path for all, or `<controller>[,<controller>]:<path>` each, with
    /// hierarchies that are not named as they are. `/` is the container's own. They must be there.
    ///
    /// # Errors
    /// [`SubError`].
    pub fn sub(&self, arguments: &[impl AsRef<str>]) -> Result<Cgroup, SubError> {
        let mut cgroup = self.clone();
        let mut named: Vec<&str> = Vec::new();
        for argument in arguments.iter().map(AsRef::as_ref) {
            let Some((controllers, path)) = argument.split_once(':') else {
                if arguments.len() != 1 {
                    return Err(SubError::NoController(argument.to_owned()));
                }
                for group in &mut cgroup.groups {
                    descend(group, argument)?;
                }
                continue;
            };
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return Err(SubError::EmptyController(argument.to_owned()));
                }
                if named.contains(&controller) {
                    return Err(SubError::Repeated(controller.to_owned()));
                }
                named.push(controller);
                let unknown = || SubError::UnknownController(controller.to_owned());
                let at = match self.version {
                    Version::V1 => self
                        .groups
                        .iter()
                        .position(|group| group.has(controller) || group.has(&format!("name={controller}"))),
                    Version::V2 | Version::None => None,
                };
                let at = at.ok_or_else(unknown)?;
                // Controllers that share a hierarchy have one place in it; the last one named counts.
                cgroup.groups[at] = self.groups[at].clone();
                descend(&mut cgroup.groups[at], path)?;
            }
        }
        let below = cgroup.groups.iter().zip(&self.groups).filter(|(sub, own)| sub.path != own.path);
        for (group, _) in below {
            let processes = group.directory().join("cgroup.procs");
            if rustix::fs::access(&processes, rustix::fs::Access::EXISTS) == Err(Errno::NOENT) {
                return Err(SubError::Missing(processes));
            }
        }
        Ok(cgroup)
    }
}

fn descend(group: &mut Group, path: &str) -> Result<(), SubError> {
    let plain =
        |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir | Component::CurDir);
    if path.contains('\0') || !Path::new(path).components().all(plain) {
        return Err(SubError::NotBelow(path.to_owned()));
    }
    group.path.extend(Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(version: Version, roots: &[&Path]) -> Cgroup {
        let group = |root: &&Path| Group {
            root: root.to_path_buf(),
            path: "x".into(),
            controllers: vec![root.file_name().unwrap().to_str().unwrap().to_owned()],
            inherit: vec![],
            enable: vec![],
            writes: vec![],
        };
        Cgroup { version, groups: roots.iter().map(group).collect() }
    }

    #[test]
    fn a_sub_cgroup_is_below_the_containers_and_there() {
        let place = tempfile::tempdir().unwrap();
        let (cpu, pids) = (place.path().join("cpu"), place.path().join("pids"));
        for directory in ["cpu/x/a/b", "cpu/x/a", "cpu/x", "pids/x", "pids/x/a"] {
            let directory = place.path().join(directory);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("cgroup.procs"), "").unwrap();
        }
        let cgroup = cgroup(Version::V1, &[&cpu, &pids]);
        let found = |arguments: &[&str]| {
            let paths = |sub: Cgroup| sub.directories().map(|(_, path)| path).collect::<Vec<_>>();
            cgroup.sub(arguments).map(paths).map_err(|error| error.to_string())
        };
        assert_eq!(found(&["a"]), Ok(vec![cpu.join("x/a"), pids.join("x/a")]));
        assert_eq!(found(&["/"]), Ok(vec![cpu.join("x"), pids.join("x")]));
        assert_eq!(found(&["cpu:/a/b"]), Ok(vec![cpu.join("x/a/b"), pids.join("x")]));
        assert_eq!(found(&["cpu:a/b", "pids:a"]), Ok(vec![cpu.join("x/a/b"), pids.join("x/a")]));
        let refused = |arguments: &[&str]| found(arguments).unwrap_err();
        assert_eq!(refused(&[".."]), ".. is not a sub cgroup path");
        assert_eq!(refused(&["cpu:a/../../../etc"]), "a/../../../etc is not a sub cgroup path");
        assert_eq!(refused(&["whaaat:/"]), "unknown controller whaaat in SubCgroupPaths");
        assert_eq!(refused(&["a", "cpu:b"]), "invalid --cgroup argument: a (missing <controller>: prefix)");
        assert_eq!(refused(&["cpu,:b"]), "invalid --cgroup argument: cpu,:b (empty <controller> prefix)");
        assert_eq!(
            refused(&["cpu:a", "cpu:b"]),
            "invalid --cgroup argument(s): controller cpu specified multiple times"
        );
        assert_eq!(
            refused(&["pids:no"]),
            format!(
                "error adding pid 0 to cgroups: failed to write 0: open {}/x/no/cgroup.procs: no such file or directory",
                pids.display()
            )
        );
    }

    #[test]
    fn version_2_has_one_place_for_all_controllers() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("x/in")).unwrap();
        std::fs::write(place.path().join("x/in/cgroup.procs"), "").unwrap();
        let cgroup = cgroup(Version::V2, &[place.path()]);
        assert!(cgroup.sub(&["in"]).is_ok());
        assert_eq!(cgroup.sub(&["cpu:in"]).unwrap_err(), SubError::UnknownController("cpu".into()));
    }
}
