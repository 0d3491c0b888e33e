//! The directory `<root>/vm`, and how things appear in it: whole, by one rename, made by one process at a time.
//!
//! ```text
//!   vm/
//!     kernels/<version>/          {vmlinuz,config,modules/}: unpacked by `install_kernel`
//!     unpacked/<digest>/vmlinux   decompressed, by the digest of the file it came from
//!     unpacked/<file's key>       the digest of a kernel's file, by its path, size and times
//!     initramfs/<key>             the guest's first files, by kernel and agent
//!     qemu.json                   what QEMU said of its version, and of which file that is true
//!     templates/<key>/            {ram,state,manifest.json}
//!     accelerator.json            whether the processor can run a guest, by kernel, QEMU and boot of the host
//!     making/<random>             what is being made; nobody's when `lock` is free
//!     lock                        held by the process that makes something
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// A failure in the store: what was tried, on which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}`")]
pub struct StoreError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl StoreError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> StoreError {
        StoreError { action, path: path.to_owned(), source }
    }
}

/// The directory of all virtual machines of one root.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store at `<root>/vm`, made if it is not there; only its owner may look into it.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let store = Store { root: root.join("vm") };
        for name in ["kernels", "unpacked", "initramfs", "templates", "making"] {
            let path = store.path(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| StoreError::new("make", &path, error))?;
        }
        Ok(store)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Waits until nobody else makes anything, and clears what a killed maker left.
    pub(crate) fn lock(&self) -> Result<Making<'_>, StoreError> {
        let path = self.path("lock");
        let failed = |error| StoreError::new("lock", &path, error);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        stanza_sys::lock_exclusive(&lock).map_err(failed)?;
        let making = self.path("making");
        let entries = fs::read_dir(&making).map_err(|error| StoreError::new("read", &making, error))?;
        for entry in entries {
            let path = entry.map_err(|error| StoreError::new("read", &making, error))?.path();
            remove(&path)?;
        }
        Ok(Making { store: self, _lock: lock })
    }
}

/// The right to make something. Whoever has it is alone.
pub(crate) struct Making<'a> {
    store: &'a Store,
    _lock: File,
}

impl Making<'_> {
    /// A new directory of which nobody else knows.
    pub(crate) fn directory(&self) -> Result<PathBuf, StoreError> {
        let path = self.store.path("making").join("new");
        remove(&path)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| StoreError::new("make", &path, error))?;
        Ok(path)
    }

    /// Gives what was made its name, in place of what has it.
    pub(crate) fn publish(&self, made: &Path, name: &Path) -> Result<(), StoreError> {
        let old = self.store.path("making").join("old");
        match fs::rename(name, &old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::new("move", name, error)),
        }
        fs::rename(made, name).map_err(|error| StoreError::new("move to", name, error))?;
        remove(&old)
    }
}

/// Writes a small file that appears whole.
pub(crate) fn write_whole(making: &Making<'_>, name: &Path, content: &[u8]) -> Result<(), StoreError> {
    let new = making.store.path("making").join("file");
    write_synced(&new, content)?;
    fs::rename(&new, name).map_err(|error| StoreError::new("move to", name, error))
}

pub(crate) fn write_synced(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let failed = |error| StoreError::new("write", path, error);
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

/// Removes a file or a tree; that it is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::new("remove", path, error)),
        _ => Ok(()),
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_maker_left_is_cleared_by_the_next() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let left = store.lock().unwrap().directory().unwrap();
        fs::write(left.join("ram"), "half").unwrap();
        let making = store.lock().unwrap();
        assert!(!left.exists());
        let name = store.path("templates").join("key");
        for content in ["first", "second"] {
            let made = making.directory().unwrap();
            fs::write(made.join("ram"), content).unwrap();
            making.publish(&made, &name).unwrap();
            assert_eq!(fs::read_to_string(name.join("ram")).unwrap(), content);
        }
        write_whole(&making, &store.path("accelerator.json"), b"{}").unwrap();
        assert_eq!(fs::read_dir(store.path("making")).unwrap().count(), 0);
    }
}
