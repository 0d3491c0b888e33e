//! The user namespace that everything of one user's engine is in, for as long as any of it runs.
//!
//! Containers on one bridge need it: a veth leads only between network namespaces over which the caller has rights, and
//! siblings have none over each other (user_namespaces(7)). There is no process whose work is to hold it:
//!
//! ```text
//! <run root>/userns/
//!   lock               flock(2): who looks for a namespace, or makes one
//!   <pid>-<start>      a process in it; the start time in clock ticks since boot names it beyond reuse
//! ```
//!
//! Invariant: a process is noted, under the lock, before it can be the only one that is left. So every live process that
//! is noted is in the same namespace, and whoever finds one joins it. Notes of the dead are removed by who comes across
//! them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, geteuid, getpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stanza_sys::{CloneFlags, process_start_time};

/// The user's processes, with nobody else looking at them.
pub(super) struct Common {
    directory: PathBuf,
    _lock: File,
}

impl Common {
    /// Waits until nobody else looks. Makes what is not there.
    pub(super) fn open(runroot: &Path) -> io::Result<Common> {
        DirBuilder::new().recursive(true).mode(0o711).create(runroot)?;
        let directory = directory(runroot);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // In a run root below /tmp it may be somebody else's trap.
        if fs::symlink_metadata(&directory)?.uid() != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(directory.join("lock"))?;
        while let Err(errno) = flock(&lock, FlockOperation::LockExclusive) {
            if errno != Errno::INTR {
                return Err(errno.into());
            }
        }
        Ok(Common { directory, _lock: lock })
    }

    /// Enters the namespace that somebody is in, with mounts of its own; `false` when nobody is in any, or not below the
    /// caller's own.
    pub(super) fn join(&self) -> io::Result<bool> {
        let Some(namespace) = self.find()? else { return Ok(false) };
        match move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User)) {
            Err(Errno::PERM | Errno::INVAL) => return Ok(false),
            entered => entered?,
        }
        stanza_sys::unshare(CloneFlags::MOUNT)?;
        Ok(true)
    }

    /// Notes that the calling process is in the namespace.
    pub(super) fn note(&self) -> io::Result<()> {
        File::create(self.directory.join(name(getpid())?)).map(drop)
    }

    fn find(&self) -> io::Result<Option<File>> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((pid, start)) = name.to_str().and_then(parse) else { continue };
            let namespace = File::open(format!("/proc/{}/ns/user", pid.as_raw_nonzero()));
            // It is looked at after it was opened: so what was opened was not somebody else's.
            match namespace {
                Ok(namespace) if process_start_time(pid).ok() == Some(start) => return Ok(Some(namespace)),
                _ => {
                    // One that cannot be removed is looked at again.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok(None)
    }
}

fn directory(runroot: &Path) -> PathBuf {
    runroot.join("userns")
}

fn name(pid: Pid) -> io::Result<String> {
    Ok(format!("{}-{}", pid.as_raw_nonzero(), process_start_time(pid)?))
}

fn parse(name: &str) -> Option<(Pid, u64)> {
    let (pid, start) = name.split_once('-')?;
    Some((Pid::from_raw(pid.parse().ok()?)?, start.parse().ok()?))
}

/// Notes that the calling process, started by one that [`enter`](super::enter)ed the user's namespace, stays in it. Does
/// nothing where there is none: root's engine needs none.
///
/// # Errors
/// When the note cannot be written.
pub fn stay(runroot: &Path) -> io::Result<()> {
    let directory = directory(runroot);
    if !directory.exists() {
        return Ok(());
    }
    File::create(directory.join(name(getpid())?)).map(drop)
}

/// Takes the note back, at the process's end.
pub fn leave(runroot: &Path) {
    if let Ok(name) = name(getpid()) {
        // The next one that looks removes it.
        let _ = fs::remove_file(directory(runroot).join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_a_process_and_its_start_and_nothing_else_is_one() {
        let own = name(getpid()).unwrap();
        assert_eq!(parse(&own), Some((getpid(), process_start_time(getpid()).unwrap())));
        for other in ["lock", "1", "-1", "0-5", "x-1", "1-x"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn notes_of_the_dead_are_removed_and_the_living_are_found() {
        let runroot = std::env::temp_dir().join(format!("stanza-common-{}", getpid().as_raw_nonzero()));
        let common = Common::open(&runroot).unwrap();
        assert!(common.find().unwrap().is_none());
        let dead = directory(&runroot).join(format!("{}-1", getpid().as_raw_nonzero()));
        File::create(&dead).unwrap();
        assert!(common.find().unwrap().is_none());
        assert!(!dead.exists());
        stay(&runroot).unwrap();
        assert!(common.find().unwrap().is_some());
        leave(&runroot);
        assert!(common.find().unwrap().is_none());
        fs::remove_dir_all(&runroot).unwrap();
    }
}
