//! Images: registries, the content store, archives.
//!
//! ```text
//!  pull(reference) ---- registry/  ask, authorise, follow, retry --.
//!  load(archive)  ----- archive/   docker-archive, oci-archive -----+--> store/  an OCI image layout on disk
//!  import(tarball) ---- archive/   one layer, one config  ---------'      resolve, list, tag, remove, prune
//! ```
//!
//! Invariants: a blob has its name only when it is whole, verified and synced; `index.json` changes by one rename;
//! whatever `index.json` reaches is in `blobs/`; what a dead process left is found by looking and cleared.
//!
//! Everything that comes in is hostile until its digest fits: documents are bounded before they are parsed, sizes
//! before bytes are written, redirects before they are followed. Nothing here mounts, unpacks a layer (that is
//! `stanza-snapshot`) or knows containers. All of it is synchronous.

#![forbid(unsafe_code)]

mod archive;
mod compression;
mod document;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod image;
mod progress;
mod pull;
mod registry;
mod store;

pub use archive::{ImportError, ImportOptions, LoadError, Loaded, import, load};
pub use image::{Image, Layer};
pub use progress::{Progress, ProgressEvent, Silent};
pub use pull::{PullError, PullOptions, pull};
pub use registry::RegistryError;
pub use store::{DiskUsage, ImageStore, Pruned, RemoveError, Removed, ResolveError, StoreError};
