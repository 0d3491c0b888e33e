//! A client of a monitor: the door's end of the conversation, and the pump between it and this process's terminal.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use stanza_spec::ErrorKind;
use stanza_sys::SignalDescriptor;

use crate::error::{AttachError, ConnectError, NetworkChangeError};
use crate::frame::{self, Kind, Refusal};
use crate::paths;
use crate::plan::{ExitRecord, NetworkChange};

/// How a client attaches.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// Forward this process's standard input.
    pub stdin: bool,
    /// The container has a terminal: raw mode here, window size there.
    pub tty: bool,
    /// The bytes that detach; empty for none.
    pub detach_keys: Vec<u8>,
    /// Forward signals to the container.
    pub sig_proxy: bool,
}

/// How an attachment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachEnd {
    /// The container exited, and everything of it has been torn down.
    Exited(ExitRecord),
    /// The user pressed the detach keys; the container goes on.
    Detached,
    /// Nobody reads this process's output any more; the container goes on.
    OutputClosed,
}

/// A conversation with a monitor.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    reader: frame::Reader,
}

/// Signals that a terminal or a supervisor sends to a door and that are meant for the container.
const PROXIED: [i32; 9] = [1, 2, 3, 10, 12, 13, 15, 18, 28];
const SIGWINCH: i32 = 28;
const SIGPIPE: i32 = 13;
const SIGCONT: i32 = 18;

