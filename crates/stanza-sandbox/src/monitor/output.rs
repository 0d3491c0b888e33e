//! The container's standard streams: pipes or a terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use stanza_container::Stdio;

use super::isolation::Sink;
use crate::log::Stream;
use crate::plan::SandboxPlan;

/// One stream that the container writes.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stream: Stream,
    pub(super) descriptor: OwnedFd,
}

/// The standard streams of a container, at the monitor's end.
#[derive(Debug)]
pub(super) struct Streams {
    /// Those that may still bring something.
    pub(super) outputs: Vec<Output>,
    /// Where standard input goes; `None` when it is closed, or is the terminal.
    input: Option<OwnedFd>,
    /// The terminal's controller, which is input and output.
    terminal: Option<OwnedFd>,
    /// Input that the container has not taken yet.
    pending: Vec<u8>,
    /// Close input once `pending` is written.
    closing: bool,
    /// Input ends with the first client's.
    input_once: bool,
}

/// Above this, clients are not read until the container has taken some.
const MAX_PENDING: usize = 64 << 10;

/// Reads until the pipe is empty for the moment; more than one buffer a turn, so that a fast writer is not slowed by
/// one `poll` a buffer, and not endless, so that clients get their turn.
const READS_A_TURN: usize = 4;

/// What one read of an output brought.
enum Got {
    /// A whole buffer: there may be more.
    Full,
    /// Some bytes.
    Some,
    /// Nothing at the moment.
    Nothing,
    /// The end.
    End,
}

impl Streams {
    /// Makes the streams; the first result is for the container.
    pub(super) fn open(plan: &SandboxPlan) -> io::Result<(Stdio, Streams)> {
        let mut streams = Streams {
            outputs: Vec::new(),
            input: None,
            terminal: None,
            pending: Vec::new(),
            closing: false,
            input_once: plan.attached,
        };
        if plan.tty {
            return Ok((Stdio::Terminal { size: plan.console_size }, streams));
        }
        let flags = PipeFlags::CLOEXEC;
        let stdin = if plan.open_stdin {
            let (theirs, ours) = pipe_with(flags)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            streams.input = Some(ours);
            theirs
        } else {
            rustix::fs::open(
                "/dev/null",
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?
        };
        let mut output = |stream| -> io::Result<OwnedFd> {
            let (ours, theirs) = pipe_with(flags)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            streams.outputs.push(Output { stream, descriptor: ours });
            Ok(theirs)
        };
        let (stdout, stderr) = (output(Stream::Stdout)?, output(Stream::Stderr)?);
        Ok((Stdio::Descriptors([stdin, stdout, stderr]), streams))
    }

    /// Adds the terminal that the container opened.
    pub(super) fn with_controller(mut self, controller: Option<OwnedFd>) -> Streams {
        if let Some(controller) = controller
            && rustix::io::ioctl_fionbio(&controller, true).is_ok()
            && let Ok(reader) = rustix::io::fcntl_dupfd_cloexec(&controller, 3)
        {
            self.outputs.push(Output { stream: Stream::Stdout, descriptor: reader });
            self.terminal = Some(controller);
        }
        self
    }

    /// Reads what output `index` has, some buffers at most; `false` when it has ended.
    pub(super) fn read(&self, index: usize, sink: &mut Sink<'_>) -> bool {
        for _ in 0..READS_A_TURN {
            match self.read_once(index, sink) {
                Got::Full => {}
                Got::Some | Got::Nothing => return true,
                Got::End => return false,
            }
        }
        true
    }

    /// Reads until nothing more comes: the end of the stream, or nothing at the moment.
    pub(super) fn drain(&self, index: usize, sink: &mut Sink<'_>) {
        while !matches!(self.read_once(index, sink), Got::End | Got::Nothing) {}
    }

    fn read_once(&self, index: usize, sink: &mut Sink<'_>) -> Got {
        let mut buffer = [0; 16 << 10];
        let output = &self.outputs[index];
        match rustix::io::read(&output.descriptor, &mut buffer) {
            Ok(0) | Err(Errno::IO) => Got::End,
            Ok(count) => {
                sink(output.stream, &buffer[..count]);
                if count < buffer.len() { Got::Some } else { Got::Full }
            }
            Err(Errno::INTR) => Got::Full,
            Err(Errno::AGAIN) => Got::Nothing,
            Err(_) => Got::End,
        }
    }

    /// Where input is written, while there is some to write.
    pub(super) fn wants_to_write(&self) -> Option<BorrowedFd<'_>> {
        if self.pending.is_empty() { None } else { self.sink() }
    }

    fn sink(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().or(self.input.as_ref()).map(AsFd::as_fd)
    }

    /// Whether clients may send more input.
    pub(super) fn takes_input(&self) -> bool {
        self.pending.len() < MAX_PENDING
    }

    /// Takes input from a client.
    pub(super) fn push_input(&mut self, bytes: &[u8]) {
        if self.sink().is_some() && !self.closing {
            self.pending.extend_from_slice(bytes);
            self.write_input();
        }
    }

    /// No more input will come from the client that says so. Only the door that started the container and stays with it
    /// closes the container's input; one that attached later just leaves.
    pub(super) fn end_input(&mut self) {
        self.closing = self.input_once;
        self.write_input();
    }

    /// Writes as much input as the container takes.
    pub(super) fn write_input(&mut self) {
        while let Some(sink) = self.wants_to_write() {
            match rustix::io::write(sink, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.pending.clear();
                    self.input = None;
                }
            }
        }
        // A terminal has no end of input but what is typed.
        if self.closing && self.terminal.is_none() {
            self.input = None;
        }
    }

    /// Sets the terminal's size.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = &self.terminal {
            let _ =
                tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
        }
    }
}
