//! The words between a host and its guest: `docs/vm-protocol.md`.
//!
//! ```text
//!  frame     bytes in, whole frames out: messages and the bytes of streams
//!  flow      a window for each stream
//!  message   what is asked for, and what is told
//! ```
//!
//! No I/O: both sides feed bytes in and take bytes out, so that every byte can be tried in tests.

mod flow;
mod frame;
mod message;

use stanza_spec::{Classify, ErrorKind};

pub use flow::WINDOW;
pub use frame::{MAX_DATA, MAX_DNS, MAX_NOTICE, MAX_REQUEST};
pub use message::{
    ContainerPlan, Disk, DiskMount, ExecPlan, ExitStatus, FileSystem, GuestAddress, GuestConfig, GuestFile,
    GuestStats, Hex, Interface, Refusal, Root, Route, Share, Upper,
};

pub(crate) use flow::{Budget, Window};
pub(crate) use frame::{Decoder, Frame, Kind, Outbox, Side};
pub(crate) use message::{Notice, Request};

/// The version of the protocol. Both sides are of one build of stanza; a template of another version is found out by this.
pub const PROTOCOL: u32 = 1;

/// The most processes and connections at once: four descriptors each, below the 1024 that a process in the guest may have.
pub const MAX_TASKS: usize = 240;

/// The most DNS queries that wait for an answer.
pub const MAX_QUERIES: usize = 64;

/// A process, a connection or whatever else has streams, as its host numbers it.
pub type TaskId = u32;

/// One stream of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// To the guest: standard input, what goes into a connection.
    Input,
    /// From the guest: standard output, a terminal's output, what comes out of a connection.
    Output,
    /// From the guest: standard error.
    Error,
}

impl Stream {
    /// The number that its frames have.
    pub(crate) fn number(self, task: TaskId) -> u32 {
        (task << 2) | self as u32
    }

    /// What that number stands for.
    pub(crate) fn of(number: u32) -> Result<(TaskId, Stream), ProtocolError> {
        let stream = match number & 3 {
            0 => Stream::Input,
            1 => Stream::Output,
            2 => Stream::Error,
            _ => return Err(ProtocolError::Stream(number)),
        };
        Ok((number >> 2, stream))
    }
}

/// The other side does not keep to the protocol: the connection is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame of a kind that there is not, or that the other side may not send.
    #[error("a frame of kind {0:#04x}, which is none")]
    Kind(u8),
    /// A frame too short or too long for its kind.
    #[error("a frame of {length} bytes where {least} to {most} are allowed")]
    Length {
        /// What it says.
        length: usize,
        /// The shortest.
        least: usize,
        /// The longest.
        most: usize,
    },
    /// A stream that does not exist, or that the other side may not write to.
    #[error("bytes for stream {0}, which is not open")]
    Stream(u32),
    /// More bytes than its window allows.
    #[error("more bytes of a stream than its window allows")]
    Window,
    /// Credit for bytes that were not sent.
    #[error("credit for {0} bytes that were not sent")]
    Credit(u32),
    /// A message that cannot be read.
    #[error("a message that cannot be read: {0}")]
    Message(String),
    /// A message that nothing asked for.
    #[error("`{0}` for {1}, which nothing asked for")]
    Unasked(&'static str, u32),
    /// More than may wait at once.
    #[error("more than {1} {0} at once")]
    TooMany(&'static str, usize),
    /// Another version.
    #[error("the other side speaks version {found} of the protocol, this one {PROTOCOL}")]
    Version {
        /// What it said.
        found: u32,
    },
}

impl Classify for ProtocolError {
    fn kind(&self) -> ErrorKind {
        match self {
            ProtocolError::Version { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ProtocolError::Version { .. } => {
                Some("remove the templates of another version of stanza: they are made again".to_owned())
            }
            _ => None,
        }
    }
}
