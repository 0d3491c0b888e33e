//! A network device whose cable ends in a descriptor.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Makes a tap device (`Documentation/networking/tuntap.rst`) in this thread's network namespace: frames with virtio's header
/// before them. It goes with the last copy of the descriptor.
///
/// # Errors
/// `EBUSY` when a device of that name has a descriptor elsewhere, `EINVAL` when it is something else or the name is too long,
/// `ENOENT` without `/dev/net/tun`, `EPERM` without the right.
pub fn create_tap(name: &str) -> io::Result<OwnedFd> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let device = openat(CWD, "/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).unwrap_or_default();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or_default();
    // SAFETY: `TUNSETIFF` reads and writes an `ifreq`, which this is and which outlives the call.
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, std::ptr::from_mut(&mut request)) };
    super::check(result.into())?;
    Ok(device)
}
