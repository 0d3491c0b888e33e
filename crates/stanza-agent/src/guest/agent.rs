//! The loop: what the host says, what processes write, who has ended.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use stanza_spec::{ErrorKind, Rootfs};
use stanza_sys::SignalDescriptor;

use super::container::{self, Container};
use super::dns::Relay;
use super::orders::{Order, Orders};
use super::task::{Task, Turn, What};
use super::{configure, dial, failed, tell};
use crate::wire::{
    ExitStatus, GuestStats, MAX_DATA, MAX_TASKS, Notice, Outbox, PROTOCOL, Refusal, Request, TaskId,
};

const SIGCHLD: i32 = 17;

/// How long a machine that waits to be configured sleeps while nobody is at the other end of its channel.
const PAUSE: Duration = Duration::from_millis(20);

/// The most that is read from the host at once.
const READ_AT_ONCE: usize = 64 << 10;

/// Where the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the first process of a machine.
    Machine,
    /// It is a process among others.
    Process,
}

/// What the guest is by now.
#[derive(Debug)]
enum Stage {
    /// Any machine of its template.
    Blank,
    /// This one; with the container's root file system.
    Configured(Option<Rootfs>),
}

/// The agent.
#[derive(Debug)]
pub(super) struct Agent {
    channel: OwnedFd,
    place: Place,
    signals: SignalDescriptor,
    orders: Orders,
    out: Outbox,
    stage: Stage,
    tasks: BTreeMap<TaskId, Task>,
    container: Option<Container>,
    relay: Option<Relay>,
    /// Some output had more to give.
    hurry: bool,
    buffer: Vec<u8>,
    over: bool,
}

impl Agent {
    pub(super) fn new(channel: OwnedFd, place: Place) -> io::Result<Agent> {
        rustix::io::ioctl_fionbio(&channel, true)?;
        Ok(Agent {
            channel,
            place,
            signals: SignalDescriptor::new(&[SIGCHLD])?,
            orders: Orders::new(),
            out: Outbox::default(),
            stage: Stage::Blank,
            tasks: BTreeMap::new(),
            container: None,
            relay: None,
            hurry: false,
            buffer: vec![0; MAX_DATA],
            over: false,
        })
    }