/// Connects to the monitor of a running container.
///
/// # Errors
/// When the container does not run.
pub fn connect(run_dir: &Path) -> Result<Connection, ConnectError> {
    // A socket's path has at most 107 bytes; one through a descriptor is short whatever the root's is.
    let directory =
        match openat(CWD, run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::NOENT) => return Err(ConnectError::NotRunning),
            Err(error) => return Err(ConnectError::Socket(error.into())),
        };
    match UnixStream::connect(paths::through(&directory, paths::ATTACH_SOCKET)) {
        Ok(stream) => Ok(Connection::new(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(ConnectError::NotRunning)
        }
        Err(error) => Err(ConnectError::Socket(error)),
    }
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Connection {
        Connection { stream, reader: frame::Reader::default() }
    }

    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    pub(crate) fn send(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(body.len() + 8);
        frame::push(&mut bytes, kind, body);
        self.stream.write_all(&bytes)
    }

    /// The next frame, waiting for it.
    pub(crate) fn receive(&mut self) -> io::Result<(Kind, Vec<u8>)> {
        loop {
            if let Some(frame) = self.reader.next()? {
                return Ok(frame);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.reader.extend(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the container into other networks, and waits until that is done.
    ///
    /// # Errors
    /// When the kernel refuses, or the monitor is killed. Asked again, the rest is done.
    pub fn change_networks(&mut self, change: &NetworkChange) -> Result<(), NetworkChangeError> {
        let body = serde_json::to_vec(change).map_err(io::Error::from)?;
        self.send(Kind::Networks, &body)?;
        loop {
            match self.receive()? {
                (Kind::Done, _) => return Ok(()),
                (Kind::Failed, body) => {
                    let refusal: Refusal = serde_json::from_slice(&body).map_err(io::Error::from)?;
                    let kind = ErrorKind::of_name(&refusal.kind);
                    return Err(NetworkChangeError::Refused {
                        message: refusal.message,
                        kind,
                        hint: refusal.hint,
                    });
                }
                (Kind::Exit, _) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                // Its output goes to everybody who is connected.
                _ => {}
            }
        }
    }

    /// Gives `sink` all output until the container exits; how that was.
    ///
    /// # Errors
    /// When the monitor is killed.
    pub fn listen(&mut self, mut sink: impl FnMut(&[u8])) -> Result<ExitRecord, AttachError> {
        loop {
            match self.receive() {
                Ok((Kind::Stdout | Kind::Stderr, body)) => sink(&body),
                Ok((Kind::Exit, body)) => {
                    return serde_json::from_slice(&body).map_err(|error| AttachError::Socket(error.into()));
                }
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    return Err(AttachError::Lost);
                }
                Err(error) => return Err(AttachError::Socket(error)),
            }
        }
    }

    /// Connects this process's standard streams with the container until it exits or the user detaches.
    ///
    /// # Errors
    /// When the monitor is killed or this process's terminal fails.
    pub fn attach(&mut self, options: &AttachOptions) -> Result<AttachEnd, AttachError> {
        let raw = if options.tty && options.stdin {
            RawTerminal::enter().map_err(AttachError::Terminal)?
        } else {
            None
        };
        let signals = if options.sig_proxy {
            Some(SignalDescriptor::new(&PROXIED).map_err(AttachError::Terminal)?)
        } else if options.tty {
            Some(SignalDescriptor::new(&[SIGWINCH]).map_err(AttachError::Terminal)?)
        } else {
            None
        };
        self.stream.set_nonblocking(true).map_err(AttachError::Socket)?;
        let mut pump = Pump {
            connection: self,
            options,
            pending: Vec::new(),
            stdin_open: options.stdin,
            detach: DetachKeys::new(&options.detach_keys),
        };
        if options.tty {
            pump.push_size();
        }
        let end = pump.run(signals.as_ref());
        drop(raw);
        end
    }
}

/// One attachment.
struct Pump<'a> {
    connection: &'a mut Connection,
    options: &'a AttachOptions,
    /// Frames that the socket has not taken yet.
    pending: Vec<u8>,
    stdin_open: bool,
    detach: DetachKeys,
}

/// Above this, standard input is not read until the monitor has taken some.
const MAX_PENDING: usize = 256 << 10;

impl Pump<'_> {
    fn run(&mut self, signals: Option<&SignalDescriptor>) -> Result<AttachEnd, AttachError> {
        loop {
            if let Some(end) = self.take_frames()? {
                return Ok(end);
            }
            self.flush()?;
            let (readable, stdin_ready, signalled) = self.wait(signals)?;
            if signalled {
                self.forward_signals(signals)?;
            }
            if stdin_ready && self.read_stdin()? {
                // What was typed before the detach keys still goes to the container.
                let _ = self.connection.stream.set_nonblocking(false);
                let _ = self.connection.stream.write_all(&self.pending);
                return Ok(AttachEnd::Detached);
            }
            if readable {
                self.read_socket()?;
            }
        }
    }

    fn wait(&self, signals: Option<&SignalDescriptor>) -> Result<(bool, bool, bool), AttachError> {
        let mut socket = PollFlags::IN;
        if !self.pending.is_empty() {
            socket |= PollFlags::OUT;
        }
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(&self.connection.stream, socket)];
        let with_stdin = self.stdin_open && self.pending.len() < MAX_PENDING;
        if with_stdin {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        if let Some(signals) = signals {
            fds.push(PollFd::new(signals, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(AttachError::Socket(error.into())),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let readable = fds
            .first()
            .is_some_and(|fd| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR));
        Ok((readable, with_stdin && ready(1), signals.is_some() && ready(1 + usize::from(with_stdin))))
    }

    /// Hands output on; the exit record ends the attachment.
    fn take_frames(&mut self) -> Result<Option<AttachEnd>, AttachError> {
        while let Some((kind, body)) = self.connection.reader.next().map_err(AttachError::Socket)? {
            match kind {
                Kind::Stdout if !write_all(rustix::stdio::stdout(), &body) => {
                    return Ok(Some(AttachEnd::OutputClosed));
                }
                Kind::Stderr => {
                    write_all(rustix::stdio::stderr(), &body);
                }
                Kind::Exit => {
                    let record =
                        serde_json::from_slice(&body).map_err(|error| AttachError::Socket(error.into()))?;
                    return Ok(Some(AttachEnd::Exited(record)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn read_socket(&mut self) -> Result<(), AttachError> {
        let mut buffer = [0; 32 << 10];
        match self.connection.stream.read(&mut buffer) {
            Ok(0) => Err(AttachError::Lost),
            Ok(count) => {
                self.connection.reader.extend(&buffer[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(AttachError::Lost),
            Err(error) => Err(AttachError::Socket(error)),
        }
    }

    fn flush(&mut self) -> Result<(), AttachError> {
        while !self.pending.is_empty() {
            match self.connection.stream.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The monitor has gone; what it said before is still to be read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.pending.clear(),
                Err(error) => return Err(AttachError::Socket(error)),
            }
        }
        Ok(())
    }

    /// Reads standard input once; `true` when the detach keys were pressed.
    fn read_stdin(&mut self) -> Result<bool, AttachError> {
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            // EIO: this process lost its terminal.
            Ok(0) | Err(rustix::io::Errno::IO) => {
                self.stdin_open = false;
                frame::push(&mut self.pending, Kind::StdinEnd, b"");
            }
            Ok(count) => {
                let (bytes, detached) = if self.options.tty {
                    self.detach.filter(&buffer[..count])
                } else {
                    (buffer[..count].to_vec(), false)
                };
                if !bytes.is_empty() {
                    frame::push(&mut self.pending, Kind::Stdin, &bytes);
                }
                return Ok(detached);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(AttachError::Terminal(error.into())),
        }
        Ok(false)
    }

    fn forward_signals(&mut self, signals: Option<&SignalDescriptor>) -> Result<(), AttachError> {
        let Some(signals) = signals else { return Ok(()) };
        while let Some(record) = signals.next().map_err(AttachError::Terminal)? {
            match record.signal {
                SIGWINCH => self.push_size(),
                SIGPIPE | SIGCONT => {}
                signal => frame::push(&mut self.pending, Kind::Signal, &signal.to_le_bytes()),
            }
        }
        Ok(())
    }

    fn push_size(&mut self) {
        let stdin = rustix::stdio::stdin();
        if let Some((rows, columns)) = window_size(stdin) {
            let mut body = rows.to_le_bytes().to_vec();
            body.extend_from_slice(&columns.to_le_bytes());
            frame::push(&mut self.pending, Kind::Resize, &body);
        }
    }
}

/// Rows and columns of a terminal.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let size = tcgetwinsize(terminal).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Writes everything; `false` when nobody reads it any more.
pub(crate) fn write_all(target: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(target, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&target, PollFlags::OUT)], None);
            }
            Err(error) => return error != rustix::io::Errno::PIPE,
        }
    }
    true
}

/// Standard input's terminal in raw mode, restored on drop.
pub(crate) struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` when standard input is not a terminal.
    pub(crate) fn enter() -> io::Result<Option<RawTerminal>> {
        let stdin = rustix::stdio::stdin();
        let Ok(saved) = tcgetattr(stdin) else { return Ok(None) };
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(Some(RawTerminal(saved)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Finds the detach keys in what is typed, across reads. A part of them that turns out to be something else is typed
/// after all.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    pub(crate) fn new(keys: &[u8]) -> DetachKeys {
        DetachKeys { keys: keys.to_vec(), matched: 0 }
    }

    /// The bytes to hand on, and whether the keys are complete.
    pub(crate) fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(byte));
            if self.matched == 0 {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads_and_given_back_otherwise() {
        let keys = [16, 17];
        assert_eq!(DetachKeys::new(&keys).filter(b"ab\x10\x11c"), (b"ab".to_vec(), true));
        let mut split = DetachKeys::new(&keys);
        assert_eq!(split.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(split.filter(b"\x11"), (vec![], true));
        let mut other = DetachKeys::new(&keys);
        assert_eq!(other.filter(b"\x10"), (vec![], false));
        assert_eq!(other.filter(b"x"), (b"\x10x".to_vec(), false));
        let mut twice = DetachKeys::new(&keys);
        assert_eq!(twice.filter(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
        assert_eq!(DetachKeys::new(&[]).filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
