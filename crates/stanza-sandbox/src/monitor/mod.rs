//! The monitor: one small process per container, parent of its first process from birth to exit record.
//!
//! It is started by a door before anything is known of the container, receives a [`SandboxPlan`] over the socket that is
//! its standard input, and leads the container through [`crate::lifecycle`]. It has one thread and one `poll`:
//!
//! ```text
//!  pidfd of the first process ─┐
//!  output pipes or terminal ───┤          ┌─▶ log
//!  listener, clients ──────────┼─▶ poll ──┼─▶ clients
//!  the container's resolver ───┤          ├─▶ standard input of the container
//!  ports for a proxy, or it ───┘          ├─▶ who is called what in its networks
//!                                         └─▶ a proxy, from the first client on
//! ```
//!
//! What it holds dies with it: the lock that says the container runs, the bound sockets of published ports, and by
//! `PR_SET_PDEATHSIG` the container itself.

mod clients;
mod container;
mod isolation;
mod machine;
mod network;
mod output;
mod ports;
mod teardown;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use stanza_cgroup::Cgroup;
use stanza_container::seccomp::Filter;
use stanza_container::{CgroupEntry, Launch, Manner, launch};
use stanza_network::cni::CniAttachment;
use stanza_network::dns::Resolver;
use stanza_network::{Attachment, UserMode};
use stanza_spec::Instant;
use stanza_sys::{SignalDescriptor, lock_exclusive, process_start_time, receive_descriptors};

use crate::attach::Connection;
use crate::frame::{Kind, Refusal};
use crate::lifecycle::{Effect, Event, ExitStatus, State, next};
use crate::log::Log;
use crate::paths;
use crate::plan::{ExitRecord, MachinePlan, Running, SandboxPlan, Used};
use clients::Clients;
use container::Container;
use isolation::Isolation;
use machine::Starting;
use network::{MachineAttendant, NetworkAttendant};
use output::Streams;
use ports::ProxiedPorts;

/// Signals that must not end a monitor: a terminal's, and those that a careless `killall` sends.
const BLOCKED: [i32; 5] = [1, 2, 3, 13, 15];

/// The monitor's whole life. Its standard input is the socket of the door that started it; returns its exit code.
#[must_use]
pub fn monitor_main() -> i32 {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"stanza-monitor");
    let Ok(signals) = SignalDescriptor::new(&BLOCKED) else { return 1 };
    drop(signals);
    let Ok(stdin) = crate::spawn::take_socket() else { return 1 };
    let socket = UnixStream::from(stdin);
    let state = State::Waiting;
    let received = receive_plan(socket);
    let event = if received.is_some() { Event::PlanReceived } else { Event::DoorGone };
    let Ok((state, effects)) = next(state, event) else { return 1 };
    let Some((door, plan, start_lock)) = received else { return 0 };
    release_stdin();
    // The door is gone before the container is: from here on this process holds the user's namespace.
    let runroot = plan.run_dir.ancestors().nth(2).map(Path::to_owned).unwrap_or_default();
    // Without the note others make a namespace of their own, and find this container's networks closed.
    let _ = stanza_container::rootless::stay(&runroot);
    let log = Log::new(plan.log.clone());
    let mut monitor = Monitor {
        plan,
        state,
        lock: None,
        start_lock,
        cgroup: None,
        attachment: None,
        proxied: None,
        resolver: None,
        user_mode: None,
        cni: None,
        isolation: None,
        log,
        running: None,
        failure: None,
        error: None,
        oom_killed: false,
        used: None,
        devices: Vec::new(),
        finished_at: String::new(),
        exit: Vec::new(),
        clients: Clients::new(door.into_stream()),
    };
    monitor.perform(effects);
    monitor.live();
    monitor.end(&runroot)
}

/// The door's socket lives on under another number: the standard descriptors are nobody's.
fn release_stdin() {
    if let Ok(null) = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
}

/// The door's lock on the container, then the plan.
fn receive_plan(socket: UnixStream) -> Option<(Connection, SandboxPlan, Option<OwnedFd>)> {
    let mut descriptors = Vec::new();
    if receive_descriptors(&socket, &mut [0], &mut descriptors).ok()? == 0 {
        return None;
    }
    let mut door = Connection::new(socket);
    let (kind, body) = door.receive().ok()?;
    let plan = (kind == Kind::Plan).then(|| serde_json::from_slice(&body).ok()).flatten()?;
    Some((door, plan, descriptors.pop()))
}

