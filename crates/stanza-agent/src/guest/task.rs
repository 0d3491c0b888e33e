//! One task: a process of the container, or a connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::Pid;
use rustix::termios::{Winsize, tcsetwinsize};
use stanza_spec::ErrorKind;

use super::streams::{Got, Input, Output};
use crate::wire::{ExitStatus, Kind, Notice, Outbox, ProtocolError, Refusal, Stream, TaskId};

/// How many buffers of one output are read before others get their turn.
const READS_A_TURN: usize = 8;

/// What is behind the streams.
#[derive(Debug)]
pub(super) enum What {
    /// A process.
    Process {
        pid: Pid,
        pidfd: OwnedFd,
        /// The controlling end of its terminal.
        terminal: Option<OwnedFd>,
        /// How it ended, once it has.
        status: Option<ExitStatus>,
        /// How many processes of the container had been killed for want of memory when it started.
        oom_kills: u64,
    },
    /// A socket that is being connected, or is.
    Connection { connecting: Option<OwnedFd> },
}

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) what: What,
    pub(super) input: Input,
    /// Those that have not ended.
    pub(super) outputs: Vec<Output>,
}

impl Task {
    /// The descriptors that it waits for, and whether for writing.
    pub(super) fn waits_for(&self, out: &Outbox) -> impl Iterator<Item = (&OwnedFd, bool)> {
        let connecting = match &self.what {
            What::Connection { connecting } => connecting.as_ref(),
            What::Process { .. } => None,
        };
        let input = self.input.waits_for().filter(|_| connecting.is_none());
        let write = connecting.into_iter().chain(input).map(|descriptor| (descriptor, true));
        // Of a process that has ended what is there is read without waiting.
        let read = self.outputs.iter().filter(move |_| connecting.is_none());
        write.chain(read.filter_map(|output| output.waits_for(out)).map(|descriptor| (descriptor, false)))
    }

    /// Moves what can be moved; whether it is over.
    pub(super) fn turn(&mut self, buffer: &mut [u8], out: &mut Outbox) -> Turn {
        if let What::Connection { connecting } = &mut self.what
            && let Some(socket) = connecting.take()
        {
            match super::dial::connected(&socket) {
                Ok(true) => super::tell(out, &Notice::Started { task: self.id, pid: 0 }),
                Ok(false) => {
                    *connecting = Some(socket);
                    return Turn::Goes;
                }
                Err(error) => {
                    let refusal = Refusal::new(
                        ErrorKind::Unavailable,
                        format!("cannot connect inside the guest: {error}"),
                    );
                    super::tell(out, &Notice::Failed { task: self.id, refusal });
                    // It has never stood, so it does not end.
                    *connecting = Some(socket);
                    return Turn::Over;
                }
            }
        }
        self.input.write(self.id, out);
        let ended = matches!(self.what, What::Process { status: Some(_), .. });
        let closed = self.input.is_over();
        let id = self.id;
        let mut more = false;
        self.outputs.retain_mut(|output| {
            let mut got = Got::Some;
            for _ in 0..READS_A_TURN {
                got = output.read(id, buffer, out);
                if got != Got::Some {
                    break;
                }
            }
            more |= got == Got::Some;
            // Its children may hold the pipes open; they are not waited for.
            let over = got == Got::End || got == Got::Nothing && (ended || closed && !output.ends());
            if over {
                out.push(Kind::End, output.stream().number(id), b"");
            }
            !over
        });
        let over = self.outputs.is_empty()
            && match &self.what {
                What::Process { status, .. } => status.is_some(),
                What::Connection { .. } => self.input.is_over(),
            };
        match (over, more) {
            (true, _) => Turn::Over,
            (false, true) => Turn::HasMore,
            (false, false) => Turn::Goes,
        }
    }

    /// Ends a connection in both directions, whatever its peer does.
    pub(super) fn close(&mut self, out: &mut Outbox) {
        if let What::Connection { connecting } = &mut self.what {
            // One that does not stand yet is as good as refused: its turn tells.
            if let Some(socket) = connecting {
                let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
                return;
            }
            self.input.close();
            for output in self.outputs.drain(..) {
                out.push(Kind::End, output.stream().number(self.id), b"");
            }
        }
    }

    pub(super) fn credit(&mut self, stream: Stream, count: u32) -> Result<(), ProtocolError> {
        // Credit for an output that ended meanwhile is late, not wrong.
        let output = self.outputs.iter_mut().find(|output| output.stream() == stream);
        output.map_or(Ok(()), |output| output.credit(count))
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) {
        if let What::Process { terminal: Some(terminal), .. } = &self.what {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            // It may be closed by now.
            let _ = tcsetwinsize(terminal, size);
        }
    }

    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.what {
            What::Process { pidfd, .. } => Some(pidfd.as_fd()),
            What::Connection { .. } => None,
        }
    }
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits for something.
    Goes,
    /// There may be more to read at once.
    HasMore,
    /// Nothing more will come.
    Over,
}
