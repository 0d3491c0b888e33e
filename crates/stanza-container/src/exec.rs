//! One more process in a container that runs: its namespaces are joined by the first process's pidfd, then a child is
//! cloned, because a pid namespace is entered by children only (setns(2)).
//!
//! ```text
//!  starter ── starts ──▶ the one that goes in: joins cgroups, then namespaces; closes all but the line
//!    │                    └─ clone (as its sibling) ──▶ child, in the container: becomes the program
//!    └─ hears how it went, waits for the child ◀──────────────┘
//! ```
//!
//! So the process that becomes visible in the container has nothing of the host open, not even for somebody there who may
//! trace it (CVE-2016-9962), and the starter never goes in.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use stanza_spec::oci::runtime::Process;
use stanza_sys::{CloneFlags, Cloned, clone_process, keep_only};

use crate::error::{During, Failure, LaunchError};
use crate::init::{apply_labels, open_procfs, use_stdio};
use crate::landlock::Landlock;
use crate::launch::{Attendant, Birth, Init, Manner, Stdio};
use crate::line::{self, Line};
use crate::namespaces::become_root;
use crate::process::{CgroupEntry, Program, give_up, set_standard_descriptors};
use crate::root::Root;
use crate::seccomp::Filter;
use crate::{scheduling, terminal};

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
    /// What it may do to files and ports.
    pub landlock: Option<&'a Landlock>,
    /// The container's control groups.
    pub cgroup: CgroupEntry,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// How; there is no gate.
    pub manner: Manner,
}

type Kinds = ThreadNameSpaceType;

