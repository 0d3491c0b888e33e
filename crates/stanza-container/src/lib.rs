//! The walls of a container: namespaces, mounts, credentials, system call filter, and the program inside.
//!
//! Two ways in: [`launch()`] makes a new container from an OCI configuration and a [`stanza_spec::Rootfs`], [`exec()`] and
//! [`exec_through()`] run one more process in a container that is there. All clone a child, and the child does everything
//! that must happen inside, in the order drawn in `init/mod.rs`; a failure comes back over a socket as a [`LaunchError`].
//!
//! It knows no images, networks or control groups: those come as directories, an [`Attendant`], and descriptors to join
//! by.

#![forbid(unsafe_code)]

mod capabilities;
mod copy_up;
mod error;
mod exec;
mod executable;
mod gate;
mod hooks;
mod id_maps;
mod idmap;
mod init;
mod landlock;
mod launch;
mod line;
mod live_mounts;
mod mount_options;
mod namespaces;
mod process;
mod root;
pub mod rootless;
mod scheduling;
pub mod seccomp;
mod source;
mod terminal;
mod user;
mod view;
mod visit;

pub use capabilities::{ALL_CAPABILITIES, capability_set};
pub use copy_up::CopyUp;
pub use error::LaunchError;
pub use exec::{ExecTarget, exec, exec_through};
pub use executable::{protected_executable, run_protected};
pub use gate::{Gate, open_gate};
pub use hooks::{HookError, run_hooks};
pub use idmap::maps_owners;
pub use landlock::{LANDLOCK_ANNOTATION, Landlock, confine_to_connections};
pub use launch::{Attendant, Init, Launch, Manner, Stdio, launch};
pub use live_mounts::{AddedMount, MountTarget, add_mounts, ensure_mount_points, remove_mounts};
pub use mount_options::mount_option_words;
pub use process::CgroupEntry;
pub use view::{mount_view, unmount_view};
pub use visit::{View, Visited, visit};