/// Everything that one container's monitor owns.
struct Monitor {
    plan: SandboxPlan,
    state: State,
    /// Held for as long as the container is not torn down.
    lock: Option<OwnedFd>,
    /// The starting door's lock, held until everybody can see that the container runs, or nothing is left of it.
    start_lock: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    attachment: Option<Attachment>,
    /// Ports that the kernel cannot lead to the container.
    proxied: Option<ProxiedPorts>,
    /// Tells the container who is called what, where its networks have names.
    resolver: Option<Resolver>,
    /// The program that leads out of the network namespace.
    user_mode: Option<UserMode>,
    /// What the plugins made, until they have taken it down.
    cni: Option<CniAttachment>,
    isolation: Option<Box<dyn Isolation>>,
    log: Log,
    running: Option<Running>,
    /// Why there is no container, for the door.
    failure: Option<Refusal>,
    /// What went wrong around a container that ran, for the exit record.
    error: Option<String>,
    oom_killed: bool,
    /// What it took of the host.
    used: Option<Used>,
    /// The host's devices of the container, as they were when its lock was still held.
    devices: Vec<u32>,
    /// When the first process ended, RFC 3339.
    finished_at: String,
    /// The exit record, as it was written: who looks at the container may have removed the file by the time it is told.
    exit: Vec<u8>,
    clients: Clients,
}

