//! Directories on their way in or out: random name, and a lock that says whether their owner lives.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::{self, Errno};

use crate::remove::remove_tree;

/// A name in `ingest/` that this process owns. Dropped, it removes its directory and then its lock file.
pub(crate) struct Ingest {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: OwnedFd,
}

impl Ingest {
    /// Takes a new name; its directory is not made yet.
    pub(crate) fn create(root: &Path) -> io::Result<Ingest> {
        loop {
            let mut random = [0u8; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
            let path = root.join(format!("{:016x}", u64::from_ne_bytes(random)));
            let lock_path = lock_of(&path);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let lock = match fs::open(&lock_path, flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::EXIST) => continue,
                result => result?,
            };
            // Between these two calls, somebody who clears leftovers may have taken it for one.
            match fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::AGAIN) => continue,
                result => result?,
            }
            if fs::fstat(&lock)?.st_nlink > 0 {
                return Ok(Ingest { path, lock_path, _lock: lock });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // What cannot be removed now is a leftover for `clear`: the lock is free when this process is gone.
        if remove_tree(&self.path).is_ok() {
            let _ = fs::unlink(&self.lock_path);
        }
    }
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    PathBuf::from(name)
}

/// Removes what dead owners left. Gives the number of directories and locks removed, or the first failure after
/// trying all.
pub(crate) fn clear(root: &Path) -> std::io::Result<usize> {
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(root)? {
        names.push(entry?.path());
    }
    let mut cleared = 0;
    let mut failure = None;
    for path in &names {
        let result = if path.extension().is_some_and(|extension| extension == "lock") {
            clear_one(path)
        } else if lock_of(path).exists() || path.symlink_metadata().is_err() {
            Ok(false)
        } else {
            // The lock comes before its directory and goes after it: without a lock, nobody owns it.
            remove_tree(path).map(|()| true)
        };
        match result {
            Ok(removed) => cleared += usize::from(removed),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(cleared), Err)
}

fn clear_one(lock_path: &Path) -> std::io::Result<bool> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match fs::open(lock_path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(false),
        result => result?,
    };
    match fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN) => return Ok(false),
        result => result?,
    }
    remove_tree(&lock_path.with_extension(""))?;
    match fs::unlink(lock_path) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
