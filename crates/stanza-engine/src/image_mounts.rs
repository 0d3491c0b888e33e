//! Images mounted on the machine, to be looked at.
//!
//! ```text
//!   <runroot>/mounts/           mode 700
//!     <image id>/               where the image is mounted when no other place was named; empty below the mount
//!     <image id>.json           where it is mounted: written before the mount is made, removed after it is gone
//! ```
//!
//! The one mount that stanza makes in the machine's own mount namespace, because that is what was asked for. A record
//! without its mount, as after `umount(8)`, counts for nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use serde::{Deserialize, Serialize};
use stanza_container::{mount_view, unmount_view};
use stanza_spec::{Classify, Digest, ErrorKind, Layer, OverlayLayers, Rootfs};

use crate::engine::make_directory;
use crate::{CreateError, Engine, ImageError};

/// An image that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// The image.
    pub id: Digest,
    /// Its names when it was mounted.
    pub names: Vec<String>,
    /// Where, absolute.
    pub path: PathBuf,
    /// What it is made of, the lowest first.
    pub layers: Vec<Digest>,
}

/// Why an image is not mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum ImageMountError {
    /// There is no such image, or the store fails.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its layers cannot be had.
    #[error(transparent)]
    Layers(#[from] CreateError),
    /// Nobody but root may mount in the machine's namespace.
    #[error("cannot mount an image without root")]
    Rootless,
    /// It is mounted somewhere else.
    #[error("the image `{name}` is mounted at `{}` already", path.display())]
    Elsewhere {
        /// What was given.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// It is not mounted.
    #[error("the image `{0}` is not mounted")]
    NotMounted(String),
    /// The kernel or the file system refuses.
    #[error("cannot {what} `{}`", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Classify for ImageMountError {
    fn kind(&self) -> ErrorKind {
        match self {
            ImageMountError::Image(error) => error.kind(),
            ImageMountError::Layers(error) => error.kind(),
            ImageMountError::Rootless => ErrorKind::Unsupported,
            ImageMountError::Elsewhere { .. } | ImageMountError::NotMounted(_) => ErrorKind::Conflict,
            ImageMountError::File { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                ErrorKind::Conflict
            }
            ImageMountError::File { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ImageMountError::Image(error) => error.hint(),
            ImageMountError::Layers(error) => error.hint(),
            ImageMountError::Rootless => {
                Some("run it as root, or look at the files with `stanza run --rm IMAGE ls -l /`".to_owned())
            }
            ImageMountError::Elsewhere { name, .. } => {
                Some(format!("take it off with `stanza image unmount {name}` first"))
            }
            ImageMountError::NotMounted(_) => Some("`stanza image mount` lists those that are".to_owned()),
            ImageMountError::File { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                Some("leave the directory, or use `--force`".to_owned())
            }
            ImageMountError::File { .. } => None,
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageMountError {
    let path = path.to_owned();
    move |source| ImageMountError::File { what, path, source }
}

impl Engine {
    /// Makes an image's files visible, read-only, in `directory` or in one of the engine's own. An image is mounted once;
    /// mounted already where it shall be, nothing is done.
    ///
    /// # Errors
    /// Without root, when there is no such image or directory, or the image is mounted somewhere else.
    pub fn mount_image(
        &mut self,
        name: &str,
        directory: Option<&Path>,
    ) -> Result<ImageMount, ImageMountError> {
        if self.options.rootless {
            return Err(ImageMountError::Rootless);
        }
        let image = self.image(name)?;
        let mounts = self.mounts_dir();
        make_directory(&mounts, 0o700).map_err(failed("make the directory", &mounts))?;
        let own = mounts.join(image.id.hex());
        make_directory(&own, 0o700).map_err(failed("make the directory", &own))?;
        let path = match directory {
            Some(directory) => fs::canonicalize(directory).map_err(failed("mount an image at", directory))?,
            None => own.clone(),
        };
        if let Some(mounted) = self.image_mounts().into_iter().find(|mount| mount.id == image.id) {
            if directory.is_none() || mounted.path == path {
                return Ok(mounted);
            }
            return Err(ImageMountError::Elsewhere { name: name.to_owned(), path: mounted.path });
        }
        let stack = self.ensure_rootfs(&image, name, &own, &mut stanza_image::Silent)?;
        let mut lower = match stack.rootfs {
            Rootfs::Layered { root, .. } => root.lower,
            Rootfs::Copied { layers, .. } => layers,
            Rootfs::Directory(path) => vec![Layer::Directory(path)],
        };
        // The lowest is the engine's own, with places to mount on. An empty directory instead: a view has at least two.
        lower.pop();
        lower.push(Layer::Directory(own.clone()));
        let view = OverlayLayers { lower, upper: PathBuf::new(), work: own, userxattr: false };
        let names = image.names.iter().map(ToString::to_string).collect();
        let mount = ImageMount { id: image.id, names, path, layers: stack.layers };
        let record = self.mount_record(&mount.id);
        let text = serde_json::to_vec(&mount).map_err(io::Error::other);
        text.and_then(|text| fs::write(&record, text)).map_err(failed("write", &record))?;
        if let Err(error) = mount_view(&view, &mount.path) {
            self.forget_mount(&mount.id);
            return Err(failed("mount an image at", &mount.path)(error));
        }
        // From here on the mount says that they are needed.
        drop(stack.held);
        Ok(mount)
    }

    /// Takes a mounted image off; `force` also when its files are in use.
    ///
    /// # Errors
    /// When there is no such image, when it is not mounted, or in use.
    pub fn unmount_image(&mut self, name: &str, force: bool) -> Result<ImageMount, ImageMountError> {
        let image = self.image(name)?;
        let mounted = self.image_mounts().into_iter().find(|mount| mount.id == image.id);
        let mount = mounted.ok_or_else(|| ImageMountError::NotMounted(name.to_owned()))?;
        unmount_view(&mount.path, force).map_err(failed("unmount", &mount.path))?;
        self.forget_mount(&mount.id);
        Ok(mount)
    }

    /// The images that are mounted, by id.
    #[must_use]
    pub fn image_mounts(&self) -> Vec<ImageMount> {
        self.mount_records().into_iter().filter(|mount| is_view(&mount.path)).collect()
    }

    /// Records whose mount is gone, as after `umount(8)`.
    pub(crate) fn stale_mounts(&self) -> Vec<ImageMount> {
        self.mount_records().into_iter().filter(|mount| !is_view(&mount.path)).collect()
    }

    fn mount_records(&self) -> Vec<ImageMount> {
        let entries = fs::read_dir(self.mounts_dir()).into_iter().flatten().flatten();
        let mut mounts: Vec<ImageMount> = entries
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect();
        mounts.sort_by(|a, b| a.id.cmp(&b.id));
        mounts
    }

    /// Removes what was kept of a mount that is gone.
    pub(crate) fn forget_mount(&self, id: &Digest) -> bool {
        // Not a tree: if anything is still mounted there, it stays.
        let _ = fs::remove_dir(self.mounts_dir().join(id.hex()));
        fs::remove_file(self.mount_record(id)).is_ok()
    }

    fn mounts_dir(&self) -> PathBuf {
        self.options.runroot.join("mounts")
    }

    fn mount_record(&self, id: &Digest) -> PathBuf {
        self.mounts_dir().join(format!("{}.json", id.hex()))
    }
}

/// Whether an overlay is mounted just there.
fn is_view(path: &Path) -> bool {
    const OVERLAYFS: i64 = 0x794c_7630;
    let mounted = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    mounted && rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == OVERLAYFS)
}