/// The kinds that every kernel has.
const KINDS: [(&str, Kinds); 6] = [
    ("mnt", Kinds::MOUNT),
    ("pid", Kinds::PROCESS_ID),
    ("net", Kinds::NETWORK),
    ("ipc", Kinds::INTER_PROCESS_COMMUNICATION),
    ("uts", Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("cgroup", Kinds::CONTROL_GROUP),
];

/// Whether the namespace of that name is another than this process's.
pub(crate) fn is_foreign(pid: Pid, name: &str) -> io::Result<bool> {
    let theirs = fs::metadata(format!("/proc/{}/ns/{name}", pid.as_raw_nonzero()))?;
    let ours = fs::metadata(format!("/proc/self/ns/{name}"))?;
    Ok((theirs.ino(), theirs.dev()) != (ours.ino(), ours.dev()))
}

/// Joins the namespaces of the container; whether a user namespace was among them.
fn join_namespaces(target: &ExecTarget<'_>) -> Result<bool, Failure> {
    let looking = "look at the container's namespaces";
    // The kernel refuses to join one's own user namespace.
    let users = is_foreign(target.pid, "user").during(looking)?;
    let mut kinds = KINDS.iter().fold(Kinds::empty(), |all, (_, kind)| all | *kind);
    if users {
        kinds |= Kinds::USER;
    }
    // Since Linux 5.6.
    if is_foreign(target.pid, "time").unwrap_or(false) {
        kinds |= Kinds::TIME;
    }
    match move_into_thread_name_spaces(target.pidfd.as_fd(), kinds) {
        // Before Linux 5.8 a pidfd does not stand for namespaces.
        Err(Errno::INVAL) => return join_by_name(target.pid, kinds).map(|()| users),
        Err(Errno::PERM) => {
            // Somebody without root may not join what the container shares with the host.
            for (name, kind) in KINDS {
                if !is_foreign(target.pid, name).during(looking)? {
                    kinds.remove(kind);
                }
            }
            move_into_thread_name_spaces(target.pidfd.as_fd(), kinds)
        }
        other => other,
    }
    .during("enter the container's namespaces")?;
    Ok(users)
}

/// Joins the namespaces by their files, all opened before the first is joined; the user namespace first, since it owns the
/// others.
fn join_by_name(pid: Pid, kinds: Kinds) -> Result<(), Failure> {
    let named = [("user", Kinds::USER), ("time", Kinds::TIME)];
    let mut files = Vec::new();
    for (name, kind) in named.into_iter().chain(KINDS) {
        let path = format!("/proc/{}/ns/{name}", pid.as_raw_nonzero());
        let path = Path::new(&path);
        if kinds.contains(kind) && is_foreign(pid, name).during_on("look at the namespace", path)? {
            files.push((name, fs::File::open(path).during_on("open the namespace", path)?));
        }
    }
    // Last, since it changes what paths mean.
    files.sort_by_key(|(name, _)| *name == "mnt");
    for (name, file) in &files {
        rustix::thread::move_into_link_name_space(file.as_fd(), None)
            .during_on("join the namespace", Path::new(name))?;
    }
    Ok(())
}

/// Starts the process as a child of this process's *parent*, and leaves this process where the container is: it is one made
/// for the purpose, single-threaded, which ends next.
///
/// `kept` is the socket to the parent; it stays open here, and in the child until it becomes the program.
///
/// # Errors
/// As [`crate::launch()`]; `Step` with `ESRCH` when the container ended meanwhile.
pub fn exec(target: ExecTarget<'_>, kept: BorrowedFd<'_>) -> Result<Init, LaunchError> {
    struct Nobody;
    impl Attendant for Nobody {
        fn attach(&mut self, _pid: Pid) -> Result<(), String> {
            Ok(())
        }
    }
    // Its descriptors are closed on the way in, and their numbers may be others' by the end.
    let target = ManuallyDrop::new(target);
    let (ours, theirs) = make_line()?;
    let (pid, pidfd) = match go_in(&target, &[ours.as_fd(), theirs.as_fd(), kept])? {
        Cloned::Child => become_program(&target, &theirs),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    finish(Birth { line: &ours, pid, pidfd, controller: None, early: VecDeque::new() }, &mut Nobody)
}

/// Starts the process as a child of this one, by way of an intermediate that goes in.
///
/// The caller must be single-threaded.
///
/// # Errors
/// As [`exec`].
pub fn exec_through(target: ExecTarget<'_>, attendant: &mut dyn Attendant) -> Result<Init, LaunchError> {
    let target = ManuallyDrop::new(target);
    let (ours, theirs) = make_line()?;
    match clone_process(CloneFlags::NONE, None).map_err(LaunchError::Clone)? {
        Cloned::Child => match go_in(&target, &[theirs.as_fd()]) {
            Ok(Cloned::Child) => become_program(&target, &theirs),
            Ok(Cloned::Parent { pid, pidfd }) => {
                let said = theirs.say_cloned(pid.as_raw_nonzero().get(), pidfd.as_fd());
                stanza_sys::exit_process(i32::from(said.is_err()))
            }
            Err(failure) => {
                theirs.say_failed(&failure);
                give_up()
            }
        },
        Cloned::Parent { pid, pidfd } => {
            drop((theirs, ManuallyDrop::into_inner(target)));
            let mut birth = Birth { line: &ours, pid, pidfd, controller: None, early: VecDeque::new() };
            match birth.hear_of_sibling() {
                Ok(()) => finish(birth, attendant),
                Err(error) => Err(birth.abort(error)),
            }
        }
    }
}

fn make_line() -> Result<(Line, Line), LaunchError> {
    line::pair().map_err(|source| LaunchError::Step { step: "make a socket pair".to_owned(), source })
}

fn finish(mut birth: Birth<'_>, attendant: &mut dyn Attendant) -> Result<Init, LaunchError> {
    match birth.finish(attendant, false) {
        Ok(()) => Ok(Init { pid: birth.pid, pidfd: birth.pidfd, controller: birth.controller }),
        Err(error) => Err(birth.abort(error)),
    }
}

fn become_program(target: &ExecTarget<'_>, line: &Line) -> ! {
    let Err(failure) = run(target, line);
    line.say_failed(&failure);
    give_up()
}

/// Goes in ahead of the child, which is cloned where everything is as the container may see it.
fn go_in(target: &ExecTarget<'_>, kept: &[BorrowedFd<'_>]) -> Result<Cloned, Failure> {
    stanza_sys::reset_signals().during("reset the signals")?;
    scheduling::set_oom_score(target.process)?;
    let affinity = target.process.exec_cpu_affinity().as_ref();
    let list = affinity.and_then(|affinity| affinity.initial().as_deref());
    scheduling::set_affinity(list.unwrap_or_default())?;
    target.cgroup.join()?;
    if let Some(directory) = &target.cgroup.directory {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let processes =
            openat(directory, "cgroup.procs", flags, Mode::empty()).during("open the container's cgroup")?;
        rustix::io::write(&processes, b"0").during("join the container's cgroup")?;
    }
    let list = affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref());
    scheduling::set_affinity(list.unwrap_or_default())?;
    // While /proc is the host's: a label for the next exec is inherited by the child.
    if target.process.apparmor_profile().is_some() || target.process.selinux_label().is_some() {
        apply_labels(&open_procfs()?, target.process)?;
    }
    // Nothing in the container may trace or open the child while it is on the way in (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during("hide from tracing")?;
    if join_namespaces(target)? {
        // Of no consequence where the namespace has no root.
        let _ = become_root();
    }
    if let Stdio::Descriptors([stdin, stdout, stderr]) = &target.stdio {
        set_standard_descriptors([stdin, stdout, stderr])?;
    }
    // From here on no descriptor made in this function may be alive: its number would be given to another.
    keep_only(target.manner.close_from(), kept).during("close the host's descriptors")?;
    clone_process(CloneFlags::PARENT, None).during("clone the new process")
}

fn run(target: &ExecTarget<'_>, line: &Line) -> Result<Infallible, Failure> {
    rustix::process::setsid().during("start a session")?;
    target.manner.join_keyring()?;
    let terminal = match &target.stdio {
        Stdio::Terminal { size } => {
            let root = Root::open_at(Path::new("/")).during("open the container's root")?;
            Some(terminal::open(&root, *size).during("open a terminal")?)
        }
        // They are in place already.
        Stdio::Descriptors(_) | Stdio::Inherit => None,
    };
    if terminal.is_some() {
        use_stdio(&target.stdio, terminal, line)?;
    }
    let program =
        Program { process: target.process, filter: target.filter, limited: false, landlock: target.landlock };
    let ready = program.prepare(&target.manner, line)?;
    line.say_ready().during("tell that all is ready")?;
    Err(ready.execute())
}
