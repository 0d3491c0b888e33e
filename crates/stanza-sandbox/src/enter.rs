//! Running one more command in a running container (`exec`), from the door's side and from the side of the process that
//! goes in.
//!
//! The door starts `stanza-enter` (this program, protected as [`crate::spawn`] says), hands it the command and, without
//! a terminal, its own standard descriptors. `stanza-enter` joins the container, starts the command there as the door's
//! child, and ends; the door waits for the command. The container's monitor has no part in it.
//!
//! A pipe, a socket or /dev/null is handed in as it is, so that nothing has to be copied. A terminal or a file of the
//! host is not: inside, `/proc/self/fd` would open it anew with other rights. Those are copied through pipes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};
use stanza_cgroup::CgroupPlan;
use stanza_container::{CgroupEntry, ExecTarget, Init, Manner, Stdio};
use stanza_spec::oci::runtime::Process;
use stanza_sys::{SignalDescriptor, receive_descriptors, send_descriptors};

use crate::attach::{AttachEnd, AttachOptions, DetachKeys, RawTerminal, connect, window_size, write_all};
use crate::error::{AttachError, ConnectError, ExecError};
use crate::frame::{self, Kind, Refusal};
use crate::plan::Running;
use crate::spawn::{ENTER, spawn_self};
use crate::status::{Status, open_init, status};

/// A command to run in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The container's run directory.
    pub run_dir: PathBuf,
    /// The container's state directory.
    pub state_dir: PathBuf,
    /// The process, as OCI describes it; `user.username` is resolved inside when set.
    pub process: Process,
    /// A file with the compiled system call filter; `None` is no filter.
    pub seccomp: Option<PathBuf>,
    /// The container's control groups.
    pub cgroup: Option<CgroupPlan>,
    /// A terminal for the command.
    pub tty: bool,
    /// Forward standard input.
    pub open_stdin: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// The bytes that detach; empty for none.
    pub detach_keys: Vec<u8>,
    /// Do not wait for the command's end.
    pub detached: bool,
}

/// What the entering process is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    plan: ExecPlan,
    running: Running,
}

/// How an exec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecEnd {
    /// The command ended with this code (128 + signal when one killed it).
    Exited(i32),
    /// The user pressed the detach keys, or asked not to wait; the command goes on.
    Detached,
}

/// A process that is ready to enter a container. Dropping it lets it end.
#[derive(Debug)]
pub struct Entering(UnixStream);

/// Starts a process that waits to enter a container: call it first, so that it gets ready while the door thinks.
///
/// # Errors
/// When no process can be started.
pub fn spawn_enter() -> io::Result<Entering> {
    Ok(Entering(spawn_self(ENTER)?))
}

const SIGWINCH: i32 = 28;

impl Entering {
    /// Runs the command with this process's standard streams.
    ///
    /// # Errors
    /// When the container does not run or the command cannot be started in it.
    pub fn exec(self, plan: &ExecPlan) -> Result<ExecEnd, ExecError> {
        let Status::Running(running) = status(&plan.run_dir, &plan.state_dir)? else {
            return Err(ExecError::NotRunning);
        };
        if running.machine {
            return exec_in_machine(plan);
        }
        let socket = self.0;
        let mut plan = plan.clone();
        let on_terminal = plan.tty && !plan.detached;
        if on_terminal && plan.console_size.is_none() {
            plan.console_size = window_size(rustix::stdio::stdin());
        }
        let (descriptors, mut relays) = standard_descriptors(&plan).map_err(ExecError::Spawn)?;
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        send_descriptors(&socket, b"D", &borrowed).map_err(ExecError::Spawn)?;
        drop(descriptors);
        let order = serde_json::to_vec(&Order { plan: plan.clone(), running })
            .map_err(|error| ExecError::Spawn(error.into()))?;
        let mut bytes = Vec::with_capacity(order.len() + 8);
        frame::push(&mut bytes, Kind::Plan, &order);
        io::Write::write_all(&mut &socket, &bytes).map_err(ExecError::Spawn)?;

        let mut answers = Answers { socket, reader: frame::Reader::default(), descriptors: Vec::new() };
        let (command, controller) = answers.started()?;
        if plan.detached {
            return Ok(ExecEnd::Detached);
        }
        let mut raw = None;
        let mut signals = None;
        if plan.tty {
            let controller = controller.ok_or_else(|| ExecError::Spawn(io::ErrorKind::InvalidData.into()))?;
            raw = if plan.open_stdin { RawTerminal::enter().map_err(ExecError::Terminal)? } else { None };
            signals = Some(SignalDescriptor::new(&[SIGWINCH]).map_err(ExecError::Terminal)?);
            relays = terminal_relays(&controller, plan.open_stdin).map_err(ExecError::Terminal)?;
        }
        let keys: &[u8] = if plan.tty { &plan.detach_keys } else { &[] };
        let end = if relays.is_empty() {
            Ok(ExecEnd::Exited(wait_for(&command)))
        } else {
            Pump { command, relays, signals, detach: DetachKeys::new(keys) }.run()
        };
        drop(raw);
        end
    }
}

