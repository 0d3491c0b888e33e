//! Freezing, killing and out-of-memory counts on version 1.

use std::io;
use std::path::Path;

use crate::file;

/// Asks for `state`: `FROZEN` or `THAWED`.
pub(crate) fn set_frozen(freezer: &Path, frozen: bool) -> io::Result<()> {
    file::write(&freezer.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
}

/// Whether the state is reached; the kernel says `FREEZING` until every task has stopped.
pub(crate) fn is_frozen(freezer: &Path) -> io::Result<bool> {
    let state = file::read(&freezer.join("freezer.state"))?.unwrap_or_default();
    Ok(state.trim() == "FROZEN")
}

/// How many processes the kernel killed here for want of memory; since Linux 4.13.
pub(crate) fn oom_kills(memory: &Path) -> io::Result<u64> {
    let text = file::read(&memory.join("memory.oom_control"))?.unwrap_or_default();
    Ok(file::number_of(&text, "oom_kill").unwrap_or(0))
}
