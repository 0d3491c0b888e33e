//! Making the cgroups of a plan and writing their limits, before any process is in them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind};

use crate::cgroup::{self, Cgroup};
use crate::file;
use crate::plan::{CgroupPlan, Group, Version, Write};
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
    let made = plan.groups.iter().try_for_each(|group| make(plan, group));
    let cgroup = cgroup::open(plan);
    match made {
        Ok(()) => Ok(cgroup),
        Err(error) => {
            // A group that was there before is not ours.
            if !matches!(error, ApplyError::Occupied(_)) {
                cgroup.remove_empty();
            }
            Err(error)
        }
    }
}

impl Cgroup {
    /// Writes the limits of another plan for the same cgroups, with the processes in them; groups that the plan has
    /// beyond those here are passed over when they do not exist.
    ///
    /// # Errors
    /// [`ApplyError`] names the first limit that was refused; those before it hold.
    pub fn update(&self, plan: &CgroupPlan) -> Result<(), ApplyError> {
        for group in &plan.groups {
            let directory = group.directory();
            write_all(&directory, &group.writes)?;
            if let Some(rules) = &plan.devices {
                attach(&directory, rules, false)?;
            }
        }
        Ok(())
    }
}

fn make(plan: &CgroupPlan, group: &Group) -> Result<(), ApplyError> {
    let directory = group.directory();
    create(&directory, &group.root)?;
    match plan.version {
        Version::None => {}
        Version::V1 => v1::apply::inherit(group).map_err(|(path, source)| ApplyError::Write {
            path,
            value: "the value of its parent".into(),
            controller: "cpuset".into(),
            source,
        })?,
        Version::V2 => v2::apply::enable(group).map_err(|(path, value, source)| {
            let controller = value.trim_start_matches('+').to_owned();
            ApplyError::Write { path, value, controller, source }
        })?,
    }
    write_all(&directory, &group.writes)?;
    match &plan.devices {
        Some(rules) => attach(&directory, rules, true),
        None => Ok(()),
    }
}

fn attach(directory: &Path, rules: &[crate::DeviceRule], fresh: bool) -> Result<(), ApplyError> {
    let failed = |source| ApplyError::Devices { path: directory.to_owned(), source };
    let open = open_directory(directory).map_err(failed)?;
    v2::devices::attach(open.as_fd(), rules, fresh).map_err(failed)
}

pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes a directory and its parents. One that a dead container left is made anew, so that no old count or limit of it
/// stays.
fn create(directory: &Path, root: &Path) -> Result<(), ApplyError> {
    let failed =
        |path: &Path, errno: Errno| ApplyError::Create { path: path.to_owned(), source: errno.into() };
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdir(directory, mode) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => {
            let parent = directory.parent().filter(|parent| *parent != root && parent.starts_with(root));
            create_parent(parent.ok_or_else(|| failed(directory, Errno::NOENT))?, root)?;
            rustix::fs::mkdir(directory, mode).map_err(|errno| failed(directory, errno))
        }
        Err(Errno::EXIST) => match cgroup::remove_directory(directory) {
            Ok(()) => rustix::fs::mkdir(directory, mode).map_err(|errno| failed(directory, errno)),
            Err(error) if errno(&error) == Some(Errno::BUSY) => {
                Err(ApplyError::Occupied(directory.to_owned()))
            }
            Err(source) => Err(ApplyError::Create { path: directory.to_owned(), source }),
        },
        Err(errno) => Err(failed(directory, errno)),
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
fn write_all(directory: &Path, writes: &[Write]) -> Result<(), ApplyError> {
    let mut open: Option<(&str, OwnedFd)> = None;
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
            // The limit of memory cannot rise above that of memory with swap while that is still the old one.
            let swap = writes.get(at + 1).filter(|next| next.file == "memory.memsw.limit_in_bytes");
            let risen = match swap {
                Some(swap) if write.file == "memory.limit_in_bytes" => {
                    file::write(&directory.join(&swap.file), &swap.value).is_ok()
                        && file::write_open(file, &write.value).is_ok()
                }
                _ => false,
            };
            if !risen {
                return Err(refused(directory, &write.file, &write.value, error));
            }
        }
    }
    Ok(())
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
