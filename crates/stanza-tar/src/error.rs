//! Why an archive cannot be read.

use std::io;

/// Why an archive cannot be read. Offsets are bytes from the start of the (uncompressed) archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("cannot read the archive at byte `{offset}`")]
    Read {
        /// Where.
        offset: u64,
        /// The stream's own error.
        #[source]
        source: io::Error,
    },
    /// The stream ends inside a header or inside content.
    #[error("the archive ends early, at byte `{offset}`")]
    Truncated {
        /// Where the stream ended.
        offset: u64,
    },
    /// A header's checksum is wrong: not a tar archive, or a damaged one.
    #[error("the header at byte `{offset}` has a wrong checksum")]
    Checksum {
        /// The header.
        offset: u64,
    },
    /// A numeric field is not a number, or not one that its meaning allows.
    #[error("the header at byte `{offset}` has a malformed `{field}`")]
    Number {
        /// The header.
        offset: u64,
        /// The field's name.
        field: &'static str,
    },
    /// Pax records are malformed.
    #[error("the pax header at byte `{offset}` is malformed: {reason}")]
    Pax {
        /// The header.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Something is larger than its limit.
    #[error("the {what} at byte `{offset}` is larger than `{limit}`")]
    TooLarge {
        /// The header.
        offset: u64,
        /// What is too large.
        what: &'static str,
        /// The limit, in bytes or pieces.
        limit: u64,
    },
    /// A name holds a NUL byte.
    #[error("the {what} at byte `{offset}` holds a NUL byte")]
    Nul {
        /// The header.
        offset: u64,
        /// Which name.
        what: &'static str,
    },
    /// A sparse map is malformed, overlaps, or does not fit the content.
    #[error("the sparse file at byte `{offset}` is malformed: {reason}")]
    Sparse {
        /// The header.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A type that is neither POSIX's nor one of GNU's that can be read.
    #[error("the header at byte `{offset}` has the unknown type `{}`", flag.escape_ascii())]
    Kind {
        /// The header.
        offset: u64,
        /// The type byte.
        flag: u8,
    },
    /// Extension headers that belong to no file, or too many of them in a row.
    #[error("the extension headers before byte `{offset}` make no sense: {reason}")]
    Extensions {
        /// The header after them.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// One zero block, and then something else: readers disagree about what that means.
    #[error("a single zero block at byte `{offset}` is followed by data")]
    LoneZeroBlock {
        /// The zero block.
        offset: u64,
    },
}
