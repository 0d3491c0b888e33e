//! Loop devices (loop(4)).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_READ_ONLY, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, loop_config,
};

/// Makes a file, open for reading, a read-only block device; gives it opened, and its path. It goes by itself when
/// neither a descriptor nor a mount holds it open (`LOOP_CONFIGURE`, since Linux 5.8).
///
/// # Errors
/// Without `/dev/loop-control` or the right to use it, or when no device is left.
pub fn attach_loop(file: BorrowedFd<'_>) -> io::Result<(File, String)> {
    let control = File::open("/dev/loop-control")?;
    loop {
        // SAFETY: `LOOP_CTL_GET_FREE` takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE.into()) };
        let number = crate::check(number.into())?;
        let path = format!("/dev/loop{number}");
        let device = File::open(&path)?;
        // SAFETY: all-zero is a valid `loop_config`.
        let mut config: loop_config = unsafe { std::mem::zeroed() };
        config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        config.info.lo_flags = LO_FLAGS_READ_ONLY as u32 | LO_FLAGS_AUTOCLEAR as u32;
        // SAFETY: `LOOP_CONFIGURE` reads a `loop_config`, which this is and which outlives the call.
        let result =
            unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE.into(), std::ptr::from_ref(&config)) };
        match crate::check(result.into()) {
            Ok(_) => return Ok((device, path)),
            // Somebody else was faster.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
}
