//! Detached mounts of erofs images that have their file contents in a second file.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Advice, fadvise, fstat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use crate::loop_device::attach_loop;

/// Mounts an erofs image, attached nowhere: straight from the files (since Linux 6.12), or `by_loop` devices, which go
/// with the mount. `device` is the image's first extra device. Both are open for reading.
///
/// # Errors
/// `ENOTBLK` when the files' file system cannot be mounted from straight, `EPERM` in a user namespace, `ENODEV` without
/// erofs, `EINVAL` when this kernel does not read the image.
pub fn mount_erofs(index: BorrowedFd<'_>, device: BorrowedFd<'_>, by_loop: bool) -> io::Result<OwnedFd> {
    // Open until the mount is made: from then on it holds them itself.
    let _loops: [File; 2];
    let (source, extra) = if by_loop {
        let (first, source) = attach_loop(index)?;
        let (second, extra) = attach_loop(device)?;
        _loops = [first, second];
        (source, extra)
    } else {
        read_ahead(index)?;
        // By descriptor: what was checked is what is mounted, and `fsconfig` takes strings of 255 bytes at most.
        (by_descriptor(index), by_descriptor(device))
    };
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_set_string(&context, "source", source)?;
    fsconfig_set_string(&context, "device", extra)?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
}

/// Has a file read in its file system's own way before erofs looks: erofs reads metadata without the lock that ext4 wants held
/// then, which Linux 6.16 and later warn of, once (`ext4_check_map_extents_env`). An index is some MiB at most, and mostly
/// in memory already.
fn read_ahead(file: BorrowedFd<'_>) -> io::Result<()> {
    // One call reads no more than the device's read-ahead, 128 KiB unless it was changed.
    const STEP: NonZeroU64 = NonZeroU64::new(128 << 10).expect("not zero");
    let size = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
    for at in (0..size).step_by(128 << 10) {
        fadvise(file, at, Some(STEP), Advice::WillNeed)?;
    }
    Ok(())
}

fn by_descriptor(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
