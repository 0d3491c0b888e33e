//! A container that stands still while something is done to its files, and goes on however that ends.
//!
//! ```text
//!  caller ── clones ──▶ guard: waits for the pipe's end ─▶ thaws
//!    └─ freezes, works, closes the pipe (or is killed, which closes it too)
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use stanza_cgroup::{Cgroup, ControlError};
use stanza_spec::{Classify, ErrorKind};
use stanza_sys::{CloneFlags, Cloned, clone_process, keep_only};

/// Why a container could not be made to stand still.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// Its control group.
    #[error("cannot pause the container")]
    Control(#[from] ControlError),
    /// The process that would let it go on.
    #[error("cannot start the process that lets the container go on")]
    Guard(#[source] io::Error),
}

impl Classify for PauseError {
    fn kind(&self) -> ErrorKind {
        match self {
            PauseError::Control(error) => error.kind(),
            PauseError::Guard(source) => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PauseError::Control(error) => error.hint(),
            PauseError::Guard(_) => None,
        }
    }
}

/// A container that stands still. Dropped, it goes on.
#[derive(Debug)]
pub struct Paused {
    cgroup: Cgroup,
    /// Open for as long as it is to stand still.
    line: Option<OwnedFd>,
    guard: OwnedFd,
}

/// Stops all processes of a container; `None` when they stand still already, which is then left to whoever did that.
///
/// The caller must be single-threaded.
///
/// # Errors
/// When they cannot be stopped; then they run.
pub fn pause(cgroup: Cgroup) -> Result<Option<Paused>, PauseError> {
    if cgroup.is_paused() {
        return Ok(None);
    }
    let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| PauseError::Guard(error.into()))?;
    match clone_process(CloneFlags::NONE, None).map_err(PauseError::Guard)? {
        Cloned::Child => {
            drop(ours);
            // Away from the terminal's signals, and from everything that the caller has open.
            let _ = rustix::process::setsid();
            let _ = keep_only(0, &[theirs.as_fd()]);
            while let Err(Errno::INTR) = rustix::io::read(&theirs, &mut [0; 1]) {}
            stanza_sys::exit_process(i32::from(cgroup.thaw().is_err()))
        }
        Cloned::Parent { pidfd, .. } => {
            let paused = Paused { cgroup, line: Some(ours), guard: pidfd };
            paused.cgroup.freeze()?;
            Ok(Some(paused))
        }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.line = None;
        while let Err(Errno::INTR) = waitid(WaitId::PidFd(self.guard.as_fd()), WaitIdOptions::EXITED) {}
        if self.cgroup.is_paused() {
            // The guard was killed. A container that is gone needs nothing.
            let _ = self.cgroup.thaw();
        }
    }
}
