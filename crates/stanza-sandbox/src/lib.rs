//! One running thing and the monitor that owns it from birth to exit record.
//!
//! ```text
//!  door ──spawn_monitor──▶ monitor ──clone──▶ init ──exec──▶ the container's program
//!    │        plan (JSON)     │  holds: stdio or pty, log, published ports, monitor.lock
//!    │◀───── started ─────────│  serves: attach.sock (stdin, stdout, stderr, resize, signal)
//!    │◀── output … exit ──────│  ends: tears down, writes exit.json, removes the run directory
//!                             └──exec──▶ proxy, from the first client on of a port that the kernel cannot lead
//! ```
//!
//! Invariants: a container runs only while its monitor holds the write lock on `monitor.lock`; `exit.json` appears by
//! rename and is written after the container's processes, cgroup and network are gone; a monitor's death kills its
//! container (`PR_SET_PDEATHSIG`), and whoever comes next clears what is left ([`clear()`]).
//!
//! It knows no names, tags or policy: those are the engine's.

#![forbid(unsafe_code)]

mod attach;
mod clear;
mod enter;
mod error;
mod frame;
mod lifecycle;
mod log;
mod monitor;
mod paths;
mod pause;
mod plan;
mod proxy;
mod spawn;
mod status;
mod visit;

pub use attach::{AttachEnd, AttachOptions, Connection, connect};
pub use clear::clear;
pub use enter::{Entering, ExecEnd, ExecPlan, enter_main, spawn_enter};
pub use error::{
    AttachError, ClearError, ConnectError, ExecError, NetworkChangeError, SignalError, StartError,
    StatusError, WaitError,
};
pub use monitor::monitor_main;
pub use paths::MONITOR_LOCK;
pub use pause::{PauseError, Paused, pause};
pub use plan::{ExitRecord, LogPlan, MachinePlan, NetworkChange, Running, SandboxPlan, Used};
pub use proxy::proxy_main;
pub use spawn::{Spawned, Started, spawn_monitor};
pub use stanza_container::View;
pub use status::{Status, is_monitored, signal, status, wait};
pub use visit::{VisitError, VisitPlace, Visitor, visit};
