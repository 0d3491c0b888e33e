//! One run of a program: input, two outputs, a limit in time and in size.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// The largest answer in bytes.
const MAX_OUTPUT: usize = 1 << 20;
/// How much of what it says besides is kept: its end.
const MAX_TALK: usize = 4 << 10;

/// How a run ended.
pub(super) struct Outcome {
    pub(super) status: ExitStatus,
    /// Standard output, whole.
    pub(super) output: Vec<u8>,
    /// The end of standard error.
    pub(super) talk: Vec<u8>,
}

/// Why there is no outcome. The program, and what it started in its process group, is killed.
pub(super) enum NoOutcome {
    Io(io::Error),
    Late,
    TooMuch,
}

impl<E: Into<io::Error>> From<E> for NoOutcome {
    fn from(error: E) -> NoOutcome {
        NoOutcome::Io(error.into())
    }
}

/// Runs a program with `environment` and nothing else of the caller's, in `/`, until `end`.
pub(super) fn run(
    program: &Path,
    environment: &[(&str, String)],
    input: &[u8],
    end: Instant,
) -> Result<Outcome, NoOutcome> {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(in_memory(input)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = stanza_sys::as_helper(&mut command).spawn()?;
    let followed = follow(&mut child, end);
    if followed.is_err() {
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // Not reaped yet, so the number is nobody else's.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    let status = child.wait()?;
    followed.map(|(output, talk)| Outcome { status, output, talk })
}

/// The input as a file: whoever does not read it stops nobody.
fn in_memory(input: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("cni", MemfdFlags::CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(file)
}

/// Reads both outputs until the program has ended. What it left running may hold them open, and is not waited for.
fn follow(child: &mut Child, end: Instant) -> Result<(Vec<u8>, Vec<u8>), NoOutcome> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let missing = || io::Error::other("a pipe is missing");
    let mut output = Incoming::new(child.stdout.take().ok_or_else(missing)?)?;
    let mut talk = Incoming::new(child.stderr.take().ok_or_else(missing)?)?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoOutcome::Late);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut watched = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        let pipes = [output.open_end(), talk.open_end()];
        watched.extend(pipes.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Looked at first: what it wrote before its end is in the pipes then.
        let ended = !watched[0].revents().is_empty();
        drop(watched);
        output.take_in(MAX_OUTPUT + 1)?;
        if output.bytes.len() > MAX_OUTPUT {
            return Err(NoOutcome::TooMuch);
        }
        talk.take_in(usize::MAX)?;
        let surplus = talk.bytes.len().saturating_sub(MAX_TALK);
        talk.bytes.drain(..surplus);
        if ended {
            return Ok((output.bytes, talk.bytes));
        }
    }
}

/// One pipe.
struct Incoming<P> {
    pipe: P,
    bytes: Vec<u8>,
    open: bool,
}

impl<P: Read + AsFd> Incoming<P> {
    fn new(pipe: P) -> io::Result<Incoming<P>> {
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Incoming { pipe, bytes: Vec::new(), open: true })
    }

    fn open_end(&self) -> Option<BorrowedFd<'_>> {
        self.open.then(|| self.pipe.as_fd())
    }

    /// Takes what is there, a pipe's worth at most, so that a flood delays no look at the clock.
    fn take_in(&mut self, most: usize) -> io::Result<()> {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            if !self.open || self.bytes.len() >= most {
                return Ok(());
            }
            match self.pipe.read(&mut buffer) {
                Ok(0) => self.open = false,
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
