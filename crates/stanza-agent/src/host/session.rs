//! The host's side of the protocol, without I/O. Every byte from the guest is hostile.
//!
//! ```text
//!  greeting ── Hello ──▶ ready ── Configured ──▶ configured
//!  task:  asked ── Started ──▶ running ── Exited ──▶ gone
//!           └────── Failed ──────────────────────────▲
//! ```
//!
//! What the guest may make this side keep: one frame that is not whole (at most [`MAX_DATA`] or [`crate::wire::MAX_NOTICE`]), and
//! nothing for each byte of a stream, which goes out as an event at once and counts against its window until it is consumed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use stanza_spec::oci::runtime::LinuxResources;

use super::GuestError;
use super::event::Event;
use crate::wire::{
    Budget, ContainerPlan, Decoder, ExecPlan, Frame, GuestAddress, GuestConfig, Kind, MAX_DATA, MAX_DNS,
    MAX_QUERIES, MAX_REQUEST, MAX_TASKS, Notice, Outbox, PROTOCOL, ProtocolError, Request, Side, Stream,
    TaskId, Window,
};

/// The most bytes that wait for the guest to read them, before requests are refused.
const MAX_WAITING: usize = 2 * MAX_REQUEST;
/// Above this, no more bytes of streams are taken.
const MUCH_WAITING: usize = 4 * MAX_DATA;
/// How many times statistics and limits may be asked for before an answer comes.
const MAX_ASKED: usize = 16;

#[derive(Debug)]
struct Task {
    started: bool,
    /// `None` once it is closed.
    input: Option<Budget>,
    /// `None` once they have ended. A terminal has no second one.
    outputs: [Option<Window>; 2],
    /// Writes are datagrams: each travels whole.
    datagrams: bool,
}

/// The host's side.
#[derive(Debug)]
pub(crate) struct Session {
    decoder: Decoder,
    out: Outbox,
    greeted: bool,
    configuring: bool,
    tasks: BTreeMap<TaskId, Task>,
    queries: BTreeSet<u32>,
    stats: usize,
    updates: usize,
}

impl Session {
    pub(crate) fn new() -> Session {
        let mut session = Session {
            decoder: Decoder::new(Side::Guest),
            out: Outbox::default(),
            greeted: false,
            configuring: false,
            tasks: BTreeMap::new(),
            queries: BTreeSet::new(),
            stats: 0,
            updates: 0,
        };
        // A number fits into any message.
        let _ = session.ask(&Request::Hello { protocol: PROTOCOL });
        session
    }

    /// What a host says first, and a guest that is not configured answers as often as it is said.
    pub(crate) fn greeting() -> Vec<u8> {
        Session::new().waiting().to_vec()
    }

