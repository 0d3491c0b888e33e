//! `seccomp(2)` with `SECCOMP_SET_MODE_FILTER`.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

#[repr(C)]
struct Program {
    length: libc::c_ushort,
    instructions: *const u8,
}

const SET_MODE_FILTER: libc::c_uint = 1;
const FLAG_NEW_LISTENER: u32 = 1 << 3;

/// Installs a filter of whole 8-byte `sock_filter` instructions for this thread and all it becomes. `flags` are
/// `SECCOMP_FILTER_FLAG_*`; with `NEW_LISTENER` the listener comes back.
///
/// # Errors
/// `EINVAL` when the kernel does not take the program or a flag, `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`.
pub fn install_seccomp(filter: &[u8], flags: u32) -> io::Result<Option<OwnedFd>> {
    let length = libc::c_ushort::try_from(filter.len() / 8).map_err(|_| io::ErrorKind::InvalidInput)?;
    if !filter.len().is_multiple_of(8) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let program = Program { length, instructions: filter.as_ptr() };
    // SAFETY: `program` says the true number of instructions, and the bytes outlive the call; the kernel copies and
    // verifies them. It reads through a user pointer, so their alignment does not matter.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, std::ptr::from_ref(&program)) };
    let result = super::check(result)?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let number = libc::c_int::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: with NEW_LISTENER a positive result is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Whether the kernel knows all of these `SECCOMP_FILTER_FLAG_*` together; nothing is installed.
#[must_use]
pub fn seccomp_takes(flags: u32) -> bool {
    let nowhere = std::ptr::null::<Program>();
    // SAFETY: the kernel looks at the flags first (`EINVAL`), then fails to read a program there (`EFAULT`).
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, nowhere) };
    super::check(result).is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}
