//! Why nothing was copied.

use std::io;

use stanza_sandbox::{StatusError, VisitError};
use stanza_snapshot::FilesError;
use stanza_spec::{Classify, ErrorKind};

use crate::create::UnpackError;
use crate::database::DatabaseError;
use crate::find::FindError;
use crate::reconcile::SettleError;
use crate::spec::SpecError;
use crate::vm::OwnDisk;

/// Why a copy was not made, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Neither end is a container.
    #[error("must specify at least one container source")]
    NoContainer,
    /// The source is not there.
    #[error("{0}")]
    NoSource(String),
    /// The target cannot be what is asked of it.
    #[error("{0}")]
    Target(String),
    /// An archive can only be unpacked in a directory.
    #[error("destination `{0}` must be a directory")]
    StreamTarget(String),
    /// A directory would be copied into what it holds.
    #[error("cannot copy a directory into itself")]
    IntoItself,
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its files are its own kernel's.
    #[error(transparent)]
    Machine(#[from] OwnDisk),
    /// The container's directory cannot be locked, or this machine's root not be opened.
    #[error("cannot {action}")]
    Prepare {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its root file system cannot be put together.
    #[error("cannot put the root file system together")]
    Rootfs(#[source] UnpackError),
    /// Its configuration does not fit this machine any more.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Files of this machine.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Files of a container.
    #[error(transparent)]
    Visit(#[from] VisitError),
    /// The output is closed, or cannot be written.
    #[error("cannot write the archive")]
    Output(#[source] io::Error),
    /// The database, or the container's state.
    #[error(transparent)]
    Settle(SettleFailure),
}

/// Why a container's state cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum SettleFailure {
    /// Its files.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for CopyError {
    fn kind(&self) -> ErrorKind {
        match self {
            CopyError::NoContainer | CopyError::IntoItself => ErrorKind::InvalidArgument,
            CopyError::NoSource(_) => ErrorKind::NotFound,
            CopyError::Target(_) | CopyError::StreamTarget(_) => ErrorKind::Conflict,
            CopyError::Find(error) => error.kind(),
            CopyError::Machine(error) => error.kind(),
            CopyError::Prepare { source, .. } | CopyError::Output(source) => ErrorKind::of_io(source),
            CopyError::Rootfs(error) => error.kind(),
            CopyError::Spec(error) => error.kind(),
            CopyError::Files(error) => error.kind(),
            CopyError::Visit(error) => error.kind(),
            CopyError::Settle(SettleFailure::Status(error)) => error.kind(),
            CopyError::Settle(SettleFailure::Database(error)) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CopyError::NoContainer => Some("a path in a container is `CONTAINER:PATH`".to_owned()),
            CopyError::Find(error) => error.hint(),
            CopyError::Machine(error) => error.hint(),
            CopyError::Rootfs(error) => error.hint(),
            CopyError::Spec(error) => error.hint(),
            CopyError::Visit(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<SettleError> for CopyError {
    fn from(error: SettleError) -> CopyError {
        CopyError::Settle(match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        })
    }
}
