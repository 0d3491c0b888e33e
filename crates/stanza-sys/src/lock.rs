//! Locks that belong to an open file description (`F_OFD_*`, fcntl(2)): they end with its last descriptor, however the
//! owner dies, and can be looked at without being taken.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: all-zero is a valid `flock`: offsets and process id of zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).unwrap_or_default();
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    lock
}

fn call(file: impl AsFd, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: `lock` is a valid `flock` for the time of the call, which is what these commands take.
        let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, std::ptr::from_mut(lock)) };
        match super::check(libc::c_long::from(result)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// Takes the write lock, waiting for it.
///
/// # Errors
/// When the file system has no locks or `file` is not open for writing.
pub fn lock_exclusive(file: impl AsFd) -> io::Result<()> {
    call(file, libc::F_OFD_SETLKW, &mut whole_file(libc::F_WRLCK))
}

/// Takes the write lock if it is free; `false` when somebody holds it.
///
/// # Errors
/// As [`lock_exclusive`].
pub fn try_lock_exclusive(file: impl AsFd) -> io::Result<bool> {
    match call(file, libc::F_OFD_SETLK, &mut whole_file(libc::F_WRLCK)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether another open file description holds the write lock. Takes nothing.
///
/// # Errors
/// As [`lock_exclusive`]; reading rights are enough.
pub fn is_locked(file: impl AsFd) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_RDLCK);
    call(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn a_lock_is_seen_and_ends_with_its_descriptor() {
        let path = std::env::temp_dir().join(format!("stanza-lock-{}", std::process::id()));
        let open =
            || OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        assert!(!is_locked(&second).unwrap());
        lock_exclusive(&first).unwrap();
        assert!(is_locked(&second).unwrap());
        assert!(!try_lock_exclusive(&second).unwrap());
        drop(first);
        assert!(try_lock_exclusive(&second).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
