//! `changes`: what a container did to its root file system.

use stanza_snapshot::{Change, DiffError};
use stanza_spec::{Classify, ContainerId, ErrorKind};

use crate::Engine;
use crate::create::UnpackError;
use crate::find::FindError;
use crate::vm::OwnDisk;

/// Why the changes cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its files are its own kernel's.
    #[error(transparent)]
    Machine(#[from] OwnDisk),
    /// Its layers are not there.
    #[error("cannot put the root file system together")]
    Rootfs(#[source] UnpackError),
    /// They cannot be compared.
    #[error(transparent)]
    Compare(#[from] DiffError),
}

impl Classify for ChangesError {
    fn kind(&self) -> ErrorKind {
        match self {
            ChangesError::Find(error) => error.kind(),
            ChangesError::Machine(error) => error.kind(),
            ChangesError::Rootfs(error) => error.kind(),
            ChangesError::Compare(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ChangesError::Find(error) => error.hint(),
            ChangesError::Machine(error) => error.hint(),
            ChangesError::Rootfs(error) => error.hint(),
            ChangesError::Compare(error) => error.hint(),
        }
    }
}

impl Engine {
    /// What was added, modified and deleted since the container was created.
    ///
    /// # Errors
    /// When there is no such container, or its files cannot be read.
    pub fn changes(&mut self, id: &ContainerId) -> Result<Vec<Change>, ChangesError> {
        let record = self.record(id)?;
        OwnDisk::check("diff", &record)?;
        let rootfs = self.plan_rootfs(&record);
        Ok(stanza_snapshot::changes(&rootfs.map_err(ChangesError::Rootfs)?)?)
    }
}
