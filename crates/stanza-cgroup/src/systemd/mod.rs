//! systemd as the maker of cgroups: a transient unit per container.
//!
//! ```text
//!  plan_systemd(layout, "slice:prefix:name", id, resources) -> SystemdPlan        (data)
//!       │
//!       └─ start(plan, pid) ─▶ D-Bus: StartTransientUnit, JobRemoved ─▶ systemd moves pid into <slice>/<unit>
//!                 └─ where pid is now, read from /proc/<pid>/cgroup ─▶ Location ─▶ plan_at, adopt, Cgroup::join
//! ```
//!
//! systemd keeps to itself the limits that it knows, and writes them again whenever it is reloaded; so they are told to it as
//! properties, and everything is written to the files besides, since it does not know all of them.
//!
//! `plan`, `apply` and `devices` are as in `v1/` and `v2/`; `bus` and `wire` are the conversation. Freezing, killing and counting
//! are done in the cgroup's own files.
//!
//! Invariants
//! * Only units named for the container are started, changed or stopped.
//! * A job's end is waited for at most 30 s.
//!
//! Not done here: slices of their own, other connections than unix sockets, passing descriptors.

mod apply;
mod bus;
#[cfg(test)]
mod checks;
mod devices;
#[cfg(test)]
mod fake;
mod plan;
mod wire;

use std::io;

use stanza_spec::{Classify, ErrorKind};

pub use apply::{start, start_at, stop, stop_at, update, update_at};
pub use bus::{Address, BusKind, Endpoint, endpoints};
pub use plan::{Property, SystemdPlan, expand_slice, plan_systemd, property_of_annotation};
pub use wire::{Malformed, Value};

use crate::location::LocationError;
use crate::plan::PlanError;

/// Why systemd does not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The machine was not started by systemd. The text is runc's.
    #[error("systemd not running on this host, cannot use systemd cgroups manager")]
    NotRunning,
    /// No socket answers.
    #[error("no bus of systemd can be reached: {0}")]
    NoBus(String),
    /// The bus does not take this user.
    #[error("the bus refuses this user: `{0}`")]
    Rejected(String),
    /// The connection broke, or no answer came in time.
    #[error("talk to systemd")]
    Talk(#[source] io::Error),
    /// The peer sends something else.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// systemd said no.
    #[error("systemd refuses `{method}`: {name}: {text}")]
    Refused {
        /// What was called.
        method: String,
        /// The name of the error, as `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// Its words.
        text: String,
    },
    /// The unit did not come up, or not down.
    #[error("error {action} systemd unit `{unit}`: got `{result}`")]
    Job {
        /// `creating` or `stopping`.
        action: &'static str,
        /// The unit.
        unit: String,
        /// What systemd calls it: `failed`, `canceled`, `timeout`.
        result: String,
    },
    /// Not in systemd's form. The text is runc's.
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {0:?} instead"
    )]
    Path(String),
    /// Not the name of a slice. The text is runc's.
    #[error("invalid slice name: {0}")]
    Slice(String),
    /// Not a property in an annotation `org.systemd.property.<name>`.
    #[error("annotation {name}={value} value parse error: {reason}")]
    Annotation {
        /// The annotation.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The limits cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It is not known where systemd put the process.
    #[error(transparent)]
    Location(#[from] LocationError),
}

impl Classify for SystemdError {
    fn kind(&self) -> ErrorKind {
        match self {
            SystemdError::NotRunning | SystemdError::NoBus(_) => ErrorKind::Unsupported,
            SystemdError::Rejected(_) => ErrorKind::PermissionDenied,
            SystemdError::Talk(source) => ErrorKind::of_io(source),
            SystemdError::Malformed(_) | SystemdError::Job { .. } => ErrorKind::Unavailable,
            SystemdError::Refused { name, .. } if name.ends_with("AccessDenied") => {
                ErrorKind::PermissionDenied
            }
            SystemdError::Refused { name, .. } if name.ends_with(".UnitExists") => ErrorKind::AlreadyExists,
            SystemdError::Refused { name, .. } if name.ends_with(".NoSuchUnit") => ErrorKind::NotFound,
            SystemdError::Refused { .. } => ErrorKind::Unavailable,
            SystemdError::Path(_) | SystemdError::Slice(_) | SystemdError::Annotation { .. } => {
                ErrorKind::InvalidArgument
            }
            SystemdError::Plan(error) => error.kind(),
            SystemdError::Location(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SystemdError::NotRunning | SystemdError::NoBus(_) => {
                Some("use cgroups without systemd: leave out --systemd-cgroup".into())
            }
            SystemdError::Plan(error) => error.hint(),
            SystemdError::Location(error) => error.hint(),
            _ => None,
        }
    }
}
