//! Images: registries, the content store, archives.
//!
//! ```text
//!  pull, push, Remote - registry/  ask, authorise, follow, retry --.
//!  load(archive)  ----- archive/   docker-archive, oci-archive -----+--> store/  an OCI image layout on disk
//!  import(tarball) ---- archive/   one layer, one config  ---------|      resolve, list, tag, remove, prune
//!  commit(layer) ------ commit.rs  over an image's layers ---------'
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
mod changes;
mod chunked;
mod commit;
mod compress;
mod compression;
mod document;
mod flow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod image;
mod outline;
mod policy;
mod progress;
mod pull;
mod push;
mod range;
mod registry;
mod remote;
mod sink;
mod store;
mod unpack;

pub use archive::{
    Admission, ArchiveForm, ImportError, ImportOptions, LoadError, LoadOptions, Loaded, SaveError, Selected,
    Source, Target, import, load, save, select,
};
pub use commit::{CommitError, NewImage, commit};
pub use compress::LayerCompression;
pub use compression::decompress;
pub use image::{Image, Layer};
pub use policy::PolicyError;
pub use progress::{Progress, ProgressEvent, Silent};
pub use pull::{Platforms, PullError, PullOptions, RestoreOptions, pull, restore_blob, restore_layers};
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
