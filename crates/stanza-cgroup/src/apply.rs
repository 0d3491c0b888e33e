//! Making the cgroups of a plan and writing their limits, before any process is in them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind};

use crate::cgroup::{self, Cgroup};
use crate::device;
use crate::file;
use crate::plan::{CgroupPlan, Group, MemoryCheck, Version, Write};
use crate::{v1, v2};

/// Why cgroups could not be made as planned. Nothing of them is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The directory cannot be made.
    #[error("make the cgroup `{}`", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Somebody is in a cgroup of that name.
    #[error("the cgroup `{}` is there already, with processes in it", .0.display())]
    Occupied(PathBuf),
    /// A cgroup of that name is there, and frozen: a process in it would never start. The text is runc's.
    #[error("container's cgroup unexpectedly frozen: `{}`", .0.display())]
    Frozen(PathBuf),
    /// A limit was refused.
    #[error("write `{value}` to `{}` of the cgroup controller `{controller}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The controller.
        controller: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// More memory is in use than the new limit, and it was asked to look (`memory.checkBeforeUpdate`). Nothing was
    /// changed.
    #[error("rejecting {what} limit {limit} <= usage {usage}")]
    InUse {
        /// `memory` or `memory+swap`.
        what: &'static str,
        /// The new limit, in bytes.
        limit: u64,
        /// What is in use, in bytes.
        usage: u64,
    },
    /// The device rules were refused.
    #[error("attach the device rules to the cgroup `{}`", path.display())]
    Devices {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Classify for ApplyError {
    fn kind(&self) -> ErrorKind {
        match self {
            ApplyError::Occupied(_) => ErrorKind::AlreadyExists,
            ApplyError::InUse { .. } | ApplyError::Frozen(_) => ErrorKind::Conflict,
            ApplyError::Write { source, .. } => match errno(source) {
                Some(Errno::NOENT | Errno::OPNOTSUPP | Errno::NODEV) => ErrorKind::Unsupported,
                Some(Errno::INVAL | Errno::RANGE) => ErrorKind::InvalidArgument,
                Some(Errno::BUSY) => ErrorKind::Conflict,
                _ => ErrorKind::of_io(source),
            },
            ApplyError::Create { source, .. } | ApplyError::Devices { source, .. } => {
                ErrorKind::of_io(source)
            }
        }
    }

    fn hint(&self) -> Option<String> {
        let ApplyError::Write { path, controller, source, .. } = self else { return None };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = match (errno(source)?, controller.as_str(), &*name) {
            (Errno::NOENT, ..) => format!("this kernel's cgroup controller {controller} has no `{name}`"),
            (Errno::BUSY, _, "cgroup.subtree_control") => {
                "the parent cgroup has processes of its own; start stanza in another cgroup, or choose another path"
                    .into()
            }
            (Errno::BUSY, "memory", _) => "the limit is below what is in use".into(),
            (Errno::INVAL, "memory", _) => "memory with swap cannot be less than the memory limit".into(),
            (Errno::INVAL | Errno::RANGE, "cpuset", _) => {
                "choose processors and memory nodes that the machine has, and its parent cgroup too".into()
            }
            (Errno::INVAL, "cpu", _) => {
                "a quota is at least 1000 microseconds, and not more than the parent cgroup has".into()
            }
            (Errno::PERM, "devices", _) => "the parent cgroup does not allow this device".into(),
            (Errno::NODEV, "blkio" | "io", _) => "name a whole disk, not a partition".into(),
            _ => return None,
        };
        Some(text)
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// Makes the cgroups and writes their limits.
///
/// # Errors
/// [`ApplyError`]; what was made until then is removed again.
pub fn apply(plan: &CgroupPlan) -> Result<Cgroup, ApplyError> {
    let create = |group: &Group| create(&group.directory(), &group.root, plan.exclusive);
    fill_all(plan, &create)
}

/// Writes the limits to the cgroups that systemd made, with the container's process in them, and makes those that it did not;
/// these the process joins by [`Cgroup::join`].
///
/// # Errors
/// [`ApplyError`]; what was made until then is removed again.
pub fn adopt(plan: &CgroupPlan) -> Result<Cgroup, ApplyError> {
    let create = |group: &Group| match open_directory(&group.directory()) {
        Ok(_) => Ok(Found::There),
        Err(_) => create(&group.directory(), &group.root, false),
    };
    fill_all(plan, &create)
}

fn fill_all(
    plan: &CgroupPlan,
    create: &dyn Fn(&Group) -> Result<Found, ApplyError>,
) -> Result<Cgroup, ApplyError> {
    let mut made = Vec::new();
    let done = plan.groups.iter().try_for_each(|group| {
        let found = create(group)?;
        if found == Found::Fresh {
            made.push(group.directory());
        }
        fill(plan, group, found)
    });
    if done.is_err() {
        for directory in made {
            // Best effort after another error, which is the one to tell.
            let _ = rustix::fs::rmdir(&directory);
        }
    }
    done.map(|()| cgroup::open(plan))
}

impl Cgroup {
    /// Writes the limits of another plan for the same cgroups, with the processes in them. At no moment is a device shut that
    /// both the old rules and the new ones open.
    ///
    /// # Errors
    /// [`ApplyError`] names the first limit that was refused; those before it hold.
    pub fn update(&self, plan: &CgroupPlan) -> Result<(), ApplyError> {
        if let Some(check) = &plan.check_memory {
            self.check_memory(check)?;
        }
        for group in &plan.groups {
            let directory = group.directory();
            let (devices, limits): (Vec<Write>, Vec<Write>) =
                group.writes.iter().cloned().partition(v1::devices::is_rule);
            write_all(&directory, &limits)?;
            write_all(&directory, &v1::devices::changes(&directory, devices))?;
            if let Some(rules) = &plan.devices {
                attach(&directory, rules, false)?;
            }
        }
        Ok(())
    }

    /// What cannot be read is no reason to refuse.
    fn check_memory(&self, check: &MemoryCheck) -> Result<(), ApplyError> {
        let name = if self.version == Version::V2 { "memory.current" } else { "memory.usage_in_bytes" };
        let usage =
            self.group("memory").and_then(|group| file::read_number(&group.join(name)).ok().flatten());
        let Some(usage) = usage else { return Ok(()) };
        for (what, limit) in [("memory+swap", check.with_swap), ("memory", check.limit)] {
            if let Some(limit) = limit.filter(|limit| *limit <= usage) {
                return Err(ApplyError::InUse { what, limit, usage });
            }
        }
        Ok(())
    }
}

/// Whether a directory was there before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Fresh,
    There,
}

fn fill(plan: &CgroupPlan, group: &Group, found: Found) -> Result<(), ApplyError> {
    let directory = group.directory();
    match plan.version {
        Version::None => {}
        Version::V1 => v1::apply::inherit(group, found == Found::Fresh).map_err(|(path, source)| {
            let value = "the value of its parent".into();
            ApplyError::Write { path, value, controller: "cpuset".into(), source }
        })?,
        Version::V2 => v2::apply::enable(group).map_err(|(path, value, source)| {
            let controller = value.trim_start_matches('+').to_owned();
            ApplyError::Write { path, value, controller, source }
        })?,
    }
    if found == Found::There && is_frozen(plan.version, group) {
        return Err(ApplyError::Frozen(directory));
    }
    // A fresh cgroup is open as its parent is. Saying so again might be refused, where that is not open altogether.
    let fresh = found == Found::Fresh;
    match group.writes.iter().position(|write| fresh && v1::devices::opens_all(write)) {
        Some(at) => {
            write_all(&directory, &group.writes[..at])?;
            write_all(&directory, &group.writes[at + 1..])?;
        }
        None => write_all(&directory, &group.writes)?,
    }
    match &plan.devices {
        Some(rules) if !(fresh && device::allows_all(rules)) => attach(&directory, rules, fresh),
        _ => Ok(()),
    }
}

fn is_frozen(version: Version, group: &Group) -> bool {
    let state = match version {
        Version::V1 if group.has("freezer") => v1::state::is_frozen(&group.directory()),
        Version::V2 => v2::state::is_frozen(&group.directory()),
        _ => Ok(false),
    };
    state.unwrap_or(false)
}

fn attach(directory: &Path, rules: &[crate::DeviceRule], fresh: bool) -> Result<(), ApplyError> {
    let failed = |source| ApplyError::Devices { path: directory.to_owned(), source };
    let open = open_directory(directory).map_err(failed)?;
    v2::devices::attach(open.as_fd(), rules, fresh).map_err(failed)
}

pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes a directory and its parents. One that is there must have no processes. If it is this container's alone, a dead one
/// left it, and it is made anew with all below, so that no old count or limit stays; else it stays as it is, with the limits,
/// the owner and the cgroups below that somebody gave it.
fn create(directory: &Path, root: &Path, exclusive: bool) -> Result<Found, ApplyError> {
    let failed = |path: &Path, source: io::Error| ApplyError::Create { path: path.to_owned(), source };
    let make = || rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755));
    let fresh = |made: Result<(), Errno>| {
        made.map(|()| Found::Fresh).map_err(|errno| failed(directory, errno.into()))
    };
    match make() {
        Err(Errno::NOENT) => {
            let parent = directory.parent().filter(|parent| *parent != root && parent.starts_with(root));
            create_parent(parent.ok_or_else(|| failed(directory, Errno::NOENT.into()))?, root)?;
            fresh(make())
        }
        Err(Errno::EXIST) if exclusive => match cgroup::remove_directory(directory) {
            Ok(()) => fresh(make()),
            Err(error) if errno(&error) == Some(Errno::BUSY) => {
                Err(ApplyError::Occupied(directory.to_owned()))
            }
            Err(source) => Err(failed(directory, source)),
        },
        Err(Errno::EXIST) => {
            let inside = cgroup::pids_below(directory).map_err(|source| failed(directory, source))?;
            if inside.is_empty() { Ok(Found::There) } else { Err(ApplyError::Occupied(directory.to_owned())) }
        }
        made => fresh(made),
    }
}

