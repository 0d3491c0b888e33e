//! Further commands in the guest: each belongs to a client of the monitor, who gave its connection over for it.
//!
//! A client that does not read holds its command up, as a full pipe would, and no other; one that goes leaves its command
//! running, without input.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use stanza_agent::{Event, Guest, Hex, Refusal as GuestRefusal, Stream, TaskId};
use stanza_spec::Instant;

use super::{MAX_PENDING, PROGRAM};
use crate::enter::ExecPlan;
use crate::frame::{self, Kind, Reader, Refusal};
use crate::paths;
use crate::plan::ExitRecord;

/// A command and its client.
#[derive(Debug)]
struct Session {
    task: TaskId,
    /// `None` when the client has gone.
    client: Option<UnixStream>,
    reader: Reader,
    /// Frames for the client.
    queue: Vec<u8>,
    /// Output in `queue`, which the guest is told of once the client has it.
    owed: [usize; 2],
    input: Vec<u8>,
    input_ends: bool,
    input_closed: bool,
    /// Nothing more comes.
    ended: bool,
}

/// All further commands of one guest.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
    /// The number of the last.
    last: TaskId,
}

impl Session {
    fn push(&mut self, kind: Kind, body: &[u8]) {
        if self.client.is_some() {
            frame::push(&mut self.queue, kind, body);
        }
    }

    fn fail(&mut self, refusal: &Refusal) {
        self.push(Kind::Failed, &serde_json::to_vec(refusal).unwrap_or_default());
        self.ended = true;
    }

