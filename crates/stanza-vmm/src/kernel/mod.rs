//! The guest's kernel: found, checked, decompressed once.
//!
//! ```text
//!  a path given with its modules ─┐
//!  <root>/vm/kernels/, newest ────┤
//!  /boot, newest *-cloud-amd64 ───┼─▶ KernelFiles ─ prepare ─▶ Kernel { vmlinux, modules, digest }
//!  /boot/vmlinuz-$(uname -r) ─────┘
//! ```

mod deb;
mod image;
mod install;

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub use deb::DebError;
pub use image::ImageError;
pub use install::{InstallError, install_kernel};

use crate::bounded;
use crate::store::{self, Store, StoreError};

/// The longest kernel file that is read.
const FILE_LIMIT: u64 = 512 << 20;

/// A kernel as it lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFiles {
    /// A `vmlinux` or `bzImage`.
    pub image: PathBuf,
    /// Its modules: a directory with `modules.builtin` and `kernel/`.
    pub modules: PathBuf,
}

/// A kernel that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The uncompressed ELF.
    pub vmlinux: PathBuf,
    /// Its modules directory.
    pub modules: PathBuf,
    /// SHA-256 of the file that it came from, in hexadecimal digits.
    pub digest: String,
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// None was found.
    #[error(
        "no kernel for virtual machines: run `stanza vm kernel install`, or install your distribution's \
         (Debian: `linux-image-cloud-amd64`), or name one with its modules"
    )]
    Missing,
    /// Its file cannot be read.
    #[error("cannot read the kernel `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its file is no kernel that can be started.
    #[error("cannot use the kernel `{path}`")]
    Image {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ImageError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KernelFiles {
    /// The kernel that this host has for guests.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(store: &Store) -> Result<KernelFiles, KernelError> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        find_in(&store.path("kernels"), Path::new("/"), &release).ok_or(KernelError::Missing)
    }
}

fn find_in(managed: &Path, root: &Path, release: &str) -> Option<KernelFiles> {
    let whole =
        |files: &KernelFiles| files.image.is_file() && files.modules.join("modules.builtin").is_file();
    let host = |version: &str| {
        let image = root.join("boot").join(format!("vmlinuz-{version}"));
        KernelFiles { image, modules: root.join("lib/modules").join(version) }
    };
    let managed = newest(managed, "").into_iter().map(|version| {
        let directory = managed.join(version);
        KernelFiles { image: directory.join("vmlinuz"), modules: directory.join("modules") }
    });
    let cloud =
        newest(&root.join("boot"), "vmlinuz-").into_iter().filter(|version| version.contains("-cloud-"));
    managed.chain(cloud.map(|version| host(&version))).chain([host(release)]).find(whole)
}

/// What follows `prefix` in the names in `directory`, the newest version first.
fn newest(directory: &Path, prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut versions: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix(prefix)?.to_owned()))
        .collect();
    versions.sort_by(|one, other| compare_versions(other, one));
    versions
}

/// Numbers are compared as numbers: 6.12 is newer than 6.9.
fn compare_versions(one: &str, other: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u64> {
        let parts = version.split(|character: char| !character.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    numbers(one).cmp(&numbers(other)).then_with(|| one.cmp(other))
}

impl Kernel {
    /// Decompresses the kernel, unless that was done before.
    ///
    /// # Errors
    /// When its file cannot be read or is no kernel that can be started, or the store fails.
    pub fn prepare(store: &Store, files: &KernelFiles) -> Result<Kernel, KernelError> {
        let failed = |source| KernelError::Read { path: files.image.clone(), source };
        let found = fs::metadata(&files.image).map_err(failed)?;
        let mut key = files.image.as_os_str().as_bytes().to_vec();
        for number in [found.dev(), found.ino(), found.size()] {
            key.extend_from_slice(&number.to_le_bytes());
        }
        for number in [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()] {
            key.extend_from_slice(&number.to_le_bytes());
        }
        let unpacked = store.path("unpacked");
        let known = unpacked.join(store::digest(&key));
        let kernel = |digest: String| Kernel {
            vmlinux: unpacked.join(&digest).join("vmlinux"),
            modules: files.modules.clone(),
            digest,
        };
        if let Some(found) =
            fs::read_to_string(&known).ok().map(kernel).filter(|kernel| kernel.vmlinux.is_file())
        {
            return Ok(found);
        }
        let image = bounded::read_file(&files.image, FILE_LIMIT).map_err(failed)?;
        let digest = store::digest(&image);
        let kernel = kernel(digest.clone());
        let making = store.lock()?;
        if !kernel.vmlinux.is_file() {
            let vmlinux = image::extract(image)
                .map_err(|source| KernelError::Image { path: files.image.clone(), source })?;
            let made = making.directory()?;
            store::write_synced(&made.join("vmlinux"), &vmlinux)?;
            making.publish(&made, &unpacked.join(&digest))?;
        }
        store::write_whole(&making, &known, digest.as_bytes())?;
        Ok(kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, image: &str, modules: &str) {
        for (path, content) in [(image, "kernel"), (&format!("{modules}/modules.builtin"), "")] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn the_newest_managed_kernel_is_taken_then_the_newest_cloud_kernel_then_the_running_one() {
        let directory = tempfile::tempdir().unwrap();
        let (root, managed) = (directory.path(), directory.path().join("managed"));
        let found = || {
            find_in(&managed, root, "6.18.1").map(|files| files.image.strip_prefix(root).unwrap().to_owned())
        };
        assert_eq!(found(), None);
        put(root, "boot/vmlinuz-6.18.1", "lib/modules/6.18.1");
        assert_eq!(found().unwrap(), Path::new("boot/vmlinuz-6.18.1"));
        put(root, "boot/vmlinuz-6.9.2-cloud-amd64", "lib/modules/6.9.2-cloud-amd64");
        put(root, "boot/vmlinuz-6.12.1-cloud-amd64", "lib/modules/6.12.1-cloud-amd64");
        fs::write(root.join("boot/vmlinuz-6.13.1-cloud-amd64"), "without modules").unwrap();
        assert_eq!(found().unwrap(), Path::new("boot/vmlinuz-6.12.1-cloud-amd64"));
        put(root, "managed/6.1/vmlinuz", "managed/6.1/modules");
        assert_eq!(found().unwrap(), Path::new("managed/6.1/vmlinuz"));
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let image = root.path().join("image");
        fs::write(&image, "text").unwrap();
        let files = KernelFiles { image: image.clone(), modules: root.path().into() };
        let error = Kernel::prepare(&store, &files).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot use the kernel `{}`", image.display()));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "it is neither a `vmlinux` (ELF) nor a `bzImage`");
    }
}
