//! Hooks: programs that a configuration wants run at set points of a container's life (runtime-spec, "POSIX-platform
//! Hooks"), each with the container's state on its standard input.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use stanza_spec::oci::runtime::Hook;

/// A hook did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("error running {kind} hook #{number}: {reason}")]
pub struct HookError {
    /// `prestart`, `createRuntime`, …
    pub kind: &'static str,
    /// Its place in the list, from 0.
    pub number: usize,
    /// What it said, or what happened to it.
    pub reason: String,
}

/// How much of what a failing hook says is kept.
const LONGEST_OUTPUT: usize = 4096;

/// Runs the hooks of one kind in order, each with `state` on its standard input; stops at the first that fails.
///
/// A hook has the environment that its configuration gives it and no other, and no descriptor but the standard ones: all
/// others of this process are closed by its next exec, too.
///
/// # Errors
/// [`HookError`] names the hook and what it wrote to its standard error.
pub fn run_hooks(kind: &'static str, hooks: &[Hook], state: &[u8]) -> Result<(), HookError> {
    for (number, hook) in hooks.iter().enumerate() {
        run(hook, state).map_err(|reason| HookError { kind, number, reason })?;
    }
    Ok(())
}

fn run(hook: &Hook, state: &[u8]) -> Result<(), String> {
    let mut command = Command::new(hook.path());
    if let Some((name, arguments)) = hook.args().as_deref().unwrap_or_default().split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    stanza_sys::set_close_on_exec_from(3).map_err(|error| format!("close inherited descriptors: {error}"))?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| format!("fork/exec {}: {error}", hook.path().display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its input, and the input fits into the pipe.
        let _ = stdin.write_all(state);
    }
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let said = wait(&mut child, limit).map_err(|error| format!("wait for the hook: {error}"))?;
    let Some(said) = said else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!(
            "hook ran past specified timeout of {:.1}s",
            limit.unwrap_or_default().as_secs_f64()
        ));
    };
    let status = child.wait().map_err(|error| format!("wait for the hook: {error}"))?;
    let ended = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or(0)),
    };
    Err(format!("{ended}, stdout: , stderr: {}", String::from_utf8_lossy(&said).trim_end()))
}

/// Waits until the process has ended, at most `limit`, and reads what it says meanwhile; the first of it, or `None` when time
/// was up.
fn wait(child: &mut Child, limit: Option<Duration>) -> io::Result<Option<Vec<u8>>> {
    let number = i32::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidData)?;
    let pid = Pid::from_raw(number).ok_or(io::ErrorKind::InvalidData)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut stderr = child.stderr.take();
    if let Some(stderr) = &stderr {
        // A grandchild may hold the pipe open for ever.
        rustix::io::ioctl_fionbio(stderr, true)?;
    }
    let end = limit.map(|limit| Instant::now() + limit);
    let mut said = Vec::new();
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec::try_from(left).unwrap_or_default());
        let mut polled = vec![PollFd::new(&pidfd, PollFlags::IN)];
        polled.extend(stderr.iter().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(None),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = !polled[0].revents().is_empty();
        drop(polled);
        if stderr.as_mut().is_some_and(|stderr| !read_some(stderr, &mut said)) {
            stderr = None;
        }
        if ended {
            return Ok(Some(said));
        }
    }
}

/// Reads what is there without waiting; `false` when there will be no more.
fn read_some(stderr: &mut ChildStderr, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; LONGEST_OUTPUT];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => {
                let room = LONGEST_OUTPUT - said.len().min(LONGEST_OUTPUT);
                said.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        serde_json::from_value(serde_json::json!({
            "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b"], "timeout": timeout
        }))
        .unwrap()
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment_only() {
        let script = "read state; test \"$state\" = '{}' && test \"$A\" = b && test -z \"$HOME\"";
        run_hooks("prestart", &[hook(script, None)], b"{}\n").unwrap();
    }

    #[test]
    fn the_first_failure_is_told_with_its_place_and_words() {
        let hooks = [hook("exit 0", None), hook("echo no >&2; exit 3", Some(5)), hook("exit 0", None)];
        let error = run_hooks("createRuntime", &hooks, b"{}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running createRuntime hook #1: exit status 3, stdout: , stderr: no"
        );
    }

    #[test]
    fn a_hook_that_takes_too_long_is_ended() {
        let start = Instant::now();
        let error = run_hooks("poststop", &[hook("exec sleep 100", Some(1))], b"{}").unwrap_err();
        assert!(error.to_string().contains("timeout of 1.0s"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
