//! The walls of a container: namespaces, mounts, credentials, system call filter, and the program inside.
//!
//! Two ways in: [`launch()`] makes a new container from an OCI configuration and a [`stanza_spec::Rootfs`], [`exec()`] runs
//! one more process in a container that is there. Both clone a child, and the child does everything that must happen
//! inside, in the order drawn in `init/mod.rs`; a failure comes back over a socket as a [`LaunchError`].
//!
//! It knows no images, networks or control groups: those come as directories, a callback, and descriptors to join by.

#![forbid(unsafe_code)]

mod capabilities;
mod copy_up;
mod error;
mod exec;
mod idmap;
mod init;
mod launch;
mod mount_options;
mod process;
mod root;
pub mod rootless;
pub mod seccomp;
mod source;
mod terminal;
mod user;

pub use capabilities::{ALL_CAPABILITIES, capability_set};
pub use copy_up::CopyUp;
pub use error::LaunchError;
pub use exec::{ExecTarget, exec};
pub use launch::{Init, Launch, Stdio, launch};
pub use process::CgroupEntry;
