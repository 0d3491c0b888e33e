//! What concerns the whole engine: facts about it and its machine, disk usage, pruning, checking.

mod check;
mod cni;
mod df;
mod facts;
mod leftovers;
mod prune;

pub use check::{Finding, FindingStatus};
pub use df::{ImageUsage, Part, Usage, VolumeUsage};
pub use facts::Facts;
pub(crate) use facts::memory as machine_memory;
pub use prune::{PruneOptions, Pruned};

use stanza_spec::{Classify, ErrorKind};

use crate::database::DatabaseError;
use crate::filters::FilterError;
use crate::images::ImageError;
use crate::list::ListError;
use crate::remove::RemoveError;

/// Why something that concerns the whole engine was not done.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// A filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Containers.
    #[error(transparent)]
    List(#[from] ListError),
    /// One container.
    #[error(transparent)]
    Container(#[from] RemoveError),
    /// Images.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for SystemError {
    fn kind(&self) -> ErrorKind {
        match self {
            SystemError::Filter(error) => error.kind(),
            SystemError::List(error) => error.kind(),
            SystemError::Container(error) => error.kind(),
            SystemError::Image(error) => error.kind(),
            SystemError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SystemError::Filter(error) => error.hint(),
            SystemError::List(error) => error.hint(),
            SystemError::Container(error) => error.hint(),
            SystemError::Image(error) => error.hint(),
            SystemError::Database(error) => error.hint(),
        }
    }
}
