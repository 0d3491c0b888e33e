//! A number in a file that processes share: whoever changed something counts it up, the others see that without a system call.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{fstat, ftruncate};

const SIZE: usize = size_of::<AtomicU64>();

/// The first eight bytes of a file, in the memory of this process and of all others that have them.
///
/// The file may be removed and its descriptor closed: those who have the counter go on sharing it. It must not be made shorter,
/// or the kernel ends with SIGBUS who looks.
#[derive(Debug)]
pub struct SharedCounter {
    place: NonNull<AtomicU64>,
}

// SAFETY: the mapping is this value's alone until it is dropped, and what is there is only used by atomic operations.
unsafe impl Send for SharedCounter {}
// SAFETY: as above.
unsafe impl Sync for SharedCounter {}

impl SharedCounter {
    /// Of a regular file that is open for reading and writing. An empty file is made a counter of zero.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn of(file: impl AsFd) -> io::Result<SharedCounter> {
        // Whoever does the same meanwhile makes it as long, and no shorter.
        if usize::try_from(fstat(&file)?.st_size).unwrap_or(0) < SIZE {
            ftruncate(&file, SIZE as u64)?;
        }
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let descriptor = file.as_fd().as_raw_fd();
        // SAFETY: the kernel chooses a place that nothing else has.
        let place =
            unsafe { libc::mmap(std::ptr::null_mut(), SIZE, rights, libc::MAP_SHARED, descriptor, 0) };
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A page begins where a number may.
        let place = NonNull::new(place.cast::<AtomicU64>()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(SharedCounter { place })
    }

    /// What it says. What was done before another process counted it up to that is seen after this.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.number().load(Ordering::SeqCst)
    }

    /// Counts it up by one, over the end to zero.
    pub fn advance(&self) {
        self.number().fetch_add(1, Ordering::SeqCst);
    }

    fn number(&self) -> &AtomicU64 {
        // SAFETY: the mapping lives as long as this value, is aligned to a page, and every bit pattern is a number.
        unsafe { self.place.as_ref() }
    }
}

impl Drop for SharedCounter {
    fn drop(&mut self) {
        // SAFETY: it was mapped at that place with that size, and nothing refers to it any more.
        unsafe { libc::munmap(self.place.as_ptr().cast(), SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::Path;

    fn counter(path: &Path) -> SharedCounter {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap();
        SharedCounter::of(file).unwrap()
    }

    #[test]
    fn all_who_have_it_see_every_step_also_when_the_file_is_gone() {
        let path = std::env::temp_dir().join(format!("stanza-counter-{}", std::process::id()));
        let one = counter(&path);
        assert_eq!(one.get(), 0);
        one.advance();
        let other = counter(&path);
        assert_eq!((one.get(), other.get()), (1, 1));
        std::fs::remove_file(&path).unwrap();
        std::thread::scope(|scope| {
            for counter in [&one, &other] {
                scope.spawn(|| (0..10_000).for_each(|_| counter.advance()));
            }
        });
        assert_eq!((one.get(), other.get()), (20_001, 20_001));
    }

    #[test]
    fn what_cannot_be_written_is_no_counter() {
        assert!(SharedCounter::of(File::open("/proc/self/exe").unwrap()).is_err());
    }
}
