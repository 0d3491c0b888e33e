//! `connect`: to the monitor of a running container, for `attach`.

use stanza_sandbox::{ConnectError as SandboxConnect, Connection};
use stanza_spec::{Classify, ContainerId, ErrorKind};

use crate::Engine;
use crate::container::State;
use crate::database::DatabaseError;
use crate::find::FindError;
use crate::reconcile::SettleError;

/// Why a running container was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It does not run.
    #[error("You cannot attach to a stopped container, start it first")]
    NotRunning,
    /// Its monitor does not answer.
    #[error(transparent)]
    Monitor(#[from] SandboxConnect),
    /// Its state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for ConnectError {
    fn kind(&self) -> ErrorKind {
        match self {
            ConnectError::Find(error) => error.kind(),
            ConnectError::NotRunning => ErrorKind::Conflict,
            ConnectError::Monitor(error) => error.kind(),
            ConnectError::Status(error) => error.kind(),
            ConnectError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ConnectError::Find(error) => error.hint(),
            ConnectError::NotRunning => Some("`stanza start -a` starts and attaches".to_owned()),
            ConnectError::Monitor(error) => error.hint(),
            ConnectError::Status(error) => error.hint(),
            ConnectError::Database(error) => error.hint(),
        }
    }
}

impl From<SettleError> for ConnectError {
    fn from(error: SettleError) -> ConnectError {
        match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        }
    }
}

impl Engine {
    /// A conversation with the monitor of a running container.
    ///
    /// # Errors
    /// When there is no such container, or when it does not run.
    pub fn connect(&mut self, id: &ContainerId) -> Result<Connection, ConnectError> {
        let record = self.record(id)?;
        if !matches!(self.state(&record)?, Some(State::Running(_))) {
            return Err(ConnectError::NotRunning);
        }
        match stanza_sandbox::connect(&self.options.run_dir(id.as_str())) {
            Err(SandboxConnect::NotRunning) => Err(ConnectError::NotRunning),
            result => Ok(result?),
        }
    }
}
