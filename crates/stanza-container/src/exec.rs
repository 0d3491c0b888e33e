//! One more process in a container that runs: its namespaces are joined by the first process's pidfd, then a child is
//! cloned, because a pid namespace is entered by children only (setns(2)).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use stanza_spec::oci::runtime::Process;
use stanza_sys::{CloneFlags, Cloned, clone_process};

use crate::error::{During, Failure, LaunchError};
use crate::launch::{Init, Stdio, hear, reap, report, send_controller};
use crate::process::{CgroupEntry, Program, give_up, set_standard_descriptors};
use crate::root::Root;
use crate::seccomp::Filter;
use crate::terminal;

/// A process to start in a running container.
pub struct ExecTarget<'a> {
    /// The container's first process.
    pub pid: Pid,
    /// The same, by descriptor.
    pub pidfd: BorrowedFd<'a>,
    /// What to run.
    pub process: &'a Process,
    /// The compiled system call filter.
    pub filter: Option<&'a Filter>,
    /// The container's control groups.
    pub cgroup: CgroupEntry,
    /// Standard input, output and error.
    pub stdio: Stdio,
}

/// The namespaces of `pid` that are not this process's own.
fn foreign_namespaces(pid: Pid) -> io::Result<ThreadNameSpaceType> {
    let kinds = [
        ("user", ThreadNameSpaceType::USER),
        ("mnt", ThreadNameSpaceType::MOUNT),
        ("pid", ThreadNameSpaceType::PROCESS_ID),
        ("net", ThreadNameSpaceType::NETWORK),
        ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
        ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
    ];
    let mut foreign = ThreadNameSpaceType::empty();
    for (name, kind) in kinds {
        let theirs = fs::metadata(format!("/proc/{}/ns/{name}", pid.as_raw_nonzero()))?;
        let ours = fs::metadata(format!("/proc/self/ns/{name}"))?;
        if (theirs.ino(), theirs.dev()) != (ours.ino(), ours.dev()) {
            foreign |= kind;
        }
    }
    Ok(foreign)
}

/// Starts the process. This process joins the container's namespaces for good, so it is one made for the purpose; it
/// must be single-threaded.
///
/// # Errors
/// As [`crate::launch()`]; `Step` with `ESRCH` when the container ended meanwhile.
pub fn exec(target: &ExecTarget<'_>) -> Result<Init, LaunchError> {
    let step = |step: &str| {
        let step = step.to_owned();
        move |source| LaunchError::Step { step, source }
    };
    let (ours, theirs) = UnixStream::pair().map_err(step("make a socket pair"))?;
    let foreign = foreign_namespaces(target.pid).map_err(step("look at the container's namespaces"))?;
    // Nothing in the container may trace or open this process while it is on the way in (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| step("hide from tracing")(e.into()))?;
    move_into_thread_name_spaces(target.pidfd, foreign)
        .map_err(|e| step("enter the container's namespaces")(e.into()))?;
    let directory = target.cgroup.directory.as_ref().map(AsFd::as_fd);
    match clone_process(CloneFlags::NONE, directory).map_err(LaunchError::Clone)? {
        Cloned::Child => {
            drop(ours);
            let Err(failure) = run(target, &theirs);
            report(&theirs, &failure);
            give_up()
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let heard = hear(&ours).map_err(step("hear from the new process"))?;
            match heard.failure {
                Some(failure) => {
                    reap(&pidfd);
                    Err(failure.into())
                }
                None => Ok(Init { pid, pidfd, controller: heard.controller }),
            }
        }
    }
}

fn run(target: &ExecTarget<'_>, sync: &UnixStream) -> Result<std::convert::Infallible, Failure> {
    target.cgroup.join()?;
    rustix::process::setsid().during("start a session")?;
    let _ = stanza_sys::join_session_keyring(c"stanza");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(target.process.user().umask().unwrap_or(0o022)));
    match &target.stdio {
        Stdio::Descriptors([stdin, stdout, stderr]) => set_standard_descriptors([stdin, stdout, stderr])?,
        Stdio::Terminal { size } => {
            let root = Root::open_at(Path::new("/")).during("open the container's root")?;
            let terminal = terminal::open(&root, *size).during("open a terminal")?;
            send_controller(sync, &terminal.controller).during("hand over the terminal")?;
            rustix::process::ioctl_tiocsctty(&terminal.user).during("take the terminal")?;
            set_standard_descriptors([&terminal.user, &terminal.user, &terminal.user])?;
        }
    }
    Program { process: target.process, filter: target.filter }.run(3, false)
}
