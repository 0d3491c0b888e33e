//! What a child has used when it ends (`wait4(2)`).

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// How a child has ended, and what it and the children that it waited for have used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Processor time.
    pub cpu: Duration,
}

/// Waits until a child of this process ends.
///
/// # Errors
/// When it was waited for by others.
pub fn wait_with_usage(child: Child) -> io::Result<Ended> {
    let pid = libc::pid_t::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // Nobody shall wait for it a second time.
    drop(child);
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to writable memory of their types.
        let result = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        match super::check(result.into()) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // SAFETY: zeroes are a valid value of it, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    let time = |part: libc::timeval| {
        let micros = u64::try_from(part.tv_usec).unwrap_or(0);
        Duration::from_secs(u64::try_from(part.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
    };
    Ok(Ended { status: ExitStatus::from_raw(status), cpu: time(usage.ru_utime) + time(usage.ru_stime) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_tells_what_it_used() {
        let child = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let ended = wait_with_usage(child).unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert!(ended.cpu < Duration::from_secs(5), "{ended:?}");
    }
}
