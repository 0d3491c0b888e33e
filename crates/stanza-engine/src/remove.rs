//! `remove`, and what ends in it: `finish` and `reap`.

use std::io;
use std::time::Duration;

use stanza_spec::{Classify, ContainerId, ErrorKind};

use crate::Engine;
use crate::container::State;
use crate::database::DatabaseError;
use crate::find::FindError;
use crate::reconcile::SettleError;
use crate::stop::StopError;

/// How long a killed container may take to end.
const AFTER_KILL: Duration = Duration::from_secs(30);
/// How long a monitor may take from telling the exit to having torn everything down.
const TEARDOWN: Duration = Duration::from_secs(10);

/// Why a container was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It runs.
    #[error(
        "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
    )]
    Running {
        /// Its name.
        name: String,
    },
    /// It cannot be killed.
    #[error("cannot kill container \"/{name}\"")]
    Kill {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<StopError>,
    },
    /// Its lock cannot be taken.
    #[error("cannot lock container \"/{name}\"")]
    Lock {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for RemoveError {
    fn kind(&self) -> ErrorKind {
        match self {
            RemoveError::Find(error) => error.kind(),
            RemoveError::Running { .. } => ErrorKind::Conflict,
            RemoveError::Kill { source, .. } => source.kind(),
            RemoveError::Lock { source, .. } => ErrorKind::of_io(source),
            RemoveError::Status(error) => error.kind(),
            RemoveError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RemoveError::Find(error) => error.hint(),
            RemoveError::Running { name } => {
                Some(format!("stop it with `stanza stop {name}`, or use `rm -f`"))
            }
            RemoveError::Kill { source, .. } => source.hint(),
            RemoveError::Lock { .. } => None,
            RemoveError::Status(error) => error.hint(),
            RemoveError::Database(error) => error.hint(),
        }
    }
}

impl From<SettleError> for RemoveError {
    fn from(error: SettleError) -> RemoveError {
        match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        }
    }
}

impl Engine {
    /// Removes a container, with `volumes` also its anonymous volumes. `force` kills it first when it runs, and
    /// removes one whose record is damaged.
    ///
    /// # Errors
    /// When there is no such container, when it runs and `force` is not given, or when it cannot be killed.
    pub fn remove(&mut self, id: &ContainerId, force: bool, volumes: bool) -> Result<(), RemoveError> {
        self.fresh = None;
        let record = match self.record(id) {
            Ok(record) => record,
            Err(FindError::Database(DatabaseError::Record { .. })) if force => {
                // Nothing is known of it but its id: its files go, and `system check` finds the rest by looking.
                let _ = self.end(id, 9, Some(AFTER_KILL));
                self.clear_cni(id);
                self.database()?.delete(id.as_str())?;
                self.erase_files(id.as_str());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let name = record.name.clone();
        let mut running = matches!(self.state(&record)?, Some(State::Running(_)));
        loop {
            if running {
                if !force {
                    return Err(RemoveError::Running { name });
                }
                self.end(id, 9, Some(AFTER_KILL))
                    .map_err(|source| RemoveError::Kill { name: name.clone(), source: Box::new(source) })?;
            }
            let lock =
                self.lock(id.as_str()).map_err(|source| RemoveError::Lock { name: name.clone(), source })?;
            // Removed by somebody else while we waited: what was asked for is done.
            let Some(record) = self.database()?.container(id)? else { return Ok(()) };
            if let Some(lock) = &lock {
                running = matches!(self.settle_locked(&record, lock)?, Some(State::Running(_)));
                // Somebody was starting it, and held the lock until it ran.
                if running {
                    continue;
                }
            }
            return Ok(self.erase(&record, volumes || record.config.auto_remove)?);
        }
    }

    /// Notes the end of a container that its attached door saw: the exit record goes into the database, the address
    /// is free, and a container that was to be removed is. Idempotent; a container that is gone is fine.
    ///
    /// # Errors
    /// When the database cannot be written or the container's state not be read.
    pub fn finish(&mut self, id: &ContainerId) -> Result<(), RemoveError> {
        self.fresh = None;
        let (run_dir, state_dir) =
            (self.options.run_dir(id.as_str()), self.options.container_dir(id.as_str()));
        // The exit is told before the monitor's lock is free. That it takes too long, or is gone, shows below.
        let _ = stanza_sandbox::wait(&run_dir, &state_dir, Some(TEARDOWN));
        let lock = self
            .lock(id.as_str())
            .map_err(|source| RemoveError::Lock { name: id.short().to_owned(), source })?;
        let Some(lock) = lock else { return Ok(()) };
        let Some(record) = self.database()?.container(id)? else { return Ok(()) };
        self.settle_locked(&record, &lock)?;
        Ok(())
    }

    /// What the monitor of a detached container that is to be removed turns itself into at its end.
    ///
    /// # Errors
    /// As [`Engine::finish`].
    pub fn reap(&mut self, id: &ContainerId) -> Result<(), RemoveError> {
        self.finish(id)
    }
}
