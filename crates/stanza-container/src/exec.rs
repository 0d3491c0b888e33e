//! One more process in a container that runs: its namespaces are joined by the first process's pidfd, then a child is
//! cloned, because a pid namespace is entered by children only (setns(2)).

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use stanza_spec::oci::runtime::Process;
use stanza_sys::{CloneFlags, Cloned, clone_process, keep_only, receive_descriptors, send_descriptors};

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

/// Starts the process, as a child of this one.
///
/// Three processes take part, so that the one that becomes visible in the container has nothing of the host open, not even
/// for somebody there who may trace it:
///
/// ```text
///  caller ── clone ──▶ guide: joins cgroups, then namespaces; closes all but two sockets
///    │                   └─ clone (as its sibling) ──▶ child, in the container: becomes the program
///    └─ hears from both, takes the guide off the process table
/// ```
///
/// The caller must be single-threaded.
///
/// # Errors
/// As [`crate::launch()`]; `Step` with `ESRCH` when the container ended meanwhile.
pub fn exec(target: &ExecTarget<'_>) -> Result<Init, LaunchError> {
    let step = |step: &str| {
        let step = step.to_owned();
        move |source| LaunchError::Step { step, source }
    };
    let (ours, theirs) = UnixStream::pair().map_err(step("make a socket pair"))?;
    let (told, telling) = UnixStream::pair().map_err(step("make a socket pair"))?;
    let directory = target.cgroup.directory.as_ref().map(AsFd::as_fd);
    let guide = match clone_process(CloneFlags::NONE, directory).map_err(LaunchError::Clone)? {
        Cloned::Child => {
            drop((ours, told));
            if let Err(failure) = guide(target, &theirs, &telling) {
                report(&theirs, &failure);
            }
            give_up()
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop((theirs, telling));
    let mut descriptors = Vec::new();
    let mut number = [0; 4];
    let received = receive_descriptors(&told, &mut number, &mut descriptors);
    let heard = hear(&ours);
    reap(&guide);
    let heard = heard.map_err(step("hear from the new process"))?;
    let received = received.map_err(step("hear from the new process"))?;
    match (heard.failure, descriptors.pop(), Pid::from_raw(i32::from_le_bytes(number))) {
        (None, Some(pidfd), Some(pid)) if received == number.len() => {
            Ok(Init { pid, pidfd, controller: heard.controller })
        }
        (failure, child, _) => {
            if let Some(pidfd) = child {
                reap(&pidfd);
            }
            Err(failure
                .map_or_else(|| step("hear from the new process")(Errno::SRCH.into()), LaunchError::from))
        }
    }
}

/// Goes in ahead of the child, which is cloned where everything is as the container may see it.
fn guide(target: &ExecTarget<'_>, sync: &UnixStream, telling: &UnixStream) -> Result<(), Failure> {
    target.cgroup.join()?;
    let foreign = foreign_namespaces(target.pid).during("look at the container's namespaces")?;
    // Nothing in the container may trace or open the child while it is on the way in (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during("hide from tracing")?;
    move_into_thread_name_spaces(target.pidfd, foreign).during("enter the container's namespaces")?;
    if let Stdio::Descriptors([stdin, stdout, stderr]) = &target.stdio {
        set_standard_descriptors([stdin, stdout, stderr])?;
    }
    keep_only(&[sync.as_fd(), telling.as_fd()]).during("close the host's descriptors")?;
    match clone_process(CloneFlags::PARENT, None).during("clone the new process")? {
        Cloned::Child => {
            let Err(failure) = run(target, sync);
            report(sync, &failure);
            give_up()
        }
        Cloned::Parent { pid, pidfd } => {
            let number = pid.as_raw_nonzero().get().to_le_bytes();
            send_descriptors(telling, &number, &[pidfd.as_fd()]).during("tell of the new process")
        }
    }
}

fn run(target: &ExecTarget<'_>, sync: &UnixStream) -> Result<Infallible, Failure> {
    rustix::process::setsid().during("start a session")?;
    let _ = stanza_sys::join_session_keyring(c"stanza");
    rustix::process::umask(Mode::from_raw_mode(target.process.user().umask().unwrap_or(0o022)));
    if let Stdio::Terminal { size } = &target.stdio {
        let root = Root::open_at(Path::new("/")).during("open the container's root")?;
        let terminal = terminal::open(&root, *size).during("open a terminal")?;
        send_controller(sync, &terminal.controller).during("hand over the terminal")?;
        rustix::process::ioctl_tiocsctty(&terminal.user).during("take the terminal")?;
        set_standard_descriptors([&terminal.user, &terminal.user, &terminal.user])?;
    }
    Program { process: target.process, filter: target.filter }.run(3, false)
}
