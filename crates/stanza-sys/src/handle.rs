//! A descriptor of a process that is about to execute another program.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// As many are left to the exec, which closes all at once; the tables of most processes hold 256, their limit is mostly 1024.
const LEFT_TO_EXEC: RawFd = 200;

/// A descriptor that is closed when dropped or, while there are few, by the exec that comes soon. Setting up a container takes
/// some sixty descriptors, so that is sixty system calls less.
///
/// Only for a process that is to execute another program or to end; all its descriptors are to be close-on-exec.
#[derive(Debug)]
pub struct Handle(ManuallyDrop<OwnedFd>);

impl From<OwnedFd> for Handle {
    fn from(descriptor: OwnedFd) -> Handle {
        Handle(ManuallyDrop::new(descriptor))
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handle {
    /// The descriptor itself, to be closed by its new owner.
    #[must_use]
    pub fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the descriptor is taken once.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.0.as_raw_fd() >= LEFT_TO_EXEC {
            // SAFETY: dropped once, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stay_open_and_the_many_do_not() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&file, LEFT_TO_EXEC).unwrap();
        let (low, high) = (Handle::from(OwnedFd::from(file)), Handle::from(high));
        let numbers = [low.as_fd().as_raw_fd(), high.as_fd().as_raw_fd()];
        drop((low, high));
        let open = numbers.map(|number| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok());
        assert_eq!(open, [true, false]);
    }
}
