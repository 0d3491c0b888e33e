//! From a child inside the walls to the container's program: user, limits, capabilities, filter, exec.
//!
//! Order matters: the filter goes in while CAP_SYS_ADMIN is still there unless `no_new_privs` is set (seccomp(2)), ids
//! are changed while capabilities are kept, and everything that can be refused happens before the first exec attempt.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use stanza_spec::oci::runtime::{PosixRlimit, PosixRlimitType, Process};
use stanza_sys::{CStringArray, Handle, close_descriptors_from, execute};

use crate::capabilities::{ALL_CAPABILITIES, capability_set};
use crate::error::{During, Failure, What};
use crate::landlock::Landlock;
use crate::launch::Manner;
use crate::line::{Line, Reply};
use crate::scheduling;
use crate::seccomp::Filter;
use crate::user::{self, Identity};

/// How a child gets into its control groups.
#[derive(Debug, Default)]
pub struct CgroupEntry {
    /// Version 1: `tasks` files that the child writes `0` into. The kernel moves a task that moves itself without
    /// waiting for a grace period, unlike a write of its process id by somebody else.
    pub tasks: Vec<PathBuf>,
    /// Version 2: the directory to be cloned into.
    pub directory: Option<OwnedFd>,
}

impl CgroupEntry {
    /// Moves this (single-threaded) process.
    pub(crate) fn join(&self) -> Result<(), Failure> {
        for path in &self.tasks {
            let step = "join the container's cgroup";
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let tasks = Handle::from(rustix::fs::open(path, flags, Mode::empty()).during_on(step, path)?);
            rustix::io::write(&tasks, b"0").during_on(step, path)?;
        }
        Ok(())
    }
}

/// What a child becomes.
pub(crate) struct Program<'a> {
    pub(crate) process: &'a Process,
    pub(crate) filter: Option<&'a Filter>,
    /// Its resource limits were set from outside.
    pub(crate) limited: bool,
    pub(crate) landlock: Option<&'a Landlock>,
}

/// A program found, with everything of its process in place: nothing but the exec is left.
pub(crate) struct Ready<'a> {
    command: &'a str,
    /// Where the command was found.
    path: CString,
    arguments: CStringArray,
    environment: CStringArray,
}

impl<'a> Program<'a> {
    /// Makes this process what the program's shall be, or says why not. Called inside the container's root.
    ///
    /// From here on no descriptor made before may be dropped, but the `line` and the manner's gate.
    pub(crate) fn prepare(&self, manner: &Manner, line: &Line) -> Result<Ready<'a>, Failure> {
        let process = self.process;
        let identity = identity(process)?;
        let words = process.args().as_deref().unwrap_or_default();
        let command = words.first().ok_or_else(|| Failure::configuration("no command was given"))?;
        let variables = environment(process, &identity)?;
        let arguments = CStringArray::new(words)
            .map_err(|_| Failure::configuration("an argument contains a NUL byte"))?;
        let environment = CStringArray::new(&variables)
            .map_err(|_| Failure::configuration("an environment variable contains a NUL byte"))?;

        if !self.limited {
            set_limits(process.rlimits().as_deref().unwrap_or_default())?;
        }
        scheduling::apply(process)?;
        if identity.uid != 0 {
            give_standard_descriptors(&identity);
        }
        let no_new_privileges = process.no_new_privileges().unwrap_or(false);
        if no_new_privileges {
            rustix::thread::set_no_new_privs(true).during("set no_new_privs")?;
        }
        let directory = enter_directory(process.cwd(), &identity)?;
        if let Some(landlock) = self.landlock {
            // It takes no_new_privs or CAP_SYS_ADMIN, and calls that the filter may stop.
            landlock.restrict()?;
        }
        if !no_new_privileges {
            self.install_filter(line)?;
        }
        assume(process, &identity)?;
        directory.enter()?;
        if !manner.outlives_starter {
            // After the change of ids, which clears it (prctl(2)).
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .during("tie the process to its monitor")?;
        }
        rustix::process::umask(Mode::from_raw_mode(process.user().umask().unwrap_or(0o022)));
        let path = find_in_path(command, &variables)?;
        manner.close_descriptors(line)?;
        if no_new_privileges {
            self.install_filter(line)?;
        }
        Ok(Ready { command, path, arguments, environment })
    }

    fn install_filter(&self, line: &Line) -> Result<(), Failure> {
        let Some(filter) = self.filter else { return Ok(()) };
        let listener = stanza_sys::install_seccomp(filter.program(), filter.flags())
            .during("install the system call filter")?;
        if let Some(listener) = listener {
            // The parent takes it by its number: sending it may be what the filter stops.
            line.say_listener(listener.as_raw_fd()).during("hand over the listener")?;
            line.wait_for(Reply::Taken)?;
        }
        Ok(())
    }
}

