//! The streams of one task: what comes in waits for its reader, what goes out waits for credit.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::Shutdown;

use crate::wire::{Budget, Kind, MAX_DATA, Outbox, ProtocolError, Stream, TaskId, Window};

/// Above this many bytes on the way to the host, no output is read.
pub(super) const MUCH_WAITING: usize = 4 * MAX_DATA;

/// How the descriptors of a task are written to and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Pipes or a terminal: closed.
    File,
    /// A stream socket: shut down for writing.
    Socket,
    /// A datagram socket: every piece is a datagram.
    Datagrams,
}

/// What the host sends.
#[derive(Debug)]
pub(super) struct Input {
    /// `None` when nobody reads it (any more): what comes is thrown away.
    descriptor: Option<OwnedFd>,
    flavour: Flavour,
    window: Window,
    queue: VecDeque<Vec<u8>>,
    /// How much of the first piece is written.
    offset: usize,
    ended: bool,
}

impl Input {
    pub(super) fn new(descriptor: Option<OwnedFd>, flavour: Flavour) -> Input {
        Input { descriptor, flavour, window: Window::new(), queue: VecDeque::new(), offset: 0, ended: false }
    }

    /// The descriptor to poll for writing.
    pub(super) fn waits_for(&self) -> Option<&OwnedFd> {
        self.descriptor.as_ref().filter(|_| !self.queue.is_empty())
    }

    /// Takes bytes and writes what can be written.
    pub(super) fn push(
        &mut self,
        task: TaskId,
        bytes: Vec<u8>,
        out: &mut Outbox,
    ) -> Result<(), ProtocolError> {
        self.window.received(bytes.len())?;
        match self.queue.back_mut() {
            Some(last) if self.flavour != Flavour::Datagrams && last.len() + bytes.len() <= MAX_DATA => {
                last.extend_from_slice(&bytes);
            }
            _ => self.queue.push_back(bytes),
        }
        self.write(task, out);
        Ok(())
    }

    /// No more comes.
    pub(super) fn end(&mut self, task: TaskId, out: &mut Outbox) {
        self.ended = true;
        self.write(task, out);
    }

    pub(super) fn write(&mut self, task: TaskId, out: &mut Outbox) {
        let mut taken = 0;
        while let Some(first) = self.queue.front() {
            let rest = &first[self.offset..];
            let Some(descriptor) = &self.descriptor else {
                taken += rest.len();
                self.offset = 0;
                self.queue.pop_front();
                continue;
            };
            match rustix::io::write(descriptor, rest) {
                Ok(count) => {
                    taken += count;
                    self.offset += count;
                    if self.offset == first.len() {
                        self.offset = 0;
                        self.queue.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // A datagram that nobody wants is lost; the next may be wanted.
                Err(_) if self.flavour == Flavour::Datagrams => {
                    taken += rest.len();
                    self.queue.pop_front();
                }
                Err(_) => self.descriptor = None,
            }
        }
        if let Some(credit) = self.window.consumed(taken)
            && !self.ended
        {
            out.push(Kind::Credit, Stream::Input.number(task), &credit.to_le_bytes());
        }
        if self.ended
            && self.queue.is_empty()
            && let Some(descriptor) = self.descriptor.take()
            && self.flavour == Flavour::Socket
        {
            // A peer that is gone has nothing to be told.
            let _ = rustix::net::shutdown(&descriptor, Shutdown::Write);
        }
    }

    /// Nobody reads it any more.
    pub(super) fn close(&mut self) {
        self.descriptor = None;
    }

    /// Whether nothing more will be written.
    pub(super) fn is_over(&self) -> bool {
        self.descriptor.is_none()
    }
}

/// What the host is sent.
#[derive(Debug)]
pub(super) struct Output {
    descriptor: OwnedFd,
    stream: Stream,
    budget: Budget,
    flavour: Flavour,
}

/// What reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// Bytes: there may be more.
    Some,
    /// Nothing at the moment.
    Nothing,
    /// No credit, or too much waits already.
    NotAllowed,
    /// The end.
    End,
}

impl Output {
    pub(super) fn new(descriptor: OwnedFd, stream: Stream, flavour: Flavour) -> io::Result<Output> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Output { descriptor, stream, budget: Budget::new(), flavour })
    }

    /// Whether it ends by itself: a datagram socket does not.
    pub(super) fn ends(&self) -> bool {
        self.flavour != Flavour::Datagrams
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn credit(&mut self, count: u32) -> Result<(), ProtocolError> {
        self.budget.credit(count)
    }

    /// The descriptor to poll for reading.
    pub(super) fn waits_for(&self, out: &Outbox) -> Option<&OwnedFd> {
        (self.room(out) > 0).then_some(&self.descriptor)
    }

    fn room(&self, out: &Outbox) -> usize {
        if out.waiting().len() >= MUCH_WAITING {
            return 0;
        }
        let room = self.budget.left().min(MAX_DATA);
        // A datagram is read whole or cut.
        if self.flavour == Flavour::Datagrams && room < MAX_DATA { 0 } else { room }
    }

    /// Reads once and sends that.
    pub(super) fn read(&mut self, task: TaskId, buffer: &mut [u8], out: &mut Outbox) -> Got {
        let room = self.room(out).min(buffer.len());
        if room == 0 {
            return Got::NotAllowed;
        }
        match rustix::io::read(&self.descriptor, &mut buffer[..room]) {
            Ok(0) if self.flavour == Flavour::Datagrams => Got::Some,
            Ok(0) => Got::End,
            Ok(count) => {
                out.push(Kind::Data, self.stream.number(task), &buffer[..count]);
                self.budget.spend(count);
                Got::Some
            }
            Err(Errno::INTR) => Got::Some,
            Err(Errno::AGAIN) => Got::Nothing,
            // Of a datagram socket: the last one that was sent was not wanted.
            Err(Errno::CONNREFUSED) if self.flavour == Flavour::Datagrams => Got::Some,
            // Of a terminal: nobody has it open (EIO).
            Err(_) => Got::End,
        }
    }
}
