//! Layers become root file systems.
//!
//! ```text
//!   layers/                      0700: set-user-id files in layers are nobody's but the engine's
//!     sha256/<diff id>/          an unpacked layer, whole from the moment it has this name:
//!       fs/                      its files
//!       fs-<id>/                 the same with owners shifted, for the user namespace whose ids begin there
//!       layer.tar index.erofs    in place of its files: its archive, and an image of its tree that points into it
//!       record.json              what is known of it
//!       links                    only where needed: hard links to files of lower layers
//!     links                      there when any layer has such links
//!     sha512/<diff id>/
//!     base/                      below every image: what stanza mounts on
//!     ingest/<random>/           a layer on its way in or out ...
//!     ingest/<random>.lock       ... whose owner holds this file's lock for as long as it lives
//! ```
//!
//! [`LayerStore::apply`] unpacks a layer by itself, without looking at the layers below it, into the form that overlayfs
//! reads: a whiteout is a character device 0/0, an opaque directory has the attribute `trusted.overlay.opaque`
//! (`user.overlay.opaque` without root). What is in a layer's directory is a function of its diff id alone, so that
//! images can share it and one image cannot put words into another's mouth. [`plan_layers`] and [`plan_host`] make plans
//! of layers, [`prepare`] the directories a plan needs, [`changes()`] says what a container changed, [`remove_tree`] removes
//! what it left.
//!
//! Durability: a layer appears by one rename after its digest was verified, so a killed process leaves either nothing or
//! everything, and what it left in `ingest/` is found by its free lock ([`LayerStore::clear_leftovers`]). Files are not
//! synced one by one: after a power cut in the half minute after a pull, a file system that delays allocation may hold a
//! layer with files that are empty. Such an image must be removed and pulled again.
//!
//! [`StorageDriver`] says which form new layers get and whether a container's root file system is an overlay of them or a
//! copy; `overlay`, `erofs` and `copy` have a module each for what is their own.
//!
//! The digest of a layer's tree, or of its erofs image, is recorded when it is unpacked (`tree_digest.rs`), so that damage
//! is found afterwards ([`LayerStore::verify`]).
//!
//! Nothing here attaches a mount, talks to a registry, or decompresses. Images are mounted detached to look into them.

#![forbid(unsafe_code)]

mod apply;
mod changes;
mod compare;
mod copy;
mod disk;
mod driver;
mod erofs;
mod export;
mod files;
mod host;
mod ingest;
mod layer;
mod links;
mod node;
mod overlay;
mod owners;
mod passing;
mod plan;
mod record;
mod remove;
mod store;
mod tree_digest;
mod verify;
mod walk;
mod write;
mod xattrs;

pub use apply::{Applied, ApplyError};
pub use changes::{Change, ChangeKind, DiffError, changes};
pub use compare::{LayerSummary, compare, summarize};
pub use disk::{DiskError, DiskStore, is_disk};
pub use driver::{StorageDriver, UnknownDriver};
pub use export::{ExportError, export};
pub use files::{Bounds, Files, FilesError, Found, Ownership, UnpackOptions, Unpacked};
pub use host::plan_host;
pub use links::LinksError;
pub use overlay::try_overlay;
pub use owners::{IdRange, OwnerMap};
pub use plan::{PlanError, plan_copy, plan_layers, prepare, shift_layers};
pub use record::{ErofsRecord, LayerRecord};
pub use remove::remove_tree;
pub use store::{LayerStore, LayersHeld, ListError, OpenError, RemoveError, TakenLayers};
pub use tree_digest::{NotADigest, TreeDigest};
pub use verify::VerifyError;
pub use write::{LayerError, LayerSource, write_difference, write_layer};
