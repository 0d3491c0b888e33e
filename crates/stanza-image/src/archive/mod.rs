//! Images that come as tar files.
//!
//! ```text
//! load:   stream -> (gunzip) -> tar -> spool every file in ingest/ -> OCI layout?  by digest -.
//!                                                                  -> manifest.json? by path -+-> store
//! import: stream -> one layer + a configuration made here ------------------------------------'
//! ```
//!
//! An archive is read once, from front to back, so that it may come through a pipe. What its names say leads nowhere
//! but to other entries of the same archive: nothing is ever opened under a name from outside.

mod docker;
mod import;
mod load;
mod oci;
mod spool;

pub use import::{ImportError, ImportOptions, import};
pub use load::{LoadError, Loaded, load};