    /// Serves the host until it says that it is over, or is gone.
    pub(super) fn run(&mut self) -> Result<(), String> {
        while !self.over {
            self.wait()?;
            self.hear()?;
            self.reap();
            self.turn();
            if let Some(relay) = &mut self.relay {
                relay.turn(&mut self.out);
            }
            self.flush()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), String> {
        let mut events = PollFlags::IN;
        if !self.out.waiting().is_empty() {
            events |= PollFlags::OUT;
        }
        let mut descriptors =
            vec![PollFd::new(&self.channel, events), PollFd::new(&self.signals, PollFlags::IN)];
        for task in self.tasks.values() {
            descriptors.extend(task.waits_for(&self.out).map(|(descriptor, write)| {
                PollFd::new(descriptor, if write { PollFlags::OUT } else { PollFlags::IN })
            }));
        }
        if let Some(relay) = &self.relay {
            relay.add_to(&mut descriptors);
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut descriptors, self.hurry.then_some(&now)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(format!("cannot poll: {error}")),
        }
    }

    /// Reads the channel and does what is asked for.
    fn hear(&mut self) -> Result<(), String> {
        let mut bytes = [0; READ_AT_ONCE];
        match rustix::io::read(&self.channel, &mut bytes) {
            Ok(0) => return self.host_gone(),
            Ok(count) => self.orders.extend(&bytes[..count]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return self.host_gone(),
        }
        loop {
            let mut orders = std::mem::replace(&mut self.orders, Orders::new());
            let order = orders.next();
            self.orders = orders;
            match order.map_err(|error| format!("the host does not keep to the protocol: {error}"))? {
                Some(order) => self.follow(order)?,
                None => return Ok(()),
            }
        }
    }

    /// A machine that is nobody's yet may lose its host: it may be saved, and go on with another.
    fn host_gone(&mut self) -> Result<(), String> {
        if self.place == Place::Machine && matches!(self.stage, Stage::Blank) {
            // What the one had begun to say is not the other's.
            (self.orders, self.out) = (Orders::new(), Outbox::default());
            std::thread::sleep(PAUSE);
            return Ok(());
        }
        self.over = true;
        Ok(())
    }

    fn follow(&mut self, order: Order) -> Result<(), String> {
        let (tasks, out) = (&mut self.tasks, &mut self.out);
        let followed = match order {
            Order::Request(request) => {
                self.answer(request);
                return Ok(());
            }
            // A task that is gone: the host does not know yet.
            Order::Input(task, bytes) => {
                tasks.get_mut(&task).map_or(Ok(()), |known| known.input.push(task, bytes, out))
            }
            Order::InputEnd(task) => {
                if let Some(known) = tasks.get_mut(&task) {
                    known.input.end(task, out);
                }
                Ok(())
            }
            Order::Credit(task, stream, count) => {
                tasks.get_mut(&task).map_or(Ok(()), |known| known.credit(stream, count))
            }
            Order::Answer(query, message) => {
                if let Some(relay) = &mut self.relay {
                    relay.answer(query, &message);
                }
                Ok(())
            }
        };
        followed.map_err(|error| format!("the host does not keep to the protocol: {error}"))
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Hello { .. } => self.greet(),
            Request::Configure(config) => {
                let configured = match &self.stage {
                    Stage::Blank => configure::configure(&config, self.place == Place::Machine),
                    Stage::Configured(_) => {
                        Err(Refusal::new(ErrorKind::Conflict, "the guest is configured already"))
                    }
                };
                match configured {
                    Ok((rootfs, relay)) => {
                        self.stage = Stage::Configured(rootfs);
                        self.relay = relay;
                        tell(&mut self.out, &Notice::Configured);
                    }
                    Err(refusal) => tell(&mut self.out, &Notice::NotConfigured(refusal)),
                }
            }
            Request::Create { task, plan } => {
                let made = self.check(task).and_then(|()| self.create(task, &plan));
                self.begin(task, made);
            }
            Request::Exec { task, plan } => {
                let none = || Refusal::new(ErrorKind::Conflict, "the container is not running");
                let container = self.container.as_ref().ok_or_else(none);
                let made = self.check(task).and_then(|()| container?.exec(task, &plan));
                self.begin(task, made);
            }
            Request::Dial { task, address } => {
                let init = self.container.as_ref().filter(|container| container.pidfd.is_some());
                let init = init.map(|container| container.pid);
                let made = self.check(task).and_then(|()| {
                    dial::dial(task, &address, init).map_err(failed("cannot connect inside the guest"))
                });
                self.begin(task, made);
            }
            Request::Resize { task, rows, columns } => {
                if let Some(task) = self.tasks.get(&task) {
                    task.resize(rows, columns);
                }
            }
            Request::Signal { task, signal, all } => self.signal(task, signal, all),
            Request::Update { resources } => {
                let none = || Refusal::new(ErrorKind::Conflict, "the container is not running");
                let updated = self.container.as_ref().ok_or_else(none);
                let updated = updated.and_then(|container| container.update(&resources));
                tell(&mut self.out, &Notice::Updated(updated.err()));
            }
            Request::Stats => {
                let stats = self.stats();
                tell(&mut self.out, &Notice::Stats(stats.map(Box::new)));
            }
            Request::Shutdown => self.over = true,
        }
    }

    fn greet(&mut self) {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let agent = env!("CARGO_PKG_VERSION").to_owned();
        tell(&mut self.out, &Notice::Hello { protocol: PROTOCOL, agent, kernel });
    }

    fn check(&self, task: TaskId) -> Result<(), Refusal> {
        if self.tasks.contains_key(&task) {
            return Err(Refusal::new(ErrorKind::Conflict, format!("task {task} is there already")));
        }
        if self.tasks.len() >= MAX_TASKS {
            return Err(Refusal::new(
                ErrorKind::Exhausted,
                format!("the guest has {MAX_TASKS} tasks already"),
            ));
        }
        Ok(())
    }

    fn begin(&mut self, id: TaskId, made: Result<Task, Refusal>) {
        match made {
            Ok(task) => {
                if let What::Process { pid, .. } = &task.what {
                    let pid = pid.as_raw_nonzero().get();
                    tell(&mut self.out, &Notice::Started { task: id, pid });
                }
                self.tasks.insert(id, task);
                self.hurry = true;
            }
            Err(refusal) => tell(&mut self.out, &Notice::Failed { task: id, refusal }),
        }
    }

    fn create(&mut self, task: TaskId, plan: &crate::wire::ContainerPlan) -> Result<Task, Refusal> {
        let Stage::Configured(Some(rootfs)) = &self.stage else {
            return Err(Refusal::new(
                ErrorKind::Conflict,
                "the guest has no root file system for a container",
            ));
        };
        if self.container.as_ref().is_some_and(|container| container.pidfd.is_some()) {
            return Err(Refusal::new(ErrorKind::Conflict, "the container runs already"));
        }
        let (container, task) = container::create(task, plan, rootfs, self.place == Place::Machine)?;
        self.container = Some(container);
        Ok(task)
    }

    /// Who is gone meanwhile has nothing to be told.
    fn signal(&mut self, task: TaskId, signal: i32, all: bool) {
        let container = self.container.as_ref().and_then(|container| container.cgroup.as_ref());
        if let (true, Some(cgroup), Some(signal)) = (all, container, Signal::from_named_raw(signal)) {
            let _ = cgroup.signal_all(signal);
        } else if let Some(known) = self.tasks.get_mut(&task) {
            match known.pidfd() {
                Some(pidfd) => drop(stanza_sys::signal_process(pidfd, signal)),
                None => known.close(&mut self.out),
            }
        }
    }

    fn stats(&self) -> Result<GuestStats, Refusal> {
        let cgroup = self.container.as_ref().and_then(|container| container.cgroup.as_ref());
        let container = cgroup.map_or(Ok(stanza_cgroup::Stats::default()), stanza_cgroup::Cgroup::stats);
        let container = container.map_err(|error| Refusal::of(&error))?;
        let memory = stanza_sys::read_proc("/proc/meminfo").map_err(failed("cannot read /proc/meminfo"))?;
        let bytes = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kibibytes.unwrap_or_default().saturating_mul(1024)
        };
        let (memory_total, memory_available) = (bytes("MemTotal"), bytes("MemAvailable"));
        Ok(GuestStats { container, memory_total, memory_available })
    }

