//! The parent's side of a new container: clone, map ids, let the caller do its part at the set points, hear how it went.
//!
//! ```text
//!  parent            clone ─┬─ place ─ map ids ─ attach ────────┬─ mounted ──┬─ take listener ──┬─▶ Init
//!  (intermediate)           └─ join namespaces ─ clone          │ (hooks)    │                  │
//!  child                       └─ join cgroups ─ … ─ mounts ────┴─ pivot ─ … ┴─ filter ─ Ready ─┴─ gate ─ exec
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::{Errno, FdFlags};
use rustix::process::{
    Pid, PidfdGetfdFlags, Signal, WaitId, WaitIdOptions, geteuid, pidfd_getfd, pidfd_send_signal, waitid,
};
use stanza_spec::Rootfs;
use stanza_spec::oci::runtime::{LinuxNamespaceType, Spec};
use stanza_sys::{CStringArray, CloneFlags, Cloned, clone_process, keep_only, set_close_on_exec_from};

use crate::copy_up::CopyUp;
use crate::error::{During, Failure, LaunchError};
use crate::gate::Gate;
use crate::id_maps::IdMaps;
use crate::idmap::Prepared;
use crate::landlock::Landlock;
use crate::line::{self, Line, Reply, Word};
use crate::mount_options::MountOptions;
use crate::namespaces::Namespaces;
use crate::process::{CgroupEntry, give_up, limits_of};
use crate::seccomp::Filter;

/// What the first process has as standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// A terminal of the container's own; its controller comes back in [`Init`].
    Terminal {
        /// Rows and columns.
        size: Option<(u16, u16)>,
    },
    /// These.
    Descriptors([OwnedFd; 3]),
    /// The caller's.
    Inherit,
}

/// What the one who starts a container does for it on the way: in the parent, with the child's pid, and in the child.
///
/// An error ends the start; its text is the [`LaunchError::Around`] that the caller gets.
pub trait Attendant {
    /// Whether [`Attendant::place`] moves the child into its cgroups; else the child does by [`Launch::cgroup`].
    fn places(&self) -> bool {
        false
    }

    /// Parent: moves the new process into its cgroups, before any namespace's view of them is made.
    ///
    /// # Errors
    /// See above, as for all others.
    fn place(&mut self, _pid: Pid) -> Result<(), String> {
        Ok(())
    }

    /// Parent: the process and its namespaces exist, while it is mounting: attaches the network, writes it down.
    ///
    /// # Errors
    /// See above.
    fn attach(&mut self, pid: Pid) -> Result<(), String>;

    /// Whether [`Attendant::mounted`] has anything to do.
    fn waits_for_mounts(&self) -> bool {
        false
    }

    /// Parent: all mounts are made and the root is not changed yet; the child waits.
    ///
    /// # Errors
    /// See above.
    fn mounted(&mut self, _pid: Pid) -> Result<(), String> {
        Ok(())
    }

    /// Parent: the process's filter notifies; the listener is to be handed to an agent.
    ///
    /// # Errors
    /// See above.
    fn take_listener(&mut self, _pid: Pid, _listener: OwnedFd) -> Result<(), String> {
        Err("the system call filter notifies, and nobody takes the listener".to_owned())
    }

    /// Child: in all namespaces, all mounts made, before the root is changed.
    ///
    /// # Errors
    /// See above.
    fn before_pivot(&self) -> Result<(), String> {
        Ok(())
    }

    /// Child: as the program's user, right before the program.
    ///
    /// # Errors
    /// See above.
    fn before_program(&self) -> Result<(), String> {
        Ok(())
    }
}

/// How a process is started, apart from its configuration. The default is the monitor's way.
#[derive(Debug)]
pub struct Manner {
    /// The name of its session keyring; none is made without.
    pub keyring: Option<String>,
    /// Goes on when its starter ends.
    pub outlives_starter: bool,
    /// The root is moved, not pivoted: for a root on a ramdisk.
    pub no_pivot: bool,
    /// How many descriptors from 3 on the program has.
    pub preserved: u32,
    /// Descriptors that it has besides, under the numbers that they have here.
    pub handed: Vec<OwnedFd>,
    /// The program waits there to be let through.
    pub gate: Option<Gate>,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            keyring: Some("stanza".to_owned()),
            outlives_starter: false,
            no_pivot: false,
            preserved: 0,
            handed: Vec::new(),
            gate: None,
        }
    }
}

