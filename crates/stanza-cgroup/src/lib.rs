//! Control groups, version 1, 2 and the hybrid of both: limits, statistics, freezing and killing.
//!
//! ```text
//!  detect() -> Layout --plan(path, LinuxResources)--> CgroupPlan --apply--> Cgroup --> tasks_files | directory
//!                                                       (data)       |                 freeze thaw kill pids stats
//!                                                                    v                 oom_kills remove
//!  v1:  /sys/fs/cgroup/{cpu,memory,pids,...}/stanza/<id>/    one directory per hierarchy
//!  v2:  /sys/fs/cgroup/stanza/<id>/                          one directory
//! ```
//!
//! `v1/` and `v2/` have the same files: `plan` (OCI resources to writes), `apply` (what must happen round the writes),
//! `devices`, `state` (freeze, kill, out-of-memory), `stats`.
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
//! death; the others are made only when a limit in them is asked for.
//!
//! Not done here: parsing units, systemd's cgroups, moving anybody else's processes.

#![forbid(unsafe_code)]

mod apply;
mod cgroup;
mod detect;
mod device;
mod file;
mod plan;
mod stats;
mod v1;
mod v2;

pub use apply::{ApplyError, apply};
pub use cgroup::{Cgroup, ControlError, RemoveError, leftovers, open};
pub use detect::{DetectError, Hierarchy, Layout, detect};
pub use device::{Access, DeviceKind, DeviceRule};
pub use plan::{CgroupPlan, Enable, Group, PlanError, Version, Warning, Write, plan};
pub use stats::{CpuStats, IoStats, MemoryStats, PidsStats, Stats};