fn create_parent(directory: &Path, root: &Path) -> Result<(), ApplyError> {
    match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) if directory.parent().is_some_and(|parent| parent != root) => {
            create_parent(directory.parent().unwrap_or(root), root)?;
            create_parent(directory, root)
        }
        Err(errno) => Err(ApplyError::Create { path: directory.to_owned(), source: errno.into() }),
    }
}

/// Writes in order; a file that takes several values in a row is opened once.
///
/// A limit that is measured against another which is still the old one (memory against memory with swap, a period or a
/// burst against the quota) is refused as invalid; it is written again after the others.
fn write_all(directory: &Path, writes: &[Write]) -> Result<(), ApplyError> {
    let mut open: Option<(&str, OwnedFd)> = None;
    let mut again = Vec::new();
    for (at, write) in writes.iter().enumerate() {
        if open.as_ref().is_none_or(|(name, _)| *name != write.file) {
            open = match file::open_to_write(&directory.join(&write.file)) {
                Ok(file) => Some((&write.file, file)),
                Err(error) => {
                    instead(directory, write, error)?;
                    open = None;
                    continue;
                }
            };
        }
        let Some((_, file)) = &open else { continue };
        if let Err(error) = file::write_open(file, &write.value) {
            let others = writes[at + 1..].iter().any(|other| other.controller() == write.controller());
            if errno(&error) != Some(Errno::INVAL) || !others {
                return Err(refused(directory, &write.file, &write.value, error));
            }
            again.push(write);
        }
    }
    again.into_iter().try_for_each(|write| {
        file::write(&directory.join(&write.file), &write.value)
            .map_err(|error| refused(directory, &write.file, &write.value, error))
    })
}

