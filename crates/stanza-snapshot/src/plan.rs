//! Root file system plans: which directories an overlay is made of.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{self, Mode};
use stanza_spec::{Classify, Digest, ErrorKind, Layer, OverlayLayers, Rootfs, RootfsPart};

use crate::LayerStore;
use crate::layer::open_layer;
use crate::store::{FILES, make_directory};

/// Lower layers that one overlay mount takes (kernel, `OVL_MAX_STACK`).
const LAYERS: usize = 500;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// More layers than the kernel stacks.
    #[error("the image has `{layers}` layers: the kernel stacks at most `{LAYERS}`")]
    TooManyLayers {
        /// Different layers of the image.
        layers: usize,
    },
    /// A layer is not in the store.
    #[error("the layer `{layer}` is not unpacked")]
    Missing {
        /// The layer.
        layer: Digest,
    },
    /// A layer is an erofs image, and this machine does not mount those.
    #[error("the layer `{layer}` is an erofs image, which cannot be mounted here")]
    NotMountable {
        /// The layer.
        layer: Digest,
    },
    /// A layer's erofs image is not what was written.
    #[error("the erofs image of the layer `{layer}` is damaged")]
    Damaged {
        /// The layer.
        layer: Digest,
    },
    /// The mounts of this machine cannot be read.
    #[error("cannot read the mounts of this machine from `/proc/self/mountinfo`")]
    Mounts(#[source] io::Error),
    /// A path of this machine cannot be looked at, or a path of the container not be made.
    #[error("cannot {action} `{}`", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// This machine's tree would need too many mounts.
    #[error("this machine's root file system falls into more than `{limit}` parts")]
    TooManyParts {
        /// The limit.
        limit: usize,
    },
}

impl Classify for PlanError {
    fn kind(&self) -> ErrorKind {
        match self {
            PlanError::TooManyLayers { .. }
            | PlanError::TooManyParts { .. }
            | PlanError::NotMountable { .. } => ErrorKind::Unsupported,
            PlanError::Damaged { .. } => ErrorKind::Corrupt,
            PlanError::Missing { .. } => ErrorKind::NotFound,
            PlanError::Mounts(source) | PlanError::Path { source, .. } => ErrorKind::of_io(source),
        }
    }
}

/// The root file system of an image: its layers, `layers` bottom first as the image's configuration has them, below
/// `container_dir/upper`.
///
/// Looks at each layer's root once. A layer that is there twice counts where it is highest: the kernel refuses the same
/// directory twice, and whatever the lower one says, the higher one says again. Below a layer whose root is opaque
/// nothing of the image is taken: overlayfs does not look for that mark at the root. Lowest of all is the store's base layer,
/// which has the mount points that an image may lack.
///
/// # Errors
/// When a layer is not in the store, or there are more than the kernel stacks.
pub fn plan_layers(
    store: &LayerStore,
    layers: &[Digest],
    container_dir: &Path,
    rootless: bool,
) -> Result<Rootfs, PlanError> {
    let lower = lowers(store, layers)?;
    if lower.len() > LAYERS {
        return Err(PlanError::TooManyLayers { layers: lower.len() });
    }
    let root = OverlayLayers {
        lower,
        upper: container_dir.join("upper"),
        work: container_dir.join("work"),
        userxattr: rootless,
    };
    Ok(Rootfs::Layered { root, parts: Vec::new() })
}

/// As [`plan_layers`], with the layers copied into a directory of the container's own, `rootfs` in `container_dir`. `shift`
/// is the first id of the container's user namespace, 0 without one.
///
/// # Errors
/// When a layer is not in the store.
pub fn plan_copy(
    store: &LayerStore,
    layers: &[Digest],
    container_dir: &Path,
    shift: u32,
) -> Result<Rootfs, PlanError> {
    Ok(Rootfs::Copied {
        root: container_dir.join("rootfs"),
        layers: lowers(store, layers)?,
        userxattr: store.rootless(),
        shift,
    })
}

/// Puts copies of an image's layers, with owners shifted by `shift`, in place of the layers themselves, where those are
/// directories: for a user namespace on a file system whose mounts cannot be id-mapped. A copy is made once, beside the
/// layer, and goes with it.
///
/// # Errors
/// When a copy cannot be made.
pub fn shift_layers(rootfs: Rootfs, shift: u32) -> io::Result<Rootfs> {
    let Rootfs::Layered { mut root, parts } = rootfs else { return Ok(rootfs) };
    for layer in &mut root.lower {
        let Layer::Directory(path) = layer else { continue };
        if path.file_name().is_some_and(|name| name == FILES) {
            let shifted = path.with_file_name(format!("{FILES}-{shift}"));
            crate::copy::copy_layer(&shifted, path, root.userxattr, shift)?;
            *layer = Layer::Shifted(shifted);
        }
    }
    Ok(Rootfs::Layered { root, parts })
}

/// The layers that show, topmost first.
fn lowers(store: &LayerStore, layers: &[Digest]) -> Result<Vec<Layer>, PlanError> {
    let mut lower = Vec::with_capacity(layers.len() + 1);
    for (index, layer) in layers.iter().enumerate().rev() {
        if layers[index + 1..].contains(layer) {
            continue;
        }
        let (found, hides_rest) = store.look(layer)?;
        lower.push(found);
        if hides_rest {
            break;
        }
    }
    lower.push(Layer::Directory(store.base()));
    Ok(lower)
}

/// Makes what a plan writes to: the directories of an overlay, or the copy of the layers; what is there stays. The root's
/// own mode and owner are those of the topmost layer.
///
/// # Errors
/// When one cannot be made.
pub fn prepare(rootfs: &Rootfs) -> io::Result<()> {
    let (root, parts) = match rootfs {
        Rootfs::Directory(_) => return Ok(()),
        Rootfs::Copied { root, layers, userxattr, shift } => {
            return crate::copy::copy_layers(root, layers, *userxattr, *shift);
        }
        Rootfs::Layered { root, parts } => (root, parts),
    };
    let overlays = parts.iter().filter_map(|part| match part {
        RootfsPart::Overlay { layers, .. } => Some(layers),
        RootfsPart::ReadOnlyBind { .. } => None,
    });
    for layers in std::iter::once(root).chain(overlays) {
        prepare_upper(layers)?;
        make_directory(&layers.work, 0o700)?;
    }
    Ok(())
}

/// Makes an upper directory that looks like the lower one it covers: what overlayfs shows as the root of a mount is the
/// upper's own mode and owner.
pub(crate) fn prepare_upper(layers: &OverlayLayers) -> io::Result<()> {
    let upper = &layers.upper;
    match fs::mkdir(upper, Mode::RWXU) {
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        Err(rustix::io::Errno::NOENT) => {
            if let Some(above) = upper.parent() {
                std::fs::create_dir_all(above)?;
            }
            fs::mkdir(upper, Mode::RWXU)?;
        }
        result => result?,
    }
    let Some(lower) = layers.lower.first() else { return Ok(()) };
    let like = match lower {
        Layer::Directory(path) | Layer::Shifted(path) => fs::stat(path)?,
        image @ Layer::Erofs { .. } => fs::fstat(open_layer(image)?)?,
    };
    if (like.st_uid, like.st_gid) != (0, 0) {
        // An owner that this user namespace does not have shows as nobody's and cannot be given.
        let _ = std::os::unix::fs::chown(upper, Some(like.st_uid), Some(like.st_gid));
    }
    Ok(fs::chmod(upper, Mode::from_raw_mode(like.st_mode & 0o7777))?)
}