impl Ready<'_> {
    /// Becomes the program; returns only with the reason why not.
    pub(crate) fn execute(&self) -> Failure {
        let error = execute(&self.path, &self.arguments, &self.environment);
        refused(self.command, &error)
    }
}

/// Pipes and terminals that were made for another user are the program's to open again, as /dev/stdout.
fn give_standard_descriptors(identity: &Identity) {
    let null = rustix::fs::stat("/dev/null").map(|stat| stat.st_rdev).unwrap_or(0);
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for descriptor in standard {
        let Ok(stat) = rustix::fs::fstat(descriptor) else { continue };
        if stat.st_uid != identity.uid && (null == 0 || stat.st_rdev != null) {
            // One on a read-only file system, or of a user that is not in this user namespace, stays as it is.
            let _ = rustix::fs::fchown(descriptor, Some(Uid::from_raw(identity.uid)), None);
        }
    }
}

/// Who the process runs as: by name when the configuration has one (resolved here, in the container's root).
fn identity(process: &Process) -> Result<Identity, Failure> {
    let user = process.user();
    if let Some(text) = user.username() {
        let mut identity = user::resolve(text, "/etc/passwd", "/etc/group")?;
        identity.groups.extend(user.additional_gids().iter().flatten());
        return Ok(identity);
    }
    let wants_home = !process.env().iter().flatten().any(|variable| variable.starts_with("HOME="));
    Ok(Identity {
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        home: if wants_home { user::home_of(user.uid(), "/etc/passwd") } else { None },
    })
}

/// The environment, with HOME where nobody set it.
fn environment(process: &Process, identity: &Identity) -> Result<Vec<String>, Failure> {
    let mut environment = process.env().clone().unwrap_or_default();
    if environment.iter().any(|variable| variable.contains('\0')) {
        return Err(Failure::configuration("an environment variable contains a NUL byte"));
    }
    if !environment.iter().any(|variable| variable.starts_with("HOME=")) {
        let default = if identity.uid == 0 { "/root" } else { "/" };
        environment.push(format!("HOME={}", identity.home.as_deref().unwrap_or(default)));
    }
    Ok(environment)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// What to set, by the name of each limit.
pub(crate) fn limits_of(limits: &[PosixRlimit]) -> impl Iterator<Item = (String, Resource, Rlimit)> {
    let value = |number: u64| if number == u64::MAX { None } else { Some(number) };
    limits.iter().map(move |limit| {
        let wanted = Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) };
        (limit.typ().to_string(), resource(limit.typ()), wanted)
    })
}

fn set_limits(limits: &[PosixRlimit]) -> Result<(), Failure> {
    for (name, resource, wanted) in limits_of(limits) {
        setrlimit(resource, wanted).during_on("set the resource limit", Path::new(&name))?;
    }
    Ok(())
}

/// Takes on ids and capabilities.
fn assume(process: &Process, identity: &Identity) -> Result<(), Failure> {
    let wanted = process.capabilities().as_ref();
    let names = |pick: fn(
        &stanza_spec::oci::runtime::LinuxCapabilities,
    ) -> &Option<stanza_spec::oci::runtime::Capabilities>| {
        capability_set(wanted.and_then(|sets| pick(sets).as_ref()).into_iter().flatten().map(|capability| {
            let name = capability.to_string();
            if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
        }))
    };
    let bounding = names(|sets| sets.bounding());
    for (number, _) in ALL_CAPABILITIES.iter().enumerate() {
        let single = CapabilitySet::from_bits_retain(1 << number);
        if bounding.contains(single) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(single) {
            // A kernel that is older than the capability, or a user namespace that lacks CAP_SETPCAP.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error).during("drop a capability from the bounding set"),
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // A user namespace with a single mapping denies setgroups; then there are no groups to give up either.
        Err(Errno::PERM) if groups.is_empty() => {}
        other => other.during("set the supplementary groups")?,
    }
    if identity.uid != 0 {
        rustix::thread::set_keep_capabilities(true).during("keep capabilities")?;
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).during("set the group id")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).during("set the user id")?;
    if identity.uid != 0 {
        rustix::thread::set_keep_capabilities(false).during("keep capabilities")?;
    }
    // An ordinary user has no capabilities in effect, as if the program had been started by login; the bounding set
    // still says what a set-user-id program may have.
    let (effective, permitted) = if identity.uid == 0
        || wanted.is_some_and(|sets| sets.ambient().as_ref().is_some_and(|a| !a.is_empty()))
    {
        (names(|sets| sets.effective()), names(|sets| sets.permitted()))
    } else {
        (CapabilitySet::empty(), CapabilitySet::empty())
    };
    let held = rustix::thread::capabilities(None).during("read the capabilities")?;
    let (permitted, inheritable) = (permitted & held.permitted, names(|sets| sets.inheritable()));
    let sets =
        CapabilitySets { effective: effective & permitted, permitted, inheritable: inheritable & permitted };
    rustix::thread::set_capabilities(None, sets).during("set the capabilities")?;
    let ambient = names(|sets| sets.ambient()) & sets.inheritable & permitted;
    if !ambient.is_empty() {
        for (number, _) in ALL_CAPABILITIES.iter().enumerate() {
            let single = CapabilitySet::from_bits_retain(1 << number);
            if ambient.contains(single) {
                rustix::thread::configure_capability_in_ambient_set(single, true)
                    .during("raise an ambient capability")?;
            }
        }
    }
    Ok(())
}

