//! How a container's root file system is put together: the plan that the snapshot floor makes and the container
//! floor mounts, inside the container's own mount namespace, so that it is gone when the container is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A root file system, as a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A directory that is there already, as an OCI bundle brings it.
    Directory(PathBuf),
    /// A directory that layers were copied into: for file systems that overlayfs does not take.
    Copied {
        /// What `/` is.
        root: PathBuf,
        /// What it was made of, the topmost first.
        layers: Vec<Layer>,
        /// Marks of overlayfs in `layers` are `user.overlay.*`.
        userxattr: bool,
        /// Added to the owners' ids in `layers` that belong to a container: the first id of its user namespace.
        shift: u32,
    },
    /// Layers below a private writable one, with further parts mounted into it.
    Layered {
        /// What `/` is.
        root: OverlayLayers,
        /// What is mounted below `/`, in order; used by the reserved image `host`.
        parts: Vec<RootfsPart>,
    },
}

/// One read-only layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// A directory in the form that overlayfs reads.
    Directory(PathBuf),
    /// The same with the owners' ids of a container's user namespace: for file systems whose mounts cannot be id-mapped.
    Shifted(PathBuf),
    /// An erofs image that this program wrote: the layer's tree, whose file contents are in the layer's archive.
    Erofs {
        /// The image.
        index: PathBuf,
        /// The archive, not compressed.
        tar: PathBuf,
        /// How this kernel mounts them.
        way: ErofsWay,
    },
}

/// How an erofs image is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErofsWay {
    /// Straight from the file (since Linux 6.12).
    File,
    /// By loop devices, which go when the mount goes: for memory file systems and older kernels.
    Loop,
}

/// The layers of one overlay mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayLayers {
    /// Read-only layers, the topmost first. Never empty.
    pub lower: Vec<Layer>,
    /// Where writes go; empty for a view that cannot be written, which needs two lower layers.
    pub upper: PathBuf,
    /// The kernel's work directory, on the file system of `upper`; of a view, the directory that it is for.
    pub work: PathBuf,
    /// Keep overlay's marks in `user.overlay.*` in place of `trusted.overlay.*`: needed in a user namespace.
    pub userxattr: bool,
}

/// Something mounted below the root of a layered root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootfsPart {
    /// An overlay of its own at `destination`.
    Overlay {
        /// Absolute path in the container.
        destination: PathBuf,
        /// Its layers.
        layers: OverlayLayers,
    },
    /// A read-only view of a directory or file of the host, mounts below it not included.
    ReadOnlyBind {
        /// Absolute path in the container.
        destination: PathBuf,
        /// Absolute path on the host.
        source: PathBuf,
    },
}
