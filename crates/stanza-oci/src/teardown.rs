//! What is left of a container is cleared: processes, cgroups, its directory; then its `poststop` hooks run.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stanza_cgroup::systemd;
use stanza_cgroup::{Cgroup, Rdt};
use stanza_spec::oci::runtime::Spec;
use stanza_sys::signal_process;

use crate::context::Context;
use crate::failure::Failure;
use crate::foreground::exit_code;
use crate::hooks::{self, Kind};
use crate::log;
use crate::state::{Container, Status};

const SIGKILL: i32 = 9;

/// Clears all; every error, not only the first. The directory stays as long as something else is left, so that the next
/// `delete` can try again.
pub(crate) fn destroy(context: &Context, container: Container, spec: Option<&Spec>) -> Vec<Failure> {
    let mut errors = Vec::new();
    let cgroup = container.cgroup();
    if let Some(Err(error)) = container.init().map(|init| kill(&init, &cgroup)) {
        errors.push(error);
    }
    if !cgroup.is_empty() {
        // Whoever is left in them is killed.
        errors.extend(cgroup.remove().into_iter().map(Failure::below));
    }
    // Without a first process the unit is another's, or goes by itself.
    let unit = container.record.systemd.as_ref().filter(|_| container.record.init_process_pid != 0);
    if let Some(Err(error)) = unit.map(|plan| systemd::stop(plan.bus, &plan.unit)) {
        errors.push(Failure::below(error));
    }
    if let Some(Err(error)) = container.record.rdt.as_ref().map(Rdt::remove) {
        errors.push(Failure::below(error));
    }
    if !errors.is_empty() {
        return errors;
    }
    let read;
    let spec = match spec {
        Some(spec) => Some(spec),
        None => {
            read = container.spec().ok();
            read.as_ref()
        }
    };
    let state = container.record.state_text(Status::Stopped);
    if let Err(error) = container.place.remove() {
        errors.push(error);
    }
    for error in spec.map_or_else(Vec::new, |spec| hooks::run_all(spec, Kind::Poststop, &state)) {
        // The container is gone all the same (runtime-spec, "Poststop").
        log::warn(context, &error.to_string());
    }
    errors
}

/// Kills the process and waits for its end, as its parent or not.
pub(crate) fn kill(init: &OwnedFd, cgroup: &Cgroup) -> Result<(), Failure> {
    if signal_process(init.as_fd(), SIGKILL).is_err() {
        return Ok(());
    }
    if !ends_within(init, AT_ONCE) {
        // A frozen one dies once it thaws.
        cgroup.kill().map_err(Failure::below)?;
        if !ends_within(init, AT_LAST) {
            let source = std::io::ErrorKind::TimedOut.into();
            return Err(Failure::Step { step: "kill the container's first process".to_owned(), source });
        }
    }
    // Only this process's own child needs to be taken off the process table, and only then it can be.
    let _ = exit_code(init);
    Ok(())
}

/// How long a process that is not frozen takes to die.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long one may be stuck in the kernel.
const AT_LAST: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

fn ends_within(init: &OwnedFd, time: Timespec) -> bool {
    poll(&mut [PollFd::new(init, PollFlags::IN)], Some(&time)).is_ok_and(|count| count > 0)
}
