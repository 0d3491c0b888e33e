//! The names of a container's files (`docs/on-disk.md`).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use stanza_container::seccomp::Filter;

/// The file of a run directory whose lock a monitor holds as long as it lives.
pub const MONITOR_LOCK: &str = "monitor.lock";

pub(crate) fn monitor_lock(run_dir: &Path) -> PathBuf {
    run_dir.join(MONITOR_LOCK)
}

/// Beside `exit.json`, so that after a reboot it is still known that the container ran.
pub(crate) fn state(state_dir: &Path) -> PathBuf {
    state_dir.join("state.json")
}

pub(crate) const ATTACH_SOCKET: &str = "attach.sock";

pub(crate) fn exit_record(state_dir: &Path) -> PathBuf {
    state_dir.join("exit.json")
}

/// A path to `name` through a directory's descriptor.
pub(crate) fn through(directory: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// Writes a whole file that appears by rename: a reader sees the old one or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A compiled system call filter, as the engine keeps it.
pub(crate) fn read_filter(path: Option<&Path>) -> io::Result<Option<Filter>> {
    let Some(path) = path else { return Ok(None) };
    Filter::from_bytes(&fs::read(path)?).map(Some).map_err(io::Error::other)
}
