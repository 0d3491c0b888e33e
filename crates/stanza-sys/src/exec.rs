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

/// `close_range(2)`, since Linux 5.9, its CLOEXEC flag since 5.11; one call a descriptor on older kernels.
fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: plain numbers. The caller promises not to use the closed descriptors again.
    let result = super::check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) });
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) && first <= last => {
            close_each(first, last.min(MOST_DESCRIPTORS), flags);
            Ok(())
        }
        other => other.map(drop),
    }
}

/// The kernel's default limit of descriptors (`fs.nr_open`).
const MOST_DESCRIPTORS: RawFd = 1 << 20;

fn close_each(first: RawFd, last: RawFd, flags: libc::c_uint) {
    for number in first..=last {
        if flags & CLOSE_RANGE_CLOEXEC != 0 {
            // SAFETY: plain numbers; one that is not open is no harm.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        } else {
            // SAFETY: as for `close_range`.
            unsafe { libc::close(number) };
        }
    }
}

/// Marks every descriptor from `first` on as closed by the next `execve`.
///
/// # Errors
/// None in practice.
pub fn set_close_on_exec_from(first: RawFd) -> io::Result<()> {
    close_range(first, RawFd::MAX, CLOSE_RANGE_CLOEXEC)
}

/// Has the descriptors from `first` to before `end` stay open across the next `execve`; those not open are left out.
pub fn keep_across_exec(first: RawFd, end: RawFd) {
    for number in first..end {
        // SAFETY: plain numbers; the flags of a descriptor concern nobody's memory.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    }
}

/// Closes every descriptor from `first` on, at once.
///
/// Only for a process that is about to run with what it was given explicitly: owners of the closed descriptors in this
/// address space must never be used or dropped again.
///
/// # Errors
/// None in practice.
pub fn close_descriptors_from(first: RawFd) -> io::Result<()> {
    close_range(first, RawFd::MAX, 0)
}

/// Closes every descriptor from `first` on but those `kept`, under the same promise as [`close_descriptors_from`].
///
/// # Errors
/// None in practice.
pub fn keep_only(first: RawFd, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<RawFd> = kept.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    numbers.sort_unstable();
    let mut next = first;
    for number in numbers {
        if number > next {
            close_range(next, number - 1, 0)?;
        }
        next = next.max(number + 1);
    }
    close_range(next, RawFd::MAX, 0)
}
