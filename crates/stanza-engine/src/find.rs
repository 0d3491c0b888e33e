//! `find`: a container by name, id or the beginning of its id.

use stanza_spec::{Classify, ContainerId, ErrorKind};

use crate::Engine;
use crate::database::{DatabaseError, Record};

/// Why a container was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is none.
    #[error("No such container: {0}")]
    NotFound(String),
    /// There are several.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for FindError {
    fn kind(&self) -> ErrorKind {
        match self {
            FindError::NotFound(_) => ErrorKind::NotFound,
            FindError::Ambiguous(_) => ErrorKind::InvalidArgument,
            FindError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            FindError::NotFound(_) => Some("`stanza ps -a` lists all containers".to_owned()),
            FindError::Ambiguous(_) => Some("give more digits, or the name".to_owned()),
            FindError::Database(error) => error.hint(),
        }
    }
}

impl Engine {
    /// The container that `name` means: its id, its name (a leading `/` is Docker's way), or the beginning of one id.
    ///
    /// # Errors
    /// When none or several are meant.
    pub fn find(&mut self, name: &str) -> Result<ContainerId, FindError> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        let mut found = self.database()?.matching(bare)?;
        match (found.pop(), found.is_empty()) {
            (Some(id), true) => id.parse().map_err(|_| FindError::NotFound(name.to_owned())),
            (Some(_), false) => Err(FindError::Ambiguous(name.to_owned())),
            (None, _) => Err(FindError::NotFound(name.to_owned())),
        }
    }

    /// The record of a container.
    pub(crate) fn record(&mut self, id: &ContainerId) -> Result<Record, FindError> {
        if let Some(fresh) = &self.fresh
            && fresh.record.id == *id
        {
            return Ok(fresh.record.clone());
        }
        self.database()?.container(id)?.ok_or_else(|| FindError::NotFound(id.to_string()))
    }
}
