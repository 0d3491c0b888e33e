//! The caller waits for the container's process: its signals go there, its terminal is relayed, its end is passed on.
//!
//! The end is learnt from the process's descriptor, so no signal can be missed, however early it comes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use stanza_container::Init;
use stanza_sys::{SignalDescriptor, signal_process};

use crate::failure::{Doing, Failure};

const SIGURG: i32 = 23;
const SIGPIPE: i32 = 13;
const SIGWINCH: i32 = 28;
/// Those that a process gets for what it does itself or its children do, cannot have blocked, or that the C library keeps to
/// itself.
const NOT_FORWARDED: [i32; 10] = [4, 5, 7, 8, 9, 11, 17, 19, 32, 33];

/// Waits until the process has ended; its exit code, or 128 and the number of the signal that ended it.
pub(crate) fn attend(init: &Init) -> Result<u8, Failure> {
    let step = "wait for the container's process";
    let signals: Vec<i32> = (1..=64).filter(|signal| !NOT_FORWARDED.contains(signal)).collect();
    let signals = SignalDescriptor::new(&signals).step(step)?;
    let mut relay = init.controller.as_ref().map(Relay::new).transpose().step("relay the terminal")?;
    loop {
        let mut polled = vec![PollFd::new(&init.pidfd, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        let relayed = relay.as_ref().map_or_else(Vec::new, Relay::wanted);
        polled
            .extend(relayed.iter().map(|(descriptor, flags)| PollFd::from_borrowed_fd(*descriptor, *flags)));
        match poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            other => other.step(step)?,
        };
        let ended = !polled[0].revents().is_empty();
        drop(polled);
        if let Some(relay) = &mut relay {
            relay.turn().step("relay the terminal")?;
        }
        while let Some(record) = signals.next().step(step)? {
            match record.signal {
                SIGURG | SIGPIPE => {}
                SIGWINCH => relay.iter().for_each(Relay::resize),
                signal => match signal_process(init.pidfd.as_fd(), signal) {
                    // It has just ended.
                    Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
                    other => other.step("forward a signal")?,
                },
            }
        }
        if ended {
            if let Some(relay) = &mut relay {
                relay.drain();
            }
            return exit_code(&init.pidfd);
        }
    }
}

/// Takes the ended process off the process table.
pub(crate) fn exit_code(pidfd: &OwnedFd) -> Result<u8, Failure> {
    let status = loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other.step("wait for the container's process")?,
        }
    };
    let code = status.and_then(|status| {
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
    });
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

const CHUNK: usize = 32 << 10;

/// Bytes on their way in one direction.
#[derive(Default)]
struct Way {
    bytes: Vec<u8>,
    closed: bool,
}

impl Way {
    /// Moves what can be moved without waiting.
    fn turn(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        if self.bytes.is_empty() && !self.closed && is_ready(from, PollFlags::IN) {
            let mut buffer = vec![0; CHUNK];
            match rustix::io::read(from, &mut buffer) {
                Ok(0) | Err(Errno::IO) => self.closed = true,
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while !self.bytes.is_empty() && is_ready(to, PollFlags::OUT) {
            match rustix::io::write(to, &self.bytes) {
                Ok(count) => drop(self.bytes.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody reads any more.
                Err(_) => {
                    self.bytes.clear();
                    self.closed = true;
                }
            }
        }
        Ok(())
    }

    fn wanted<'a>(&self, from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Option<(BorrowedFd<'a>, PollFlags)> {
        match (self.bytes.is_empty(), self.closed) {
            (false, _) => Some((to, PollFlags::OUT)),
            (true, false) => Some((from, PollFlags::IN)),
            (true, true) => None,
        }
    }
}

fn is_ready(descriptor: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, flags)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0)
}

/// The caller's terminal or pipes, and the controlling end of the container's terminal.
struct Relay<'a> {
    controller: &'a OwnedFd,
    inward: Way,
    outward: Way,
    /// How the caller's terminal was.
    before: Option<Termios>,
}

impl<'a> Relay<'a> {
    fn new(controller: &'a OwnedFd) -> io::Result<Relay<'a>> {
        rustix::io::ioctl_fionbio(controller, true)?;
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin, OptionalActions::Now, &raw)?;
        }
        let relay = Relay { controller, inward: Way::default(), outward: Way::default(), before };
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of the caller's.
    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = tcsetwinsize(self.controller, size);
        }
    }

    fn wanted(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let controller = self.controller.as_fd();
        let inward = self.inward.wanted(rustix::stdio::stdin(), controller);
        let outward = self.outward.wanted(controller, rustix::stdio::stdout());
        inward.into_iter().chain(outward).collect()
    }

    fn turn(&mut self) -> io::Result<()> {
        let controller = self.controller.as_fd();
        self.inward.turn(rustix::stdio::stdin(), controller)?;
        self.outward.turn(controller, rustix::stdio::stdout())
    }

    /// Passes on what the container has written until its end.
    fn drain(&mut self) {
        let stdout = rustix::stdio::stdout();
        while !self.outward.closed && is_ready(self.controller.as_fd(), PollFlags::IN) {
            if self.outward.turn(self.controller.as_fd(), stdout).is_err() {
                return;
            }
            if !self.outward.bytes.is_empty() {
                let _ = poll(&mut [PollFd::from_borrowed_fd(stdout, PollFlags::OUT)], None);
            }
        }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}