/// Runs a command behind another kernel: the monitor has it run, over a connection of its own.
fn exec_in_machine(plan: &ExecPlan) -> Result<ExecEnd, ExecError> {
    let mut monitor = connect(&plan.run_dir).map_err(|error| match error {
        ConnectError::NotRunning => ExecError::NotRunning,
        ConnectError::Socket(source) => ExecError::Spawn(source),
    })?;
    let mut plan = plan.clone();
    if plan.tty && !plan.detached && plan.console_size.is_none() {
        plan.console_size = window_size(rustix::stdio::stdin());
    }
    let text = serde_json::to_vec(&plan).map_err(|error| ExecError::Spawn(error.into()))?;
    monitor.send(Kind::Exec, &text).map_err(ExecError::Spawn)?;
    loop {
        match monitor.receive().map_err(ExecError::Spawn)? {
            (Kind::Started, _) => break,
            (Kind::Failed, body) => return Err(refused(&body)),
            // The container's output goes to everybody who is connected, until the command is known.
            _ => {}
        }
    }
    if plan.detached {
        return Ok(ExecEnd::Detached);
    }
    let keys = if plan.tty { plan.detach_keys } else { Vec::new() };
    let options =
        AttachOptions { stdin: plan.open_stdin, tty: plan.tty, detach_keys: keys, sig_proxy: false };
    match monitor.attach(&options) {
        Ok(AttachEnd::Exited(record)) => Ok(ExecEnd::Exited(record.code)),
        Ok(AttachEnd::Detached | AttachEnd::OutputClosed) => Ok(ExecEnd::Detached),
        Err(AttachError::Lost) => Err(ExecError::NotRunning),
        Err(AttachError::Terminal(source)) => Err(ExecError::Terminal(source)),
        Err(AttachError::Socket(source)) => Err(ExecError::Spawn(source)),
    }
}

/// Why a command was not started.
fn refused(body: &[u8]) -> ExecError {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => ExecError::Refused {
            message: refusal.message,
            kind: stanza_spec::ErrorKind::of_name(&refusal.kind),
        },
        Err(error) => ExecError::Spawn(error.into()),
    }
}

/// What the entering process answers.
struct Answers {
    socket: UnixStream,
    reader: frame::Reader,
    descriptors: Vec<OwnedFd>,
}

impl Answers {
    fn receive(&mut self) -> Result<(Kind, Vec<u8>), ExecError> {
        loop {
            if let Some(frame) = self.reader.next().map_err(ExecError::Spawn)? {
                return Ok(frame);
            }
            let mut buffer = [0; 1024];
            match receive_descriptors(&self.socket, &mut buffer, &mut self.descriptors)
                .map_err(ExecError::Spawn)?
            {
                0 => return Err(ExecError::Spawn(io::ErrorKind::UnexpectedEof.into())),
                count => self.reader.extend(&buffer[..count]),
            }
        }
    }

    /// The command, which is this process's child, and its terminal's controller.
    fn started(&mut self) -> Result<(OwnedFd, Option<OwnedFd>), ExecError> {
        match self.receive()? {
            (Kind::Started, _) => {
                let mut descriptors = self.descriptors.drain(..);
                let command = descriptors.next();
                let command = command.ok_or_else(|| ExecError::Spawn(io::ErrorKind::InvalidData.into()))?;
                Ok((command, descriptors.next()))
            }
            (_, body) => Err(refused(&body)),
        }
    }
}

