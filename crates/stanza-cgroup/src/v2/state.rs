//! Freezing, killing and out-of-memory counts on version 2.

use std::io;
use std::path::Path;

use crate::file;

pub(crate) fn set_frozen(group: &Path, frozen: bool) -> io::Result<()> {
    file::write(&group.join("cgroup.freeze"), if frozen { "1" } else { "0" })
}

/// Whether every task has stopped.
pub(crate) fn is_frozen(group: &Path) -> io::Result<bool> {
    event(group, "frozen")
}

/// Kills all processes at once, new ones included (Linux 5.14). `Ok(false)` on a kernel that cannot.
pub(crate) fn kill(group: &Path) -> io::Result<bool> {
    match file::write(&group.join("cgroup.kill"), "1") {
        Ok(()) => Ok(true),
        Err(error) if file::is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a process is in the group or below.
pub(crate) fn is_populated(group: &Path) -> io::Result<bool> {
    event(group, "populated")
}

fn event(group: &Path, key: &str) -> io::Result<bool> {
    let text = file::read(&group.join("cgroup.events"))?.unwrap_or_default();
    Ok(file::number_of(&text, key) == Some(1))
}

/// How many processes the kernel killed here and below for want of memory.
pub(crate) fn oom_kills(group: &Path) -> io::Result<u64> {
    let text = file::read(&group.join("memory.events"))?.unwrap_or_default();
    Ok(file::number_of(&text, "oom_kill").unwrap_or(0))
}
