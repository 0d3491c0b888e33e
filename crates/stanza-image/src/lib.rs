//! Images: registries, the content store, archives.
//!
//! ```text
//!  pull, push, Remote - registry/  ask, authorise, follow, retry --.
//!  load(archive)  ----- archive/   docker-archive, oci-archive -----+--> store/  an OCI image layout on disk
//!  import(tarball) ---- archive/   one layer, one config  ---------'      resolve, list, tag, remove, prune
//! ```
//!
//! Invariants: a blob has its name only when it is whole, verified and synced; `index.json` changes by one rename;
//! whatever `index.json` reaches is in `blobs/`; what a dead process left is found by looking and cleared.
//!
//! Everything that comes in is hostile until its digest fits: documents are bounded before they are parsed, sizes
//! before bytes are written, redirects before they are followed. Nothing here mounts, unpacks a layer (that is
//! `stanza-snapshot`) or knows containers. All of it is synchronous; `registry/transport` hides the one thread that is not.

#![forbid(unsafe_code)]

mod archive;
mod compression;
mod document;
mod flow;
mod hash;
mod image;
mod outline;
mod policy;
mod progress;
mod pull;
mod push;
mod registry;
mod remote;
mod sink;
mod store;
mod unpack;

pub use archive::{ImportError, ImportOptions, LoadError, LoadOptions, Loaded, import, load};
pub use image::{Image, Layer};
pub use policy::PolicyError;
pub use progress::{Progress, ProgressEvent, Silent};
pub use pull::{PullError, PullOptions, RestoreOptions, pull, restore_blob, restore_layers};
pub use push::{PushError, PushOptions, Pushed, push};
pub use registry::{
    Endpoint, LoggedIn, LoggedOut, LoginError, LoginOptions, Place, Referrer, RegistriesConfig,
    RegistryError, SetupError, expand_alias, login, logout, logout_all, stored_login,
};
pub use remote::{Connections, Remote, RemoteDocument, RemoteError};
pub use sink::{LayerSink, SinkError};
pub use store::{
    BlobFault, BlobKind, DiskUsage, ImageStore, KnownBlob, Lease, Pruned, RemoveError, Removed, ResolveError,
    StoreError, StoreReport, StoredEntry,
};
pub use unpack::UnpackError;