/// Bytes that this process copies.
struct Relay {
    from: OwnedFd,
    to: OwnedFd,
    /// From the user to the command: detach keys are looked for, and its end is handed on by closing `to`.
    input: bool,
}

/// Whether a descriptor can be used inside as it is.
fn passes(descriptor: BorrowedFd<'_>) -> bool {
    let Ok(stat) = rustix::fs::fstat(descriptor) else { return false };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::Socket => true,
        FileType::CharacterDevice => {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3)
        }
        _ => false,
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// What the command gets as 0, 1 and 2, and what has to be copied for that. Nothing of both when it has a terminal.
fn standard_descriptors(plan: &ExecPlan) -> io::Result<(Vec<OwnedFd>, Vec<Relay>)> {
    if plan.detached {
        return Ok((vec![null()?, null()?, null()?], Vec::new()));
    }
    if plan.tty {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut relays = Vec::new();
    let duplicate = |descriptor: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?)
    };
    let stdin = if !plan.open_stdin {
        null()?
    } else if passes(rustix::stdio::stdin()) {
        duplicate(rustix::stdio::stdin())?
    } else {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        relays.push(Relay { from: duplicate(rustix::stdio::stdin())?, to: ours, input: true });
        theirs
    };
    let mut output = |descriptor: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        if passes(descriptor) {
            return duplicate(descriptor);
        }
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        relays.push(Relay { from: ours, to: duplicate(descriptor)?, input: false });
        Ok(theirs)
    };
    let (stdout, stderr) = (output(rustix::stdio::stdout())?, output(rustix::stdio::stderr())?);
    Ok((vec![stdin, stdout, stderr], relays))
}

fn terminal_relays(controller: &OwnedFd, with_input: bool) -> io::Result<Vec<Relay>> {
    rustix::io::ioctl_fionbio(controller, true)?;
    let duplicate = |descriptor: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?)
    };
    let mut relays = vec![Relay {
        from: duplicate(controller.as_fd())?,
        to: duplicate(rustix::stdio::stdout())?,
        input: false,
    }];
    if with_input {
        relays.push(Relay {
            from: duplicate(rustix::stdio::stdin())?,
            to: duplicate(controller.as_fd())?,
            input: true,
        });
    }
    Ok(relays)
}

/// Copies until the command ends.
struct Pump {
    command: OwnedFd,
    relays: Vec<Relay>,
    /// Window changes, when the command has a terminal.
    signals: Option<SignalDescriptor>,
    detach: DetachKeys,
}

impl Pump {
    fn run(mut self) -> Result<ExecEnd, ExecError> {
        loop {
            let ready = self.wait()?;
            if self.signals.is_some() && ready.last() == Some(&true) {
                self.resize()?;
            }
            for index in (0..self.relays.len()).rev().filter(|index| ready.get(index + 1) == Some(&true)) {
                match self.copy(index) {
                    Copied::Some => {}
                    Copied::End => drop(self.relays.remove(index)),
                    Copied::Detached => return Ok(ExecEnd::Detached),
                }
            }
            if ready.first() == Some(&true) {
                self.drain();
                return Ok(ExecEnd::Exited(wait_for(&self.command)));
            }
        }
    }

