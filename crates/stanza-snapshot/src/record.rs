//! What the store knows of an unpacked layer: written last, so that a layer without it is none.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use stanza_spec::Digest;

/// Its name beside the layer's files.
pub(crate) const RECORD: &str = "record.json";

/// `record.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Of this format.
    pub(crate) version: u32,
    /// Entries of the archive it was made of.
    pub(crate) entries: u64,
    /// Where the layer is an erofs image in place of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) erofs: Option<ErofsRecord>,
}

/// What is known of a layer's erofs image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErofsRecord {
    /// Of the whole image.
    pub(crate) digest: Digest,
    /// Bytes of the image.
    pub(crate) size: u64,
    /// The checksum in the image's superblock, which covers the superblock and the table of devices.
    pub(crate) checksum: u32,
    /// Bytes of the archive; zeros may follow to fill a block.
    pub(crate) tar_size: u64,
    /// The layer's root is opaque.
    pub(crate) opaque: bool,
}

impl LayerRecord {
    /// What this program writes.
    pub(crate) const VERSION: u32 = 1;

    /// Writes it into the directory of a layer that nobody else sees yet.
    pub(crate) fn write(&self, home: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        std::fs::write(home.join(RECORD), bytes)
    }

    /// Reads the one in a layer's directory.
    pub(crate) fn read(home: &Path) -> io::Result<LayerRecord> {
        let bytes = std::fs::read(home.join(RECORD))?;
        serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
