//! How a process is scheduled, and what it thinks the machine is: calls that `rustix` lacks.

use std::io;

/// What `sched_setattr(2)` takes: `struct sched_attr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedulingAttributes {
    /// The structure's size; set by [`set_scheduling`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// Sets how this thread is scheduled.
///
/// # Errors
/// `EPERM` without the right, `EINVAL` for a combination that does not exist, `EBUSY` when a deadline cannot be met.
pub fn set_scheduling(mut attributes: SchedulingAttributes) -> io::Result<()> {
    attributes.size = u32::try_from(size_of::<SchedulingAttributes>()).unwrap_or(0);
    // SAFETY: the structure has the kernel's layout, says its true size, and outlives the call.
    super::check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attributes), 0) })
        .map(drop)
}

/// Sets this process's priority for input and output: `class` is `IOPRIO_CLASS_*` (1 real time, 2 best effort, 3 idle),
/// `level` 0 (first) to 7.
///
/// # Errors
/// `EPERM` for real time without the right, `EINVAL`.
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: plain numbers.
    super::check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << 13 | level) })
        .map(drop)
}

/// Sets the execution domain (`PER_*`, personality(2)).
///
/// # Errors
/// `EINVAL`.
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: a plain number.
    super::check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// Sets which memory nodes this thread takes memory from: `mode` is `MPOL_*` with `MPOL_F_*`, `nodes` a bit mask.
///
/// # Errors
/// `EINVAL` for a node that is not there or a mode that does not go with it.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        // The kernel takes one bit less than it is told.
        nodes => (nodes.as_ptr(), nodes.len() * 64 + 1),
    };
    // SAFETY: `mask` has at least `bits - 1` bits, or is null; it outlives the call.
    super::check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
