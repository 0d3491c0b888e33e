//! Programs that do somebody's work and take nothing of his with them, nor outlive him.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use crate::exec::set_close_on_exec_from;
use crate::signal::unblock_signals;

/// Has the program start with its three standard descriptors alone and no signal blocked, and the kernel kill it when the
/// thread that starts it ends, however it ends (`PR_SET_PDEATHSIG`, prctl(2)).
///
/// The last is not inherited by what the program starts itself, and is lost when the program changes its rights by
/// set-user-id.
pub fn as_helper(command: &mut Command) -> &mut Command {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before the line above.
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        set_close_on_exec_from(3)?;
        // The standard library leaves the mask alone when there is something to do between fork and exec.
        unblock_signals()
    };
    // SAFETY: between fork and exec only system calls are made, and no memory is allocated: an `io::Error` of a kind or
    // a number is a plain value.
    unsafe { command.pre_exec(prepare) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;
    use std::time::{Duration, Instant};

    #[test]
    fn the_program_ends_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            as_helper(command.arg("100")).spawn().unwrap()
        })
        .join()
        .unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => panic!("it lives"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn the_program_has_no_descriptor_and_no_signal_mask_of_ours() {
        let output = std::thread::spawn(|| {
            let _blocked = crate::SignalDescriptor::new(&[10, 12]).unwrap();
            let open = std::fs::File::open("/dev/null").unwrap();
            let number = open.as_raw_fd();
            crate::keep_across_exec(number, number + 1);
            let mut command = Command::new("sh");
            let script = "[ -e /proc/$$/fd/$1 ] && echo leaked; exec grep SigBlk /proc/self/status";
            command.args(["-c", script, "sh", &number.to_string()]);
            let with_us = command.output().unwrap();
            (with_us, as_helper(&mut command).output().unwrap())
        })
        .join()
        .unwrap();
        let text = |output: std::process::Output| String::from_utf8(output.stdout).unwrap();
        let (plain, helper) = (text(output.0), text(output.1));
        assert!(plain.starts_with("leaked\n"), "{plain}");
        assert_eq!(helper, "SigBlk:\t0000000000000000\n");
    }
}
