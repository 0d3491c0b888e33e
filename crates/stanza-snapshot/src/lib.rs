//! Layers become root file systems.
//!
//! ```text
//!   layers/                      0700: set-user-id files in layers are nobody's but the engine's
//!     sha256/<diff id>/          an unpacked layer, whole from the moment it has this name:
//!       fs/                      its files
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
//! The digest of a layer's tree is recorded when it is unpacked (`tree_digest.rs`), so that damage is found afterwards
//! ([`LayerStore::verify`]).
//!
//! Nothing here mounts, talks to a registry, or decompresses.

#![forbid(unsafe_code)]

mod apply;
mod changes;
mod host;
mod ingest;
mod links;
mod overlay;
mod plan;
mod record;
mod remove;
mod store;
mod tree_digest;
mod verify;
mod walk;

pub use apply::{Applied, ApplyError};
pub use changes::{Change, ChangeKind, DiffError, changes};
pub use host::plan_host;
pub use links::LinksError;
pub use plan::{PlanError, plan_layers, prepare};
pub use record::LayerRecord;
pub use remove::remove_tree;
pub use store::{LayerStore, LayersHeld, ListError, OpenError, RemoveError, TakenLayers};
pub use tree_digest::{NotADigest, TreeDigest};
pub use verify::VerifyError;
