//! Being told when a container runs out of memory.
//!
//! Version 1 has an event descriptor, registered in `cgroup.event_control` for `memory.oom_control`; the kernel writes to it for
//! each want of memory, and once more when the cgroup goes. Version 2 changes `memory.events`, which inotify sees, as it
//! sees `cgroup.events` when the last process has ended.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;

use crate::cgroup::{Cgroup, ControlError, failed};
use crate::file;
use crate::plan::Version;
use crate::v2;

/// What was learned from looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomEvent {
    /// The container ran out of memory.
    Oom,
    /// The cgroup is gone, or (version 2) has no process any more: nothing will come.
    End,
    /// Nothing of both.
    None,
}

/// Watches a container's memory; poll the descriptor for reading, then call [`OomWatch::check`].
#[derive(Debug)]
pub struct OomWatch {
    descriptor: OwnedFd,
    group: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    V1,
    V2 { kills: u64, populated: bool },
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Cgroup {
    /// Starts watching.
    ///
    /// # Errors
    /// [`ControlError::Unsupported`] without a memory controller; else when the kernel refuses.
    pub fn watch_oom(&self) -> Result<OomWatch, ControlError> {
        let group = self.group("memory").ok_or(ControlError::Unsupported("watch for want of memory"))?;
        let watch = match self.version {
            Version::V2 => watch_v2(&group),
            _ => watch_v1(&group),
        };
        watch.map_err(|source| failed("watch", &group, source))
    }
}

fn watch_v1(group: &Path) -> io::Result<OomWatch> {
    let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let control = rustix::fs::open(group.join("memory.oom_control"), flags, Mode::empty())?;
    let (event, control) = (number(&descriptor), number(&control));
    file::write(&group.join("cgroup.event_control"), &format!("{event} {control}"))?;
    Ok(OomWatch { descriptor, group: group.to_owned(), kind: Kind::V1 })
}

fn number(descriptor: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd;
    descriptor.as_raw_fd()
}

fn watch_v2(group: &Path) -> io::Result<OomWatch> {
    let descriptor = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    for name in ["memory.events", "cgroup.events"] {
        inotify::add_watch(&descriptor, group.join(name), inotify::WatchFlags::MODIFY)?;
    }
    // Read after the watch began, so that nothing falls between.
    let kind = Kind::V2 { kills: v2::state::oom_kills(group)?, populated: v2::state::is_populated(group)? };
    Ok(OomWatch { descriptor, group: group.to_owned(), kind })
}

impl OomWatch {
    /// What has happened since the last look; does not wait.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn check(&mut self) -> io::Result<OomEvent> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let told = match rustix::io::read(&self.descriptor, &mut buffer) {
            Ok(_) => true,
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(errno) => return Err(errno.into()),
        };
        match &mut self.kind {
            Kind::V1 if !told => Ok(OomEvent::None),
            Kind::V1 => {
                match rustix::fs::access(self.group.join("cgroup.event_control"), rustix::fs::Access::EXISTS)
                {
                    Ok(()) => Ok(OomEvent::Oom),
                    Err(Errno::NOENT) => Ok(OomEvent::End),
                    Err(errno) => Err(errno.into()),
                }
            }
            Kind::V2 { kills, populated } => {
                let now = v2::state::oom_kills(&self.group)?;
                if now > *kills {
                    *kills = now;
                    return Ok(OomEvent::Oom);
                }
                // A container that is still to start has no process either.
                let was = std::mem::replace(populated, v2::state::is_populated(&self.group)?);
                let gone = (was && !*populated) || !self.group.exists();
                Ok(if gone { OomEvent::End } else { OomEvent::None })
            }
        }
    }

    /// Waits for the next want of memory, at most for `timeout`. `None` after that time.
    ///
    /// # Errors
    /// When a file cannot be read, or the system cannot poll.
    pub fn wait(&mut self, timeout: Option<std::time::Duration>) -> io::Result<Option<OomEvent>> {
        let end = timeout.map(|timeout| std::time::Instant::now() + timeout);
        loop {
            let event = self.check()?;
            if event != OomEvent::None {
                return Ok(Some(event));
            }
            let left = end.map(|end| end.saturating_duration_since(std::time::Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let left = left.map(Timespec::try_from).transpose().map_err(|_| Errno::INVAL)?;
            match poll(&mut [PollFd::new(&self.descriptor, PollFlags::IN)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// inotify is the same for any file, so that this needs no controller.
    #[test]
    fn version_2_tells_each_kill_and_the_end() {
        let place = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        put("memory.events", "oom 0\noom_kill 1\n");
        put("cgroup.events", "populated 0\nfrozen 0\n");
        let mut watch = watch_v2(place.path()).unwrap();
        assert_eq!(watch.wait(Some(Duration::ZERO)).unwrap(), None);
        put("cgroup.events", "populated 1\nfrozen 0\n");
        assert_eq!(watch.check().unwrap(), OomEvent::None);
        put("memory.events", "oom 1\noom_kill 2\n");
        assert_eq!(watch.wait(None).unwrap(), Some(OomEvent::Oom));
        assert_eq!(watch.check().unwrap(), OomEvent::None);
        put("cgroup.events", "populated 0\nfrozen 0\n");
        assert_eq!(watch.wait(None).unwrap(), Some(OomEvent::End));
    }
}
