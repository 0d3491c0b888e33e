//! The table `id_ranges`: user namespace ids that belong to one container each.

use rusqlite::{OptionalExtension, params};

use super::{Database, DatabaseError};

impl Database {
    /// Takes a range of `size` ids for `container` from the pool `[first, first + length)`, the lowest that is free;
    /// the one it holds already, when it does; `None` when the pool is used up.
    pub(crate) fn take_id_range(
        &mut self,
        container: &str,
        first: u32,
        length: u32,
        size: u32,
    ) -> Result<Option<u32>, DatabaseError> {
        self.write("take a range of ids", |transaction| {
            let held: Option<u32> = transaction
                .query_row("SELECT base FROM id_ranges WHERE container = ?", [container], |row| row.get(0))
                .optional()?;
            if held.is_some() {
                return Ok(held);
            }
            let mut statement = transaction.prepare("SELECT base FROM id_ranges ORDER BY base")?;
            let taken: Vec<u32> =
                statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let free = (0..length / size)
                .map(|n| first + n * size)
                .find(|base| taken.iter().all(|other| base.abs_diff(*other) >= size));
            if let Some(base) = free {
                transaction.execute(
                    "INSERT INTO id_ranges(base, container) VALUES(?, ?)",
                    params![base, container],
                )?;
            }
            Ok(free)
        })
    }
}