/// What a write says for a kernel without its file.
fn instead(directory: &Path, write: &Write, error: io::Error) -> Result<(), ApplyError> {
    match &write.otherwise {
        Some((name, value)) if file::is_gone(&error) => {
            file::write(&directory.join(name), value).map_err(|error| refused(directory, name, value, error))
        }
        None if write.optional && file::is_gone(&error) => Ok(()),
        _ => Err(refused(directory, &write.file, &write.value, error)),
    }
}

fn refused(directory: &Path, name: &str, value: &str, source: io::Error) -> ApplyError {
    let controller = name.split('.').next().unwrap_or_default().to_owned();
    ApplyError::Write { path: directory.join(name), value: value.to_owned(), controller, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_what_is_in_use_is_refused_before_anything_is_written() {
        let place = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(place.path().join("x").join(name), text).unwrap();
        std::fs::create_dir(place.path().join("x")).unwrap();
        put("memory.current", "5000\n");
        ["memory.max", "memory.swap.max", "pids.max"].into_iter().for_each(|name| put(name, "old"));
        let layout = crate::Layout::V2 {
            root: place.path().to_owned(),
            controllers: vec!["memory".into(), "pids".into()],
        };
        let update = |limit: u64, swap: u64, check: bool| {
            let resources = serde_json::json!({"pids": {"limit": 5},
                "memory": {"limit": limit, "swap": swap, "checkBeforeUpdate": check}});
            let resources = serde_json::from_value(resources).unwrap();
            let (plan, _) = crate::plan(&layout, "x", &resources, false).unwrap();
            cgroup::open(&plan).update(&plan).map_err(|error| error.to_string())
        };
        assert_eq!(update(4000, 9000, true), Err("rejecting memory limit 4000 <= usage 5000".into()));
        assert_eq!(update(4000, 4000, true), Err("rejecting memory+swap limit 4000 <= usage 5000".into()));
        assert_eq!(std::fs::read_to_string(place.path().join("x/pids.max")).unwrap(), "old");
        assert_eq!(update(6000, 9000, true), Ok(()));
        assert_eq!(update(4000, 9000, false), Ok(()));
        assert!(std::fs::read_to_string(place.path().join("x/memory.max")).unwrap().starts_with("4000"));
    }
}
