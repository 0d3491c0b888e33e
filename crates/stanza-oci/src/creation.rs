//! A new container, from its bundle to a first process that waits for `start` or runs its program.
//!
//! ```text
//!  bundle ─▶ directory, lock ─▶ record (no pid) ─▶ cgroups ─▶ first process ─▶ record ahead (pid) ─▶ hooks ─▶ ready
//!    ─▶ record (pid)
//! ```
//!
//! Whatever ends this process in between leaves a record that says what is to be cleared; a failure clears it here.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use stanza_cgroup::{Cgroup, CgroupPlan};
use stanza_container::{Attendant, CgroupEntry, Gate, Init, Landlock, Launch, Manner, Stdio, launch};
use stanza_spec::oci::runtime::{LinuxNamespaceType, Process, Spec};
use stanza_spec::{Instant, Rootfs};

use crate::arguments::{Flag, Parsed, option, switch};
use crate::bundle::Bundle;
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::hooks::{self, Kind};
use crate::seccomp::Agent;
use crate::state::{Container, Place, Record, Status};
use crate::{cgroups, descriptors, log, network, seccomp, teardown};

/// The options of `create`, which `run` and `restore` have, too.
pub(crate) const FLAGS: [Flag; 8] = [
    option(&["bundle", "b"], "DIR", "the bundle (default: the working directory)"),
    option(&["config", "f"], "FILE", "the configuration (default: config.json in the bundle)"),
    option(&["console-socket"], "SOCKET", "a socket that is sent the controlling end of the terminal"),
    option(&["pidfd-socket"], "SOCKET", "a socket that is sent a pidfd of the first process"),
    option(&["pid-file"], "FILE", "where to write the first process's pid"),
    switch(&["no-pivot"], "move the root instead of pivot_root, for a root on a ramdisk"),
    switch(&["no-new-keyring"], "keep the caller's session keyring"),
    option(&["preserve-fds"], "N", "pass N more descriptors from 3 on to the container"),
];

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: Option<&'a str>,
    pub(crate) config: Option<&'a str>,
    pub(crate) console_socket: Option<&'a Path>,
    pub(crate) pidfd_socket: Option<&'a Path>,
    pub(crate) pid_file: Option<&'a Path>,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) preserved: u32,
    /// The program waits for `start`.
    pub(crate) gated: bool,
    /// The caller does not wait for the container.
    pub(crate) detached: bool,
}

impl<'a> Request<'a> {
    /// By the words of the command line.
    pub(crate) fn of(parsed: &'a Parsed) -> Result<Request<'a>, Failure> {
        let path = |name| parsed.value(name).filter(|path| !path.is_empty()).map(Path::new);
        Ok(Request {
            id: parsed.id()?,
            bundle: parsed.value("bundle"),
            config: parsed.value("config"),
            console_socket: path("console-socket"),
            pidfd_socket: path("pidfd-socket"),
            pid_file: path("pid-file"),
            no_pivot: parsed.is_on("no-pivot"),
            no_new_keyring: parsed.is_on("no-new-keyring"),
            preserved: parsed.number("preserve-fds")?.unwrap_or(0),
            gated: true,
            detached: true,
        })
    }
}

/// A container that was made.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) container: Container,
    pub(crate) spec: Spec,
    pub(crate) init: Init,
}

/// runc's rules for who gets the terminal.
pub(crate) fn check_terminal(terminal: bool, detached: bool, socket: Option<&Path>) -> Result<(), Failure> {
    if detached && terminal && socket.is_none() {
        return Err(Failure::Usage(
            "cannot allocate tty if runc will detach without setting console socket".to_owned(),
        ));
    }
    if (!detached || !terminal) && socket.is_some() {
        return Err(Failure::Usage(
            "cannot use console socket if runc will not detach or allocate tty".to_owned(),
        ));
    }
    Ok(())
}

/// Makes a container.
pub(crate) fn create(context: &Context, request: &Request<'_>) -> Result<Created, Failure> {
    let Bundle { directory, text, mut spec, rootfs } = Bundle::load(request.bundle, request.config)?;
    let process = process_of(&mut spec)?;
    check_terminal(process.terminal().unwrap_or(false), request.detached, request.console_socket)?;
    let preserved = descriptors::preserved(request.preserved, process)?;
    let filter = seccomp::filter(&spec)?;
    let agent = Agent::of(&spec, filter.as_ref())?;
    let landlock = Landlock::of(spec.annotations().as_ref())?;
    let place = Place::create(context, request.id)?;
    let record = match cgroups::plan(context, &spec, request.id) {
        Ok(plan) => new_record(request.id, &spec, &directory, &rootfs, plan),
        Err(failure) => return Err(give_up(place, failure)),
    };
    // The configuration first: a record is never without one.
    if let Err(failure) =
        place.write_new("config.json", &text).and_then(|()| place.write_first_record(&record))
    {
        return Err(give_up(place, failure));
    }
    let mut container = Container { place, record };
    let (filter, landlock) = (filter.as_ref(), landlock.as_ref());
    let steps = Steps { request, spec: &spec, filter, landlock, agent, preserved, rootfs };
    match steps.take(context, &mut container) {
        Ok(init) => Ok(Created { container, spec, init }),
        Err(failure) => {
            // The first failure is what the caller is told.
            for error in teardown::destroy(context, container, Some(&spec)) {
                log::warn(context, &error.chain());
            }
            Err(failure)
        }
    }
}

