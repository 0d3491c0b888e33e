//! What extension headers say about the file header that follows them.

use crate::block::Block;
use crate::pax::{Fault, Records};
use crate::{EntryKind, Header, Limits, TarError};

/// Extension data on its way to the next file header.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) records: Option<Records>,
    pub(crate) long_name: Option<Vec<u8>>,
    pub(crate) long_link: Option<Vec<u8>>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// A file header with everything applied.
pub(crate) struct Described {
    pub(crate) header: Header,
    /// Bytes of content that follow in the archive.
    pub(crate) stored: u64,
    /// The records, for a sparse map in them.
    pub(crate) records: Records,
}

/// Applies global records, then the entry's own, to its header.
pub(crate) fn describe(
    block: &Block,
    pending: Pending,
    globals: &Records,
    limits: &Limits,
    offset: u64,
) -> Result<Described, TarError> {
    let mut records = pending.records.unwrap_or_default();
    let path = one_name(records.path.take(), pending.long_name, offset)?.unwrap_or_else(|| block.path());
    // A sparse file's own name stands in a record of its own; the header names a file for readers that do not know.
    let is_sparse = records.sparse.major.is_some() || records.sparse.map.is_some();
    if records.sparse.name.is_some() && !is_sparse {
        return Err(TarError::Extensions { offset, reason: "they name a sparse file without a map" });
    }
    let path = records.sparse.name.take().unwrap_or(path);
    let link = one_name(records.link.take(), pending.long_link, offset)?.unwrap_or_else(|| block.link());
    let kind = kind(block.flag(), &path).ok_or(TarError::Kind { offset, flag: block.flag() })?;
    for (name, what) in [(&path, "path"), (&link, "link target")] {
        if name.len() > limits.path {
            let limit = u64::try_from(limits.path).unwrap_or(u64::MAX);
            return Err(TarError::TooLarge { offset, what, limit });
        }
    }

    let malformed = |field| TarError::Number { offset, field };
    let field = |own: Option<u64>, global: Option<u64>, header: Option<i128>, field| {
        own.or(global).or_else(|| u64::try_from(header?).ok()).ok_or_else(|| malformed(field))
    };
    let stored = match kind {
        EntryKind::File => field(records.size, None, block.size(), "size")?,
        // These have no content. Old writers put the linked file's size into the header of a hard link, and every reader passes
        // that over; any other size GNU tar skips, and Go does not.
        kind => {
            let header =
                if kind == EntryKind::HardLink { 0 } else { field(None, None, block.size(), "size")? };
            if records.size.unwrap_or(header) > 0 {
                return Err(TarError::Extensions { offset, reason: "they give content to what has none" });
            }
            0
        }
    };
    if stored > limits.file {
        return Err(TarError::TooLarge { offset, what: "file", limit: limits.file });
    }
    let mode = u32::try_from(block.mode().ok_or_else(|| malformed("mode"))? & 0o7777);
    let header_mtime = || block.mtime().map(|seconds| (clamp(seconds), 0));
    let is_device = matches!(kind, EntryKind::CharacterDevice | EntryKind::BlockDevice);
    let is_link = matches!(kind, EntryKind::HardLink | EntryKind::Symlink);
    let mut xattrs = globals.xattrs.clone();
    xattrs.append(&mut records.xattrs);
    let header = Header {
        path,
        kind,
        link: if is_link { link } else { Vec::new() },
        mode: mode.map_err(|_| malformed("mode"))?,
        uid: field(records.uid, globals.uid, block.uid(), "uid")?,
        gid: field(records.gid, globals.gid, block.gid(), "gid")?,
        size: stored,
        mtime: records
            .mtime
            .or(globals.mtime)
            .or_else(header_mtime)
            .ok_or_else(|| malformed("modification time"))?,
        device: if is_device { block.device().ok_or_else(|| malformed("device number"))? } else { (0, 0) },
        xattrs: xattrs.into_iter().map(|(name, xattr)| (name, xattr.value)).collect(),
    };
    Ok(Described { header, stored, records })
}

/// A name given both by pax and by GNU: readers disagree about which counts, so they must be the same.
fn one_name(
    record: Option<Vec<u8>>,
    long: Option<Vec<u8>>,
    offset: u64,
) -> Result<Option<Vec<u8>>, TarError> {
    match (record, long) {
        (Some(record), Some(long)) if record != long => {
            Err(TarError::Extensions { offset, reason: "they give one file two names" })
        }
        (record, long) => Ok(record.or(long)),
    }
}

fn kind(flag: u8, path: &[u8]) -> Option<EntryKind> {
    Some(match flag {
        // V7 archives have no type for directories.
        0 if path.ends_with(b"/") => EntryKind::Directory,
        // `7` is contiguous allocation, which nobody has; `S` is GNU's old sparse file.
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharacterDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        _ => return None,
    })
}

fn clamp(seconds: i128) -> i64 {
    i64::try_from(seconds).unwrap_or(if seconds < 0 { i64::MIN } else { i64::MAX })
}

/// A GNU long name: the bytes before the NUL that ends it.
pub(crate) fn long_name(mut data: Vec<u8>, what: &'static str, offset: u64) -> Result<Vec<u8>, TarError> {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    if data[end..].iter().any(|byte| *byte != 0) {
        return Err(TarError::Nul { offset, what });
    }
    data.truncate(end);
    Ok(data)
}

impl Fault {
    pub(crate) fn at(self, offset: u64) -> TarError {
        match self {
            Fault::Record(reason) => TarError::Pax { offset, reason },
            Fault::Number(field) => TarError::Number { offset, field },
            Fault::Nul(what) => TarError::Nul { offset, what },
        }
    }
}
