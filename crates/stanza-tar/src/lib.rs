//! A tar reader for archives nobody vouches for, and a small writer.
//!
//! ```text
//!   [x pax records][L long name][K long link] header | content | padding      one entry
//!   ...                                                                       further entries
//!   zero block, zero block                                                    the end; may be missing
//!   anything                                                                  read by `finish`, for hashes
//! ```
//!
//! [`Archive`] walks a stream once, front to back, without seeking and with bounded memory: one buffer, and per entry
//! what [`Limits`] allows. It reads ustar, pax, GNU (long names, base-256 numbers, sparse files of all four kinds) and
//! V7 archives, byte for byte: a path is whatever bytes the archive has, and *not* safe to use. The reader says what
//! an archive says; keeping paths inside a directory is the consumer's part.
//!
//! Invariants:
//! * Extension data applies to the next file header only, never to another extension header (the desync of
//!   CVE-2026-33055); where GNU tar and Go's reader would see different archives, the archive is refused.
//! * A claimed size costs nothing: memory is only taken for bytes that have arrived.
//! * No input makes it panic or loop.
//!
//! It does not decompress, extract, or verify digests. [`Builder`] writes deterministic pax archives: the same entries
//! give the same bytes.

#![forbid(unsafe_code)]

mod archive;
mod block;
mod builder;
mod error;
mod extensions;
mod header;
mod pax;
mod sparse;

pub use archive::{Archive, Content, Entry};
pub use builder::Builder;
pub use error::TarError;
pub use header::{EntryKind, Header, Limits, Segment};
