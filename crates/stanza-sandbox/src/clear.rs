//! Clearing up after a monitor that was killed: whoever finds it does it, and a second time does no harm.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Signal, pidfd_send_signal};
use stanza_cgroup::CgroupPlan;
use stanza_network::{NetworkPlan, dns};
use stanza_spec::Instant;

use crate::error::ClearError;
use crate::paths;
use crate::plan::ExitRecord;
use crate::status::{Status, is_monitored, open_init, status};

/// The exit code of a container whose monitor was killed, and with it the container.
const KILLED: i32 = 137;
/// The exit code of a container that a reboot ended, as Docker shows it.
const LOST: i32 = 255;

/// Removes what a dead monitor left of its container: processes, control groups, network, run directory; and writes the
/// exit record that the monitor could not write. Does nothing while a monitor lives.
///
/// Returns the exit record, when the container ever ran, and everything that could not be cleared.
pub fn clear(
    run_dir: &Path,
    state_dir: &Path,
    cgroup: Option<&CgroupPlan>,
    network: &NetworkPlan,
) -> (Option<ExitRecord>, Vec<ClearError>) {
    let mut errors = Vec::new();
    if is_monitored(run_dir).unwrap_or(false) {
        return (None, errors);
    }
    let found = status(run_dir, state_dir);
    let mut record = None;
    if let Ok(Status::Lost(running)) = &found {
        match open_init(running) {
            Ok(Some(pidfd)) => match pidfd_send_signal(&pidfd, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => errors.push(ClearError::Kill { pid: running.pid, source: error.into() }),
            },
            Ok(None) => {}
            Err(source) => errors.push(ClearError::Kill { pid: running.pid, source }),
        }
        let this_boot = stanza_sys::boot_id().is_ok_and(|boot| boot == running.boot_id);
        let (code, text) = if this_boot {
            (KILLED, "the container's monitor was killed")
        } else {
            (LOST, "the machine was restarted")
        };
        record = Some(ExitRecord {
            code,
            signal: this_boot.then_some(Signal::KILL.as_raw()),
            oom_killed: false,
            started_at: running.started_at.clone(),
            finished_at: Instant::now().rfc3339(),
            error: Some(text.to_owned()),
            used: None,
        });
    }
    if let Some(plan) = cgroup {
        errors.extend(stanza_cgroup::open(plan).remove().into_iter().map(ClearError::Cgroup));
    }
    match network {
        NetworkPlan::Endpoints(plan) => {
            errors.extend(dns::withdraw(plan).into_iter().map(ClearError::Names));
            errors.extend(stanza_network::detach(plan, None).into_iter().map(ClearError::Network));
        }
        NetworkPlan::Cni(plan) => {
            errors.extend(stanza_network::cni::del(plan).into_iter().map(ClearError::Cni));
        }
        NetworkPlan::None | NetworkPlan::Host | NetworkPlan::Join { .. } | NetworkPlan::UserMode(_) => {}
    }
    if let Some(record) = &record {
        let path = paths::exit_record(state_dir);
        let written =
            serde_json::to_vec(record).map_err(io::Error::from).and_then(|text| paths::replace(&path, &text));
        if let Err(source) = written {
            errors.push(ClearError::File { path, source });
        }
    } else if let Ok(Status::Exited(found)) = found {
        record = Some(found);
    }
    let state = paths::state(state_dir);
    if let Err(source) = paths::remove(&state) {
        errors.push(ClearError::File { path: state, source });
    }
    match fs::remove_dir_all(run_dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            errors.push(ClearError::File { path: run_dir.to_owned(), source });
        }
        _ => {}
    }
    (record, errors)
}
