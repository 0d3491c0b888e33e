//! The first process of a virtual machine's guest, and the words between it and the host.
//!
//! ```text
//!  monitor (host)                                      guest
//!  host::Guest ─▶ socket ═ virtio-serial port `stanza.agent` ═▶ guest::main, PID 1 ─ stanza-container ─▶ program
//!       └─ wire ─┘                                           └─ wire ─┘
//! ```
//!
//! The guest's side runs the container with the same code as the host does, so that namespaces, capabilities, filters, terminals
//! and `exec` are the same behind both walls. The host's side trusts nothing that the guest says. `docs/vm-protocol.md` has the
//! protocol.
//!
//! Not done here: starting the machine (`stanza-vmm`), deciding what belongs into it (`stanza-sandbox`).

#![forbid(unsafe_code)]

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod guest;
pub mod host;
mod program;
pub mod wire;

pub use host::{Event, Guest, GuestError, greeting};
pub use program::{NoAgent, program, provide_program};
pub use wire::{
    ContainerPlan, Disk, DiskMount, ExecPlan, ExitStatus, FileSystem, GuestAddress, GuestConfig, GuestFile,
    GuestStats, Hex, Interface, ProtocolError, Refusal, Root, Route, Share, Stream, TaskId, Upper,
};
