//! Telling what is true of a container, and clearing what dead processes left.
//!
//! ```text
//!            record says              monitor's files say           so
//!            created                  (not looked at)               created
//!            exited                   (not looked at)               exited, as noted
//!            started                  running                       running
//!            started                  exited                        note it, free the address  \  under the
//!            started                  lost                          clear, note 137            |  container's lock;
//!            started                  nothing, nobody starts it     rebooted: clear, note 255  /  --rm: remove it
//!            started                  nothing, its lock is held     a door is starting it: created
//! ```
//!
//! Whoever looks settles what it finds: a crash needs no daemon to notice it.

use std::time::Duration;

use stanza_network::NetworkPlan;
use stanza_sandbox::{ExitRecord, Status, StatusError};
use stanza_snapshot::remove_tree;
use stanza_spec::{ContainerId, Instant, NetworkMode};

use crate::Engine;
use crate::container::State;
use crate::database::{DatabaseError, Phase, Record};
use crate::engine::Lock;

/// The exit code of a container that was lost with a boot, as Docker gives it.
const REBOOTED: i32 = 255;
/// The exit code of a container whose monitor was killed, and it with it.
const KILLED: i32 = 137;

/// How long a killed process may take to die on a busy machine.
const DYING: Duration = Duration::from_secs(2);

/// Why a container's state could not be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Engine {
    /// What is true of a container now; `None` when it is gone, because it was to go at its end.
    pub(crate) fn state(&mut self, record: &Record) -> Result<Option<State>, SettleError> {
        match record.phase {
            Phase::Created => Ok(Some(State::Created)),
            Phase::Exited => Ok(Some(State::Exited(noted(record)))),
            Phase::Started => match self.look(record)? {
                Status::Running(running) => Ok(Some(State::Running(running))),
                _ => self.settle(record),
            },
        }
    }

    /// What the monitor's files say.
    pub(crate) fn look(&self, record: &Record) -> Result<Status, StatusError> {
        let id = record.id.as_str();
        stanza_sandbox::status(&self.options.run_dir(id), &self.options.container_dir(id))
    }

    /// Notes the end of a container that does not run any more, clears what it left, and removes it when it was to be
    /// removed; does nothing when somebody is at work on it. `None` when it is gone.
    pub(crate) fn settle(&mut self, record: &Record) -> Result<Option<State>, SettleError> {
        let lock = self.try_lock(record.id.as_str()).ok().flatten();
        let Some(lock) = lock else {
            return Ok(match self.look(record)? {
                Status::Created => Some(State::Created),
                Status::Running(running) => Some(State::Running(running)),
                Status::Exited(exit) => Some(State::Exited(exit)),
                Status::Lost(_) => Some(State::Exited(lost(record, KILLED))),
            });
        };
        // Another process may have settled it, or started it again, before we had the lock.
        let Some(record) = self.database()?.container(&record.id)? else { return Ok(None) };
        self.settle_locked(&record, &lock)
    }

    /// As [`Engine::settle`] by the lock's owner.
    pub(crate) fn settle_locked(
        &mut self,
        record: &Record,
        lock: &Lock,
    ) -> Result<Option<State>, SettleError> {
        match record.phase {
            Phase::Created => return Ok(Some(State::Created)),
            Phase::Exited => return Ok(Some(State::Exited(noted(record)))),
            Phase::Started => {}
        }
        let exit = match self.look(record)? {
            Status::Running(running) => return Ok(Some(State::Running(running))),
            Status::Exited(exit) => exit,
            Status::Lost(_) => self.clear_lost(record, lock).unwrap_or_else(|| lost(record, KILLED)),
            Status::Created => {
                self.clear_lost(record, lock);
                lost(record, REBOOTED)
            }
        };
        if record.config.auto_remove {
            self.erase(record, true)?;
            return Ok(None);
        }
        let json = serde_json::to_string(&exit).unwrap_or_default();
        self.database()?.set_exited(&[(record.id.as_str(), &json)])?;
        Ok(Some(State::Exited(exit)))
    }

    /// Clears what a dead monitor left of a container: processes, cgroup, network, files of the run directory.
    pub(crate) fn clear_lost(&mut self, record: &Record, _lock: &Lock) -> Option<ExitRecord> {
        let network = match self.network_mode(&record.config) {
            NetworkMode::Cni(_) => self
                .recorded_cni(&record.id)
                .map_or(NetworkPlan::None, |plan| NetworkPlan::Cni(Box::new(plan))),
            _ => self.network_plan(record).unwrap_or(NetworkPlan::None),
        };
        self.outlives_monitor(&record.id);
        let spec = stanza_spec::oci::runtime::Spec::default();
        let cgroup = self.cgroup_plan(record, &spec, &mut Vec::new()).ok().flatten();
        let id = record.id.as_str();
        // What cannot be cleared now is found again by the next look, and by `system check`.
        let (exit, _errors) = stanza_sandbox::clear(
            &self.options.run_dir(id),
            &self.options.container_dir(id),
            cgroup.as_ref(),
            &network,
        );
        exit
    }

    /// Waits a moment for the end of a monitor that is being killed: the kernel closes its descriptors one by one, so its lock may
    /// still be held when the socket, or the container's lock, tells already that it is gone. Whether it has ended.
    pub(crate) fn outlives_monitor(&self, id: &ContainerId) -> bool {
        let run_dir = self.options.run_dir(id.as_str());
        let end = std::time::Instant::now() + DYING;
        // A lock that cannot be looked at is not called free.
        while stanza_sandbox::is_monitored(&run_dir).unwrap_or(true) {
            if std::time::Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Removes a container that does not run: its files first, then the record. When this is interrupted the record is
    /// still there, so that the removal can be asked for again.
    pub(crate) fn erase(&mut self, record: &Record, volumes: bool) -> Result<(), DatabaseError> {
        let anonymous: Vec<String> = record
            .facts
            .volumes
            .iter()
            .filter(|volume| volumes && volume.anonymous)
            .map(|volume| volume.name.clone())
            .collect();
        // What plugins refuse to delete stays on record, and `system check` tries again.
        if matches!(record.config.network, Some(NetworkMode::Cni(_))) {
            self.clear_cni(&record.id);
        }
        let id = record.id.as_str();
        self.erase_files(id);
        for name in &anonymous {
            let _ = remove_tree(&self.options.volumes_dir().join(name));
        }
        self.database()?.delete_with_volumes(id, &anonymous)
    }

    /// Removes a container's directories. A failure (a mount of the user's in it, say) leaves a leftover that
    /// `system check` names; the container is gone all the same.
    pub(crate) fn erase_files(&self, id: &str) {
        let _ = remove_tree(&self.options.container_dir(id));
        let run_dir = self.options.run_dir(id);
        if run_dir.exists() {
            let _ = remove_tree(&run_dir);
        }
    }
}

/// The end as it was noted.
fn noted(record: &Record) -> ExitRecord {
    let exit = record.exit.as_deref().and_then(|json| serde_json::from_str(json).ok());
    exit.unwrap_or_else(|| lost(record, KILLED))
}

/// The end of a container that nobody saw.
fn lost(record: &Record, code: i32) -> ExitRecord {
    let error = if code == REBOOTED {
        "the machine was restarted, or stanza killed, while it ran"
    } else {
        "its monitor was killed"
    };
    ExitRecord {
        code,
        signal: None,
        oom_killed: false,
        started_at: record.created_at.clone(),
        finished_at: Instant::now().rfc3339(),
        error: Some(error.to_owned()),
        used: None,
    }
}
