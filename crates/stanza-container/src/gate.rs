//! The gate between `create` and `start`: a created container's first process waits at it, ready to become its program.
//!
//! ```text
//!  start.fifo    the process reads; whoever writes a byte lets it through, and cannot when the process is gone (ENXIO)
//!  result.fifo   the process holds it for writing until its exec, and says there why that failed; its end is success
//! ```
//!
//! The names are the caller's. Both ends are opened before the process is in its root, so it needs no path.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::Errno;

use crate::error::{During, Failure, LaunchError};

/// The process's ends of the two pipes.
#[derive(Debug)]
pub struct Gate {
    start: OwnedFd,
    result: OwnedFd,
}

/// The longest report of a failed exec.
const LONGEST: u64 = 4096;

impl Gate {
    /// Makes the pipes and opens both.
    ///
    /// # Errors
    /// When the directory does not allow it.
    pub fn create(start: &Path, result: &Path) -> io::Result<Gate> {
        let make = |path: &Path| {
            mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
            // For both directions: opening one alone would wait for the other side.
            open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        };
        Ok(Gate { start: make(start)?, result: make(result)? })
    }

    /// Both, for who closes all others.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.start.as_fd(), self.result.as_fd()]
    }

    /// The process waits to be let through.
    pub(crate) fn wait(&self) -> Result<(), Failure> {
        // A container may be created long before it is started, and have little memory; without it the wait only costs more.
        let _ = stanza_sys::release_program_pages();
        loop {
            match rustix::io::read(&self.start, &mut [0u8]) {
                Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error).during("wait to be started"),
            }
        }
    }

    /// The process's last words, to the one who let it through.
    pub(crate) fn say_failed(&self, failure: &Failure) {
        if let Ok(text) = serde_json::to_vec(failure) {
            let _ = rustix::io::write(&self.result, &text);
        }
    }
}

/// Lets the process at the gate through, and returns when it has become its program. Removes `start`, so that nobody else
/// tries.
///
/// # Errors
/// [`LaunchError::Died`] when nobody waits there; else why it could not become its program.
pub fn open_gate(start: &Path, result: &Path) -> Result<(), LaunchError> {
    let step = |step: &'static str| {
        move |error: Errno| LaunchError::Step { step: step.to_owned(), source: error.into() }
    };
    let report = open(result, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(step("open the gate"))?;
    let opened = open(start, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    rustix::fs::unlink(start).map_err(step("open the gate"))?;
    match opened {
        Ok(gate) => rustix::io::write(&gate, b"0").map_err(step("open the gate"))?,
        Err(Errno::NXIO) => return Err(LaunchError::Died),
        Err(error) => return Err(step("open the gate")(error)),
    };
    let mut text = Vec::new();
    let mut report = File::from(report).take(LONGEST);
    loop {
        match report.read_to_end(&mut text) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // What was read so far is kept.
                let _ = poll(&mut [PollFd::new(report.get_ref(), PollFlags::IN)], None);
            }
            Err(source) => {
                return Err(LaunchError::Step {
                    step: "hear from the container's process".to_owned(),
                    source,
                });
            }
        }
    }
    match serde_json::from_slice::<Failure>(&text) {
        Ok(failure) => Err(failure.into()),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_at_the_gate_is_an_error_and_a_process_there_is_let_through() {
        let directory = std::env::temp_dir().join(format!("stanza-gate-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let (start, result) = (directory.join("start"), directory.join("result"));
        drop(Gate::create(&start, &result).unwrap());
        assert!(matches!(open_gate(&start, &result), Err(LaunchError::Died)));
        std::fs::remove_file(&result).unwrap();

        let gate = Gate::create(&start, &result).unwrap();
        let waiting = std::thread::spawn(move || {
            gate.wait().unwrap();
            gate.say_failed(&Failure::configuration("no"));
        });
        let told = open_gate(&start, &result).unwrap_err();
        assert_eq!(told.to_string(), "no");
        waiting.join().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
