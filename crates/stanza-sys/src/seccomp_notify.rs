//! The listener of a system call filter that notifies (`seccomp_unotify(2)`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SECCOMP_IOCTL_NOTIF_RECV`: `_IOWR('!', 0, struct seccomp_notif)`.
const RECEIVE: libc::Ioctl = 0xC050_2100;
/// `SECCOMP_IOCTL_NOTIF_ADDFD`: `_IOW('!', 3, struct seccomp_notif_addfd)`.
const ADD_DESCRIPTOR: libc::Ioctl = 0x4018_2103;
/// `SECCOMP_ADDFD_FLAG_SEND`: the call returns the new descriptor.
const SEND: u32 = 1 << 1;

/// A call that is held up until it is answered, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldCall(u64);

/// Takes the next held call, waiting for one.
///
/// # Errors
/// `ENOENT` when its process was killed meanwhile, `EINTR`.
pub fn next_held_call(listener: BorrowedFd<'_>) -> io::Result<HeldCall> {
    // SAFETY: all-zero is a valid `seccomp_notif`, and what the kernel asks for.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes a `seccomp_notif`, which this is and which outlives the call.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, std::ptr::from_mut(&mut call)) };
    super::check(result.into())?;
    Ok(HeldCall(call.id))
}

/// Answers a held call with a copy of a descriptor, as if the call had opened it (since Linux 5.14).
///
/// # Errors
/// `ENOENT` when its process has gone.
pub fn answer_with_descriptor(
    listener: BorrowedFd<'_>,
    call: HeldCall,
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let source = u32::try_from(descriptor.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let answer =
        libc::seccomp_notif_addfd { id: call.0, flags: SEND, srcfd: source, newfd: 0, newfd_flags: 0 };
    // SAFETY: the request reads a `seccomp_notif_addfd`, which this is and which outlives the call.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), ADD_DESCRIPTOR, std::ptr::from_ref(&answer)) };
    super::check(result.into()).map(drop)
}
