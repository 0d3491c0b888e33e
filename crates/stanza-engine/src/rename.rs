//! `rename`: another name for a container.

use stanza_spec::{Classify, ContainerId, ErrorKind, is_valid_container_name};

use crate::Engine;
use crate::database::DatabaseError;
use crate::networks::NetworkError;

/// Why a container was not renamed.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// A name that no container may have.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    /// A name that another container has.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The other container's id.
        owner: String,
    },
    /// It has its name, but the networks that it is in were not told.
    #[error("the container is called {name} now, but its networks still know its old name")]
    Announce {
        /// The new name.
        name: String,
        /// Why not.
        #[source]
        source: Box<NetworkError>,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for RenameError {
    fn kind(&self) -> ErrorKind {
        match self {
            RenameError::Name(_) => ErrorKind::InvalidArgument,
            RenameError::NameTaken { .. } => ErrorKind::AlreadyExists,
            RenameError::Announce { source, .. } => source.kind(),
            RenameError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RenameError::Announce { .. } => {
                Some("`stanza network reload` tells them; so does its next start".to_owned())
            }
            RenameError::Database(error) => error.hint(),
            _ => None,
        }
    }
}

impl Engine {
    /// Gives a container another name, by which those in its networks find it from then on.
    ///
    /// # Errors
    /// When the name is not one, or belongs to another container.
    pub fn rename(&mut self, id: &ContainerId, name: &str) -> Result<(), RenameError> {
        let name = name.strip_prefix('/').unwrap_or(name);
        if !is_valid_container_name(name) {
            return Err(RenameError::Name(name.to_owned()));
        }
        self.database()?
            .rename(id.as_str(), name)?
            .map_err(|owner| RenameError::NameTaken { name: name.to_owned(), owner })?;
        self.announce_name(id)
            .map_err(|source| RenameError::Announce { name: name.to_owned(), source: Box::new(source) })
    }
}
