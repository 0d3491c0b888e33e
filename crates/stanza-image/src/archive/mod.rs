//! Images that come as tar files.
//!
//! ```text
//! load:   stream    -> (gunzip) -> tar -> spool every file -.   OCI layout?    by digest -.
//!         file      -> tar, read in place ------------------+-> manifest.json? by path   -+-> layers -> store
//!         directory ----------------------------------------'   dir?           by digest -'
//! import: stream -> one layer + a configuration made here --------------------------------------> store
//! save:   store  -> documents made here, blobs copied as they are -> tar, or directory
//! ```
//!
//! A stream is read once, from front to back. What the names in an archive say leads nowhere but to other files of the
//! same archive.

mod contents;
mod directory;
mod docker;
mod error;
mod import;
mod layers;
mod load;
mod oci;
mod save;

pub use contents::Source;
pub use error::LoadError;
pub use import::{ImportError, ImportOptions, import};
pub use load::{Admission, LoadOptions, Loaded, load};
pub use save::{ArchiveForm, SaveError, Selected, Target, save, select};
