//! QEMU as a child of this process, for the machines that stanza starts for itself: a probe, or a template in the making.
//! They hold nobody's data, and end with the thread that started them.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stanza_sys::as_helper;

use super::command::{Command, CommandError, plan_command};
use super::find::Qemu;
use crate::qmp::{Qmp, QmpError};
use crate::spec::VmSpec;

/// How much of what QEMU says on its standard error is told.
const WORDS_LIMIT: u64 = 2000;

/// Why a machine of stanza's own did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// It cannot be described to QEMU.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// QEMU does not start.
    #[error("cannot start QEMU")]
    Start(#[source] io::Error),
    /// QEMU does not answer, or refuses.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU or the guest ended.
    #[error("the virtual machine ended before its agent was ready: {0}")]
    Ended(String),
    /// Nothing was heard.
    #[error("the virtual machine's agent was not ready within {} s", .0.as_secs())]
    Silent(Duration),
}

/// A machine. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    pub(crate) qmp: Qmp,
    agent: UnixStream,
}

impl Process {
    /// Starts the machine; its channels take the places of the standard input and output, which QEMU does not use.
    pub(crate) fn start(qemu: &Qemu, mut spec: VmSpec, limit: Duration) -> Result<Process, BootError> {
        (spec.qmp, spec.agent, spec.console) = (0, 1, None);
        let Command { program, arguments, .. } = plan_command(qemu, &spec)?;
        let (control, its_control) = UnixStream::pair().map_err(BootError::Start)?;
        let (agent, its_agent) = UnixStream::pair().map_err(BootError::Start)?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).env_clear();
        command.stdin(OwnedFd::from(its_control)).stdout(OwnedFd::from(its_agent)).stderr(Stdio::piped());
        let mut child = as_helper(&mut command).spawn().map_err(BootError::Start)?;
        // It holds the other ends.
        drop(command);
        match Qmp::connect(control, limit) {
            Ok(qmp) => Ok(Process { child, qmp, agent }),
            Err(QmpError::Ended) => Err(BootError::Ended(last_words(&mut child))),
            Err(error) => {
                last_words(&mut child);
                Err(error.into())
            }
        }
    }

    /// Greets the agent, and waits for its first byte.
    pub(crate) fn wait_ready(&mut self, greeting: &[u8], limit: Duration) -> Result<(), BootError> {
        // It waits in the socket until the agent is there.
        self.agent.write_all(greeting).map_err(BootError::Start)?;
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BootError::Silent(limit));
            }
            let timeout = Timespec::try_from(left).ok();
            let ready = poll(&mut [PollFd::new(&self.agent, PollFlags::IN)], timeout.as_ref());
            match ready.map_err(io::Error::from) {
                Ok(0) => return Err(BootError::Silent(limit)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BootError::Start(error)),
            }
            return match self.agent.read(&mut [0]) {
                Ok(1..) => Ok(()),
                _ => Err(BootError::Ended(last_words(&mut self.child))),
            };
        }
    }

    /// Ends QEMU and waits until it is gone.
    pub(crate) fn quit(mut self, limit: Duration) -> Result<(), BootError> {
        self.qmp.quit(limit)?;
        let _ = self.agent.shutdown(Shutdown::Both);
        self.child.wait().map(drop).map_err(BootError::Start)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        last_words(&mut self.child);
    }
}

/// Kills QEMU and gives what it said.
fn last_words(child: &mut Child) -> String {
    let _ = child.kill();
    let _ = child.wait();
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(WORDS_LIMIT).read_to_end(&mut words);
    }
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    if words.is_empty() { "QEMU says nothing".to_owned() } else { words }
}
