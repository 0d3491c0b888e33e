//! The container, by the code that makes one on the host.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use stanza_cgroup::Cgroup;
use stanza_container::seccomp::Filter;
use stanza_container::{
    Attendant, CgroupEntry, ExecTarget, Init, Launch, Manner, Stdio, exec_through, launch,
};
use stanza_spec::oci::runtime::{LinuxResources, Spec};
use stanza_spec::{ErrorKind, Rootfs};

use super::failed;
use super::streams::{Flavour, Input, Output};
use super::task::{Task, What};
use crate::wire::{ContainerPlan, ExecPlan, Hex, Refusal, Stream, TaskId};

/// The only container's cgroup.
const CGROUP: &str = "/container";

/// The container that runs here, or did.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) task: TaskId,
    pub(super) pid: Pid,
    /// `None` once its first process has ended.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) cgroup: Option<Cgroup>,
}

struct Nobody;

impl Attendant for Nobody {
    fn attach(&mut self, _pid: Pid) -> Result<(), String> {
        Ok(())
    }
}

/// Standard streams: what the process gets, what stays here.
struct Streams {
    stdio: Stdio,
    input: Input,
    outputs: Vec<Output>,
}

impl Streams {
    fn open(tty: bool, size: Option<(u16, u16)>, open_stdin: bool) -> io::Result<Streams> {
        if tty {
            let input = Input::new(None, Flavour::File);
            return Ok(Streams { stdio: Stdio::Terminal { size }, input, outputs: Vec::new() });
        }
        let (stdin, ours) = if open_stdin {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            (theirs, Some(ours))
        } else {
            (rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
        };
        let mut outputs = Vec::new();
        let mut output = |stream| -> io::Result<OwnedFd> {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
            outputs.push(Output::new(ours, stream, Flavour::File)?);
            Ok(theirs)
        };
        let (stdout, stderr) = (output(Stream::Output)?, output(Stream::Error)?);
        let input = Input::new(ours, Flavour::File);
        Ok(Streams { stdio: Stdio::Descriptors([stdin, stdout, stderr]), input, outputs })
    }

    /// With the process that has the other ends.
    fn into_task(id: TaskId, init: Init, streams: (Input, Vec<Output>), oom_kills: u64) -> io::Result<Task> {
        let (mut input, mut outputs) = streams;
        if let Some(controller) = &init.controller {
            let reader = rustix::io::fcntl_dupfd_cloexec(controller, 3)?;
            let writer = rustix::io::fcntl_dupfd_cloexec(controller, 3)?;
            // All three are one open file, which is made non-blocking here.
            outputs.push(Output::new(reader, Stream::Output, Flavour::File)?);
            input = Input::new(Some(writer), Flavour::File);
        }
        let (pid, pidfd, terminal) = (init.pid, init.pidfd, init.controller);
        let what = What::Process { pid, pidfd, terminal, status: None, oom_kills };
        Ok(Task { id, what, input, outputs })
    }
}

fn read_filter(filter: Option<&Hex>) -> Result<Option<Filter>, Refusal> {
    let read = |bytes: &Hex| Filter::from_bytes(&bytes.0).map_err(|error| Refusal::of(&error));
    filter.map(read).transpose()
}

fn entry(cgroup: Option<&Cgroup>) -> Result<CgroupEntry, Refusal> {
    let Some(cgroup) = cgroup else { return Ok(CgroupEntry::default()) };
    let directory = cgroup.directory().map_err(|error| Refusal::of(&error))?;
    Ok(CgroupEntry { tasks: cgroup.tasks_paths(), directory })
}

/// Limits as cgroups of version 2; warnings are about what the host planned, and the host's to tell.
fn plan(resources: &LinuxResources) -> Result<stanza_cgroup::CgroupPlan, Refusal> {
    let layout = stanza_cgroup::detect().map_err(|error| Refusal::of(&error))?;
    let (plan, _) =
        stanza_cgroup::plan(&layout, CGROUP, resources, false).map_err(|error| Refusal::of(&error))?;
    Ok(plan)
}

fn resources_of(spec: &Spec) -> LinuxResources {
    spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default()
}

/// Starts the container; `cgroups` when this guest has them for itself.
pub(super) fn create(
    id: TaskId,
    plan_of: &ContainerPlan,
    rootfs: &Rootfs,
    cgroups: bool,
) -> Result<(Container, Task), Refusal> {
    for file in &plan_of.files {
        super::files::write(file).map_err(failed(format!("cannot write `{}`", file.path.display())))?;
    }
    let filter = read_filter(plan_of.filter.as_ref())?;
    let cgroup = if cgroups {
        let plan = plan(&resources_of(&plan_of.spec))?;
        Some(stanza_cgroup::apply(&plan).map_err(|error| Refusal::of(&error))?)
    } else {
        None
    };
    let started = Streams::open(plan_of.tty, plan_of.console_size, plan_of.open_stdin)
        .map_err(failed("cannot make pipes"))
        .and_then(|streams| {
            let (stdio, kept) = (streams.stdio, (streams.input, streams.outputs));
            let init = launch(Launch {
                spec: &plan_of.spec,
                rootfs,
                copy_up: &plan_of.copy_up,
                filter: filter.as_ref(),
                landlock: None,
                cgroup: entry(cgroup.as_ref())?,
                stdio,
                manner: Manner::default(),
                attendant: &mut Nobody,
            })
            .map_err(|error| Refusal::of(&error))?;
            Ok((init, kept))
        });
    let (init, kept) = match started {
        Ok(started) => started,
        Err(refusal) => {
            // The next one gets a new cgroup; that this one stays would be told then.
            drop(cgroup.map(|cgroup| cgroup.remove()));
            return Err(refusal);
        }
    };
    let pid = init.pid;
    let duplicate = failed("cannot keep the container's descriptors");
    let pidfd = rustix::io::fcntl_dupfd_cloexec(&init.pidfd, 3).map_err(|error| duplicate(error.into()))?;
    let task = Streams::into_task(id, init, kept, 0).map_err(failed("cannot use the terminal"))?;
    Ok((Container { task: id, pid, pidfd: Some(pidfd), cgroup }, task))
}

impl Container {
    /// How many of its processes the kernel has killed for want of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        self.cgroup.as_ref().map_or(0, Cgroup::oom_kills)
    }