    /// What is to be sent.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.out.waiting()
    }

    pub(crate) fn written(&mut self, count: usize) {
        self.out.written(count);
    }

    /// Takes what the guest sent.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, ProtocolError> {
        self.decoder.extend(bytes);
        let mut events = Vec::new();
        // The decoder is taken out, so that a frame may borrow from it while the rest changes.
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(Side::Guest));
        while let Some(frame) = decoder.next()? {
            self.take(&frame, &mut events)?;
        }
        self.decoder = decoder;
        Ok(events)
    }

    fn take(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), ProtocolError> {
        match frame.kind {
            Kind::Message => {
                let notice = self.read(frame.body)?;
                return self.hear(notice, events);
            }
            Kind::Query => {
                if self.queries.len() == MAX_QUERIES {
                    return Err(ProtocolError::TooMany("DNS queries", MAX_QUERIES));
                }
                if !self.greeted || !self.queries.insert(frame.number) {
                    return Err(ProtocolError::Unasked("Query", frame.number));
                }
                events.push(Event::Query { query: frame.number, message: frame.body.to_vec() });
                return Ok(());
            }
            Kind::Data | Kind::End | Kind::Credit | Kind::Answer => {}
        }
        let (task, stream) = Stream::of(frame.number)?;
        let closed = ProtocolError::Stream(frame.number);
        let known = self.tasks.get_mut(&task).ok_or(closed.clone())?;
        if frame.kind == Kind::Credit {
            // Credit for an input that was closed meanwhile is late, not wrong.
            return match (stream, &mut known.input) {
                (Stream::Input, Some(budget)) => budget.credit(frame.credit()),
                (Stream::Input, None) => Ok(()),
                _ => Err(closed),
            };
        }
        let output = match stream {
            Stream::Output => &mut known.outputs[0],
            Stream::Error => &mut known.outputs[1],
            Stream::Input => return Err(closed),
        };
        let window = output.as_mut().filter(|_| known.started).ok_or(closed)?;
        if frame.kind == Kind::End {
            *output = None;
            events.push(Event::OutputEnd { task, stream });
        } else {
            window.received(frame.body.len())?;
            events.push(Event::Output { task, stream, bytes: frame.body.to_vec() });
        }
        Ok(())
    }

    /// The version is looked at before anything else: another version may say all else in another way.
    fn read(&self, body: &[u8]) -> Result<Notice, ProtocolError> {
        let unread = |error: serde_json::Error| ProtocolError::Message(error.to_string());
        if !self.greeted {
            let value: serde_json::Value = serde_json::from_slice(body).map_err(unread)?;
            let found = value.get("Hello").and_then(|hello| hello.get("protocol")?.as_u64());
            if let Some(found) = found.filter(|found| *found != u64::from(PROTOCOL)) {
                return Err(ProtocolError::Version { found: u32::try_from(found).unwrap_or(u32::MAX) });
            }
        }
        serde_json::from_slice(body).map_err(unread)
    }

    fn hear(&mut self, notice: Notice, events: &mut Vec<Event>) -> Result<(), ProtocolError> {
        let first = matches!(notice, Notice::Hello { .. });
        if first == self.greeted {
            let what = if first { "Hello" } else { "a message before Hello" };
            return Err(ProtocolError::Unasked(what, 0));
        }
        match notice {
            Notice::Hello { agent, kernel, .. } => {
                self.greeted = true;
                events.push(Event::Ready { agent, kernel });
            }
            Notice::Configured => {
                self.answered_configure("Configured")?;
                events.push(Event::Configured);
            }
            Notice::NotConfigured(refusal) => {
                self.answered_configure("NotConfigured")?;
                events.push(Event::NotConfigured(refusal));
            }
            Notice::Started { task, pid } => {
                let known = self.tasks.get_mut(&task).filter(|known| !known.started);
                known.ok_or(ProtocolError::Unasked("Started", task))?.started = true;
                events.push(Event::Started { task, pid });
            }
            Notice::Failed { task, refusal } => {
                if self.tasks.get(&task).is_none_or(|known| known.started) {
                    return Err(ProtocolError::Unasked("Failed", task));
                }
                self.tasks.remove(&task);
                events.push(Event::Failed { task, refusal });
            }
            Notice::Exited { task, status, oom_killed } => {
                let drained = |known: &Task| known.started && known.outputs.iter().all(Option::is_none);
                if !self.tasks.get(&task).is_some_and(drained) {
                    return Err(ProtocolError::Unasked("Exited", task));
                }
                self.tasks.remove(&task);
                events.push(Event::Exited { task, status, oom_killed });
            }
            Notice::Updated(refusal) => {
                self.updates = self.updates.checked_sub(1).ok_or(ProtocolError::Unasked("Updated", 0))?;
                events.push(Event::Updated(refusal.map_or(Ok(()), Err)));
            }
            Notice::Stats(stats) => {
                self.stats = self.stats.checked_sub(1).ok_or(ProtocolError::Unasked("Stats", 0))?;
                events.push(Event::Stats(stats));
            }
        }
        Ok(())
    }

    fn answered_configure(&mut self, what: &'static str) -> Result<(), ProtocolError> {
        if std::mem::take(&mut self.configuring) { Ok(()) } else { Err(ProtocolError::Unasked(what, 0)) }
    }

    fn ask(&mut self, request: &Request) -> Result<(), GuestError> {
        let body = encode(request)?;
        if self.out.waiting().len() > MAX_WAITING {
            return Err(GuestError::Stopped);
        }
        self.out.push(Kind::Message, 0, &body);
        Ok(())
    }

    pub(crate) fn configure(&mut self, config: GuestConfig) -> Result<(), GuestError> {
        self.ask(&Request::Configure(Box::new(config)))?;
        self.configuring = true;
        Ok(())
    }

    fn add(&mut self, id: TaskId, task: Task, request: &Request) -> Result<(), GuestError> {
        if self.tasks.contains_key(&id) || id > u32::MAX >> 2 {
            return Err(GuestError::Taken(id));
        }
        if self.tasks.len() == MAX_TASKS {
            return Err(GuestError::TooMany);
        }
        self.ask(request)?;
        self.tasks.insert(id, task);
        Ok(())
    }

    pub(crate) fn create(&mut self, task: TaskId, plan: ContainerPlan) -> Result<(), GuestError> {
        let streams = Task::of_process(plan.open_stdin, plan.tty);
        self.add(task, streams, &Request::Create { task, plan: Box::new(plan) })
    }

    pub(crate) fn exec(&mut self, task: TaskId, plan: ExecPlan) -> Result<(), GuestError> {
        let streams = Task::of_process(plan.open_stdin, plan.tty);
        self.add(task, streams, &Request::Exec { task, plan: Box::new(plan) })
    }

    pub(crate) fn dial(&mut self, task: TaskId, address: GuestAddress) -> Result<(), GuestError> {
        let datagrams = matches!(address, GuestAddress::Udp(_));
        let streams = Task { datagrams, ..Task::of_process(true, true) };
        self.add(task, streams, &Request::Dial { task, address })
    }

    /// Takes as many bytes as may be sent now; of a datagram all or nothing.
    pub(crate) fn write_stdin(&mut self, task: TaskId, bytes: &[u8]) -> usize {
        let Some(known) = self.tasks.get_mut(&task) else { return bytes.len() };
        // Nobody reads it any more.
        let Some(budget) = &mut known.input else { return bytes.len() };
        let room = MUCH_WAITING.saturating_sub(self.out.waiting().len()).min(budget.left());
        if known.datagrams {
            if bytes.len() > MAX_DATA || bytes.is_empty() {
                // It could never be sent, and datagrams may be lost.
                return bytes.len();
            }
            if room < bytes.len() {
                return 0;
            }
        }
        let count = room.min(bytes.len());
        for piece in bytes[..count].chunks(MAX_DATA) {
            self.out.push(Kind::Data, Stream::Input.number(task), piece);
        }
        budget.spend(count);
        count
    }

    pub(crate) fn close_stdin(&mut self, task: TaskId) {
        if let Some(known) = self.tasks.get_mut(&task)
            && known.input.take().is_some()
        {
            self.out.push(Kind::End, Stream::Input.number(task), b"");
        }
    }

    pub(crate) fn consumed(&mut self, task: TaskId, stream: Stream, count: usize) {
        let Some(known) = self.tasks.get_mut(&task) else { return };
        let output = match stream {
            Stream::Output => &mut known.outputs[0],
            Stream::Error => &mut known.outputs[1],
            Stream::Input => return,
        };
        if let Some(credit) = output.as_mut().and_then(|window| window.consumed(count)) {
            self.out.push(Kind::Credit, stream.number(task), &credit.to_le_bytes());
        }
    }

    pub(crate) fn resize(&mut self, task: TaskId, rows: u16, columns: u16) -> Result<(), GuestError> {
        self.known(task)?;
        self.ask(&Request::Resize { task, rows, columns })
    }

    pub(crate) fn signal(&mut self, task: TaskId, signal: i32, all: bool) -> Result<(), GuestError> {
        self.known(task)?;
        self.ask(&Request::Signal { task, signal, all })
    }

    fn known(&self, task: TaskId) -> Result<(), GuestError> {
        if self.tasks.contains_key(&task) { Ok(()) } else { Err(GuestError::NoTask(task)) }
    }

    pub(crate) fn update(&mut self, resources: LinuxResources) -> Result<(), GuestError> {
        if self.updates == MAX_ASKED {
            return Err(GuestError::Stopped);
        }
        self.ask(&Request::Update { resources: Box::new(resources) })?;
        self.updates += 1;
        Ok(())
    }

    pub(crate) fn stats(&mut self) -> Result<(), GuestError> {
        if self.stats == MAX_ASKED {
            return Err(GuestError::Stopped);
        }
        self.ask(&Request::Stats)?;
        self.stats += 1;
        Ok(())
    }

    pub(crate) fn shutdown(&mut self) -> Result<(), GuestError> {
        self.ask(&Request::Shutdown)
    }

    pub(crate) fn answer(&mut self, query: u32, message: &[u8]) {
        if self.queries.remove(&query) {
            let message = if message.len() > MAX_DNS { &[] } else { message };
            self.out.push(Kind::Answer, query, message);
        }
    }
}

impl Task {
    fn of_process(input: bool, tty: bool) -> Task {
        Task {
            started: false,
            input: input.then(Budget::new),
            outputs: [Some(Window::new()), (!tty).then(Window::new)],
            datagrams: false,
        }
    }
}

fn encode(request: &impl Serialize) -> Result<Vec<u8>, GuestError> {
    let body = serde_json::to_vec(request).map_err(GuestError::Encode)?;
    if body.len() > MAX_REQUEST {
        return Err(GuestError::TooLong(body.len()));
    }
    Ok(body)
}
