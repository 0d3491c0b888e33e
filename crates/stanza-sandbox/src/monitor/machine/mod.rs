//! A container behind a kernel of its own: a virtual machine with one container in it.
//!
//! ```text
//!  monitor ──launch──▶ QEMU, contained ([`walls`])          guest: stanza-agent ── the container
//!     ├─ agent ═══════════ virtio-serial ══════════════════════════┘   started, output, exit
//!     └─ what clients want of it: input, signals, size, further commands ([`exec`])
//! ```
//!
//! The machine is the container's first process on this side: it has the container's control groups and dies with the monitor.
//! That the container has ended is what the agent says, and then the machine is killed: nothing in it is worth an orderly end.
//! That the machine has ended without a word is an end by SIGKILL, with the reason in the exit record. Whatever the guest says
//! is bounded and checked by `stanza_agent`; nothing of it is trusted here but that it is about its own container.

mod exec;
mod guest;
mod kind;
mod memory;
mod shares;
mod start;
mod walls;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use stanza_agent::{Event, Guest, GuestError, Stream as GuestStream, TaskId};
use stanza_container::Init;

use super::isolation::{Isolation, Sink};
use crate::error::chain;
use crate::frame::Reader;
use crate::lifecycle::ExitStatus;
use crate::log::Stream;
use exec::Sessions;
use shares::Servers;
pub(super) use start::Starting;

/// The container's own program among the tasks of the guest; further commands count on from here.
const PROGRAM: TaskId = 1;
/// Above this much input that the guest has not taken, clients are not read.
const MAX_PENDING: usize = 64 << 10;
/// The last bytes of the guest kernel's messages that tell why a machine has ended.
const CONSOLE_TAIL: u64 = 2 << 10;

/// A machine that runs, or has ended.
pub(super) struct Machine {
    init: Init,
    guest: Guest,
    servers: Servers,
    /// The guest kernel's messages.
    console: PathBuf,
    input: Input,
    sessions: Sessions,
    /// What the guest said in one breath with the word that the program runs: a short one may have ended with it.
    news: Vec<Event>,
    /// Questions about names that nobody has fetched.
    questions: Vec<(u32, Vec<u8>)>,
    /// What the user should know of this kind of machine.
    notice: Option<String>,
    /// How the program ended.
    ended: Option<ExitStatus>,
    oom_killed: bool,
    /// What went wrong with the machine round it.
    trouble: Option<String>,
}

/// Input on its way to the program.
#[derive(Debug, Default)]
struct Input {
    pending: Vec<u8>,
    /// No more comes once `pending` is written.
    closing: bool,
    /// It ends with the first client's.
    once: bool,
    /// There is none any more.
    closed: bool,
}

impl Machine {
    /// Deals with what the guest has said; output goes into `sink`.
    fn hear(&mut self, sink: &mut Sink<'_>) -> Result<(), GuestError> {
        let news = std::mem::take(&mut self.news);
        self.take(news, sink);
        let events = self.guest.receive()?;
        self.take(events, sink);
        Ok(())
    }

    fn take(&mut self, events: Vec<Event>, sink: &mut Sink<'_>) {
        for event in events {
            match event {
                Event::Output { task: PROGRAM, stream, bytes } => {
                    let kind = if stream == GuestStream::Error { Stream::Stderr } else { Stream::Stdout };
                    sink(kind, &bytes);
                    self.guest.consumed(PROGRAM, stream, bytes.len());
                }
                Event::Exited { task: PROGRAM, status, oom_killed } => {
                    self.ended = Some(match status {
                        stanza_agent::ExitStatus::Code(code) => ExitStatus::Code(code),
                        stanza_agent::ExitStatus::Signal(signal) => ExitStatus::Signal(signal),
                    });
                    self.oom_killed = oom_killed;
                }
                // Their number is bounded: see `stanza_agent`.
                Event::Query { query, message } => self.questions.push((query, message)),
                event => self.sessions.hear(event, &mut self.guest),
            }
        }
    }

    /// The machine is of no use any more: the container counts as killed.
    fn give_up(&mut self, reason: String) {
        if self.ended.is_none() {
            let tail = self.console_tail();
            let told =
                if tail.is_empty() { reason } else { format!("{reason}; its kernel's last words: {tail}") };
            self.trouble = Some(told);
            self.ended = Some(ExitStatus::Signal(9));
        }
    }

