//! The kernel's random number generator (random(4)).

use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags};

/// The most bytes that are mixed in at once; the generator keeps 32.
const ROOM: usize = 512;

/// `_IOW('R', 3, int[2])` and `_IO('R', 7)` (linux/random.h).
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// `struct rand_pool_info` with its bytes.
#[repr(C)]
struct PoolInfo {
    /// Bits.
    entropy_count: libc::c_int,
    /// Bytes.
    buf_size: libc::c_int,
    buf: [u8; ROOM],
}

/// Mixes random bytes into the kernel's generator, of which at most 512 are taken, and has every later random number depend on
/// them at once: for a machine whose memory is a copy of another's.
///
/// # Errors
/// `EPERM` without root.
pub fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(ROOM)];
    let count = libc::c_int::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut pool = PoolInfo { entropy_count: 8 * count, buf_size: count, buf: [0; ROOM] };
    pool.buf[..bytes.len()].copy_from_slice(bytes);
    let device = rustix::fs::open("/dev/urandom", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: `RNDADDENTROPY` reads a `struct rand_pool_info` of `buf_size` bytes, which this has room for and outlives the call.
    let added = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, std::ptr::from_ref(&pool)) };
    super::check(added.into())?;
    // SAFETY: `RNDRESEEDCRNG` takes no argument.
    let reseeded = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) };
    super::check(reseeded.into()).map(drop)
}
