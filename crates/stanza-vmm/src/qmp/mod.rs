//! A small client of QEMU's control protocol over a connected socket, for a caller with a poll loop of its own and for one
//! that waits.
//!
//! ```text
//!  as_fd() readable ─▶ turn() ─▶ events() …          never blocks
//!  stop() cont() status() quit() save() restore()    block until the answer, at most the given time
//! ```
//!
//! QEMU is not trusted: a line has a limit, an answer a deadline, and what is not understood ends the conversation. Events
//! are kept, at most [`EVENTS`] of them.

mod message;

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

pub use message::Event;
use message::{LINE_LIMIT, Message, parse};

/// The most events that wait to be fetched; when more come, the oldest go.
pub const EVENTS: usize = 64;

/// How often a running migration is looked at.
const MIGRATION_STEP: Duration = Duration::from_millis(1);

/// Why QEMU did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("cannot talk with QEMU")]
    Socket(#[source] io::Error),
    /// QEMU has gone.
    #[error("QEMU has ended")]
    Ended,
    /// No answer in time.
    #[error("QEMU does not answer `{command}` within {} ms", .limit.as_millis())]
    Silent {
        /// The command.
        command: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// It refuses.
    #[error("QEMU refuses `{command}`: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// In its words.
        reason: String,
    },
    /// A line that is no QMP.
    #[error("QEMU answers what is no QMP: `{0}`")]
    Garbled(String),
    /// A line without an end.
    #[error("QEMU answers with a line of more than {LINE_LIMIT} bytes")]
    Long,
    /// The state did not get through.
    #[error("QEMU could not {what} the machine's state: {reason}")]
    State {
        /// `save` or `load`.
        what: &'static str,
        /// In its words.
        reason: String,
    },
}

/// Whether the guest's processors run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// They do.
    Running,
    /// They do not; QEMU's word for why: `paused`, `inmigrate`, `shutdown`, …
    Stopped(String),
}

/// A conversation with one QEMU.
#[derive(Debug)]
pub struct Qmp {
    socket: UnixStream,
    input: Vec<u8>,
    events: VecDeque<Event>,
    answers: VecDeque<Message>,
}

impl Qmp {
    /// Begins the conversation: waits for QEMU's greeting and answers it.
    ///
    /// # Errors
    /// When QEMU ends, or does not greet within `limit`.
    pub fn connect(socket: UnixStream, limit: Duration) -> Result<Qmp, QmpError> {
        socket.set_nonblocking(true).map_err(QmpError::Socket)?;
        let mut qmp = Qmp { socket, input: Vec::new(), events: VecDeque::new(), answers: VecDeque::new() };
        let end = Instant::now() + limit;
        match qmp.wait("greeting", limit, end)? {
            Message::Greeting => {}
            other => return Err(QmpError::Garbled(format!("{other:?}"))),
        }
        qmp.execute("qmp_capabilities", json!({}), limit)?;
        Ok(qmp)
    }

