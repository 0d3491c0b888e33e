//! criu, which freezes a process tree into files and makes it again from them.
//!
//! ```text
//!  this process ── starts ──▶ criu swrk FD
//!      │ ── request: dump | pre-dump | restore, with its options ──▶ │
//!      │ ◀── notice: "post-restore", "orphan-pts-master" + fd, … ─── │   any number of times
//!      │ ── go on | stop ──────────────────────────────────────────▶ │
//!      │ ◀── response: done, the pid │ not done ──────────────────── │
//! ```
//!
//! `message.rs` has the wire format, `options.rs` what both verbs ask for, `files.rs` what of a container is not in its
//! image. criu's own log says why something failed; its last errors become the text of the [`Failure`].
//!
//! criu finds the directories by this process's descriptors (`/proc/PID/fd/N`); those that it is to hand on it inherits.

pub(crate) mod files;
mod message;
pub(crate) mod options;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use stanza_sys::receive_descriptors;

use crate::failure::{Doing, Failure};

pub(crate) use message::Message;
use message::{Fields, Value};

/// What criu is asked to do, by the numbers of `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Dump => "DUMP",
            Kind::Restore => "RESTORE",
            Kind::PreDump => "PRE_DUMP",
            Kind::Notify => "NOTIFY",
        }
    }
}

/// What criu says while it works.
#[derive(Debug)]
pub(crate) struct Notice {
    /// `post-restore`, `setup-namespaces`, …
    pub(crate) name: String,
    /// The first process of the tree, where there is one.
    pub(crate) pid: Option<i32>,
    /// What came with it.
    pub(crate) descriptor: Option<OwnedFd>,
}

/// A criu that waits for its request. It ends with this value.
#[derive(Debug)]
pub(crate) struct Criu {
    process: Child,
    socket: OwnedFd,
    /// What it writes to its standard output and error: of use only where it fails before it has a log.
    said: File,
    /// It has done what it was asked to, and ends by itself.
    done: bool,
}

/// More than any message of criu's.
const LONGEST: usize = 1 << 16;

