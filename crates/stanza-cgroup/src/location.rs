//! Where a container's cgroups go: what an OCI `cgroupsPath` means.
//!
//! ```text
//!  cgroupsPath   version 1, in each hierarchy        version 2
//!  /a/b          <root>/a/b                          <root>/a/b
//!  a/b           <root>/<caller's own>/a/b           <root>/<parent of the caller's own>/a/b
//!  (empty)       <root>/<caller's own>/<id>          <root>/<parent of the caller's own>/<id>
//! ```
//!
//! This is runc's reading. On version 2 it is the parent since a cgroup with processes cannot hand controllers down. `..` goes
//! up no further than to where the path starts, as runc cleans it.
//!
//! Not done here: systemd's form `slice:prefix:name`, see [`systemd`](crate::systemd).

use std::io;
use std::path::{Component, Path, PathBuf};

use stanza_spec::{Classify, ErrorKind};

use crate::detect::{Hierarchy, Layout};
use crate::file;
use crate::plan::CgroupPlan;

/// `NAME_MAX`; and `PATH_MAX` with room for the hierarchy's root and the names of files.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 3072;

/// Where cgroups are to be, below the root of each hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(Paths);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Paths {
    /// The same path in all hierarchies.
    Same(PathBuf),
    /// One for each hierarchy, by its root.
    Each(Vec<(PathBuf, PathBuf)>),
}

impl Location {
    /// The same path below all roots: not empty, plain names only.
    pub(crate) fn same(path: PathBuf) -> Location {
        Location(Paths::Same(path))
    }

    /// Where systemd put a process, from its `/proc/<pid>/cgroup`: the path in systemd's own hierarchy, for all others too.
    pub(crate) fn of_process(layout: &Layout, cgroups: &str) -> Result<Location, LocationError> {
        let hybrid = own_path(cgroups, str::is_empty);
        let path = match layout {
            Layout::V2 { .. } => hybrid,
            // In a hybrid layout both have it, or only the unified one.
            _ => Some(own_path(cgroups, |names| names == "name=systemd"))
                .filter(|path| *path != "/")
                .unwrap_or(hybrid),
        };
        let path = clean(path);
        if path.as_os_str().is_empty() {
            return Err(LocationError::Root("/".into()));
        }
        Ok(Location::same(path))
    }

    /// Where the cgroups of a plan are.
    #[must_use]
    pub fn of_plan(plan: &CgroupPlan) -> Location {
        Location(Paths::Each(
            plan.groups.iter().map(|group| (group.root.clone(), group.path.clone())).collect(),
        ))
    }

    /// The path below `root`, a hierarchy's.
    pub(crate) fn below(&self, root: &Path) -> Option<&Path> {
        match &self.0 {
            Paths::Same(path) => Some(path),
            Paths::Each(paths) => {
                paths.iter().find(|(other, _)| other == root).map(|(_, path)| path.as_path())
            }
        }
    }
}

/// Why it is not known where cgroups should go.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// No name is left of the path.
    #[error("`{0}` is not a cgroup path: it names the root")]
    Root(String),
    /// A name that no directory can have.
    #[error(
        "`{0}` is not a cgroup path: a name is longer than 255 bytes, or has a NUL or an end of line in it"
    )]
    Name(String),
    /// A file of `/proc` cannot be read.
    #[error("read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The caller is in a cgroup that is not below what is mounted here.
    #[error("the caller's own cgroup `{}` is outside of `{}`", own.display(), root.display())]
    Outside {
        /// The caller's cgroup.
        own: PathBuf,
        /// Where the hierarchy is mounted.
        root: PathBuf,
    },
}

impl Classify for LocationError {
    fn kind(&self) -> ErrorKind {
        match self {
            LocationError::Root(_) | LocationError::Name(_) => ErrorKind::InvalidArgument,
            LocationError::Read { source, .. } => ErrorKind::of_io(source),
            LocationError::Outside { .. } => ErrorKind::Unsupported,
        }
    }

    fn hint(&self) -> Option<String> {
        matches!(self, LocationError::Outside { .. }).then(|| "give an absolute `cgroupsPath`".into())
    }
}

/// Finds where the cgroups of the container `id` go, for its `cgroupsPath` (absent and empty are the same).
///
/// # Errors
/// [`LocationError`].
pub fn locate(layout: &Layout, cgroups_path: &str, id: &str) -> Result<Location, LocationError> {
    let inner = clean(if cgroups_path.is_empty() { id } else { cgroups_path });
    if inner.as_os_str().is_empty() {
        return Err(LocationError::Root(cgroups_path.to_owned()));
    }
    let too_long =
        inner.as_os_str().len() > LONGEST_PATH || inner.iter().any(|name| name.len() > LONGEST_NAME);
    if too_long || cgroups_path.contains(['\0', '\n']) {
        return Err(LocationError::Name(cgroups_path.to_owned()));
    }
    if cgroups_path.starts_with('/') {
        return Ok(Location::same(inner));
    }
    let own = read("/proc/self/cgroup")?;
    // The caller's paths are those of the machine; what is mounted may be only a part of that.
    let mounts = if own.lines().all(|line| line.ends_with(":/")) {
        String::new()
    } else {
        read("/proc/self/mountinfo")?
    };
    relative(layout, &own, &mounts, &inner)
}