    /// Reads what has come, without waiting. Call it when the descriptor is readable, then fetch the [`Qmp::events`].
    ///
    /// # Errors
    /// [`QmpError::Ended`] when QEMU has closed its end, after all that it said was read.
    pub fn turn(&mut self) -> Result<(), QmpError> {
        // Bounded, so that a flood does not keep the caller: what is left is readable again.
        let mut buffer = [0; 16 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => Err(QmpError::Ended),
            Ok(length) => self.take(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(QmpError::Ended),
            Err(error) => Err(QmpError::Socket(error)),
        }
    }

    /// The events that came since the last call.
    pub fn events(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.events.drain(..)
    }

    /// Whether the guest runs.
    ///
    /// # Errors
    /// As for every command: QEMU ends, is silent for `limit`, or refuses.
    pub fn status(&mut self, limit: Duration) -> Result<Status, QmpError> {
        let answer = self.execute("query-status", json!({}), limit)?;
        match (answer["running"].as_bool(), answer["status"].as_str()) {
            (Some(true), _) => Ok(Status::Running),
            (Some(false), Some(word)) => Ok(Status::Stopped(word.chars().take(100).collect())),
            _ => Err(garbled(&answer)),
        }
    }

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// As [`Qmp::status`].
    pub fn stop(&mut self, limit: Duration) -> Result<(), QmpError> {
        self.execute("stop", json!({}), limit).map(drop)
    }

    /// Lets the guest's processors run.
    ///
    /// # Errors
    /// As [`Qmp::status`].
    pub fn cont(&mut self, limit: Duration) -> Result<(), QmpError> {
        self.execute("cont", json!({}), limit).map(drop)
    }

    /// Ends QEMU.
    ///
    /// # Errors
    /// As [`Qmp::status`]; that QEMU has ended is none.
    pub fn quit(&mut self, limit: Duration) -> Result<(), QmpError> {
        match self.execute("quit", json!({}), limit) {
            Ok(_) | Err(QmpError::Ended) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the state of the stopped machine to `to`, without the memory that is in a file.
    ///
    /// # Errors
    /// As [`Qmp::status`], and when the state cannot be written.
    pub fn save(&mut self, to: BorrowedFd<'_>, limit: Duration) -> Result<(), QmpError> {
        let end = Instant::now() + limit;
        self.leave_memory_out(limit)?;
        self.pass("state", to, limit)?;
        self.execute("migrate", json!({"uri": "fd:state"}), limit)?;
        self.follow_migration("save", limit, end)
    }

    /// Loads into a machine that waits for it ([`crate::VmSpec::restore`]) the state that is read from `from`, a pipe or a
    /// socket, up to its end. The machine is stopped then.
    ///
    /// # Errors
    /// As [`Qmp::status`], and when the state is not one of such a machine.
    pub fn restore(&mut self, from: BorrowedFd<'_>, limit: Duration) -> Result<(), QmpError> {
        let end = Instant::now() + limit;
        self.leave_memory_out(limit)?;
        self.pass("state", from, limit)?;
        self.execute("migrate-incoming", json!({"uri": "fd:state"}), limit)?;
        self.follow_migration("load", limit, end)
    }

    fn leave_memory_out(&mut self, limit: Duration) -> Result<(), QmpError> {
        let capability = json!({"capability": "x-ignore-shared", "state": true});
        self.execute("migrate-set-capabilities", json!({"capabilities": [capability]}), limit).map(drop)
    }

    fn follow_migration(
        &mut self,
        what: &'static str,
        limit: Duration,
        end: Instant,
    ) -> Result<(), QmpError> {
        loop {
            let answer = self.execute("query-migrate", json!({}), limit)?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let reason = answer["error-desc"].as_str().unwrap_or("no reason given");
                    return Err(QmpError::State { what, reason: reason.chars().take(1000).collect() });
                }
                _ if Instant::now() >= end => {
                    return Err(QmpError::Silent { command: "query-migrate", limit });
                }
                _ => std::thread::sleep(MIGRATION_STEP),
            }
        }
    }

    /// Gives QEMU a descriptor under a name.
    fn pass(&mut self, name: &str, descriptor: BorrowedFd<'_>, limit: Duration) -> Result<(), QmpError> {
        let command = "getfd";
        self.answers.clear();
        let line = format!("{}\n", json!({"execute": command, "arguments": {"fdname": name}}));
        // It goes with the first byte; the rest follows.
        let (first, rest) = line.as_bytes().split_at(1);
        stanza_sys::send_descriptors(&self.socket, first, &[descriptor]).map_err(QmpError::Socket)?;
        self.send(rest)?;
        self.answer(command, limit).map(drop)
    }

    fn execute(
        &mut self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        self.answers.clear();
        self.send(format!("{}\n", json!({"execute": command, "arguments": arguments})).as_bytes())?;
        self.answer(command, limit)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), QmpError> {
        // A command is short and its answer awaited before the next: the socket's buffer holds it, or QEMU does not read.
        self.socket.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Ended,
            _ => QmpError::Socket(error),
        })
    }

    fn answer(&mut self, command: &'static str, limit: Duration) -> Result<Value, QmpError> {
        match self.wait(command, limit, Instant::now() + limit)? {
            Message::Return(value) => Ok(value),
            Message::Error(reason) => Err(QmpError::Refused { command, reason }),
            other => Err(QmpError::Garbled(format!("{other:?}"))),
        }
    }

    fn wait(&mut self, command: &'static str, limit: Duration, end: Instant) -> Result<Message, QmpError> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QmpError::Silent { command, limit });
            }
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => self.turn()?,
                Err(error) => return Err(QmpError::Socket(error.into())),
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), QmpError> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            self.input.extend_from_slice(line);
            if self.input.len() > LINE_LIMIT {
                return Err(QmpError::Long);
            }
            let message = parse(&self.input);
            self.input.clear();
            match message? {
                Message::Event(event) => {
                    if self.events.len() == EVENTS {
                        self.events.pop_front();
                    }
                    self.events.push_back(event);
                }
                answer if self.answers.is_empty() => self.answers.push_back(answer),
                // Nobody asks twice before he has an answer.
                answer => return Err(QmpError::Garbled(format!("{answer:?}"))),
            }
        }
        self.input.extend_from_slice(bytes);
        if self.input.len() > LINE_LIMIT { Err(QmpError::Long) } else { Ok(()) }
    }
}

