//! What is true of a container, by looking: at the lock that its monitor holds, and at the files it wrote.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::de::DeserializeOwned;
use stanza_sys::{is_locked, lock_exclusive, process_start_time, signal_process};

use crate::attach::connect;
use crate::error::{ConnectError, SignalError, StatusError, WaitError};
use crate::frame::Kind;
use crate::paths;
use crate::plan::{ExitRecord, Running};

/// What is true of a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// It has not been started.
    Created,
    /// Its monitor lives.
    Running(Running),
    /// Its monitor wrote how it ended.
    Exited(ExitRecord),
    /// Its monitor is gone and did not write how it ended: see [`crate::clear()`].
    Lost(Running),
}

/// A JSON file; `None` when there is none.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StatusError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| StatusError::Corrupt { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StatusError::Read { path: path.to_owned(), source }),
    }
}

/// Whether a monitor holds its lock: from before it makes anything for the container until all is taken down.
///
/// # Errors
/// When the lock cannot be looked at.
pub fn is_monitored(run_dir: &Path) -> Result<bool, StatusError> {
    let path = paths::monitor_lock(run_dir);
    match File::open(&path) {
        Ok(file) => is_locked(&file).map_err(|source| StatusError::Read { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StatusError::Read { path, source }),
    }
}

/// What is true of the container with these directories. Changes nothing.
///
/// # Errors
/// When a file cannot be read, or is not what a monitor writes.
pub fn status(run_dir: &Path, state_dir: &Path) -> Result<Status, StatusError> {
    let monitored = is_monitored(run_dir)?;
    let running: Option<Running> = read(&paths::state(state_dir))?;
    match running {
        Some(running) if monitored => Ok(Status::Running(running)),
        // No lock: the monitor is gone, or ended between the two looks and has written how.
        running => match (running, read::<ExitRecord>(&paths::exit_record(state_dir))?) {
            (Some(running), Some(record)) if record.started_at == running.started_at => {
                Ok(Status::Exited(record))
            }
            (Some(running), _) => match read::<Running>(&paths::state(state_dir))? {
                Some(_) => Ok(Status::Lost(running)),
                None => Ok(read(&paths::exit_record(state_dir))?.map_or(Status::Created, Status::Exited)),
            },
            (None, Some(record)) => Ok(Status::Exited(record)),
            (None, None) => Ok(Status::Created),
        },
    }
}

/// A descriptor of the container's first process; `None` when that has ended.
pub(crate) fn open_init(running: &Running) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(running.pid) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The number may have been given to another process since; the descriptor holds on to the one just checked.
    match process_start_time(pid) {
        Ok(time) if time == running.start_time && stanza_sys::boot_id()? == running.boot_id => {
            Ok(Some(pidfd))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends a signal to the container's first process.
///
/// # Errors
/// When the container does not run or the kernel refuses.
pub fn signal(run_dir: &Path, state_dir: &Path, signal: i32) -> Result<(), SignalError> {
    let Status::Running(running) = status(run_dir, state_dir)? else { return Err(SignalError::NotRunning) };
    let fail = |source| SignalError::Send { pid: running.pid, source };
    if running.machine && signal != Signal::KILL.as_raw() {
        return ask_monitor(run_dir, signal);
    }
    let pidfd = open_init(&running).map_err(fail)?.ok_or(SignalError::NotRunning)?;
    match signal_process(pidfd.as_fd(), signal) {
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            Err(SignalError::NotRunning)
        }
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            Err(SignalError::NoSuchSignal(signal))
        }
        other => other.map_err(fail),
    }
}

/// Has the monitor signal a program that is behind another kernel.
fn ask_monitor(run_dir: &Path, signal: i32) -> Result<(), SignalError> {
    if !(0..=64).contains(&signal) {
        return Err(SignalError::NoSuchSignal(signal));
    }
    let mut monitor = connect(run_dir).map_err(|error| match error {
        ConnectError::NotRunning => SignalError::NotRunning,
        ConnectError::Socket(source) => SignalError::Monitor(source),
    })?;
    monitor.send(Kind::Signal, &signal.to_le_bytes()).map_err(SignalError::Monitor)
}

/// Waits until the container has exited and everything of it is torn down. `None`: the time is over (no `timeout` waits
/// for ever), or the container was never started.
///
/// # Errors
/// When its files cannot be read or watched.
pub fn wait(
    run_dir: &Path,
    state_dir: &Path,
    timeout: Option<Duration>,
) -> Result<Option<ExitRecord>, WaitError> {
    if let Status::Running(running) = status(run_dir, state_dir)? {
        if let Some(pidfd) = open_init(&running).map_err(WaitError::Watch)?
            && !becomes_readable(&pidfd, timeout).map_err(WaitError::Watch)?
        {
            return Ok(None);
        }
        // The process has ended; the monitor holds its lock until the record is written.
        match OpenOptions::new().read(true).write(true).open(paths::monitor_lock(run_dir)) {
            Ok(file) => lock_exclusive(&file).map_err(WaitError::Watch)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(WaitError::Watch(error)),
        }
    }
    match status(run_dir, state_dir)? {
        Status::Exited(record) => Ok(Some(record)),
        _ => Ok(None),
    }
}

fn becomes_readable(fd: &impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        let left = left.map(Timespec::try_from).transpose().map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
