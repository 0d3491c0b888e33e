//! The cgroups of one container, made: joining, freezing, counting, removing.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind};

use crate::apply::open_directory;
use crate::detect::Layout;
use crate::file;
use crate::plan::{CgroupPlan, Group, Version};
use crate::stats::Stats;
use crate::{v1, v2};

/// How long to wait for the kernel to stop or end all tasks. Only a task stuck in the kernel takes longer than
/// milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks at a file that cannot be polled, from the first to the longest, and the longest while it is
/// likely to change at once.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const SHORT_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
const SOON: Duration = Duration::from_millis(100);

/// The cgroups of one container.
#[derive(Clone, Debug)]
pub struct Cgroup {
    pub(crate) version: Version,
    pub(crate) groups: Vec<Group>,
}

/// Why a cgroup does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file of it cannot be opened, read or written.
    #[error("{action} the cgroup `{}`", path.display())]
    File {
        /// What was tried: `join`, `freeze`, `thaw`, `kill`, `read`.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The container has no cgroup that can do it.
    #[error("{0}: the container has no cgroup for it")]
    Unsupported(&'static str),
    /// Some task stayed in the kernel.
    #[error("{action} the cgroup `{}`: not done after `{}` s", path.display(), PATIENCE.as_secs())]
    TimedOut {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: PathBuf,
    },
}

impl Classify for ControlError {
    fn kind(&self) -> ErrorKind {
        match self {
            ControlError::File { source, .. } => ErrorKind::of_io(source),
            ControlError::Unsupported(_) => ErrorKind::Unsupported,
            ControlError::TimedOut { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ControlError::Unsupported(_) => {
                Some("run as root, or have cgroups of version 2 delegated".into())
            }
            _ => None,
        }
    }
}

/// Why a cgroup is still there.
#[derive(Debug, thiserror::Error)]
#[error("remove the cgroup `{}`", path.display())]
pub struct RemoveError {
    /// The directory.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl Classify for RemoveError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::of_io(&self.source)
    }
}

/// The cgroups of a plan that was applied before, by this process or another. They may be gone.
#[must_use]
pub fn open(plan: &CgroupPlan) -> Cgroup {
    Cgroup { version: plan.version, groups: plan.groups.clone() }
}

/// The names of the cgroups below `parent` (`stanza`) in any hierarchy, sorted: what containers, dead ones too, left.
#[must_use]
pub fn leftovers(layout: &Layout, parent: &str) -> Vec<String> {
    let roots: Vec<&Path> = match layout {
        Layout::V1(hierarchies) => hierarchies.iter().map(|hierarchy| hierarchy.root.as_path()).collect(),
        Layout::V2 { root, .. } => vec![root],
        Layout::Absent => vec![],
    };
    let names: BTreeSet<String> = roots
        .into_iter()
        .filter_map(|root| file::children(&root.join(parent.trim_start_matches('/'))).ok())
        .flatten()
        .filter_map(|name| name.into_string().ok())
        .collect();
    names.into_iter().collect()
}

impl Cgroup {
    /// Whether the container has no cgroups of its own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Version 2: the directory, for `CLONE_INTO_CGROUP`. `None` on version 1.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn directory(&self) -> Result<Option<OwnedFd>, ControlError> {
        match (self.version, self.groups.first()) {
            (Version::V2, Some(group)) => {
                let path = group.directory();
                open_directory(&path).map(Some).map_err(|source| failed("join", &path, source))
            }
            _ => Ok(None),
        }
    }

    /// Moves a process with all its threads into the cgroups; 0 is the caller.
    ///
    /// # Errors
    /// When a group is gone, or its limit of tasks is reached.
    pub fn join(&self, pid: u32) -> Result<(), ControlError> {
        for group in &self.groups {
            let path = group.directory();
            file::write(&path.join("cgroup.procs"), &pid.to_string())
                .map_err(|source| failed("join", &path, source))?;
        }
        Ok(())
    }

    /// Stops all tasks, and returns when they stand still.
    ///
    /// # Errors
    /// [`ControlError`]; after a timeout the cgroup is thawed again.
    pub fn freeze(&self) -> Result<(), ControlError> {
        let freezer = self.freezer().ok_or(ControlError::Unsupported("freeze"))?;
        self.set_frozen(&freezer, true).map_err(|source| failed("freeze", &freezer, source))?;
        let frozen =
            wait_until(|| self.is_frozen(&freezer)).map_err(|source| failed("freeze", &freezer, source))?;
        if frozen {
            return Ok(());
        }
        // Half a container standing still is worse than none.
        self.set_frozen(&freezer, false).map_err(|source| failed("thaw", &freezer, source))?;
        Err(ControlError::TimedOut { action: "freeze", path: freezer })
    }

    /// Lets all tasks run again.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn thaw(&self) -> Result<(), ControlError> {
        let freezer = self.freezer().ok_or(ControlError::Unsupported("thaw"))?;
        self.set_frozen(&freezer, false).map_err(|source| failed("thaw", &freezer, source))?;
        match wait_until(|| Ok(!self.is_frozen(&freezer)?)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ControlError::TimedOut { action: "thaw", path: freezer }),
            Err(source) => Err(failed("thaw", &freezer, source)),
        }
    }

    /// Whether all tasks stand still; without a freezer they never do.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.freezer().is_some_and(|freezer| self.is_frozen(&freezer).unwrap_or(false))
    }

    pub(super) fn freezer(&self) -> Option<PathBuf> {
        match self.version {
            Version::None => None,
            Version::V1 => self.group("freezer"),
            Version::V2 => self.groups.first().map(Group::directory),
        }
    }

    pub(super) fn set_frozen(&self, freezer: &Path, frozen: bool) -> io::Result<()> {
        match self.version {
            Version::V2 => v2::state::set_frozen(freezer, frozen),
            _ => v1::state::set_frozen(freezer, frozen),
        }
    }

    pub(super) fn is_frozen(&self, freezer: &Path) -> io::Result<bool> {
        match self.version {
            Version::V2 => v2::state::is_frozen(freezer),
            _ => v1::state::is_frozen(freezer),
        }
    }

    /// The processes in the cgroup and in all below, by this process's pid namespace, sorted. Empty when the cgroup is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, ControlError> {
        // Every process is in all groups; one tells.
        let Some(group) = self.groups.first() else { return Ok(Vec::new()) };
        let path = group.directory();
        pids_below(&path).map_err(|source| failed("read", &path, source))
    }

    /// How many processes the kernel has killed for want of memory; 0 without a memory controller.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let Some(path) = self.group("memory") else { return 0 };
        let kills = match self.version {
            Version::V2 => v2::state::oom_kills(&path),
            _ => v1::state::oom_kills(&path),
        };
        kills.unwrap_or(0)
    }

    /// What the cgroup has used.
    ///
    /// # Errors
    /// When a file cannot be read; one that is not there makes its part `None`.
    pub fn stats(&self) -> Result<Stats, ControlError> {
        let Some(first) = self.groups.first().map(Group::directory) else { return Ok(Stats::default()) };
        let read = match self.version {
            Version::V2 => self.stats_v2(&first),
            _ => self.stats_v1(),
        };
        read.map_err(|source| failed("read", &first, source))
    }

    /// Processor time that was used, in nanoseconds, and the most memory that was charged, in bytes: two small files, read at
    /// the end of every container. What cannot be read is `None`.
    #[must_use]
    pub fn used(&self) -> (Option<u64>, Option<u64>) {
        let number = |controller: &str, name: &str| {
            self.group(controller).and_then(|path| crate::file::read_number(&path.join(name)).ok().flatten())
        };
        if self.version != Version::V2 {
            return (number("cpuacct", "cpuacct.usage"), number("memory", "memory.max_usage_in_bytes"));
        }
        let Some(group) = self.groups.first().map(Group::directory) else { return (None, None) };
        let cpu = v2::stats::cpu(&group).ok().flatten().map(|cpu| cpu.usage);
        (cpu, crate::file::read_number(&group.join("memory.peak")).ok().flatten())
    }

    fn stats_v1(&self) -> io::Result<Stats> {
        let part = |controller: &str| self.group(controller);
        let cpu = part("cpu");
        Ok(Stats {
            cpu: part("cpuacct").map_or(Ok(None), |path| v1::stats::cpu(&path, cpu.as_deref()))?,
            memory: part("memory").map_or(Ok(None), |path| v1::stats::memory(&path))?,
            pids: part("pids").map_or(Ok(None), |path| v1::stats::pids(&path))?,
            io: part("blkio").map_or(Ok(None), |path| v1::stats::io(&path))?,
        })
    }

    fn stats_v2(&self, group: &Path) -> io::Result<Stats> {
        Ok(Stats {
            cpu: v2::stats::cpu(group)?,
            memory: v2::stats::memory(group)?,
            pids: v2::stats::pids(group)?,
            io: v2::stats::io(group)?,
        })
    }

    /// The directory of the group that has `controller`.
    pub(crate) fn group(&self, controller: &str) -> Option<PathBuf> {
        self.groups.iter().find(|group| group.has(controller)).map(Group::directory)
    }

    /// Removes the cgroups, children first. What still runs in them is killed. A cgroup that is gone is no error; one
    /// that cannot be removed does not keep the others.
    #[must_use]
    pub fn remove(&self) -> Vec<RemoveError> {
        let mut errors = Vec::new();
        for group in &self.groups {
            let path = group.directory();
            let removed = match remove_directory(&path) {
                Err(error) if is_busy(&error) => {
                    // That it failed shows in the removal.
                    let _ = self.kill_in(&path);
                    remove_patiently(&path)
                }
                other => other,
            };
            errors.extend(removed.err().map(|source| RemoveError { path, source }));
        }
        errors
    }
}