impl AsFd for Qmp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn garbled(answer: &Value) -> QmpError {
    QmpError::Garbled(answer.to_string().chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const GREETING: &str = "{\"QMP\": {}}\n{\"return\": {}}\n";

    /// A peer that says `text` at once, and the client's end.
    fn peer(text: &str) -> (UnixStream, UnixStream) {
        let (client, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(text.as_bytes()).unwrap();
        (client, peer)
    }

    /// A conversation in which each command is answered by the next of `answers`.
    fn conversation(answers: &'static [&'static str]) -> Qmp {
        let (client, mut peer) = peer("{\"QMP\": {}}\n");
        thread::spawn(move || {
            let mut commands = BufReader::new(peer.try_clone().unwrap()).lines();
            for answer in [&["{\"return\": {}}\n"], answers].concat() {
                commands.next().unwrap().unwrap();
                peer.write_all(answer.as_bytes()).unwrap();
            }
        });
        Qmp::connect(client, LIMIT).unwrap()
    }

    #[test]
    fn answers_and_events_come_in_any_order() {
        let mut qmp = conversation(&[
            "{\"event\": \"STOP\"}\n{\"return\": {\"running\": false, \"status\": \"paused\"}}\n{\"event\": \"RESUME\"}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\n",
            "",
        ]);
        assert_eq!(qmp.status(LIMIT).unwrap(), Status::Stopped("paused".into()));
        assert_eq!(qmp.stop(LIMIT).unwrap_err().to_string(), "QEMU refuses `stop`: no such thing");
        qmp.quit(LIMIT).unwrap();
        assert_eq!(qmp.events().collect::<Vec<_>>(), [Event::Stop, Event::Resume]);
    }

    #[test]
    fn a_silent_qemu_is_left_after_the_limit() {
        let (client, _peer) = peer(GREETING);
        let mut qmp = Qmp::connect(client, LIMIT).unwrap_err();
        // Both lines came at once: the second before it was asked for.
        assert!(matches!(&mut qmp, QmpError::Garbled(_)));
        let (client, _peer) = peer("{\"QMP\": {}}\n");
        let error = Qmp::connect(client, Duration::from_millis(20)).unwrap_err().to_string();
        assert_eq!(error, "QEMU does not answer `qmp_capabilities` within 20 ms");
    }

    #[test]
    fn hostile_lines_end_the_conversation() {
        for (text, expected) in [
            ("garbage\n".to_owned(), "QEMU answers what is no QMP: `garbage`"),
            ("x".repeat(LINE_LIMIT + 1), "QEMU answers with a line of more than 65536 bytes"),
        ] {
            let (client, mut peer) = UnixStream::pair().unwrap();
            let writer = thread::spawn(move || drop(peer.write_all(text.as_bytes())));
            let error = Qmp::connect(client, LIMIT).unwrap_err().to_string();
            assert_eq!(error, expected);
            writer.join().unwrap();
        }
    }

    #[test]
    fn a_flood_of_events_keeps_the_last_ones() {
        let mut qmp = conversation(&["{\"return\": {}}\n"]);
        let flood = "{\"event\": \"NEW\"}\n".repeat(EVENTS * 3) + "{\"event\": \"RESET\"}\n";
        qmp.take(flood.as_bytes()).unwrap();
        let events: Vec<Event> = qmp.events().collect();
        assert_eq!(events.len(), EVENTS);
        assert_eq!(events.last(), Some(&Event::Reset));
        qmp.cont(LIMIT).unwrap();
    }
}
