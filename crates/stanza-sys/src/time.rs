//! What tells one process or boot from another, and the time of day.

use std::io;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

/// A process as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// When it started, in clock ticks since boot: with the process id it names a process beyond reuse.
    pub start_time: u64,
    /// The kernel's letter: `R`, `S`, `D`, `T`, `Z`, `X`, …
    pub state: u8,
}

impl ProcessStatus {
    /// Whether it has ended, and waits at most to be collected.
    #[must_use]
    pub fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Looks at a process.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn process_status(pid: Pid) -> io::Result<ProcessStatus> {
    let stat = crate::read_proc(&format!("/proc/{}/stat", pid.as_raw_nonzero())).map_err(|error| {
        // It went between the opening of the file and its reading.
        let is_gone = error.raw_os_error() == Some(libc::ESRCH);
        if is_gone { io::ErrorKind::NotFound.into() } else { error }
    })?;
    // The second field, the name, is in parentheses and may hold anything, so count from the last one (proc(5)).
    let (_, rest) = stat.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|field| field.bytes().next()).ok_or(io::ErrorKind::InvalidData)?;
    let start_time = fields.nth(18).and_then(|field| field.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(ProcessStatus { start_time, state })
}

/// When a process started, in clock ticks since boot.
///
/// # Errors
/// As [`process_status`].
pub fn process_start_time(pid: Pid) -> io::Result<u64> {
    process_status(pid).map(|status| status.start_time)
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_goes_while_it_is_looked_at_is_not_found() {
        for _ in 0..400 {
            let mut child = Command::new("true").spawn().unwrap();
            let pid = Pid::from_child(&child);
            let reaper = std::thread::spawn(move || child.wait().unwrap());
            let error = loop {
                if let Err(error) = process_status(pid) {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
            reaper.join().unwrap();
        }
    }
}
