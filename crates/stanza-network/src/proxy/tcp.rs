//! One TCP connection: two sockets and two ways between them.
//!
//! ```text
//!   client ──▶ socket ──▶ pipe ──▶ socket ──▶ container      a way: has bytes in its pipe, or its source has ended, or both
//!   client ◀── socket ◀── pipe ◀── socket ◀── container      the end is handed on by shutdown(2) when the pipe is empty
//! ```

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use rustix::pipe::{SpliceFlags, splice};

use super::pipes::{Pipe, Pipes, SIZE};

/// Whose socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Container,
}

/// How it stands after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing can be done before the next event.
    Waits,
    /// There is more to do.
    More,
    /// Ended or broken.
    Over,
}

/// Bytes in one direction after which others have their turn.
const TURN: usize = 1 << 20;

/// A socket, with what the last event or attempt said.
#[derive(Debug)]
struct End {
    socket: OwnedFd,
    readable: bool,
    writable: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    filled: usize,
    /// The source has no more.
    ended: bool,
    /// The drain knows.
    closed: bool,
}

/// A client's connection and the container's.
#[derive(Debug)]
pub(super) struct Connection {
    client: End,
    container: End,
    up: Way,
    down: Way,
    connecting: bool,
    broken: bool,
    /// It is in the queue of those that could go on.
    pub(super) queued: bool,
}

pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let client = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // In TIME_WAIT it would keep everybody from the port for a minute, also the container when it starts again.
    let _ = sockopt::set_socket_reuseaddr(&client, true);
    Ok(client)
}

/// A close of this socket is a reset.
fn reset_on_close(socket: &OwnedFd) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

impl Connection {
    /// Begins to connect a client to `target`; `None`, and the client is reset, when that fails at once.
    pub(super) fn open(client: OwnedFd, target: SocketAddr) -> Option<Connection> {
        // What passes through here is in the sizes that the ends chose: nothing is gained by collecting it.
        let _ = sockopt::set_tcp_nodelay(&client, true);
        let container = match connect(target) {
            Ok(container) => container,
            Err(_) => {
                reset_on_close(&client);
                return None;
            }
        };
        let end = |socket| End { socket, readable: false, writable: false };
        Some(Connection {
            client: end(client),
            container: end(container),
            up: Way::default(),
            down: Way::default(),
            connecting: true,
            broken: false,
            queued: false,
        })
    }

    pub(super) fn watch(&self, epoll: &OwnedFd, data: impl Fn(Side) -> EventData) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &self.client.socket, data(Side::Client), flags)?;
        epoll::add(epoll, &self.container.socket, data(Side::Container), flags)
    }

    /// Takes note of an event.
    pub(super) fn note(&mut self, side: Side, flags: EventFlags) {
        let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let end = match side {
            Side::Client => &mut self.client,
            Side::Container => &mut self.container,
        };
        end.readable |= failed || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        end.writable |= failed || flags.contains(EventFlags::OUT);
        if side == Side::Container && self.connecting && end.writable {
            self.connecting = false;
            self.broken |= !matches!(sockopt::socket_error(&end.socket), Ok(Ok(())));
        }
    }

    /// Moves what can be moved.
    pub(super) fn advance(&mut self, pipes: &mut Pipes) -> Progress {
        self.queued = false;
        if self.broken {
            return Progress::Over;
        }
        if self.connecting {
            return Progress::Waits;
        }
        let up = self.up.advance(&mut self.client, &mut self.container, pipes);
        let down = self.down.advance(&mut self.container, &mut self.client, pipes);
        match (up, down) {
            (Ok(_), Ok(_)) if self.up.closed && self.down.closed => Progress::Over,
            (Ok(more_up), Ok(more_down)) => {
                if more_up || more_down {
                    Progress::More
                } else {
                    Progress::Waits
                }
            }
            _ => {
                self.broken = true;
                Progress::Over
            }
        }
    }

    /// Closes both sockets; one that broke is broken for both sides.
    pub(super) fn end(self, pipes: &mut Pipes) {
        if self.broken {
            reset_on_close(&self.client.socket);
            reset_on_close(&self.container.socket);
        }
        for way in [self.up, self.down] {
            if let Some(pipe) = way.pipe.filter(|_| way.filled == 0) {
                pipes.give_back(pipe);
            }
        }
    }
}

impl Way {
    /// Moves bytes until one of the sockets has had enough; whether there is more for another turn.
    fn advance(&mut self, source: &mut End, drain: &mut End, pipes: &mut Pipes) -> Result<bool, Errno> {
        let mut moved = 0;
        while moved < TURN {
            if self.filled == 0 && source.readable && !self.ended {
                self.fill(source, pipes)?;
            }
            if self.filled == 0 || !drain.writable {
                break;
            }
            moved += self.drain(drain)?;
        }
        if self.filled == 0 {
            if let Some(pipe) = self.pipe.take() {
                pipes.give_back(pipe);
            }
            if self.ended && !self.closed {
                self.closed = true;
                match rustix::net::shutdown(&drain.socket, Shutdown::Write) {
                    // The other side has closed its socket by now.
                    Ok(()) | Err(Errno::NOTCONN) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(moved >= TURN)
    }

    fn fill(&mut self, source: &mut End, pipes: &mut Pipes) -> Result<(), Errno> {
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.take()?,
        };
        let pipe = self.pipe.insert(pipe);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match splice(&source.socket, None, &pipe.input, None, SIZE, flags) {
            Ok(0) => self.ended = true,
            Ok(count) => self.filled = count,
            Err(Errno::AGAIN) => source.readable = false,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn drain(&mut self, drain: &mut End) -> Result<usize, Errno> {
        let Some(pipe) = &self.pipe else { return Ok(0) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match splice(&pipe.output, None, &drain.socket, None, self.filled, flags) {
            Ok(count) => {
                self.filled -= count;
                Ok(count)
            }
            Err(Errno::AGAIN) => {
                drain.writable = false;
                Ok(0)
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn connect(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}
