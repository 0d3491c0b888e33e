//! What the engine hands to a monitor: everything about one container, as plain data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stanza_cgroup::CgroupPlan;
use stanza_container::CopyUp;
use stanza_network::{EndpointsPlan, NetworkPlan, PortMap};
use stanza_spec::{ContainerId, LogDriver, Rootfs, oci};

/// One container, ready to be started. Made by the engine, sent to the monitor as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxPlan {
    /// The container's id.
    pub id: ContainerId,
    /// What outlives a boot: `exit.json`, the log. Exists.
    pub state_dir: PathBuf,
    /// What is true while the monitor lives: `monitor.lock`, `state.json`, `attach.sock`. Made and removed by the
    /// monitor; its parent exists.
    pub run_dir: PathBuf,
    /// The OCI configuration, complete but for `linux.seccomp`, which comes compiled.
    pub spec: oci::runtime::Spec,
    /// How the root file system is put together; its directories exist.
    pub rootfs: Rootfs,
    /// A file with the compiled system call filter; `None` is no filter.
    pub seccomp: Option<PathBuf>,
    /// The control groups; `None` leaves the container in the monitor's.
    pub cgroup: Option<CgroupPlan>,
    /// The network.
    pub network: NetworkPlan,
    /// The virtual machine that it is to run in; `None` runs it on this machine's kernel.
    pub machine: Option<MachinePlan>,
    /// Empty volumes that the image's content is copied into before they are mounted.
    pub copy_up: Vec<CopyUp>,
    /// The container has a terminal.
    pub tty: bool,
    /// Standard input stays open after the last client has gone.
    pub open_stdin: bool,
    /// Rows and columns of the terminal at start.
    pub console_size: Option<(u16, u16)>,
    /// Where output goes.
    pub log: LogPlan,
    /// What the monitor turns itself into after all is torn down: the engine's clean-up of a detached `--rm`
    /// container. `None` ends it.
    pub on_exit: Option<Vec<String>>,
    /// The door that starts the container stays attached to it: standard input waits for that door.
    pub attached: bool,
}

/// A virtual machine for one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachinePlan {
    /// The root whose `vm/` has kernels and templates.
    pub root: PathBuf,
    /// The read-only disk with the image's files.
    pub disk: PathBuf,
    /// Where what the container writes is kept, as a disk that is made when it is not there; `None` keeps it in the machine's
    /// memory.
    pub upper: Option<PathBuf>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Who runs the machine on this one: a user and group that own nothing.
    pub user: u32,
}

/// The networks that a running container is to be in from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkChange {
    /// All its endpoints; the published ports are those it has.
    pub plan: EndpointsPlan,
    /// Also make again what it has already: somebody may have taken it away.
    pub anew: bool,
}

/// Where a container's output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlan {
    /// How.
    pub driver: LogDriver,
    /// The newest file; older ones have `.1`, `.2`, … added.
    pub path: PathBuf,
    /// Bytes after which a new file is begun.
    pub max_size: u64,
    /// Number of files kept, at least 1.
    pub max_files: u32,
}

/// A running container, as its monitor writes it into `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// The container's first process, in the host's numbering.
    pub pid: i32,
    /// Its start in clock ticks since boot: with `pid` it names the process beyond reuse.
    pub start_time: u64,
    /// The kernel's name of this boot.
    pub boot_id: String,
    /// When it started, RFC 3339 with nanoseconds, UTC.
    pub started_at: String,
    /// Published ports with the host ports that were really taken.
    pub ports: Vec<PortMap>,
    /// It runs in a virtual machine: `pid` is that one's, and who wants anything of the container asks the monitor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub machine: bool,
    /// What the user should know of its walls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// The host's rules were missing when it started, and were made: with them went what is known of others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made_rules: bool,
}

/// How a container ended, as its monitor writes it into `exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit code; 128 + signal when a signal ended it; 137 when its monitor was killed.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When it had started, RFC 3339 with nanoseconds, UTC.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
    /// What went wrong around it; `None` when nothing did.
    pub error: Option<String>,
    /// What it took of the host; `None` when nobody saw its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
}

/// What a container took of the host, its virtual machine included, from its start to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Processor time of its control group, in nanoseconds; `None` where nothing counts it.
    pub cpu: Option<u64>,
    /// The most memory that the kernel charged to its control group, in bytes.
    pub memory_peak: Option<u64>,
    /// Processor time of its monitor up to then, in nanoseconds.
    pub monitor_cpu: u64,
}