/// The working directory, entered before or after the change of user.
struct WorkingDirectory<'a> {
    path: &'a Path,
    entered: bool,
}

/// Enters `path` as root, making it where missing (as Docker does); when root may not (a root-squashing file system),
/// [`WorkingDirectory::enter`] tries again as the user.
fn enter_directory<'a>(path: &'a Path, identity: &Identity) -> Result<WorkingDirectory<'a>, Failure> {
    let fail = |error: io::Error| Failure::new(What::WorkingDirectory(path.to_owned()), &error);
    if !path.is_absolute() {
        return Err(Failure::configuration(format!(
            "the working directory `{}` is not absolute",
            path.display()
        )));
    }
    if path == Path::new("/") {
        // Where a process is after the change of root.
        return Ok(WorkingDirectory { path, entered: true });
    }
    match rustix::process::chdir(path) {
        Ok(()) => Ok(WorkingDirectory { path, entered: true }),
        Err(Errno::NOENT) => {
            make_directories(path, identity).map_err(fail)?;
            rustix::process::chdir(path).map_err(|error| fail(error.into()))?;
            Ok(WorkingDirectory { path, entered: true })
        }
        Err(Errno::ACCESS) => Ok(WorkingDirectory { path, entered: false }),
        Err(error) => Err(fail(error.into())),
    }
}

fn make_directories(path: &Path, identity: &Identity) -> io::Result<()> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    while let Some(directory) = missing.pop() {
        rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755))?;
        if directory == path {
            rustix::fs::chown(
                directory,
                Some(Uid::from_raw(identity.uid)),
                Some(Gid::from_raw(identity.gid)),
            )?;
        }
    }
    Ok(())
}

impl WorkingDirectory<'_> {
    fn enter(&self) -> Result<(), Failure> {
        let fail = |error: io::Error| Failure::new(What::WorkingDirectory(self.path.to_owned()), &error);
        if !self.entered {
            rustix::process::chdir(self.path).map_err(|error| fail(error.into()))?;
        }
        if self.path == Path::new("/") {
            return Ok(());
        }
        // A path through /proc/self/fd could lead to a directory of the host (CVE-2024-21626): the kernel then names
        // it `(unreachable)…`, or nothing at all.
        let reached = rustix::process::getcwd(Vec::new()).map_err(|error| fail(error.into()))?;
        if reached.to_bytes().first() == Some(&b'/') { Ok(()) } else { Err(fail(Errno::XDEV.into())) }
    }
}

/// As `execvp`: a name without a slash is looked for in PATH. Called as the program's user, so that what he may not execute
/// is told before anybody waits for it.
fn find_in_path(command: &str, environment: &[String]) -> Result<CString, Failure> {
    let as_given =
        || CString::new(command).map_err(|_| Failure::configuration("an argument contains a NUL byte"));
    if command.is_empty() {
        return Err(Failure::plain(What::CommandNotFound(String::new())));
    }
    if command.contains('/') {
        let path = as_given()?;
        return match check_executable(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(refused(command, &error.into())),
        };
    }
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let Ok(candidate) = CString::new(format!("{directory}/{command}")) else { continue };
        match check_executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = Some(Errno::ACCESS),
            Err(_) => {}
        }
    }
    match denied {
        Some(error) => Err(refused(command, &error.into())),
        None => Err(Failure::plain(What::CommandNotFound(command.to_owned()))),
    }
}

/// Whether there is a file that this user may execute.
fn check_executable(path: &CStr) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    // By the effective ids, which are those of the exec.
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn refused(command: &str, error: &io::Error) -> Failure {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => Failure::new(What::NoSuchCommand(command.to_owned()), error),
        _ => Failure::new(What::CommandNotExecutable(command.to_owned()), error),
    }
}

/// Makes `descriptors` the standard input, output and error.
pub(crate) fn set_standard_descriptors(descriptors: [&OwnedFd; 3]) -> Result<(), Failure> {
    let during = "set up standard input and output";
    rustix::stdio::dup2_stdin(descriptors[0].as_fd()).during(during)?;
    rustix::stdio::dup2_stdout(descriptors[1].as_fd()).during(during)?;
    rustix::stdio::dup2_stderr(descriptors[2].as_fd()).during(during)
}

/// Ends a child that cannot go on, with nothing inherited left open.
pub(crate) fn give_up() -> ! {
    let _ = close_descriptors_from(3);
    stanza_sys::exit_process(1)
}