impl Manner {
    /// Joins a new session keyring. A kernel without keyrings, or a user with too many, is no reason to fail.
    pub(crate) fn join_keyring(&self) -> Result<(), Failure> {
        if let Some(name) = &self.keyring {
            let name = CStringArray::new([name])
                .map_err(|_| Failure::configuration("the keyring's name contains a NUL byte"))?;
            let _ = name.first().map(stanza_sys::join_session_keyring);
        }
        Ok(())
    }

    /// Leaves the program with the standard descriptors and the preserved ones. A process that waits at a gate must hold
    /// nothing else meanwhile, least of all its starter's lock.
    pub(crate) fn close_descriptors(&self, line: &Line) -> Result<(), Failure> {
        let during = "close inherited descriptors";
        match &self.gate {
            Some(gate) => {
                let [start, result] = gate.descriptors();
                let mut kept = vec![line.as_fd(), start, result];
                kept.extend(self.handed.iter().map(AsFd::as_fd));
                keep_only(self.close_from(), &kept).during(during)?;
            }
            None => set_close_on_exec_from(self.close_from()).during(during)?,
        }
        for descriptor in &self.handed {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).during("hand over a descriptor")?;
        }
        Ok(())
    }

    /// The first descriptor that the program does not have.
    pub(crate) fn close_from(&self) -> i32 {
        i32::try_from(self.preserved).map_or(i32::MAX, |preserved| preserved.saturating_add(3))
    }
}

/// A container to start.
pub struct Launch<'a> {
    /// The OCI configuration. `linux.seccomp` and `linux.resources` are not looked at: see `filter` and `cgroup`.
    pub spec: &'a Spec,
    /// How `/` is made.
    pub rootfs: &'a Rootfs,
    /// Volumes to fill first.
    pub copy_up: &'a [CopyUp],
    /// The compiled system call filter.
    pub filter: Option<&'a Filter>,
    /// What it may do to files and ports.
    pub landlock: Option<&'a Landlock>,
    /// The control groups to be in.
    pub cgroup: CgroupEntry,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// How.
    pub manner: Manner,
    /// Who does the rest.
    pub attendant: &'a mut dyn Attendant,
}

impl Launch<'_> {
    /// What the child does first, where all is the host's.
    pub(crate) fn before_namespaces(&self) -> Result<(), Failure> {
        stanza_sys::reset_signals().during("reset the signals")?;
        if let Some(process) = self.spec.process() {
            crate::scheduling::set_oom_score(process)?;
        }
        self.cgroup.join()
    }
}

/// A container's first process: its program runs, or waits at the gate.
#[derive(Debug)]
pub struct Init {
    /// In this pid namespace's numbering.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// The controlling end of its terminal.
    pub controller: Option<OwnedFd>,
}

/// Starts a container: returns when its program runs or waits at the gate, or with the reason why it does not, and then
/// nothing is left.
///
/// The caller must be single-threaded.
///
/// # Errors
/// Everything that can be wrong with a configuration, a root file system or a kernel.
pub fn launch(mut launch: Launch<'_>) -> Result<Init, LaunchError> {
    let step = |step: &str| {
        let step = step.to_owned();
        move |source| LaunchError::Step { step, source }
    };
    check_kernel()?;
    let namespaces = Namespaces::of(launch.spec)?;
    let prepared = prepare(&launch, &namespaces)?;
    let (ours, theirs) = line::pair().map_err(step("make a socket pair"))?;
    let intermediate = namespaces.need_intermediate();
    let flags = if intermediate { CloneFlags::NONE } else { namespaces.clone_flags() };
    match clone_first(flags, &mut launch.cgroup).map_err(LaunchError::Clone)? {
        Cloned::Child => {
            drop(ours);
            let Err(failure) = if intermediate {
                go_between(&launch, &namespaces, &theirs, prepared.as_ref())
            } else {
                crate::init::run(&launch, &namespaces, &theirs, prepared.as_ref())
            };
            theirs.say_failed(&failure);
            give_up()
        }
        Cloned::Parent { pid, pidfd } => {
            drop((theirs, prepared));
            let mut birth = Birth { line: &ours, pid, pidfd, controller: None, early: VecDeque::new() };
            let gated = launch.manner.gate.is_some();
            match birth.guide(&mut launch, &namespaces).and_then(|()| birth.finish(launch.attendant, gated)) {
                Ok(()) => Ok(Init { pid: birth.pid, pidfd: birth.pidfd, controller: birth.controller }),
                Err(error) => Err(birth.abort(error)),
            }
        }
    }
}

