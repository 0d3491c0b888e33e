//! What the store knows of an unpacked layer: written last, so that a layer without it is none.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Its name beside the layer's files.
pub(crate) const RECORD: &str = "record.json";

/// `record.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Of this format.
    pub(crate) version: u32,
    /// Entries of the archive it was made of.
    pub(crate) entries: u64,
}

impl LayerRecord {
    /// What this program writes.
    pub(crate) const VERSION: u32 = 1;

    /// Writes it into the directory of a layer that nobody else sees yet.
    pub(crate) fn write(&self, home: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        std::fs::write(home.join(RECORD), bytes)
    }
}
