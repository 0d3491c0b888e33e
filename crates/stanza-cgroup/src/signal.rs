//! Signals to all processes of a container.
//!
//! Between reading a list of processes and signalling them one may fork a child that is in no list. Version 2 kills a whole
//! cgroup in one step. All else is done while the tasks are frozen, or, without a freezer, again until the list has nothing new.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::cgroup::{Cgroup, ControlError, failed, pids_below, wait_at_most, wait_until};
use crate::file;
use crate::plan::{Group, Version};
use crate::v2;

/// How long to wait for all tasks to stop before a signal; one that is stuck in the kernel gets it all the same.
const FREEZE_AT_MOST: Duration = Duration::from_millis(100);

/// How often a list is read again while it has new processes.
const ROUNDS: usize = 100;

impl Cgroup {
    /// Sends a signal to all processes in the cgroup and below, and does not wait for what they do. Frozen ones stay frozen and
    /// get it when they thaw, except for `SIGKILL`, which thaws them.
    ///
    /// # Errors
    /// [`ControlError`] when the processes cannot be listed or the freezer does not answer; a process that is gone is none.
    pub fn signal_all(&self, signal: Signal) -> Result<(), ControlError> {
        let Some(group) = self.groups.first() else { return Ok(()) };
        let path = group.directory();
        self.send(&path, signal).map_err(|source| failed("signal", &path, source))
    }

    /// Kills all processes in the cgroup and below, and returns when all have ended; whether their parents have
    /// collected them does not matter.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::TimedOut`] when some process does not end.
    pub fn kill(&self) -> Result<(), ControlError> {
        match self.groups.first() {
            Some(group) => self.kill_in(&group.directory()),
            None => Ok(()),
        }
    }

    /// Whether any process is in the cgroup or below. `false` when the cgroup is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_populated(&self) -> Result<bool, ControlError> {
        let Some(path) = self.groups.first().map(Group::directory) else { return Ok(false) };
        let populated = match self.version {
            Version::V2 => v2::state::is_populated(&path),
            _ => pids_below(&path).map(|pids| !pids.is_empty()),
        };
        populated.map_err(|source| failed("read", &path, source))
    }

    pub(crate) fn kill_in(&self, path: &Path) -> Result<(), ControlError> {
        self.send(path, Signal::KILL).map_err(|source| failed("kill", path, source))?;
        let empty = wait_until(|| {
            let left = pids_below(path)?;
            // What was forked between the look and the signal.
            left.iter().for_each(|pid| signal_process(*pid, Signal::KILL));
            Ok(left.is_empty())
        });
        match empty {
            Ok(true) => Ok(()),
            Ok(false) => Err(ControlError::TimedOut { action: "kill", path: path.to_owned() }),
            Err(source) => Err(failed("kill", path, source)),
        }
    }

    fn send(&self, path: &Path, signal: Signal) -> io::Result<()> {
        let kill = signal == Signal::KILL;
        if kill && self.version == Version::V2 && v2::state::kill(path)? {
            return Ok(());
        }
        let processes = pids_below(path)?;
        let freezer = self.freezer();
        let Some(freezer) = freezer.filter(|_| !processes.is_empty()) else {
            return send_again(path, processes, signal);
        };
        let stood_still = match self.is_frozen(&freezer) {
            // It has no freezer, or is going.
            Err(error) if file::is_gone(&error) => return send_again(path, processes, signal),
            other => other?,
        };
        if stood_still {
            processes.iter().for_each(|pid| signal_process(*pid, signal));
            return if kill { self.set_frozen(&freezer, false) } else { Ok(()) };
        }
        match self.set_frozen(&freezer, true) {
            Err(error) if file::is_gone(&error) => return send_again(path, processes, signal),
            other => other?,
        }
        let sent = wait_at_most(FREEZE_AT_MOST, || self.is_frozen(&freezer))
            .and_then(|_| pids_below(path))
            .map(|pids| pids.into_iter().for_each(|pid| signal_process(pid, signal)));
        // Thawed also after an error: nobody asked for tasks that stand still.
        match self.set_frozen(&freezer, false) {
            Err(error) if !file::is_gone(&error) => Err(error),
            _ => sent,
        }
    }
}

/// Signals the processes, and those that were made meanwhile, each once.
fn send_again(path: &Path, mut processes: Vec<u32>, signal: Signal) -> io::Result<()> {
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        processes.retain(|pid| seen.insert(*pid));
        if processes.is_empty() {
            break;
        }
        processes.iter().for_each(|pid| signal_process(*pid, signal));
        processes = pids_below(path)?;
    }
    Ok(())
}

fn signal_process(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // One that is gone already needs no signal.
        let _ = rustix::process::kill_process(pid, signal);
    }
}
