//! What the store knows of an unpacked layer: written last, so that a layer without it is none.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use stanza_spec::{Digest, Instant};

use crate::tree_digest::{Summary, TreeDigest};

/// Its name beside the layer's files.
pub(crate) const RECORD: &str = "record.json";

/// `record.json`. Its own times are of use too: it is the youngest file of a layer, and looked at when a container is
/// made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// Of this format: 1.
    pub version: u32,
    /// Entries of the archive it was made of.
    pub entries: u64,
    /// Over everything in the layer's directory; an erofs image has its own digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeDigest>,
    /// Bytes of all files' content, each file once.
    pub size: u64,
    /// Bytes that all of it takes on disk: directories too, or the archive and the image.
    pub allocated: u64,
    /// Files, directories and everything else, each once.
    pub inodes: u64,
    /// When it was unpacked, in RFC 3339.
    pub created: String,
    /// Where the layer is an erofs image in place of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erofs: Option<ErofsRecord>,
}

/// What is known of a layer's erofs image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErofsRecord {
    /// Of the whole image.
    pub digest: Digest,
    /// Bytes of the image.
    pub size: u64,
    /// The checksum in the image's superblock, which covers the superblock and the table of devices.
    pub checksum: u32,
    /// Bytes of the archive; zeros may follow to fill a block.
    pub tar_size: u64,
    /// The layer's root is opaque.
    pub opaque: bool,
}

impl LayerRecord {
    /// What this program writes.
    pub(crate) const VERSION: u32 = 1;

    pub(crate) fn new(entries: u64, tree: &Summary) -> LayerRecord {
        LayerRecord {
            version: LayerRecord::VERSION,
            entries,
            tree: Some(tree.digest),
            size: tree.size,
            allocated: tree.allocated,
            inodes: tree.inodes,
            created: Instant::now().rfc3339(),
            erofs: None,
        }
    }

    /// Writes it into the directory of a layer that nobody else sees yet.
    pub(crate) fn write(&self, home: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        std::fs::write(home.join(RECORD), bytes)
    }

    pub(crate) fn read(home: &Path) -> io::Result<LayerRecord> {
        let record: LayerRecord = serde_json::from_slice(&std::fs::read(home.join(RECORD))?)?;
        if record.version != LayerRecord::VERSION {
            let text = format!("its version is `{}`", record.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(record)
    }
}
