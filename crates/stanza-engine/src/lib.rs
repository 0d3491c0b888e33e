//! The engine: remembers what was asked for, decides what is to be, and clears up after whatever died.
//!
//! ```text
//!  create/  ── image, layers, spec/ ──▶ database/ (record, name, address)      one file per verb
//!  start.rs ── spec, cgroup, network, seccomp ──▶ SandboxPlan ──▶ monitor
//!  list.rs, wait.rs, … ── record + what the monitor's files say (reconcile.rs)
//!  stop.rs, remove.rs ── signals, then nothing is left
//!  system/ ── info, df, prune, check
//! ```
//!
//! Invariants
//! * What was asked for is in the database; what is alive is told by the monitor's files, never by the database.
//! * Names, addresses and id ranges have one owner each, by the database's own constraints.
//! * An operation on one container holds its lock (a lock on its state directory, gone with its owner). There is no
//!   lock over all.
//! * Every crash leaves something that is found by looking: see `reconcile.rs` and `system/check.rs`.
//!
//! It prints nothing, reads no arguments, and speaks no protocol: those are the doors'. It starts no program.

#![forbid(unsafe_code)]

mod anatomy;
mod changes;
mod collect;
mod commit;
mod connect;
mod container;
mod copy;
mod create;
mod database;
mod engine;
mod exec;
mod export;
mod filters;
mod find;
mod image_mounts;
mod images;
mod layers;
mod list;
mod logs;
mod machine;
mod names;
mod networks;
mod options;
mod reconcile;
mod record;
mod remove;
mod rename;
mod seccomp;
mod settings;
mod size;
mod spec;
mod start;
mod stats;
mod stop;
mod system;
mod user_mode;
mod verify;
mod vm;
mod vm_kernel;
mod volumes;
mod wait;

pub use anatomy::{AnatomyError, HistoryRow, LayerRow};
pub use changes::ChangesError;
pub use commit::{CommitError, CommitRequest};
pub use connect::ConnectError;
pub use container::{Container, MountPoint, State};
pub use copy::{Copied, CopyEnd, CopyError, CopyOptions};
pub use create::{CreateError, Created, HOST_IMAGE, UnpackError};
pub use database::DatabaseError;
pub use engine::{Engine, OpenError};
pub use exec::{ExecPlanError, ExecRequest};
pub use export::ExportError;
pub use filters::{FilterError, Filters};
pub use find::FindError;
pub use image_mounts::{ImageMount, ImageMountError};
pub use images::{ImageError, ImageRow};
pub use list::{ListError, ListQuery};
pub use logs::{LogLine, LogQuery, LogStream, LogsError};
pub use networks::{
    AddressError, EndpointEntry, GraphContainer, InterfaceCounters, NetworkEntry, NetworkError, NetworkGraph,
    NetworkRequest, NetworkRequestError, NetworkUpdate, SubnetRequest,
};
pub use options::Options;
pub use remove::RemoveError;
pub use rename::RenameError;
pub use seccomp::SeccompError;
pub use settings::{ImageSettings, NetworkSettings, Settings, SettingsError, StorageSettings};
pub use spec::{MountError, SpecError};
pub use start::StartError;
pub use stats::ContainerUsage;
pub use stop::StopError;
pub use system::{
    Facts, Finding, FindingStatus, ImageUsage, Part, PruneOptions, Pruned, SystemError, Usage, VolumeUsage,
};
pub use verify::{Problem, Repair, Verification, VerifyOptions};
pub use vm::OwnDisk;
pub use volumes::{Volume, VolumeError};
pub use wait::WaitError;

pub use stanza_cgroup::{CpuStats, IoStats, MemoryStats, PidsStats, Stats};
pub use stanza_image::{
    Admission, ArchiveForm, Connections, Image, ImportError, ImportOptions, LayerCompression, LoadError,
    Loaded, Progress, ProgressEvent, PullError, PushError, Pushed as PushedImage, Referrer, Remote,
    RemoteDocument, RemoteError, Removed, ResolveError, SaveError, Silent, Source, Target,
};
pub use stanza_network::PortMap;
pub use stanza_sandbox::{ExitRecord, Running, Spawned, Started, spawn_monitor};
pub use stanza_snapshot::{Change, ChangeKind, LayerSummary, StorageDriver};
pub use vm_kernel::{GuestKernel, GuestKernelError};

#[cfg(test)]
mod tests;
