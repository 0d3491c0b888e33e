//! `execve(2)` and what must happen to descriptors before it.

use std::ffi::{CStr, CString, NulError};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// A null-terminated array of C strings, as `execve` takes arguments and environment. Built before the clone, so that
/// the child need not allocate.
#[derive(Debug)]
pub struct CStringArray {
    /// Owns what `pointers` point to; never changed after construction.
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStringArray {
    /// The array of `strings`.
    ///
    /// # Errors
    /// When one contains a NUL byte.
    pub fn new<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Result<CStringArray, NulError> {
        let strings = strings.into_iter().map(|s| CString::new(s.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(CStringArray { strings, pointers })
    }

    /// The first string, when there is one.
    #[must_use]
    pub fn first(&self) -> Option<&CStr> {
        self.strings.first().map(CString::as_c_str)
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.strings.iter().map(CString::as_c_str)
    }
}

/// Replaces this process's program. Returns only on failure.
#[must_use]
pub fn execute(path: &CStr, arguments: &CStringArray, environment: &CStringArray) -> io::Error {
    // SAFETY: all three are NUL-terminated, the arrays end in a null pointer and own their strings.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

fn close_range(first: RawFd, last: libc::c_uint, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: plain numbers. The caller promises not to use the closed descriptors again.
    super::check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Marks every descriptor from `first` on as closed by the next `execve`.
///
/// # Errors
/// When the kernel is older than 5.11.
pub fn set_close_on_exec_from(first: RawFd) -> io::Result<()> {
    close_range(first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on, at once.
///
/// Only for a process that is about to run with what it was given explicitly: owners of the closed descriptors in this
/// address space must never be used or dropped again.
///
/// # Errors
/// When the kernel is older than 5.9.
pub fn close_descriptors_from(first: RawFd) -> io::Result<()> {
    close_range(first, libc::c_uint::MAX, 0)
}

/// Closes every descriptor from 3 on but those `kept`, under the same promise as [`close_descriptors_from`].
///
/// # Errors
/// When the kernel is older than 5.9.
pub fn keep_only(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<RawFd> = kept.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    numbers.sort_unstable();
    let mut next = 3;
    for number in numbers {
        if number > next {
            let last = libc::c_uint::try_from(number - 1).map_err(|_| io::ErrorKind::InvalidInput)?;
            close_range(next, last, 0)?;
        }
        next = next.max(number + 1);
    }
    close_range(next, libc::c_uint::MAX, 0)
}