    /// Reads what the client sent.
    fn receive(&mut self) {
        let Some(client) = &mut self.client else { return };
        let mut buffer = [0; 16 << 10];
        match client.read(&mut buffer) {
            Ok(0) => self.lose(),
            Ok(count) => self.reader.extend(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.lose(),
        }
    }

    /// The client has gone.
    fn lose(&mut self) {
        self.client = None;
        self.queue.clear();
        self.input_ends = true;
    }

    fn obey(&mut self, guest: &mut Guest) {
        loop {
            match self.reader.next() {
                Ok(Some((Kind::Stdin, bytes))) if !self.input_ends => self.input.extend_from_slice(&bytes),
                Ok(Some((Kind::StdinEnd, _))) => self.input_ends = true,
                Ok(Some((Kind::Resize, body))) => {
                    if let [a, b, c, d] = body[..] {
                        let (rows, columns) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                        let _ = guest.resize(self.task, rows, columns);
                    }
                }
                Ok(Some((Kind::Signal, body))) => {
                    if let [a, b, c, d] = body[..] {
                        let _ = guest.signal(self.task, i32::from_le_bytes([a, b, c, d]), false);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => return self.lose(),
            }
        }
    }

    fn write_input(&mut self, guest: &mut Guest) {
        if self.ended {
            return;
        }
        let taken = guest.write_stdin(self.task, &self.input);
        self.input.drain(..taken);
        if self.input_ends && self.input.is_empty() && !self.input_closed {
            guest.close_stdin(self.task);
            self.input_closed = true;
        }
    }

    /// Sends the client what it takes, and lets the guest send more once it has all.
    fn flush(&mut self, guest: &mut Guest) {
        while let Some(client) = &mut self.client
            && !self.queue.is_empty()
        {
            match client.write(&self.queue) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.lose(),
            }
        }
        self.queue.shrink_to(4 << 10);
        for (stream, owed) in [Stream::Output, Stream::Error].into_iter().zip(&mut self.owed) {
            if *owed > 0 {
                guest.consumed(self.task, stream, std::mem::take(owed));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ended && (self.client.is_none() || self.queue.is_empty())
    }
}

impl Sessions {
    /// Runs the command that a client asks for; whatever is in `queue` was meant for the client before.
    pub(super) fn begin(
        &mut self,
        client: UnixStream,
        reader: Reader,
        queue: Vec<u8>,
        plan: &[u8],
        guest: &mut Guest,
    ) {
        self.last = self.last.max(PROGRAM) + 1;
        let mut session = Session {
            task: self.last,
            client: Some(client),
            reader,
            queue,
            owed: [0; 2],
            input: Vec::new(),
            input_ends: false,
            input_closed: false,
            ended: false,
        };
        if let Err(refusal) = ask(session.task, plan, guest) {
            session.fail(&refusal);
        }
        session.flush(guest);
        if !session.is_over() {
            self.sessions.push(session);
        }
    }

    pub(super) fn watch<'a>(&'a self, descriptors: &mut Vec<PollFd<'a>>) {
        for session in &self.sessions {
            let Some(client) = &session.client else { continue };
            let mut flags = PollFlags::empty();
            if session.input.len() < MAX_PENDING {
                flags |= PollFlags::IN;
            }
            if !session.queue.is_empty() {
                flags |= PollFlags::OUT;
            }
            descriptors.push(PollFd::new(client, flags));
        }
    }

    /// Deals with what happened to the descriptors that [`Sessions::watch`] added.
    pub(super) fn turn(&mut self, ready: &[PollFlags], guest: &mut Guest) {
        let watched = self.sessions.iter_mut().filter(|session| session.client.is_some());
        for (session, flags) in watched.zip(ready) {
            if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                session.receive();
            }
        }
        for session in &mut self.sessions {
            session.obey(guest);
            session.write_input(guest);
            session.flush(guest);
        }
        self.sessions.retain(|session| !session.is_over());
    }

    /// Tells a client what became of its command.
    pub(super) fn hear(&mut self, event: Event, guest: &mut Guest) {
        let task = match &event {
            Event::Started { task, .. }
            | Event::Failed { task, .. }
            | Event::Output { task, .. }
            | Event::OutputEnd { task, .. }
            | Event::Exited { task, .. } => *task,
            _ => return,
        };
        let Some(session) = self.sessions.iter_mut().find(|session| session.task == task) else { return };
        match event {
            Event::Started { .. } => session.push(Kind::Started, b""),
            Event::Failed { refusal, .. } => session.fail(&told(&refusal)),
            Event::Output { stream, bytes, .. } => {
                let (kind, owed) = match stream {
                    Stream::Error => (Kind::Stderr, &mut session.owed[1]),
                    Stream::Input | Stream::Output => (Kind::Stdout, &mut session.owed[0]),
                };
                *owed += bytes.len();
                session.push(kind, &bytes);
            }
            Event::Exited { status, oom_killed, .. } => {
                let signal = match status {
                    stanza_agent::ExitStatus::Signal(signal) => Some(signal),
                    stanza_agent::ExitStatus::Code(_) => None,
                };
                let record = ExitRecord {
                    code: status.code(),
                    signal,
                    oom_killed,
                    started_at: String::new(),
                    finished_at: Instant::now().rfc3339(),
                    error: None,
                    used: None,
                };
                session.push(Kind::Exit, &serde_json::to_vec(&record).unwrap_or_default());
                session.ended = true;
            }
            _ => {}
        }
        session.flush(guest);
    }

    /// The guest is gone: clients see the end of their connections, after what was for them.
    pub(super) fn end(&mut self) {
        for session in &mut self.sessions {
            if let Some(client) = &mut session.client {
                let _ = client.set_nonblocking(true).and_then(|()| client.write_all(&session.queue));
            }
        }
        self.sessions.clear();
    }
}

/// Asks the guest for a command.
fn ask(task: TaskId, plan: &[u8], guest: &mut Guest) -> Result<(), Refusal> {
    let plan: ExecPlan = serde_json::from_slice(plan)
        .map_err(|error| Refusal::of_io("failed to read the command", &error.into()))?;
    let filter = paths::read_filter(plan.seccomp.as_deref())
        .map_err(|error| Refusal::of_io("failed to read the system call filter", &error))?;
    let mut process = plan.process;
    process.set_apparmor_profile(None).set_selinux_label(None);
    let plan = stanza_agent::ExecPlan {
        process,
        filter: filter.map(|filter| Hex(filter.to_bytes())),
        tty: plan.tty,
        console_size: plan.console_size,
        open_stdin: plan.open_stdin,
    };
    guest.exec(task, plan).map_err(|error| Refusal::of(&error))
}

/// A refusal of the guest's, in the words of this side.
pub(super) fn told(refusal: &GuestRefusal) -> Refusal {
    Refusal {
        message: refusal.message.clone(),
        kind: refusal.kind().name().to_owned(),
        hint: refusal.hint.clone(),
    }
}