impl Criu {
    /// Starts the program; it inherits `passed` under the same numbers.
    pub(crate) fn start(program: &Path, passed: &[BorrowedFd<'_>]) -> Result<Criu, Failure> {
        let step = "start criu";
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step(step)?;
        let said = File::from(memfd_create("criu-output", MemfdFlags::CLOEXEC).step(step)?);
        for descriptor in passed.iter().copied().chain([theirs.as_fd()]) {
            fcntl_setfd(descriptor, FdFlags::empty()).step(step)?;
        }
        let process = Command::new(program)
            .args(["swrk", &theirs.as_raw_fd().to_string()])
            .stdin(Stdio::null())
            .stdout(said.try_clone().step(step)?)
            .stderr(said.try_clone().step(step)?)
            .spawn()
            .doing("start CRIU, the program", program)?;
        Ok(Criu { process, socket: ours, said, done: false })
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has it do one thing; `notice` is asked at each of its notices, and a failure there ends the work. The pid of the restored
    /// tree comes back, 0 for a dump.
    pub(crate) fn request(
        &mut self,
        kind: Kind,
        options: &Message,
        notice: &mut dyn FnMut(Notice) -> Result<(), Failure>,
    ) -> Result<i32, Refusal> {
        let mut request = Message::default();
        request.number(1, kind as u64);
        request.message(2, options);
        self.send(&request)?;
        let mut failed = None;
        loop {
            let mut buffer = vec![0; LONGEST];
            let mut descriptors = Vec::new();
            let length = receive_descriptors(&self.socket, &mut buffer, &mut descriptors).unwrap_or(0);
            if length == 0 {
                // It has died, which its log may explain.
                return Err(failed.map_or_else(|| Refusal::of(kind, 0, String::new()), Refusal::Ours));
            }
            let response = Response::read(&buffer[..length]);
            if response.kind != Some(Kind::Notify as u64) {
                return match (response.success, failed) {
                    (true, None) => {
                        self.done = true;
                        Ok(response.restored.unwrap_or(0))
                    }
                    (_, Some(failure)) => Err(Refusal::Ours(failure)),
                    (false, None) => Err(Refusal::of(kind, response.errno, response.text)),
                };
            }
            let (name, pid) = response.notice;
            let answer = notice(Notice { name, pid, descriptor: descriptors.pop() });
            let mut reply = Message::default();
            reply.number(1, Kind::Notify as u64);
            reply.number(3, u64::from(answer.is_ok()));
            failed = failed.or(answer.err());
            self.send(&reply)?;
        }
    }

    fn send(&self, message: &Message) -> Result<(), Refusal> {
        loop {
            match send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                // It has died: what it said last is heard next.
                Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(error) => {
                    let source = error.into();
                    return Err(Refusal::Ours(Failure::Step { step: "ask criu".to_owned(), source }));
                }
            }
        }
    }

    /// The failure of a request, in the words of criu's log at `log`.
    pub(crate) fn explain(&mut self, refusal: Refusal, log: &Path) -> Failure {
        let (kind, errno, text) = match refusal {
            Refusal::Ours(failure) => return failure,
            Refusal::Criu { kind, errno, text } => (kind, errno, text),
        };
        let said = std::fs::read(log).unwrap_or_default();
        let mut why = last_errors(&String::from_utf8_lossy(&said));
        if why.is_empty() {
            let mut output = Vec::new();
            let _ = self.said.rewind().and_then(|()| self.said.read_to_end(&mut output));
            why = last_errors(&String::from_utf8_lossy(&output));
        }
        if why.is_empty() {
            why = if text.is_empty() { "it gave no reason".to_owned() } else { text };
        }
        let (name, log) = (kind.name(), log.display());
        Failure::State(format!("criu failed: type {name} errno {errno}: {why}\nlog file: {log}"))
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if !self.done {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// What this process was to do for it failed.
    Ours(Failure),
    /// criu could not.
    Criu { kind: Kind, errno: u64, text: String },
}

impl Refusal {
    fn of(kind: Kind, errno: u64, text: String) -> Refusal {
        Refusal::Criu { kind, errno, text }
    }
}

/// The last errors of a log, which are the cause; criu goes on to clean up, so they need not be its last lines.
fn last_errors(log: &str) -> String {
    const MOST: usize = 3;
    let said = |line: &str| {
        let at = line.find("Error (")?;
        let line = &line[at..];
        let text = line.split_once("): ").map_or(line, |(_, text)| text);
        // Without the right to raise it criu says so, and goes on.
        (!text.starts_with("rlimit: ")).then(|| text.trim().to_owned())
    };
    let mut errors: Vec<String> = log.lines().filter_map(said).collect();
    errors.dedup();
    errors.split_off(errors.len().saturating_sub(MOST)).join("; ")
}

/// A `criu_resp`, as far as it is of use.
#[derive(Debug, Default)]
struct Response {
    kind: Option<u64>,
    success: bool,
    restored: Option<i32>,
    notice: (String, Option<i32>),
    errno: u64,
    text: String,
}

fn pid_of(value: u64) -> Option<i32> {
    i32::try_from(value).ok().filter(|pid| *pid > 0)
}

impl Response {
    fn read(bytes: &[u8]) -> Response {
        let mut response = Response::default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for field in Fields(bytes) {
            match field {
                (1, Value::Number(kind)) => response.kind = Some(kind),
                (2, Value::Number(success)) => response.success = success != 0,
                (4, Value::Bytes(restored)) => {
                    for field in Fields(restored) {
                        if let (1, Value::Number(pid)) = field {
                            response.restored = pid_of(pid);
                        }
                    }
                }
                (5, Value::Bytes(notice)) => {
                    for field in Fields(notice) {
                        match field {
                            (1, Value::Bytes(name)) => response.notice.0 = text(name),
                            (2, Value::Number(pid)) => response.notice.1 = pid_of(pid),
                            _ => {}
                        }
                    }
                }
                (7, Value::Number(errno)) => response.errno = errno,
                (9, Value::Bytes(message)) => response.text = text(message),
                _ => {}
            }
        }
        response
    }
}

/// Opens a directory for criu to find by its number.
pub(crate) fn open_directory(path: &Path) -> Result<File, Failure> {
    let file = File::open(path).doing("open", path)?;
    match file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        true => Ok(file),
        false => Err(io::Error::from(io::ErrorKind::NotADirectory)).doing("open", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read() {
        let mut restored = Message::default();
        restored.number(1, 77);
        let mut response = Message::default();
        response.number(1, 2);
        response.number(2, 1);
        response.message(4, &restored);
        let read = Response::read(response.as_bytes());
        assert_eq!((read.kind, read.success, read.restored), (Some(2), true, Some(77)));
        let mut notice = Message::default();
        notice.text(1, "post-restore");
        notice.number(2, 5);
        let mut response = Message::default();
        response.number(1, 6);
        response.message(5, &notice);
        assert_eq!(Response::read(response.as_bytes()).notice, ("post-restore".to_owned(), Some(5)));
    }

    #[test]
    fn the_reason_is_the_last_errors_of_the_log() {
        let log = "(00.01) Version: 3\n(00.02) Error (criu/a.c:1): one: x\n(00.02) Error (criu/util.c:1): rlimit: no\n(00.02) Error (criu/a.c:2): two\n\
            (00.02) Error (criu/a.c:2): two\n(00.03) Warn  (criu/b.c:3): no\n(00.04) Error (criu/c.c:9): three: y\n\
            (00.05) Error (criu/c.c:10): four\n(00.06) Unlock network\n";
        assert_eq!(last_errors(log), "two; three: y; four");
        assert_eq!(last_errors("nothing\n"), "");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure = Criu::start(Path::new("/nonexistent/criu"), &[]).unwrap_err();
        assert_eq!(failure.chain(), "start CRIU, the program /nonexistent/criu: no such file or directory");
    }
}