fn relative(layout: &Layout, own: &str, mounts: &str, inner: &Path) -> Result<Location, LocationError> {
    let place = |root: &Path, path: &str| below_mount(root, path, mounts);
    let paths = match layout {
        Layout::Absent => return Ok(Location::same(inner.to_owned())),
        Layout::V2 { root, .. } => {
            let parent = Path::new(own_path(own, |names| names.is_empty()))
                .parent()
                .and_then(Path::to_str)
                .unwrap_or("/");
            vec![(root.clone(), place(root, parent)?.join(inner))]
        }
        Layout::V1(hierarchies) => {
            let one = |hierarchy: &Hierarchy| {
                let path = own_path(own, |names| hierarchy.controllers.iter().eq(names.split(',')));
                Ok((hierarchy.root.clone(), place(&hierarchy.root, path)?.join(inner)))
            };
            hierarchies.iter().map(one).collect::<Result<_, LocationError>>()?
        }
    };
    Ok(Location(Paths::Each(paths)))
}

fn read(path: &str) -> Result<String, LocationError> {
    let failed = |source| LocationError::Read { path: path.into(), source };
    Ok(file::read_records(Path::new(path)).map_err(failed)?.unwrap_or_default())
}

/// The caller's cgroup in the hierarchy whose controllers are as wanted.
fn own_path(own: &str, wanted: impl Fn(&str) -> bool) -> &str {
    let path = |line| {
        let mut fields = str::splitn(line, 3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        wanted(names).then_some(path)
    };
    own.lines().find_map(path).unwrap_or("/")
}

/// `path`, as the kernel names a cgroup, relative to where its hierarchy is mounted.
fn below_mount(root: &Path, path: &str, mounts: &str) -> Result<PathBuf, LocationError> {
    let mounted = |line: &str| {
        let mut fields = line.split(' ').skip(3);
        let (inside, place) = (fields.next()?, fields.next()?);
        (Path::new(&place.replace("\\040", " ")) == root).then(|| inside.replace("\\040", " "))
    };
    // The last one mounted there covers the others.
    let mounted = mounts.lines().rev().find_map(mounted).unwrap_or_else(|| "/".to_owned());
    let outside = || LocationError::Outside { own: path.into(), root: root.to_owned() };
    let inside = Path::new(path).strip_prefix(&mounted).map_err(|_| outside())?;
    let inside = inside.strip_prefix("/").unwrap_or(inside);
    if inside.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(inside.to_owned())
    } else {
        Err(outside())
    }
}

/// The path without `.`, `..` and `//`, as if it started at the root.
pub(crate) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v1() -> Layout {
        let hierarchy = |root: &str, names: &[&str]| Hierarchy {
            root: root.into(),
            controllers: names.iter().map(|&name| name.to_owned()).collect(),
        };
        Layout::V1(vec![hierarchy("/c/cpu", &["cpu", "cpuacct"]), hierarchy("/c/memory", &["memory"])])
    }

    const OWN: &str = "9:cpu,cpuacct:/\n4:memory:/docker/x\n0::/user.slice/a.scope\n";

    #[test]
    fn an_absolute_path_is_below_every_root_and_cannot_leave_it() {
        for (path, expected) in [("/a/b", "a/b"), ("/a/../../b//c/", "b/c"), ("/../../x", "x")] {
            assert_eq!(locate(&v1(), path, "id").unwrap(), Location::same(expected.into()));
        }
        assert!(matches!(locate(&v1(), "/..", "id"), Err(LocationError::Root(_))));
        let long = format!("/{}", "x".repeat(256));
        for bad in ["/a\0b", "a\nb", &long, &"/x".repeat(2000)] {
            assert!(matches!(locate(&v1(), bad, "id"), Err(LocationError::Name(_))));
        }
    }

    #[test]
    fn a_relative_path_is_below_the_callers_own_on_version_1() {
        let found = relative(&v1(), OWN, "", Path::new("p/id")).unwrap();
        assert_eq!(found.below(Path::new("/c/cpu")), Some(Path::new("p/id")));
        assert_eq!(found.below(Path::new("/c/memory")), Some(Path::new("docker/x/p/id")));
        assert_eq!(found.below(Path::new("/c/pids")), None);
    }

    #[test]
    fn a_relative_path_is_beside_the_callers_own_on_version_2() {
        let layout = Layout::V2 { root: "/c".into(), controllers: vec![] };
        let found = relative(&layout, OWN, "", Path::new("id")).unwrap();
        assert_eq!(found.below(Path::new("/c")), Some(Path::new("user.slice/id")));
    }

    #[test]
    fn a_hierarchy_mounted_in_part_shows_paths_below_that_part() {
        let mounts = "40 30 0:9 /docker/x /c/memory rw - cgroup cgroup rw,memory\n";
        let found = relative(&v1(), OWN, mounts, Path::new("id")).unwrap();
        assert_eq!(found.below(Path::new("/c/memory")), Some(Path::new("id")));
        let other = mounts.replace("docker/x", "docker/other");
        let error = relative(&v1(), OWN, &other, Path::new("id")).unwrap_err();
        assert_eq!(error.to_string(), "the caller's own cgroup `/docker/x` is outside of `/c/memory`");
        let above = OWN.replace("/docker/x", "/../y");
        assert!(matches!(relative(&v1(), &above, "", Path::new("id")), Err(LocationError::Outside { .. })));
    }
}
