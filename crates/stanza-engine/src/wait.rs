//! `wait`: until a container has ended.

use stanza_sandbox::{ExitRecord, WaitError as SandboxWait};
use stanza_spec::{Classify, ContainerId, ErrorKind};

use crate::Engine;
use crate::container::State;
use crate::database::DatabaseError;
use crate::find::FindError;
use crate::reconcile::SettleError;

/// Why waiting failed.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The monitor cannot be watched.
    #[error(transparent)]
    Watch(#[from] SandboxWait),
    /// It ended, and went, before anybody could see how.
    #[error("container {0} is gone: it was removed when it ended")]
    Gone(String),
    /// Its state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for WaitError {
    fn kind(&self) -> ErrorKind {
        match self {
            WaitError::Find(error) => error.kind(),
            WaitError::Watch(error) => error.kind(),
            WaitError::Gone(_) => ErrorKind::NotFound,
            WaitError::Status(error) => error.kind(),
            WaitError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            WaitError::Find(error) => error.hint(),
            WaitError::Database(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<SettleError> for WaitError {
    fn from(error: SettleError) -> WaitError {
        match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        }
    }
}

impl Engine {
    /// Waits until a container does not run, and tells how it ended. One that was never started counts as ended well,
    /// as in Docker.
    ///
    /// # Errors
    /// When there is no such container, or when it went before its end could be seen.
    pub fn wait(&mut self, id: &ContainerId) -> Result<ExitRecord, WaitError> {
        let record = self.record(id)?;
        match self.state(&record)? {
            Some(State::Exited(exit)) => return Ok(exit),
            Some(State::Created) => {
                return Ok(ExitRecord {
                    code: 0,
                    signal: None,
                    oom_killed: false,
                    started_at: String::new(),
                    finished_at: String::new(),
                    error: None,
                    used: None,
                });
            }
            Some(State::Running(_)) => {}
            None => return Err(WaitError::Gone(record.name)),
        }
        let (run_dir, state_dir) =
            (self.options.run_dir(id.as_str()), self.options.container_dir(id.as_str()));
        if let Some(exit) = stanza_sandbox::wait(&run_dir, &state_dir, None)? {
            return Ok(exit);
        }
        match self.settle(&record)? {
            Some(State::Exited(exit)) => Ok(exit),
            _ => Err(WaitError::Gone(record.name)),
        }
    }
}
