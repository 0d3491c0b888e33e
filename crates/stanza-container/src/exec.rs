//! One more process in a container that runs: its namespaces are joined by the first process's pidfd, then a child is
//! cloned, because a pid namespace is entered by children only (setns(2)).

use std::convert::Infallible;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use stanza_spec::oci::runtime::Process;
use stanza_sys::{CloneFlags, Cloned, clone_process, keep_only};

use crate::error::{During, Failure, LaunchError};
use crate::init::apply_labels;
use crate::launch::{Init, Stdio, hear, report, send_controller};
use crate::process::{CgroupEntry, Program, give_up, set_standard_descriptors};
use crate::root::Root;
use crate::seccomp::Filter;
use crate::terminal;

/// A process to start in a running container.
pub struct ExecTarget<'a> {
    /// The container's first process.
    pub pid: Pid,
    /// The same, by descriptor.
    pub pidfd: OwnedFd,
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

/// Starts the process as a child of this process's *parent*, and leaves this process where the container is: it is one made
/// for the purpose, single-threaded, which ends next.
///
/// So only two processes take part, and the one that becomes visible in the container has nothing of the host open, not
/// even for somebody there who may trace it:
///
/// ```text
///  parent ── starts ──▶ this process: joins cgroups, then namespaces; closes all but `kept`
///    │                    └─ clone (as its sibling) ──▶ child, in the container: becomes the program
///    └─ waits for the child ◀───────────────────────────────┘
/// ```
///
/// `kept` is the socket to the parent; it stays open here, and in the child until it becomes the program.
///
/// # Errors
/// As [`crate::launch()`]; `Step` with `ESRCH` when the container ended meanwhile.
pub fn exec(target: ExecTarget<'_>, kept: BorrowedFd<'_>) -> Result<Init, LaunchError> {
    // Its descriptors are closed on the way in, and their numbers may be others' by the end.
    let target = ManuallyDrop::new(target);
    let target = &*target;
    let (ours, theirs) = UnixStream::pair()
        .map_err(|source| LaunchError::Step { step: "make a socket pair".to_owned(), source })?;
    let (pid, pidfd) = match go_in(target, &[ours.as_fd(), theirs.as_fd(), kept])? {
        Cloned::Child => {
            let Err(failure) = run(target, &theirs);
            report(&theirs, &failure);
            give_up()
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let heard = hear(&ours)
        .map_err(|source| LaunchError::Step { step: "hear from the new process".to_owned(), source })?;
    match heard.failure {
        Some(failure) => Err(failure.into()),
        None => Ok(Init { pid, pidfd, controller: heard.controller }),
    }
}

/// Goes in ahead of the child, which is cloned where everything is as the container may see it.
fn go_in(target: &ExecTarget<'_>, kept: &[BorrowedFd<'_>]) -> Result<Cloned, Failure> {
    target.cgroup.join()?;
    if let Some(directory) = &target.cgroup.directory {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let processes =
            openat(directory, "cgroup.procs", flags, Mode::empty()).during("open the container's cgroup")?;
        rustix::io::write(&processes, b"0").during("join the container's cgroup")?;
    }
    let foreign = foreign_namespaces(target.pid).during("look at the container's namespaces")?;
    // While /proc is the host's: a label for the next exec is inherited by the child.
    if target.process.apparmor_profile().is_some() || target.process.selinux_label().is_some() {
        let procfs =
            openat(CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during("open /proc")?;
        apply_labels(&procfs, target.process)?;
    }
    // Nothing in the container may trace or open the child while it is on the way in (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during("hide from tracing")?;
    move_into_thread_name_spaces(target.pidfd.as_fd(), foreign).during("enter the container's namespaces")?;
    if let Stdio::Descriptors([stdin, stdout, stderr]) = &target.stdio {
        set_standard_descriptors([stdin, stdout, stderr])?;
    }
    // From here on no descriptor made in this function may be alive: its number would be given to another.
    keep_only(kept).during("close the host's descriptors")?;
    clone_process(CloneFlags::PARENT, None).during("clone the new process")
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