/// A place that nothing was made for yet.
fn give_up(place: Place, failure: Failure) -> Failure {
    let _ = place.remove();
    failure
}

pub(crate) fn process_of(spec: &mut Spec) -> Result<&mut Process, Failure> {
    spec.process_mut()
        .as_mut()
        .ok_or_else(|| Failure::Configuration("process property must not be empty".to_owned()))
}

pub(crate) fn new_record(id: &str, spec: &Spec, bundle: &Path, rootfs: &Path, plan: cgroups::Plan) -> Record {
    let (cgroup, systemd) = match plan {
        cgroups::Plan::Here(plan) => (plan, None),
        cgroups::Plan::Systemd(plan) => (CgroupPlan::default(), Some(plan)),
    };
    Record {
        id: id.to_owned(),
        init_process_pid: 0,
        init_process_start: 0,
        created: Instant::now().rfc3339(),
        rootless: !rustix::process::geteuid().is_root(),
        cgroup_paths: cgroups::paths(&stanza_cgroup::open(&cgroup)),
        namespace_paths: BTreeMap::new(),
        bundle: bundle.to_owned(),
        rootfs: rootfs.to_owned(),
        oci_version: spec.version().clone(),
        annotations: spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        cgroup,
        systemd,
        rdt: None,
    }
}

/// What is needed on the way from a record to a process.
struct Steps<'a> {
    request: &'a Request<'a>,
    spec: &'a Spec,
    filter: Option<&'a stanza_container::seccomp::Filter>,
    landlock: Option<&'a Landlock>,
    agent: Option<Agent>,
    preserved: u32,
    rootfs: PathBuf,
}

impl Steps<'_> {
    fn take(self, context: &Context, container: &mut Container) -> Result<Init, Failure> {
        let request = self.request;
        container.record.rdt = cgroups::make_rdt(self.spec, request.id)?;
        let cgroup = stanza_cgroup::apply(&container.record.cgroup).map_err(Failure::below)?;
        let (start, result) = (container.place.start_gate(), container.place.result_gate());
        let gate =
            request.gated.then(|| Gate::create(&start, &result).doing("create", &start)).transpose()?;
        let manner = Manner {
            keyring: (!request.no_new_keyring).then(|| format!("_ses.{}", request.id)),
            outlives_starter: true,
            no_pivot: request.no_pivot,
            preserved: self.preserved,
            handed: Vec::new(),
            gate,
        };
        let mut starter = Starter { context, spec: self.spec, container, agent: self.agent };
        let init = launch(Launch {
            spec: self.spec,
            rootfs: &Rootfs::Directory(self.rootfs),
            copy_up: &[],
            filter: self.filter,
            landlock: self.landlock,
            cgroup: entry(&cgroup)?,
            stdio: stdio(self.spec.process().as_ref()),
            manner,
            attendant: &mut starter,
        })?;
        log::debug(context, &format!("the first process is {}", init.pid.as_raw_nonzero()));
        hand_over(request, &init)?;
        container.place.commit_record()?;
        Ok(init)
    }
}

/// A terminal of the size asked for, or the caller's descriptors.
pub(crate) fn stdio(process: Option<&Process>) -> Stdio {
    let Some(process) = process.filter(|process| process.terminal().unwrap_or(false)) else {
        return Stdio::Inherit;
    };
    let cells = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
    let size = process.console_size().map(|size| (cells(size.height()), cells(size.width())));
    Stdio::Terminal { size }
}

/// What the child gets into its cgroups by.
pub(crate) fn entry(cgroup: &Cgroup) -> Result<CgroupEntry, Failure> {
    Ok(CgroupEntry { tasks: cgroup.tasks_paths(), directory: cgroup.directory().map_err(Failure::below)? })
}

/// What the caller wants of the new process.
pub(crate) fn hand_over(request: &Request<'_>, init: &Init) -> Result<(), Failure> {
    if let (Some(socket), Some(controller)) = (request.console_socket, &init.controller) {
        descriptors::send_console(socket, controller)?;
    }
    if let Some(socket) = request.pidfd_socket {
        descriptors::send_pidfd(socket, &init.pidfd)?;
    }
    if let Some(path) = request.pid_file {
        descriptors::write_pid_file(path, init.pid.as_raw_nonzero().get())?;
    }
    Ok(())
}

