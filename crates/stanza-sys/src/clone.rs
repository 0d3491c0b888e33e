//! `clone3(2)`, used as a `fork` that also makes namespaces and joins a cgroup.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_raw_sys::general::clone_args;
use rustix::process::Pid;

/// Which namespaces a clone gets of its own, as the kernel's `CLONE_NEW*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// No new namespace: a plain fork.
    pub const NONE: CloneFlags = CloneFlags(0);
    /// Mounts.
    pub const MOUNT: CloneFlags = CloneFlags(libc::CLONE_NEWNS as u64);
    /// Host and domain name.
    pub const UTS: CloneFlags = CloneFlags(libc::CLONE_NEWUTS as u64);
    /// System V IPC and POSIX message queues.
    pub const IPC: CloneFlags = CloneFlags(libc::CLONE_NEWIPC as u64);
    /// Users, groups, capabilities.
    pub const USER: CloneFlags = CloneFlags(libc::CLONE_NEWUSER as u64);
    /// Process ids.
    pub const PID: CloneFlags = CloneFlags(libc::CLONE_NEWPID as u64);
    /// Network.
    pub const NETWORK: CloneFlags = CloneFlags(libc::CLONE_NEWNET as u64);
    /// Clocks since boot.
    pub const TIME: CloneFlags = CloneFlags(0x80); // CLONE_NEWTIME, not in every libc
    /// The child's parent is the caller's parent.
    pub const PARENT: CloneFlags = CloneFlags(libc::CLONE_PARENT as u64);
    /// The root of the cgroup view.
    pub const CGROUP: CloneFlags = CloneFlags(libc::CLONE_NEWCGROUP as u64);

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Without `other`.
    #[must_use]
    pub fn without(self, other: CloneFlags) -> CloneFlags {
        CloneFlags(self.0 & !other.0)
    }

    /// Whether all of `other` is in `self`.
    #[must_use]
    pub fn contains(self, other: CloneFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for CloneFlags {
    type Output = CloneFlags;
    fn bitor(self, other: CloneFlags) -> CloneFlags {
        CloneFlags(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for CloneFlags {
    fn bitor_assign(&mut self, other: CloneFlags) {
        self.0 |= other.0;
    }
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The caller, with the child's process id and a descriptor that names it without reuse.
    Parent {
        /// The child, as this process's pid namespace numbers it.
        pid: Pid,
        /// Readable when the child has ended.
        pidfd: OwnedFd,
    },
}

/// Clones this process (memory copied, descriptors shared), giving the child new namespaces, and on cgroup v2 putting
/// it into the cgroup whose directory `cgroup` is.
///
/// The caller must have one thread only: the child of a process with several could find a lock held for ever.
///
/// # Errors
/// When the kernel refuses, as `EPERM` for a namespace or `ENOSPC` for their number.
pub fn clone_process(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut args = clone_args {
        flags: flags.0 | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        // A sibling sends its parent what the caller does, and may not say otherwise (clone(2)).
        exit_signal: if flags.contains(CloneFlags::PARENT) { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(directory) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP, since Linux 5.7; not in every libc
        args.cgroup = u64::try_from(directory.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    // SAFETY: `args` is a whole, initialised `clone_args` that outlives the call. Without CLONE_VM and without a stack
    // the child goes on with a copy of this stack, as after fork(2). No thread-local state is shared.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<clone_args>()) };
    let result = super::check(result)?;
    let number = i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    match Pid::from_raw(number) {
        None => Ok(Cloned::Child),
        Some(pid) => {
            // SAFETY: with CLONE_PIDFD the kernel has just stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
    }
}

/// Moves this process into new namespaces of the given kinds (`unshare(2)`; pid namespaces concern its children only).
///
/// The caller must have one thread only: the others would stay behind.
///
/// # Errors
/// As [`clone_process`].
pub fn unshare(flags: CloneFlags) -> io::Result<()> {
    // SAFETY: plain numbers; descriptors and memory stay as they are.
    super::check(unsafe { libc::syscall(libc::SYS_unshare, flags.0) }).map(drop)
}
