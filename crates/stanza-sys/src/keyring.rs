//! `keyctl(2)`: a session keyring of one's own.

use std::ffi::CStr;
use std::io;

const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Joins a session keyring of the given name, new unless this user has one of that name.
///
/// # Errors
/// `ENOSYS` without keyrings, `EDQUOT` when the user has too many.
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is NUL-terminated.
    super::check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}
