//! The helper's process: its birth, how it tells that it is ready, its death.
//!
//! ```text
//!  owner ── clone (own mounts) ──▶ child: signals, session, death with the owner, name space onto the mount point, exec
//!    ├─◀─ ready: a byte ───────────┤
//!    └─◀─ standard error ──────────┘  kept open, unread: full means that what it prints is lost
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use stanza_sys::{CStringArray, CloneFlags, Cloned, clone_process, execute, keep_only};

use super::{PATIENCE, UserModeError, UserModePlan, prepare, prepare_errno};

/// How a helper tells that it is ready.
pub(super) enum Ready {
    /// Something on its standard output.
    StandardOutput,
    /// Something on a descriptor, whose number follows this word.
    Descriptor(&'static str),
}

/// A running helper. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    /// Its last words.
    stderr: File,
}

impl Process {
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Starts it and waits until it is ready. `words` gives its arguments, for the mount point of the name space.
    pub(super) fn start(
        plan: &UserModePlan,
        netns: BorrowedFd<'_>,
        words: impl FnOnce(&str) -> (Vec<String>, Ready),
    ) -> Result<Process, UserModeError> {
        let driver = plan.driver;
        let step = "make pipes";
        let mount_point = plan.directory.join("netns");
        File::create(&mount_point).map_err(prepare(driver, "make the mount point of the name space"))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(prepare_errno(driver, "open /dev/null"))?;
        // The helper must never wait for somebody who reads what it says.
        let (stderr, their_stderr) = quiet_pipe().map_err(prepare_errno(driver, step))?;
        let (ready, their_ready) = pipe_with(PipeFlags::empty()).map_err(prepare_errno(driver, step))?;
        let (mut arguments, how) = words(&mount_point.to_string_lossy());
        let their_stdout = match how {
            Ready::StandardOutput => their_ready.as_fd(),
            Ready::Descriptor(word) => {
                arguments.insert(0, format!("{word}{}", their_ready.as_raw_fd()));
                null.as_fd()
            }
        };
        let child = Child::new(&plan.program, &arguments, &mount_point, &plan.directory, netns)
            .map_err(prepare(driver, "write the command line"))?;
        match clone_process(CloneFlags::MOUNT, None).map_err(prepare(driver, "start a process"))? {
            Cloned::Child => {
                child.become_helper([null.as_fd(), their_stdout, their_stderr.as_fd()], their_ready.as_fd())
            }
            Cloned::Parent { pid, pidfd } => {
                drop((their_ready, their_stderr));
                let process = Process { pid, pidfd, stderr: stderr.into() };
                process.wait_until_ready(plan, &ready.into())
            }
        }
    }

    fn wait_until_ready(mut self, plan: &UserModePlan, mut ready: &File) -> Result<Process, UserModeError> {
        let program = plan.driver.name();
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let polled = loop {
            match poll(&mut [PollFd::new(ready, PollFlags::IN)], Some(&patience)) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        if polled == Ok(0) {
            self.kill();
            return Err(UserModeError::Late { program, text: self.last_words() });
        }
        // The end of the pipe without a byte is the end of the helper.
        if ready.read(&mut [0; 16]).is_ok_and(|count| count > 0) {
            return Ok(self);
        }
        self.kill();
        Err(UserModeError::Failed { program, text: self.last_words() })
    }

    /// What it said, in one line, without its complaints that there is no system logger.
    fn last_words(&mut self) -> String {
        let mut bytes = vec![0; 16 << 10];
        let count = self.stderr.read(&mut bytes).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]);
        let lines = text
            .lines()
            .map(without_time)
            .filter(|line| !line.is_empty() && !line.ends_with("bytes to syslog"));
        let text = lines.collect::<Vec<_>>().join("; ");
        if text.is_empty() { "it does not say why".to_owned() } else { text }
    }

    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        while let Err(Errno::INTR) = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {}
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A line without the seconds that pasta puts before it.
fn without_time(line: &str) -> &str {
    let line = line.trim();
    match line.split_once(": ") {
        Some((time, rest)) if time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => rest.trim(),
        _ => line,
    }
}

fn quiet_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
}

/// All that the child needs, made before there is one: it must not allocate.
struct Child {
    program: CStringArray,
    arguments: CStringArray,
    environment: CStringArray,
    /// The name space by descriptor, where it is mounted, and the directory to be in.
    places: CStringArray,
    netns: i32,
    owner: Pid,
}

impl Child {
    fn new(
        program: &Path,
        arguments: &[String],
        mount_point: &Path,
        directory: &Path,
        netns: BorrowedFd<'_>,
    ) -> io::Result<Child> {
        let name = program.file_name().unwrap_or(program.as_os_str());
        let words = std::iter::once(name.as_bytes()).chain(arguments.iter().map(String::as_bytes));
        let descriptor = format!("/proc/self/fd/{}", netns.as_raw_fd());
        Ok(Child {
            program: CStringArray::new([program.as_os_str().as_bytes()])?,
            arguments: CStringArray::new(words)?,
            environment: CStringArray::new::<&str>([])?,
            places: CStringArray::new([
                descriptor.as_bytes(),
                mount_point.as_os_str().as_bytes(),
                directory.as_os_str().as_bytes(),
            ])?,
            netns: netns.as_raw_fd(),
            owner: rustix::process::getpid(),
        })
    }

    /// In the child.
    fn become_helper(&self, standard: [BorrowedFd<'_>; 3], ready: BorrowedFd<'_>) -> ! {
        let error = match self.try_become_helper(standard, ready) {
            Ok(error) | Err(error) => error,
        };
        // The owner reads it as the helper's last words.
        let text = format!("{error}\n");
        let _ = rustix::io::write(standard[2], text.as_bytes());
        stanza_sys::exit_process(127)
    }

    fn try_become_helper(
        &self,
        [stdin, stdout, stderr]: [BorrowedFd<'_>; 3],
        ready: BorrowedFd<'_>,
    ) -> io::Result<io::Error> {
        // pasta refuses to start where SIGPIPE is ignored.
        stanza_sys::reset_signals()?;
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(self.owner) {
            stanza_sys::exit_process(0);
        }
        let mut places = self.places.iter();
        if let (Some(source), Some(target), Some(directory)) = (places.next(), places.next(), places.next()) {
            mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
            mount_bind(source, target)?;
            rustix::process::chdir(directory)?;
        }
        debug_assert!(self.netns > 2, "the standard descriptors are taken");
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        keep_only(3, &[ready, stderr])?;
        let Some(program) = self.program.first() else { return Ok(io::ErrorKind::NotFound.into()) };
        Ok(execute(program, &self.arguments, &self.environment))
    }
}

#[cfg(test)]
mod tests {
    use super::without_time;

    #[test]
    fn a_helpers_words_come_without_the_time() {
        assert_eq!(without_time("1795689908.1176: Couldn't x: y"), "Couldn't x: y");
        assert_eq!(without_time("Couldn't x: y"), "Couldn't x: y");
    }
}