    /// Starts one more process in it.
    pub(super) fn exec(&self, id: TaskId, plan: &ExecPlan) -> Result<Task, Refusal> {
        let gone = || Refusal::new(ErrorKind::Conflict, "the container is not running");
        let pidfd = self.pidfd.as_ref().ok_or_else(gone)?;
        let pidfd = rustix::io::fcntl_dupfd_cloexec(pidfd, 3)
            .map_err(|error| failed("cannot keep a descriptor")(error.into()))?;
        let filter = read_filter(plan.filter.as_ref())?;
        let streams = Streams::open(plan.tty, plan.console_size, plan.open_stdin)
            .map_err(failed("cannot make pipes"))?;
        let oom_kills = self.oom_kills();
        let target = ExecTarget {
            pid: self.pid,
            pidfd,
            process: &plan.process,
            filter: filter.as_ref(),
            landlock: None,
            cgroup: entry(self.cgroup.as_ref())?,
            stdio: streams.stdio,
            manner: Manner::default(),
        };
        let init = exec_through(target, &mut Nobody).map_err(|error| Refusal::of(&error))?;
        Streams::into_task(id, init, (streams.input, streams.outputs), oom_kills)
            .map_err(failed("cannot use the terminal"))
    }

    /// Sets other limits.
    pub(super) fn update(&self, resources: &LinuxResources) -> Result<(), Refusal> {
        let none = || Refusal::new(ErrorKind::Unsupported, "the container has no cgroup");
        let cgroup = self.cgroup.as_ref().ok_or_else(none)?;
        cgroup.update(&plan(resources)?).map_err(|error| Refusal::of(&error))
    }

    /// Its first process has ended: whoever is left ends too, and the next container may have the cgroup.
    pub(super) fn end(&mut self) {
        self.pidfd = None;
        // What cannot be removed is told to the next one.
        drop(self.cgroup.as_ref().map(Cgroup::remove));
    }
}