impl Monitor {
    /// Does what the lifecycle says, until it waits for something to happen.
    fn perform(&mut self, effects: Vec<Effect>) {
        let mut queue = std::collections::VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            let event = match effect {
                Effect::Launch => Some(self.launch()),
                Effect::AnnounceStart => {
                    self.announce_start();
                    None
                }
                Effect::CollectOutput => Some(self.collect_output()),
                Effect::TearDown => Some(self.tear_down()),
                Effect::RecordExit(status) => {
                    self.record_exit(status);
                    None
                }
                Effect::AnnounceFailure => {
                    self.announce_failure();
                    None
                }
                Effect::AnnounceExit => {
                    self.announce_exit();
                    None
                }
            };
            if let Some(event) = event {
                // A refusal here would be a hole in the table, which its test rules out.
                let Ok((state, effects)) = next(self.state, event) else { continue };
                self.state = state;
                queue.extend(effects);
            }
        }
    }

    /// Serves clients and moves output until the first process ends.
    fn live(&mut self) {
        while self.state == State::Running {
            let Some(isolation) = &mut self.isolation else { return };
            let ports = self.proxied.as_ref();
            let turn = clients::turn(
                &mut self.clients,
                &mut self.log,
                isolation.as_mut(),
                &mut self.resolver,
                ports,
            );
            self.serve_ports(turn.ports);
            for (client, change) in turn.networks {
                self.change_networks(client, &change);
            }
            if let Some(status) = turn.ended {
                self.finished_at = Instant::now().rfc3339();
                let Ok((state, effects)) = next(self.state, Event::InitExited(status)) else { return };
                self.state = state;
                self.perform(effects);
            }
        }
    }

    /// Delivers what clients have not read yet, then becomes the engine's clean-up where that was asked for.
    fn end(mut self, runroot: &Path) -> i32 {
        let told = self.clients.flush_all();
        // The kernel removes the link with the network namespace, unless somebody outside holds that. This takes some time,
        // but nobody waits for it any more. By now the container may run again, with devices and rules of the same names:
        // those are not this one's.
        let _ = stanza_network::remove_devices(&self.devices);
        self.attachment = None;
        stanza_container::rootless::leave(runroot);
        let Some(argv) = self.plan.on_exit.take().filter(|argv| !argv.is_empty()) else { return 0 };
        // A starting door that is still there cleans up itself.
        if self.running.is_none() || (self.plan.attached && told) {
            return 0;
        }
        let error =
            std::os::unix::process::CommandExt::exec(std::process::Command::new(&argv[0]).args(&argv[1..]));
        drop(error);
        1
    }

    fn launch(&mut self) -> Event {
        match self.try_launch() {
            Ok(()) => Event::Launched,
            Err(refusal) => {
                self.failure = Some(refusal);
                Event::LaunchFailed
            }
        }
    }

    fn try_launch(&mut self) -> Result<(), Refusal> {
        self.take_lock().map_err(|error| Refusal::of_io("failed to lock the container", &error))?;
        if let Some(plan) = &self.plan.cgroup {
            self.cgroup = Some(stanza_cgroup::apply(plan).map_err(|error| Refusal::of(&error))?);
        }
        let cgroup = cgroup_entry(self.cgroup.as_ref())
            .map_err(|error| Refusal::of_io("failed to open the container's cgroup", &error))?;
        let filter = crate::paths::read_filter(self.plan.seccomp.as_deref())
            .map_err(|error| Refusal::of_io("failed to read the system call filter", &error))?;
        // The one place where the kind of walls is decided.
        let isolation = match self.plan.machine.clone() {
            None => self.launch_container(cgroup, filter.as_ref())?,
            Some(machine) => self.launch_machine(&machine, cgroup, filter.as_ref())?,
        };
        self.isolation = Some(isolation);
        Ok(())
    }

    fn launch_container(
        &mut self,
        cgroup: CgroupEntry,
        filter: Option<&Filter>,
    ) -> Result<Box<dyn Isolation>, Refusal> {
        let (stdio, streams) =
            Streams::open(&self.plan).map_err(|error| Refusal::of_io("failed to make pipes", &error))?;
        self.join_network()?;
        let mut attendant = NetworkAttendant {
            network: &self.plan.network,
            attachment: &mut self.attachment,
            proxied: &mut self.proxied,
            resolver: &mut self.resolver,
            user_mode: &mut self.user_mode,
            cni: &mut self.cni,
        };
        let init = launch(Launch {
            spec: &self.plan.spec,
            rootfs: &self.plan.rootfs,
            copy_up: &self.plan.copy_up,
            filter,
            landlock: None,
            cgroup,
            stdio,
            manner: Manner::default(),
            attendant: &mut attendant,
        })
        .map_err(|error| Refusal::of(&error))?;
        Ok(Box::new(Container::new(init, streams)))
    }

    fn launch_machine(
        &mut self,
        machine: &MachinePlan,
        cgroup: CgroupEntry,
        filter: Option<&Filter>,
    ) -> Result<Box<dyn Isolation>, Refusal> {
        let cards = self.attach_machine()?;
        let mut attendant = MachineAttendant { network: &self.plan.network, resolver: &mut self.resolver };
        let groups = self.cgroup.as_ref();
        let starting = Starting {
            plan: &self.plan,
            machine,
            filter,
            cgroup,
            cgroup_again: &|| cgroup_entry(groups),
            cards,
            attendant: &mut attendant,
        };
        Ok(Box::new(starting.start()?))
    }

    /// Makes the run directory and holds its lock, which tells everybody that the container is in good hands.
    fn take_lock(&mut self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(&self.plan.run_dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = paths::monitor_lock(&self.plan.run_dir);
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        lock_exclusive(&file)?;
        self.lock = Some(file.into());
        Ok(())
    }

    fn announce_start(&mut self) {
        let Some(isolation) = &self.isolation else { return };
        let pid = isolation.pid();
        let running = Running {
            pid: pid.as_raw_nonzero().get(),
            start_time: process_start_time(pid).unwrap_or(0),
            boot_id: stanza_sys::boot_id().unwrap_or_default(),
            started_at: Instant::now().rfc3339(),
            ports: self.ports().to_vec(),
            machine: self.plan.machine.is_some(),
            notice: isolation.notice().map(str::to_owned),
            made_rules: self.attachment.as_ref().is_some_and(Attachment::made_rules),
        };
        let text = serde_json::to_vec(&running).unwrap_or_default();
        if let Err(error) = paths::replace(&paths::state(&self.plan.state_dir), &text) {
            self.error = Some(format!("failed to write the state file: {error}"));
        }
        self.start_lock = None;
        if let Err(error) = self.clients.listen(&self.plan.run_dir) {
            self.error = Some(format!("failed to listen for clients: {error}"));
        }
        self.clients.start(&text, self.plan.attached);
        self.running = Some(running);
    }

    fn record_exit(&mut self, status: ExitStatus) {
        let record = self.exit_record(status);
        let text = serde_json::to_vec(&record).unwrap_or_default();
        // Without the record the container counts as lost, and whoever comes next writes 137: there is nobody to tell.
        let _ = paths::replace(&paths::exit_record(&self.plan.state_dir), &text);
        self.exit = text;
        let _ = paths::remove(&paths::state(&self.plan.state_dir));
        self.remove_run_directory();
    }

    fn exit_record(&self, status: ExitStatus) -> ExitRecord {
        ExitRecord {
            code: status.code(),
            signal: match status {
                ExitStatus::Signal(signal) => Some(signal),
                ExitStatus::Code(_) => None,
            },
            oom_killed: self.oom_killed,
            started_at: self.running.as_ref().map(|running| running.started_at.clone()).unwrap_or_default(),
            finished_at: self.finished_at.clone(),
            error: self.error.clone(),
            used: self.used,
        }
    }

    fn announce_failure(&mut self) {
        // Why it did not start is told; that its names could not be withdrawn either would hide it.
        let _ = self.withdraw_names();
        self.remove_run_directory();
        self.start_lock = None;
        if let Some(refusal) = &self.failure {
            self.clients.fail(&serde_json::to_vec(refusal).unwrap_or_default());
        }
    }

    fn announce_exit(&mut self) {
        self.clients.exit(&self.exit);
    }
}

/// The way into a container's control groups.
fn cgroup_entry(cgroup: Option<&Cgroup>) -> io::Result<CgroupEntry> {
    Ok(match cgroup {
        Some(cgroup) => CgroupEntry {
            tasks: cgroup.tasks_paths(),
            directory: cgroup.directory().map_err(io::Error::other)?,
        },
        None => CgroupEntry::default(),
    })
}
