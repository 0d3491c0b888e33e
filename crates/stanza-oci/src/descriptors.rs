//! Descriptors that come from and go to the caller: those passed on to the container, the terminal's controller, the pidfd,
//! and the pid in a file.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use stanza_spec::oci::runtime::Process;
use stanza_sys::send_descriptors;

use crate::failure::{Doing, Failure};

/// How many descriptors from 3 on the container gets: those asked for, and those that systemd passed (sd_listen_fds(3)),
/// which are then announced in the process's environment.
pub(crate) fn preserved(asked: u32, process: &mut Process) -> Result<u32, Failure> {
    let listening = env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    if listening > 0 {
        let mut variables = process.env().clone().unwrap_or_default();
        variables.push(format!("LISTEN_FDS={listening}"));
        variables.push("LISTEN_PID=1".to_owned());
        process.set_env(Some(variables));
    }
    let count = asked.saturating_add(listening);
    for number in 3..count.saturating_add(3) {
        let open = fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
        if !open {
            return Err(Failure::Usage(format!(
                "--preserve-fds: file descriptor {number} is not open: expected {count} of them from 3 on"
            )));
        }
    }
    Ok(count)
}

/// Sends one descriptor to who listens at `path`; `what` is its name in errors, `with` what goes with it.
fn send(path: &Path, what: &'static str, with: &[u8], descriptor: BorrowedFd<'_>) -> Result<(), Failure> {
    let socket = UnixStream::connect(path).doing(what, path)?;
    send_descriptors(&socket, with, &[descriptor]).doing(what, path)
}

/// Hands over the controller of the container's terminal.
pub(crate) fn send_console(path: &Path, controller: impl AsFd) -> Result<(), Failure> {
    send(path, "send the terminal to the console socket", b"/dev/ptmx", controller.as_fd())
}

/// Hands over the descriptor of the container's process.
pub(crate) fn send_pidfd(path: &Path, pidfd: impl AsFd) -> Result<(), Failure> {
    send(path, "send the pidfd to the socket", b"pidfd", pidfd.as_fd())
}

/// Writes `pid`, whole or not at all.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Failure> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput).doing("write the pid file", path)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary: PathBuf = path.with_file_name(hidden);
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
        write!(file, "{pid}")?;
        fs::rename(&temporary, path)
    };
    write().doing("write the pid file", path)
}
