//! `kill`: sends a signal to the first process, or to all.

use std::os::fd::AsFd;

use rustix::process::Signal;
use stanza_spec::signal;
use stanza_sys::signal_process;

use crate::arguments::{Parsed, Verb, switch};
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::state::{Container, Status};

pub(super) static VERB: Verb = Verb {
    name: "kill",
    usage: "ID [SIGNAL]",
    help: "Send a signal (default: SIGTERM) to the container's first process",
    flags: &[switch(&["all", "a"], "send it to every process of the container")],
    own_words: usize::MAX,
    run,
};

const SIGKILL: i32 = 9;

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let (id, signal) = match parsed.words.as_slice() {
        [id] => (id, "SIGTERM"),
        [id, signal] => (id, signal.as_str()),
        words => {
            return Err(Failure::Usage(format!(
                "expected the container's id and a signal, got {} words",
                words.len()
            )));
        }
    };
    let signal = signal::parse(signal).ok_or_else(|| Failure::Usage(format!("unknown signal {signal:?}")))?;
    let container = Container::open(context, id)?;
    let init = container.init();
    if parsed.is_on("all") || (signal == SIGKILL && shares_pids(&container)) {
        let cgroup = container.cgroup();
        if init.is_none() && !parsed.is_on("all") {
            return Err(not_running());
        }
        let signal = Signal::from_named_raw(signal).ok_or_else(|| {
            Failure::Usage(format!("a real-time signal cannot be sent to all: {}", signal::name(signal)))
        })?;
        cgroup.signal_all(signal).map_err(Failure::below)?;
        return Ok(0);
    }
    let init = init.ok_or_else(not_running)?;
    match signal_process(init.as_fd(), signal) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            return Err(not_running());
        }
        other => other.step("signal the container's first process")?,
    }
    if signal == SIGKILL && container.status() == Status::Paused {
        // Frozen by cgroups of version 1 it dies once it thaws.
        container.cgroup().thaw().map_err(Failure::below)?;
    }
    Ok(0)
}

fn not_running() -> Failure {
    Failure::State("container not running".to_owned())
}

/// Whether the end of the first process leaves others behind: without a pid namespace of its own.
fn shares_pids(container: &Container) -> bool {
    !container.record.namespace_paths.contains_key("NEWPID")
}