/// Does for the first process what is the caller's part.
struct Starter<'a> {
    context: &'a Context,
    spec: &'a Spec,
    container: &'a mut Container,
    agent: Option<Agent>,
}

impl Starter<'_> {
    fn has(&self, kind: Kind) -> bool {
        !hooks::of(self.spec, kind).is_empty()
    }

    fn run_hooks(&self, kind: Kind) -> Result<(), String> {
        let state = self.container.record.state_text(Status::Creating);
        hooks::run(self.spec, kind, &state).map_err(|error| error.to_string())
    }

    /// Runs hooks in the child, which knows its pid in its own namespace only.
    fn run_hooks_inside(&self, kind: Kind, status: Status) -> Result<(), String> {
        if !self.has(kind) {
            return Ok(());
        }
        let mut record = self.container.record.clone();
        record.init_process_pid = rustix::process::getpid().as_raw_nonzero().get();
        hooks::run(self.spec, kind, &record.state_text(status)).map_err(|error| error.to_string())
    }

    fn write_down(&mut self, pid: Pid) -> Result<(), Failure> {
        let status = stanza_sys::process_status(pid).step("look at the first process")?;
        let record = &mut self.container.record;
        record.init_process_pid = pid.as_raw_nonzero().get();
        record.init_process_start = status.start_time;
        record.namespace_paths = namespace_paths(self.spec, pid);
        self.container.place.write_record_ahead(&self.container.record)
    }
}

impl Attendant for Starter<'_> {
    fn places(&self) -> bool {
        self.container.record.systemd.is_some()
    }

    fn place(&mut self, pid: Pid) -> Result<(), String> {
        let record = &mut self.container.record;
        // Until systemd has made it, a unit of this name is another's, and not to be stopped when this fails.
        if let Some(unit) = record.systemd.take() {
            record.cgroup = cgroups::start_unit(self.context, &unit, self.spec, pid)
                .map_err(|failure| failure.chain())?;
            record.cgroup_paths = cgroups::paths(&stanza_cgroup::open(&record.cgroup));
            record.systemd = Some(unit);
        }
        Ok(())
    }

    fn attach(&mut self, pid: Pid) -> Result<(), String> {
        if let Some(rdt) = &self.container.record.rdt {
            let pid = pid.as_raw_nonzero().get().cast_unsigned();
            rdt.join(pid).map_err(|error| Failure::below(error).chain())?;
        }
        self.write_down(pid).map_err(|failure| failure.chain())?;
        network::move_devices(self.spec, pid).map_err(|failure| failure.chain())
    }

    fn waits_for_mounts(&self) -> bool {
        self.has(Kind::Prestart) || self.has(Kind::CreateRuntime)
    }

    fn mounted(&mut self, _pid: Pid) -> Result<(), String> {
        self.run_hooks(Kind::Prestart)?;
        self.run_hooks(Kind::CreateRuntime)
    }

    fn take_listener(&mut self, pid: Pid, listener: OwnedFd) -> Result<(), String> {
        let state = self.container.record.state(Status::Creating);
        match &self.agent {
            Some(agent) => {
                agent.send(pid.as_raw_nonzero().get(), &listener, &state).map_err(|failure| failure.chain())
            }
            None => Err("the system call filter notifies, and no agent is named".to_owned()),
        }
    }

    fn before_pivot(&self) -> Result<(), String> {
        self.run_hooks_inside(Kind::CreateContainer, Status::Creating)
    }

    fn before_program(&self) -> Result<(), String> {
        self.run_hooks_inside(Kind::StartContainer, Status::Created)
    }
}

/// Where others may join the container's namespaces, by runc's names.
pub(crate) fn namespace_paths(spec: &Spec, pid: Pid) -> BTreeMap<String, PathBuf> {
    let number = pid.as_raw_nonzero();
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let path = |name: &str| PathBuf::from(format!("/proc/{number}/ns/{name}"));
    let named = |kind: LinuxNamespaceType| {
        let (key, name) = match kind {
            LinuxNamespaceType::Mount => ("NEWNS", "mnt"),
            LinuxNamespaceType::Cgroup => ("NEWCGROUP", "cgroup"),
            LinuxNamespaceType::Uts => ("NEWUTS", "uts"),
            LinuxNamespaceType::Ipc => ("NEWIPC", "ipc"),
            LinuxNamespaceType::User => ("NEWUSER", "user"),
            LinuxNamespaceType::Pid => ("NEWPID", "pid"),
            LinuxNamespaceType::Network => ("NEWNET", "net"),
            LinuxNamespaceType::Time => ("NEWTIME", "time"),
        };
        (key.to_owned(), path(name))
    };
    listed.iter().map(|namespace| named(namespace.typ())).collect()
}
