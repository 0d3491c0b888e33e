//! Signals as a descriptor (`signalfd(2)`), and the clean slate that a new program expects.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Blocked signals, read from a descriptor.
#[derive(Debug)]
pub struct SignalDescriptor(OwnedFd);

/// One signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalRecord {
    /// Its number.
    pub signal: i32,
    /// The sender's process id; 0 for the kernel.
    pub sender: u32,
}

impl SignalDescriptor {
    /// Blocks `signals` for this thread and opens a non-blocking descriptor that yields them.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new(signals: &[i32]) -> io::Result<SignalDescriptor> {
        let set = signal_set(signals);
        // SAFETY: `set` is an initialised signal set; the old one is not asked for.
        let blocked = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        super::check(blocked.into())?;
        // SAFETY: as above; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        super::check(fd.into())?;
        // SAFETY: signalfd returned a new descriptor that nobody else owns.
        Ok(SignalDescriptor(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that waits; `None` when there is none.
    ///
    /// # Errors
    /// When reading fails otherwise.
    pub fn next(&self) -> io::Result<Option<SignalRecord>> {
        let mut record = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has `size` writable bytes.
        let count = unsafe { libc::read(self.0.as_raw_fd(), record.as_mut_ptr().cast(), size) };
        if usize::try_from(count) == Ok(size) {
            // SAFETY: the kernel filled the whole structure.
            let record = unsafe { record.assume_init() };
            let signal = i32::try_from(record.ssi_signo).map_err(|_| io::ErrorKind::InvalidData)?;
            return Ok(Some(SignalRecord { signal, sender: record.ssi_pid }));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        }
    }
}

impl AsFd for SignalDescriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: all-zero is a valid set; sigemptyset and sigaddset only write into it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Gives every ignored signal its default action and unblocks all: Rust ignores SIGPIPE, a parent may ignore or block
/// others, and `execve` hands both on. To be called while /proc is the host's.
///
/// # Errors
/// When the mask cannot be set, which the kernel never refuses.
pub fn reset_signals() -> io::Result<()> {
    // Asking for each of 64 signals would be 64 calls. Without /proc they are all taken for ignored.
    let ignored = ignored_signals().unwrap_or(u64::MAX);
    for signal in (1..=64).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        // SAFETY: SIG_DFL runs no code of ours. The kernel refuses SIGKILL and SIGSTOP, and the C library 32 and 33, which
        // stay as they are.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    unblock_signals()
}

/// Unblocks all signals of this thread; allocates nothing.
pub(crate) fn unblock_signals() -> io::Result<()> {
    let set = signal_set(&[]);
    // SAFETY: as in `SignalDescriptor::new`.
    let set_mask = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    super::check(set_mask.into()).map(drop)
}

/// One bit a signal that this process ignores (`SigIgn`, proc_pid_status(5)); `None` when /proc does not say.
fn ignored_signals() -> Option<u64> {
    let status = crate::read_proc("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Has a write to a pipe or socket that nobody reads fail instead of ending this process.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Sends any signal, real-time ones included, to the process that a descriptor names.
///
/// # Errors
/// `ESRCH` when it has ended, `EINVAL` when there is no such signal, `EPERM`.
pub fn signal_process(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: plain numbers; a null information structure lets the kernel fill in the usual one.
    super::check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) })
        .map(drop)
}

/// Ends this process at once: no destructors, no buffers flushed. For the child of a clone.
pub fn exit_process(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}