pub(crate) fn failed(action: &'static str, path: &Path, source: io::Error) -> ControlError {
    ControlError::File { action, path: path.to_owned(), source }
}

fn is_busy(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::BUSY)
}

/// The kernel lets go of a cgroup a moment after its last process has ended.
fn remove_patiently(path: &Path) -> io::Result<()> {
    let mut last = Ok(());
    wait_until(|| {
        last = remove_directory(path);
        Ok(!last.as_ref().is_err_and(is_busy))
    })?;
    last
}

/// Removes a cgroup and those below it, the deepest first.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {
            for child in file::tree(path)?.iter().rev() {
                match rustix::fs::rmdir(child) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn pids_below(path: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for directory in file::tree(path)? {
        let text = match file::read_records(&directory.join("cgroup.procs")) {
            Ok(text) => text.unwrap_or_default(),
            // A threaded cgroup of version 2 shows its processes in its parent.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => continue,
            Err(error) => return Err(error),
        };
        // 0 stands for a process outside this pid namespace.
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

pub(crate) fn wait_until(done: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    wait_at_most(PATIENCE, done)
}

/// Looks again and again, at growing distances: these files have no notification on version 1.
pub(crate) fn wait_at_most(
    patience: Duration,
    mut done: impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if done()? {
            return Ok(true);
        }
        let waited = start.elapsed();
        if waited >= patience {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(if waited < SOON { SHORT_PAUSE } else { LONGEST_PAUSE });
    }
}
