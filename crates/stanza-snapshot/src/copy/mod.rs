//! The driver `copy`: a container's root file system is a directory of its own that the layers were copied into.
//!
//! ```text
//!   containers/<id>/rootfs/     what `/` is
//! ```
//!
//! For file systems that overlayfs does not take as its upper layer, and for whoever wants no overlay. Layers are stored as
//! the other drivers store them. Contents are shared with the layers where the file system can (`FICLONE`: btrfs, xfs,
//! bcachefs), holes stay holes, hard links stay links among themselves and never reach into a layer ([`merge`]). A diff
//! compares the directory with the layers ([`changes()`]).

mod changes;
mod merge;

pub(crate) use changes::changes;
pub(crate) use merge::{copy_content, copy_layer, copy_layers};

/// Ids of a container's user namespace.
const RANGE: u32 = 65_536;

/// An owner's id in a container whose ids begin at `shift`; those that are not the container's stay.
fn shifted(id: u32, shift: u32) -> u32 {
    if id < RANGE { id.saturating_add(shift) } else { id }
}
