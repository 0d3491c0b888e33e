//! Control groups, version 1, 2 and the hybrid of both: limits, statistics, freezing and killing.
//!
//! ```text
//!  detect() -> Layout --plan(path, LinuxResources)--> CgroupPlan --apply--> Cgroup --> tasks_paths | directory | sub
//!     │                                                (data)         │                freeze thaw kill signal_all pids
//!     └─ locate(cgroupsPath, id) -> Location --plan_at--┘             │                stats event_stats watch_oom
//!                                                                     ▼                update remove
//!  v1:  /sys/fs/cgroup/{cpu,memory,pids,...}/stanza/<id>/    one directory per hierarchy
//!  v2:  /sys/fs/cgroup/stanza/<id>/                          one directory
//! ```
//!
//! `v1/` and `v2/` have the same files: `plan` (OCI resources to writes), `apply` (what must happen round the writes),
//! `devices`, `state` (freeze, kill, out-of-memory), `stats`, `events` (the same, in runc's terms). [`systemd`] has
//! `plan`, `apply` and `devices`, and does the rest in the files of the cgroup that systemd made. `rdt` is no cgroup, but is
//! joined, limited and removed like one.
//!
//! Invariants
//! * A plan is data; making one touches no cgroup. Limits are written before any process is in.
//! * What was asked for and cannot be had is an error that names the controller, never passed over. What version 2 has
//!   no word for (as Docker: swappiness, kernel memory) becomes a [`Warning`].
//! * Only processes of the container's own cgroup are ever moved or killed.
//! * In a hybrid layout the version 1 hierarchies are used, and the version 2 tree beside them is left alone.
//!
//! What one container costs on version 1 (kernel 6.18, per hierarchy): mkdir 10-23 us, join 15-25 us, rmdir 12-20 us. By
//! default there are six (`devices`, `freezer`, `memory`, `pids`, `cpu`, `cpuacct`), about 0.3 ms from birth to
//! death; the others are made only when a limit in them is asked for, or every hierarchy is. With nine hierarchies and the
//! rules of `runc spec` (`examples/cost.rs`): 13 system calls to detect, 37 to make and limit (9 `mkdir`, 12 rules of one
//! `write` each, since the kernel takes no more at once, 12 to fill the cpuset), 9 to remove.
//!
//! Not done here: parsing units, moving anybody else's processes.

#![forbid(unsafe_code)]

mod apply;
mod cgroup;
mod detect;
mod device;
mod entry;
pub mod events;
mod file;
mod location;
mod oom;
mod plan;
mod rdt;
mod signal;
mod stats;
pub mod systemd;
mod v1;
mod v2;

pub use apply::{ApplyError, adopt, apply};
pub use cgroup::{Cgroup, ControlError, RemoveError, leftovers, open};
pub use detect::{DetectError, Hierarchy, Layout, detect};
pub use device::{Access, DeviceKind, DeviceRule};
pub use entry::SubError;
pub use events::{Event, EventStats};
pub use location::{Location, LocationError, locate};
pub use oom::{OomEvent, OomWatch};
pub use plan::{
    CgroupPlan, Enable, Group, MemoryCheck, PlanError, PlanOptions, Version, Warning, Write, plan, plan_at,
};
pub use rdt::{Rdt, RdtError, RdtPlan, RdtRequest, RdtStats, apply_rdt, detect_rdt, plan_rdt};
pub use stats::{CpuStats, IoStats, MemoryStats, PidsStats, Stats};