/// The oldest kernel that has what cannot be done in another way: clone3, pidfds, and mounts by descriptor.
const OLDEST_KERNEL: (u32, u32) = (5, 4);

fn check_kernel() -> Result<(), LaunchError> {
    if crate::source::kernel_is_at_least(OLDEST_KERNEL) {
        return Ok(());
    }
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    Err(LaunchError::Configuration(format!("this is Linux {release}: containers need Linux 5.4 or newer")))
}

/// Clones the first process into its cgroup. Before Linux 5.7 the process joins it by itself.
fn clone_first(flags: CloneFlags, cgroup: &mut CgroupEntry) -> io::Result<Cloned> {
    let Some(directory) = &cgroup.directory else { return clone_process(flags, None) };
    match clone_process(flags, Some(directory.as_fd())) {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::TOOBIG | Errno::INVAL)) => {
            cgroup.tasks.push(format!("/proc/self/fd/{}/cgroup.procs", directory.as_raw_fd()).into());
            clone_process(flags, None)
        }
        other => other,
    }
}

/// Opens in the parent what the child could not: what a user namespace keeps out of reach, or who may translate owners.
fn prepare(launch: &Launch<'_>, namespaces: &Namespaces) -> Result<Option<Prepared>, LaunchError> {
    let own_users = namespaces.has_own(LinuxNamespaceType::User);
    let mounts = launch.spec.mounts().as_deref().unwrap_or_default();
    let translated = mounts.iter().any(|mount| {
        mount.uid_mappings().is_some()
            || MountOptions::parse(mount.options().as_deref().unwrap_or_default()).idmap.is_some()
    });
    if (own_users && geteuid().is_root()) || translated {
        return crate::idmap::prepare(launch.rootfs, launch.spec).map(Some);
    }
    Ok(None)
}

/// The intermediate process: enters what only its children can be in, and makes the child as its own sibling.
fn go_between(
    launch: &Launch<'_>,
    namespaces: &Namespaces,
    line: &Line,
    prepared: Option<&Prepared>,
) -> Result<std::convert::Infallible, Failure> {
    if launch.attendant.places() {
        line.wait_for(Reply::Placed)?;
    }
    launch.before_namespaces()?;
    namespaces.join()?;
    namespaces.unshare_time()?;
    match clone_process(namespaces.clone_flags() | CloneFlags::PARENT, None)
        .during("create the container's namespaces")?
    {
        Cloned::Child => crate::init::run(launch, namespaces, line, prepared),
        Cloned::Parent { pid, pidfd } => {
            line.say_cloned(pid.as_raw_nonzero().get(), pidfd.as_fd())
                .during("tell the parent of the child")?;
            stanza_sys::exit_process(0)
        }
    }
}

/// A child on its way to its program.
pub(crate) struct Birth<'a> {
    pub(crate) line: &'a Line,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) controller: Option<OwnedFd>,
    /// What the child said before it was known who it is.
    pub(crate) early: VecDeque<Word>,
}

