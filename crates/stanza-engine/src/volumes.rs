//! Volumes: directories of their own that outlive containers, `<root>/volumes/<name>/_data`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use stanza_snapshot::remove_tree;
use stanza_spec::{Classify, ErrorKind};

use crate::database::DatabaseError;
use crate::{Engine, size, spec};

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// It was made for one container, without a name of the user's.
    pub anonymous: bool,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Where its data is.
    pub path: PathBuf,
    /// Containers that have it, by name.
    pub used_by: Vec<String>,
}

/// Why a volume was not removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// A container has it.
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// The containers.
        users: Vec<String>,
    },
    /// Its files cannot be removed.
    #[error("cannot remove the volume `{}`", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for VolumeError {
    fn kind(&self) -> ErrorKind {
        match self {
            VolumeError::NotFound(_) => ErrorKind::NotFound,
            VolumeError::InUse { .. } => ErrorKind::Conflict,
            VolumeError::Remove { source, .. } => ErrorKind::of_io(source),
            VolumeError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            VolumeError::InUse { .. } => Some("remove those containers first".to_owned()),
            VolumeError::Database(error) => error.hint(),
            _ => None,
        }
    }
}

impl Engine {
    /// Every volume, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn volumes(&mut self) -> Result<Vec<Volume>, DatabaseError> {
        let volumes_dir = self.options.volumes_dir();
        let rows = self.database()?.rows()?;
        let mut uses: Vec<(String, String)> = Vec::new();
        for row in &rows {
            let record = self.database()?.decode(row)?;
            uses.extend(record.facts.volumes.into_iter().map(|volume| (volume.name, record.name.clone())));
        }
        let volumes = self.database()?.volumes()?.into_iter().map(|row| Volume {
            path: spec::volume_dir(&volumes_dir, &row.name),
            used_by: uses
                .iter()
                .filter(|(name, _)| *name == row.name)
                .map(|(_, user)| user.clone())
                .collect(),
            name: row.name,
            anonymous: row.anonymous,
            created_at: row.created_at,
        });
        Ok(volumes.collect())
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    /// When there is no such volume, or a container has it.
    pub fn remove_volume(&mut self, name: &str) -> Result<(), VolumeError> {
        let volume = self
            .volumes()?
            .into_iter()
            .find(|volume| volume.name == name)
            .ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        if !volume.used_by.is_empty() {
            return Err(VolumeError::InUse { name: volume.name, users: volume.used_by });
        }
        self.database()?.delete_volume(name)?;
        let path = self.options.volumes_dir().join(name);
        match remove_tree(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(VolumeError::Remove { path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Removes anonymous volumes that no container has; gives their names and the bytes reclaimed.
    pub(crate) fn prune_volumes(&mut self) -> Result<(Vec<String>, u64), DatabaseError> {
        let mut pruned = (Vec::new(), 0);
        for volume in self.volumes()? {
            if !volume.used_by.is_empty() || !volume.anonymous {
                continue;
            }
            let bytes = size::of_tree(&volume.path);
            if self.remove_volume(&volume.name).is_ok() {
                pruned.1 += bytes;
                pruned.0.push(volume.name);
            }
        }
        Ok(pruned)
    }

    /// The names of volumes that have a directory but no record.
    pub(crate) fn stray_volumes(&mut self) -> Result<Vec<String>, DatabaseError> {
        let known: BTreeSet<String> = self.database()?.volumes()?.into_iter().map(|row| row.name).collect();
        let entries = std::fs::read_dir(self.options.volumes_dir());
        let names =
            entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| !known.contains(name)).collect())
    }
}