    fn console_tail(&self) -> String {
        start::console_tail(&self.console)
    }

    fn write_input(&mut self) {
        let taken = self.guest.write_stdin(PROGRAM, &self.input.pending);
        self.input.pending.drain(..taken);
        if self.input.closing && self.input.pending.is_empty() && !self.input.closed {
            self.guest.close_stdin(PROGRAM);
            self.input.closed = true;
        }
    }

    /// Sends what waits. A channel that is dead is seen when it is read.
    fn flush(&mut self) {
        let _ = self.guest.flush();
    }

    fn kill(&self) {
        self.servers.kill();
        let _ = stanza_sys::signal_process(self.init.pidfd.as_fd(), 9);
        let id = WaitId::PidFd(self.init.pidfd.as_fd());
        while let Err(rustix::io::Errno::INTR) = waitid(id.clone(), WaitIdOptions::EXITED) {}
    }
}

impl Isolation for Machine {
    fn pid(&self) -> Pid {
        self.init.pid
    }

    fn watch<'a>(&'a self, wanted: bool, descriptors: &mut Vec<PollFd<'a>>) {
        descriptors.push(PollFd::new(&self.init.pidfd, PollFlags::IN));
        let mut flags = if wanted { PollFlags::IN } else { PollFlags::empty() };
        if self.guest.wants_write() {
            flags |= PollFlags::OUT;
        }
        descriptors.push(PollFd::new(&self.guest, flags));
        self.servers.watch(descriptors);
        self.sessions.watch(descriptors);
    }

    fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn turn(&mut self, ready: &[PollFlags], sink: &mut Sink<'_>) -> Option<ExitStatus> {
        let flags = |at: usize| ready.get(at).copied().unwrap_or(PollFlags::empty());
        let is_heard = flags(1).intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        if (is_heard || self.has_news())
            && let Err(error) = self.hear(sink)
        {
            self.give_up(format!("the virtual machine has ended: {}", chain(&error)));
        }
        let (servers, sessions) =
            ready.get(2..).unwrap_or_default().split_at_checked(self.servers.count()).unwrap_or_default();
        self.sessions.turn(sessions, &mut self.guest);
        if flags(0).contains(PollFlags::IN) {
            // What it said last may still be there.
            while self.ended.is_none() && self.hear(sink).is_ok() {}
            self.give_up("the virtual machine has ended before its container".to_owned());
        }
        if let Some(destination) = self.servers.dead(servers) {
            self.give_up(format!("the server of the mount at `{}` has ended", destination.display()));
        }
        self.write_input();
        self.flush();
        self.ended
    }

    fn collect(&mut self, _sink: &mut Sink<'_>) {
        // All output came before the word of the end.
        self.kill();
        self.sessions.end();
    }

    fn takes_input(&self) -> bool {
        self.input.pending.len() < MAX_PENDING
    }

    fn push_input(&mut self, bytes: &[u8]) {
        if !self.input.closing && !self.input.closed {
            self.input.pending.extend_from_slice(bytes);
            self.write_input();
        }
    }

    fn end_input(&mut self) {
        self.input.closing |= self.input.once;
        self.write_input();
        self.flush();
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        let _ = self.guest.resize(PROGRAM, rows, columns);
        self.flush();
    }

    fn signal(&mut self, signal: i32) {
        if signal == 9 {
            // The guest may be past hearing it.
            let _ = stanza_sys::signal_process(self.init.pidfd.as_fd(), signal);
        } else {
            let _ = self.guest.signal(PROGRAM, signal, false);
            self.flush();
        }
    }

    fn exec(&mut self, client: UnixStream, reader: Reader, queue: Vec<u8>, plan: &[u8]) {
        self.sessions.begin(client, reader, queue, plan, &mut self.guest);
        self.flush();
    }

    fn questions(&mut self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.questions)
    }

    fn answer(&mut self, question: u32, message: &[u8]) {
        self.guest.answer(question, message);
        self.flush();
    }

    fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    fn oom_killed(&self) -> bool {
        self.oom_killed
    }

    fn changes_networks(&self) -> bool {
        false
    }

    fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }
}
