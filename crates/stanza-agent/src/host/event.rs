//! What the host hears from a guest.

use crate::wire::{ExitStatus, GuestStats, Refusal, Stream, TaskId};

/// Something the guest said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It waits to be configured. Both texts are the guest's and may be anything.
    Ready {
        /// The agent's version.
        agent: String,
        /// The kernel's release.
        kernel: String,
    },
    /// It is what its configuration says.
    Configured,
    /// Or could not become it: it is of no use.
    NotConfigured(Refusal),
    /// A program runs, or a connection stands.
    Started {
        /// Which.
        task: TaskId,
        /// The process in the guest; 0 for a connection.
        pid: i32,
    },
    /// Or not; the task's number is free again.
    Failed {
        /// Which.
        task: TaskId,
        /// Why.
        refusal: Refusal,
    },
    /// Bytes, to be told of with [`super::Guest::consumed`] when somebody has taken them.
    Output {
        /// Of which task.
        task: TaskId,
        /// Of which of its streams.
        stream: Stream,
        /// At least one.
        bytes: Vec<u8>,
    },
    /// No more of it.
    OutputEnd {
        /// Of which task.
        task: TaskId,
        /// Which of its streams.
        stream: Stream,
    },
    /// A process has ended, or a connection; all output came before. The task's number is free again.
    Exited {
        /// Which.
        task: TaskId,
        /// How.
        status: ExitStatus,
        /// The guest's kernel killed a process of the container for want of memory.
        oom_killed: bool,
    },
    /// The answer to [`super::Guest::update`].
    Updated(Result<(), Refusal>),
    /// The answer to [`super::Guest::stats`].
    Stats(Result<Box<GuestStats>, Refusal>),
    /// A DNS query, to be answered with [`super::Guest::answer`].
    Query {
        /// Its number.
        query: u32,
        /// The message, at least 12 bytes; may be anything.
        message: Vec<u8>,
    },
}