    /// Collects every process that has ended, orphans too.
    fn reap(&mut self) {
        // One signal may stand for many children.
        while matches!(self.signals.next(), Ok(Some(_))) {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.ended(pid, status);
        }
    }

    fn ended(&mut self, ended: Pid, how: WaitStatus) {
        for task in self.tasks.values_mut() {
            if let What::Process { pid, status, .. } = &mut task.what
                && *pid == ended
                && status.is_none()
            {
                *status = Some(match how.exit_status() {
                    Some(code) => ExitStatus::Code(code),
                    None => ExitStatus::Signal(how.terminating_signal().unwrap_or(9)),
                });
                self.hurry = true;
            }
        }
    }

    /// Gives every task its turn.
    fn turn(&mut self) {
        self.hurry = false;
        let mut over = Vec::new();
        for (id, task) in &mut self.tasks {
            match task.turn(&mut self.buffer, &mut self.out) {
                Turn::Goes => {}
                Turn::HasMore => self.hurry = true,
                Turn::Over => over.push(*id),
            }
        }
        for id in over {
            if let Some(task) = self.tasks.remove(&id) {
                self.bury(&task);
            }
        }
    }

    fn bury(&mut self, task: &Task) {
        let (status, before) = match &task.what {
            What::Process { status: Some(status), oom_kills, .. } => (*status, *oom_kills),
            // It never stood, which it was told.
            What::Connection { connecting: Some(_) } | What::Process { status: None, .. } => return,
            What::Connection { connecting: None } => (ExitStatus::Code(0), u64::MAX),
        };
        let kills = self.container.as_ref().map_or(0, Container::oom_kills);
        if let Some(container) = self.container.as_mut().filter(|container| container.task == task.id) {
            container.end();
        }
        tell(&mut self.out, &Notice::Exited { task: task.id, status, oom_killed: kills > before });
    }

    fn flush(&mut self) -> Result<(), String> {
        while !self.out.waiting().is_empty() {
            match rustix::io::write(&self.channel, self.out.waiting()) {
                Ok(count) => self.out.written(count),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return self.host_gone(),
            }
        }
        Ok(())
    }
}

/// Where a configured machine has what its container needs.
pub(super) fn under_run(name: &str) -> PathBuf {
    PathBuf::from("/run/stanza").join(name)
}
