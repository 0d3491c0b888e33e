//! `stop` and `kill`: signals.

use std::time::Duration;

use stanza_sandbox::{ExitRecord, SignalError, WaitError};
use stanza_spec::{Classify, ContainerId, ErrorKind};

use crate::Engine;
use crate::container::State;
use crate::database::DatabaseError;
use crate::find::FindError;
use crate::reconcile::SettleError;

/// Seconds between the stop signal and SIGKILL when nothing is said.
const TIMEOUT: i64 = 10;
/// How long the kernel and the monitor may take after SIGKILL before the container counts as stuck.
const AFTER_KILL: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

/// Why a container was not stopped or signalled.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// There is none.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It does not run.
    #[error("cannot kill container: {name}: container {id} is not running")]
    NotRunning {
        /// Its name.
        name: String,
        /// Its id.
        id: ContainerId,
    },
    /// The signal could not be sent.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// Waiting for its end failed.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// It does not even end when it is killed: it waits in the kernel.
    #[error("container {0} did not end after SIGKILL")]
    Stuck(String),
    /// Its state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for StopError {
    fn kind(&self) -> ErrorKind {
        match self {
            StopError::Find(error) => error.kind(),
            StopError::NotRunning { .. } => ErrorKind::Conflict,
            StopError::Signal(error) => error.kind(),
            StopError::Wait(error) => error.kind(),
            StopError::Stuck(_) => ErrorKind::Unavailable,
            StopError::Status(error) => error.kind(),
            StopError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            StopError::Find(error) => error.hint(),
            StopError::NotRunning { .. } => Some("`stanza ps -a` shows how it ended".to_owned()),
            StopError::Stuck(_) => {
                Some("one of its processes hangs in a system call, as on a dead disk".to_owned())
            }
            StopError::Database(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<SettleError> for StopError {
    fn from(error: SettleError) -> StopError {
        match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        }
    }
}

impl Engine {
    /// Asks a container to stop by `signal` (its stop signal when `None`), and kills it after `timeout` seconds (its
    /// own, or 10, when `None`; negative waits for ever). Nothing happens to one that does not run.
    ///
    /// # Errors
    /// When there is no such container, or when it cannot be signalled.
    pub fn stop(
        &mut self,
        id: &ContainerId,
        signal: Option<i32>,
        timeout: Option<i64>,
    ) -> Result<(), StopError> {
        let record = self.record(id)?;
        if !matches!(self.state(&record)?, Some(State::Running(_))) {
            return Ok(());
        }
        let signal = signal.unwrap_or(record.facts.stop_signal);
        let seconds = timeout.or(record.config.stop_timeout).unwrap_or(TIMEOUT);
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        if self.end(id, signal, patience)?.is_none() && self.end(id, SIGKILL, Some(AFTER_KILL))?.is_none() {
            return Err(StopError::Stuck(record.name));
        }
        self.settle(&record)?;
        Ok(())
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// When there is no such container, or when it does not run.
    pub fn kill(&mut self, id: &ContainerId, signal: i32) -> Result<(), StopError> {
        let record = self.record(id)?;
        let not_running = || StopError::NotRunning { name: record.name.clone(), id: id.clone() };
        if !matches!(self.state(&record)?, Some(State::Running(_))) {
            return Err(not_running());
        }
        match self.send(id, signal) {
            Err(SignalError::NotRunning) => Err(not_running()),
            result => Ok(result?),
        }
    }

    fn send(&self, id: &ContainerId, signal: i32) -> Result<(), SignalError> {
        let id = id.as_str();
        stanza_sandbox::signal(&self.options.run_dir(id), &self.options.container_dir(id), signal)
    }

    /// Signals and waits; `None` when it still runs after `patience`. One that has ended already is no failure.
    pub(crate) fn end(
        &self,
        id: &ContainerId,
        signal: i32,
        patience: Option<Duration>,
    ) -> Result<Option<Option<ExitRecord>>, StopError> {
        match self.send(id, signal) {
            Ok(()) | Err(SignalError::NotRunning) => {}
            Err(error) => return Err(error.into()),
        }
        let id = id.as_str();
        let (run_dir, state_dir) = (self.options.run_dir(id), self.options.container_dir(id));
        match stanza_sandbox::wait(&run_dir, &state_dir, patience)? {
            Some(exit) => Ok(Some(Some(exit))),
            // No record after the monitor's end means that it was killed: for the caller that is an end, too.
            None => match stanza_sandbox::status(&run_dir, &state_dir)? {
                stanza_sandbox::Status::Running(_) => Ok(None),
                _ => Ok(Some(None)),
            },
        }
    }
}
