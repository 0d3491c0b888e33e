//! The host's side: one [`Guest`] in the monitor's `poll`.

mod event;
mod session;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use stanza_spec::oci::runtime::LinuxResources;
use stanza_spec::{Classify, ErrorKind};

use crate::wire::{
    ContainerPlan, ExecPlan, GuestAddress, GuestConfig, MAX_REQUEST, MAX_TASKS, ProtocolError, Stream, TaskId,
};
pub use event::Event;
#[cfg(feature = "fuzzing")]
pub(crate) use session::Session;
#[cfg(not(feature = "fuzzing"))]
use session::Session;

/// The most that one [`Guest::receive`] reads: whoever else is in the `poll` gets its turn.
const READ_AT_ONCE: usize = 256 << 10;

/// Why a guest cannot be talked to, or not about this.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// It does not keep to the protocol. The connection is dead.
    #[error("the guest's agent does not keep to the protocol")]
    Protocol(#[from] ProtocolError),
    /// The channel has ended. The connection is dead.
    #[error("the guest's agent has gone")]
    Gone,
    /// The channel fails. The connection is dead.
    #[error("the channel to the guest's agent failed")]
    Channel(#[source] io::Error),
    /// Too much waits to be read by the guest.
    #[error("the guest's agent does not read what it is told")]
    Stopped,
    /// A request is too long to be sent.
    #[error("a request of {0} bytes to the guest's agent, which takes {MAX_REQUEST}")]
    TooLong(usize),
    /// A request that is no JSON.
    #[error("a request to the guest's agent cannot be written down")]
    Encode(#[source] serde_json::Error),
    /// The number of a task that is there.
    #[error("the guest has a task {0} already")]
    Taken(TaskId),
    /// The number of a task that is not there.
    #[error("the guest has no task {0}")]
    NoTask(TaskId),
    /// No more can be started.
    #[error("the guest has {MAX_TASKS} tasks already")]
    TooMany,
}

impl Classify for GuestError {
    fn kind(&self) -> ErrorKind {
        match self {
            GuestError::Protocol(error) => error.kind(),
            GuestError::Gone | GuestError::Stopped => ErrorKind::Unavailable,
            GuestError::Channel(source) => ErrorKind::of_io(source),
            GuestError::TooLong(_) => ErrorKind::InvalidArgument,
            GuestError::Encode(_) | GuestError::Taken(_) => ErrorKind::Internal,
            GuestError::NoTask(_) => ErrorKind::Conflict,
            GuestError::TooMany => ErrorKind::Exhausted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            GuestError::Protocol(error) => error.hint(),
            _ => None,
        }
    }
}

/// What a host says first. A guest that is not configured answers it, as often as it is said: with the answer it is ready.
#[must_use]
pub fn greeting() -> Vec<u8> {
    Session::greeting()
}

/// The agent of one guest. Nothing here ever waits: requests are queued, [`Guest::flush`] sends them, [`Guest::receive`] tells
/// what came of them.
#[derive(Debug)]
pub struct Guest {
    channel: OwnedFd,
    session: Session,
    buffer: Vec<u8>,
}

impl AsFd for Guest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Guest {
    /// Greets the agent at the other end, which answers with [`Event::Ready`] once it is there. Requests may be queued before
    /// that: it does them in order.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking.
    pub fn new(channel: impl Into<OwnedFd>) -> io::Result<Guest> {
        let channel = channel.into();
        rustix::io::ioctl_fionbio(&channel, true)?;
        Ok(Guest { channel, session: Session::new(), buffer: Vec::new() })
    }

    /// Whether there is something to send: then `poll` for writing too.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.session.waiting().is_empty()
    }

    /// Sends what the channel takes.
    ///
    /// # Errors
    /// When the channel is dead.
    pub fn flush(&mut self) -> Result<(), GuestError> {
        while self.wants_write() {
            match rustix::io::write(&self.channel, self.session.waiting()) {
                Ok(count) => self.session.written(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(GuestError::Gone),
                Err(error) => return Err(GuestError::Channel(error.into())),
            }
        }
        Ok(())
    }

    /// What the guest has said since: nothing when there is nothing to read.
    ///
    /// # Errors
    /// When the guest does not keep to the protocol, or the channel is dead: all events before were given by earlier calls.
    pub fn receive(&mut self) -> Result<Vec<Event>, GuestError> {
        self.buffer.resize(READ_AT_ONCE, 0);
        let count = match rustix::io::read(&self.channel, &mut self.buffer[..]) {
            Ok(0) | Err(Errno::CONNRESET) => return Err(GuestError::Gone),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(GuestError::Channel(error.into())),
        };
        Ok(self.session.receive(&self.buffer[..count])?)
    }

    /// Makes the guest what it is to be: [`Event::Configured`] or [`Event::NotConfigured`]. Once.
    ///
    /// # Errors
    /// When the request is too long, or too much waits.
    pub fn configure(&mut self, config: GuestConfig) -> Result<(), GuestError> {
        self.session.configure(config)
    }

    /// Runs the container: [`Event::Started`] or [`Event::Failed`]. Once.
    ///
    /// # Errors
    /// As above, and when the number is in use.
    pub fn create(&mut self, task: TaskId, plan: ContainerPlan) -> Result<(), GuestError> {
        self.session.create(task, plan)
    }

    /// Runs one more process in the container: [`Event::Started`] or [`Event::Failed`].
    ///
    /// # Errors
    /// As [`Guest::create`].
    pub fn exec(&mut self, task: TaskId, plan: ExecPlan) -> Result<(), GuestError> {
        self.session.exec(task, plan)
    }

    /// Connects to something inside: [`Event::Started`] or [`Event::Failed`]. What comes out of the connection is
    /// [`Stream::Output`]; it exits with code 0 when both directions have ended, of a datagram socket when its input has.
    ///
    /// # Errors
    /// As [`Guest::create`].
    pub fn dial(&mut self, task: TaskId, address: GuestAddress) -> Result<(), GuestError> {
        self.session.dial(task, address)
    }

    /// Sends bytes to a task's input, as many as its window and the queue take: the number of bytes taken. Try the others when
    /// the guest has said something or [`Guest::wants_write`] is false again. Of an input that is closed, or a task that is
    /// gone, all are taken and lost. A datagram is taken whole or not at all.
    pub fn write_stdin(&mut self, task: TaskId, bytes: &[u8]) -> usize {
        self.session.write_stdin(task, bytes)
    }

    /// No more input comes.
    pub fn close_stdin(&mut self, task: TaskId) {
        self.session.close_stdin(task);
    }

    /// Somebody has taken so many bytes of an output: the guest may send as many more.
    pub fn consumed(&mut self, task: TaskId, stream: Stream, count: usize) {
        self.session.consumed(task, stream, count);
    }

    /// Tells the size of a task's terminal.
    ///
    /// # Errors
    /// As above, and when there is no such task.
    pub fn resize(&mut self, task: TaskId, rows: u16, columns: u16) -> Result<(), GuestError> {
        self.session.resize(task, rows, columns)
    }

    /// Sends a signal to a task's process, or to `all` processes of the container. A connection is closed in both directions
    /// by any signal.
    ///
    /// # Errors
    /// As above.
    pub fn signal(&mut self, task: TaskId, signal: i32, all: bool) -> Result<(), GuestError> {
        self.session.signal(task, signal, all)
    }

    /// Sets other limits for the container: [`Event::Updated`].
    ///
    /// # Errors
    /// As above, and when 16 such requests have no answer yet.
    pub fn update(&mut self, resources: LinuxResources) -> Result<(), GuestError> {
        self.session.update(resources)
    }

    /// Asks what the container has used: [`Event::Stats`].
    ///
    /// # Errors
    /// As [`Guest::update`].
    pub fn stats(&mut self) -> Result<(), GuestError> {
        self.session.stats()
    }

    /// Answers a DNS query; an empty message is no answer. One that was answered already is passed over.
    pub fn answer(&mut self, query: u32, message: &[u8]) {
        self.session.answer(query, message);
    }

    /// Has the guest kill everything and power off.
    ///
    /// # Errors
    /// When too much waits.
    pub fn shutdown(&mut self) -> Result<(), GuestError> {
        self.session.shutdown()
    }
}