impl Birth<'_> {
    /// What the parent does while the child mounts.
    fn guide(&mut self, launch: &mut Launch<'_>, namespaces: &Namespaces) -> Result<(), LaunchError> {
        if launch.attendant.places() {
            launch.attendant.place(self.pid).map_err(LaunchError::Around)?;
            self.line.reply(Reply::Placed);
        }
        if namespaces.need_intermediate() {
            self.hear_of_sibling()?;
        }
        if namespaces.has_new(CloneFlags::USER) {
            IdMaps::of(launch.spec.linux().as_ref()).write(self.pid)?;
            self.line.reply(Reply::Mapped);
        }
        if namespaces.has_own(LinuxNamespaceType::User) {
            // Nobody in a user namespace may raise a limit.
            let process = launch.spec.process().as_ref();
            let limits = process.and_then(|process| process.rlimits().as_deref()).unwrap_or_default();
            for (name, resource, limit) in limits_of(limits) {
                rustix::process::prlimit(Some(self.pid), resource, limit).map_err(|error| {
                    LaunchError::Step {
                        step: format!("set the resource limit `{name}`"),
                        source: error.into(),
                    }
                })?;
            }
        }
        launch.attendant.attach(self.pid).map_err(LaunchError::Around)?;
        self.line.reply(Reply::Network);
        Ok(())
    }

    /// The first process was an intermediate, which says who its sibling is and ends. The sibling may be the first to say
    /// something.
    pub(crate) fn hear_of_sibling(&mut self) -> Result<(), LaunchError> {
        loop {
            match self.listen()? {
                Some(Word::Cloned { pid, pidfd }) => {
                    let intermediate = std::mem::replace(&mut self.pidfd, pidfd);
                    wait(&intermediate);
                    self.pid = Pid::from_raw(pid).ok_or(LaunchError::Died)?;
                    return Ok(());
                }
                Some(word) => self.early.push_back(word),
                None => {
                    let failed = self.early.drain(..).find_map(|word| match word {
                        Word::Failed(failure) => Some(failure.into()),
                        _ => None,
                    });
                    return Err(failed.unwrap_or(LaunchError::Died));
                }
            }
        }
    }

    fn hear(&mut self) -> Result<Option<Word>, LaunchError> {
        match self.early.pop_front() {
            Some(word) => Ok(Some(word)),
            None => self.listen(),
        }
    }

    fn listen(&self) -> Result<Option<Word>, LaunchError> {
        self.line
            .hear()
            .map_err(|source| LaunchError::Step { step: "hear from the new process".to_owned(), source })
    }

    /// Answers the child until it waits at the gate or runs its program.
    pub(crate) fn finish(&mut self, attendant: &mut dyn Attendant, gated: bool) -> Result<(), LaunchError> {
        let mut ready = false;
        loop {
            match self.hear()? {
                Some(Word::Mounted) => {
                    attendant.mounted(self.pid).map_err(LaunchError::Around)?;
                    self.line.reply(Reply::Hooked);
                }
                Some(Word::Terminal(controller)) => self.controller = Some(controller),
                Some(Word::Listener(number)) => {
                    let listener =
                        pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty()).map_err(|error| {
                            LaunchError::Step {
                                step: "take the listener of the system call filter".to_owned(),
                                source: error.into(),
                            }
                        })?;
                    attendant.take_listener(self.pid, listener).map_err(LaunchError::Around)?;
                    self.line.reply(Reply::Taken);
                }
                Some(Word::Ready) if gated => return Ok(()),
                Some(Word::Ready) => ready = true,
                Some(Word::Failed(failure)) => return Err(failure.into()),
                Some(Word::Cloned { .. }) => return Err(LaunchError::Died),
                None if ready => return Ok(()),
                None => return Err(LaunchError::Died),
            }
        }
    }

    /// Ends the child. When the parent's part failed, the cause may be that the child had failed before: then its word counts.
    pub(crate) fn abort(&mut self, error: LaunchError) -> LaunchError {
        reap(&self.pidfd);
        if !matches!(error, LaunchError::Around(_) | LaunchError::Step { .. }) {
            return error;
        }
        while let Ok(Some(word)) = self.hear() {
            if let Word::Failed(failure) = word {
                return failure.into();
            }
        }
        error
    }
}

fn wait(pidfd: &OwnedFd) {
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
}

/// Takes a dead or dying child off the process table.
pub(crate) fn reap(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    wait(pidfd);
}
