//! `mount_setattr(2)`: read-only, nosuid, … and propagation of a whole tree in one call, and id-mapped mounts.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to change of a mount. All zero changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
    /// A user namespace's descriptor when `set` has [`MountAttributes::IDMAP`].
    pub user_namespace: u64,
}

impl MountAttributes {
    /// Read-only.
    pub const READ_ONLY: u64 = 0x1;
    /// Set-user-id bits are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device files cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Programs cannot be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The bits that say how access times are kept.
    pub const ATIME_MASK: u64 = 0x70;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Access times always.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times for directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Owners are translated by `user_namespace`.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

const AT_EMPTY_PATH: libc::c_int = 0x1000;
const AT_RECURSIVE: libc::c_int = 0x8000;

/// Changes the mount at `path` below `directory` (an empty path is `directory` itself), and what is mounted below it
/// when `recursive`.
///
/// # Errors
/// When the kernel refuses or is older than 5.12.
pub fn mount_set_attributes(
    directory: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attributes: &MountAttributes,
) -> io::Result<()> {
    let flags =
        (if recursive { AT_RECURSIVE } else { 0 }) | (if path.is_empty() { AT_EMPTY_PATH } else { 0 });
    // SAFETY: `path` is NUL-terminated; `attributes` has the kernel's layout (four u64) and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    super::check(result).map(drop)
}