    /// Waits; one answer for the command's end, each relay, and the signals.
    fn wait(&self) -> Result<Vec<bool>, ExecError> {
        let mut fds = vec![PollFd::new(&self.command, PollFlags::IN)];
        fds.extend(self.relays.iter().map(|relay| PollFd::new(&relay.from, PollFlags::IN)));
        fds.extend(self.signals.iter().map(|signals| PollFd::new(signals, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(error) => Err(ExecError::Terminal(error.into())),
        }
    }

    fn copy(&mut self, index: usize) -> Copied {
        let relay = &self.relays[index];
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(&relay.from, &mut buffer) {
            Ok(0) | Err(Errno::IO) => Copied::End,
            Ok(count) if relay.input => {
                let (bytes, detached) = self.detach.filter(&buffer[..count]);
                write_all(relay.to.as_fd(), &bytes);
                if detached { Copied::Detached } else { Copied::Some }
            }
            Ok(count) => {
                write_all(relay.to.as_fd(), &buffer[..count]);
                Copied::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Copied::Some,
            Err(_) => Copied::End,
        }
    }

    /// Copies what the command wrote last. Its children may hold the pipes open; they are not waited for.
    fn drain(&self) {
        let mut buffer = [0; 16 << 10];
        for relay in self.relays.iter().filter(|relay| !relay.input) {
            while let Ok(count) = rustix::io::read(&relay.from, &mut buffer) {
                if count == 0 {
                    break;
                }
                write_all(relay.to.as_fd(), &buffer[..count]);
            }
        }
    }

    fn resize(&self) -> Result<(), ExecError> {
        let Some(signals) = &self.signals else { return Ok(()) };
        while signals.next().map_err(ExecError::Terminal)?.is_some() {}
        let controller = self.relays.iter().find(|relay| !relay.input);
        if let (Some(relay), Some((rows, columns))) = (controller, window_size(rustix::stdio::stdin())) {
            let _ = tcsetwinsize(
                &relay.from,
                Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 },
            );
        }
        Ok(())
    }
}

enum Copied {
    Some,
    End,
    Detached,
}

/// The whole life of the process that enters a container. Its standard input is the door's socket; returns its exit
/// code, which nobody reads.
#[must_use]
pub fn enter_main() -> i32 {
    let Ok(stdin) = crate::spawn::take_socket() else { return 1 };
    let mut answers = Answers {
        socket: UnixStream::from(stdin),
        reader: frame::Reader::default(),
        descriptors: Vec::new(),
    };
    let mut marker = [0];
    if !matches!(receive_descriptors(&answers.socket, &mut marker, &mut answers.descriptors), Ok(1)) {
        return 0;
    }
    let Ok((Kind::Plan, body)) = answers.receive() else { return 0 };
    let Ok(order) = serde_json::from_slice::<Order>(&body) else { return 1 };
    let descriptors = std::mem::take(&mut answers.descriptors);
    let mut bytes = Vec::new();
    match enter(&order, descriptors, answers.socket.as_fd()) {
        Ok(init) => {
            frame::push(&mut bytes, Kind::Started, b"");
            let descriptors: Vec<BorrowedFd<'_>> = [Some(&init.pidfd), init.controller.as_ref()]
                .into_iter()
                .flatten()
                .map(AsFd::as_fd)
                .collect();
            let _ = send_descriptors(&answers.socket, &bytes, &descriptors);
        }
        Err(refusal) => {
            frame::push(&mut bytes, Kind::Failed, &serde_json::to_vec(&refusal).unwrap_or_default());
            let _ = io::Write::write_all(&mut &answers.socket, &bytes);
        }
    }
    0
}

fn enter(order: &Order, descriptors: Vec<OwnedFd>, door: BorrowedFd<'_>) -> Result<Init, Refusal> {
    let plan = &order.plan;
    let pidfd = open_init(&order.running)
        .and_then(|pidfd| pidfd.ok_or_else(|| io::Error::from(Errno::SRCH)))
        .map_err(|error| Refusal::of_io("the container is not running", &error))?;
    let pid = Pid::from_raw(order.running.pid)
        .ok_or_else(|| Refusal::of_io("the container is not running", &Errno::SRCH.into()))?;
    let cgroup = plan.cgroup.as_ref().map(stanza_cgroup::open);
    let entry = match &cgroup {
        Some(cgroup) => CgroupEntry {
            tasks: cgroup.tasks_paths(),
            directory: cgroup.directory().map_err(|error| {
                Refusal::of_io("failed to open the container's cgroup", &io::Error::other(error))
            })?,
        },
        None => CgroupEntry::default(),
    };
    let filter = crate::paths::read_filter(plan.seccomp.as_deref())
        .map_err(|error| Refusal::of_io("failed to read the system call filter", &error))?;
    let stdio = match <[OwnedFd; 3]>::try_from(descriptors) {
        Ok(descriptors) => Stdio::Descriptors(descriptors),
        Err(_) => Stdio::Terminal { size: plan.console_size },
    };
    let process = &plan.process;
    let manner = Manner { outlives_starter: true, ..Manner::default() };
    let target = ExecTarget {
        pid,
        pidfd,
        process,
        filter: filter.as_ref(),
        landlock: None,
        cgroup: entry,
        stdio,
        manner,
    };
    stanza_container::exec(target, door).map_err(|error| Refusal::of(&error))
}

fn wait_for(pidfd: &OwnedFd) -> i32 {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return status
                    .exit_status()
                    .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(9));
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(_) => return 255,
        }
    }
}
