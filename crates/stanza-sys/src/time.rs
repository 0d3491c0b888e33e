//! What tells one process or boot from another, and the time of day.

use std::io;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

/// When a process started, in clock ticks since boot: with the process id it names a process beyond reuse.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn process_start_time(pid: Pid) -> io::Result<u64> {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    // The second field, the name, is in parentheses and may hold anything, so count from the last one (proc(5)).
    let end = stat.iter().rposition(|b| *b == b')').ok_or(io::ErrorKind::InvalidData)?;
    let text = std::str::from_utf8(&stat[end + 1..]).map_err(|_| io::ErrorKind::InvalidData)?;
    let field = text.split_ascii_whitespace().nth(19).ok_or(io::ErrorKind::InvalidData)?;
    field.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The kernel's random name of this boot.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// Seconds and nanoseconds since 1970.
#[must_use]
pub fn realtime() -> (i64, u32) {
    let now = clock_gettime(ClockId::Realtime);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}
