//! The table `volumes`.

use super::{Database, DatabaseError};

/// One volume as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeRow {
    pub(crate) name: String,
    pub(crate) anonymous: bool,
    pub(crate) created_at: String,
}

impl Database {
    /// Every volume, by name.
    pub(crate) fn volumes(&self) -> Result<Vec<VolumeRow>, DatabaseError> {
        self.read("list the volumes", |connection| {
            let mut statement =
                connection.prepare("SELECT name, anonymous, created_at FROM volumes ORDER BY name")?;
            statement.query_map([], volume)?.collect()
        })
    }

    /// Forgets a volume; idempotent.
    pub(crate) fn delete_volume(&mut self, name: &str) -> Result<(), DatabaseError> {
        self.write("remove a volume", |transaction| {
            transaction.execute("DELETE FROM volumes WHERE name = ?", [name]).map(|_| ())
        })
    }
}

fn volume(row: &rusqlite::Row<'_>) -> rusqlite::Result<VolumeRow> {
    Ok(VolumeRow { name: row.get(0)?, anonymous: row.get(1)?, created_at: row.get(2)? })
}
