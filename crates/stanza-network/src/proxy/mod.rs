//! Published ports that the kernel cannot translate: connections are taken here and made again from another network
//! name space, or in another address family.
//!
//! ```text
//!   host                                    this process                         name space of the containers
//!   bound socket ◀── client          TCP: splice(2), a pipe each way             socket ──▶ container
//!   bound socket ◀── client          UDP: a flow for each client, with a limit   socket ──▶ container
//! ```
//!
//! It gets sockets that are bound (or listen) already, so that whoever publishes a port keeps the say in which, and may
//! start this process as late as at the first connection: what has come until then waits in the sockets. It makes its
//! connections from the network name space that its thread is in.
//!
//! One thread, one epoll. Invariants:
//!
//! * Bytes are not copied, and not read before the other side takes them: at most one pipe waits in each direction.
//! * The end of one direction does not end the other; a broken connection is broken on the other side too (RST).
//! * At most `Limits::connections` TCP connections and `Limits::flows` UDP flows: then new clients wait in the
//!   kernel's queue, and the flow that has been quiet longest is given up.
//! * It ends when its owner's socket does.
//!
//! The container sees the address of the name space's bridge as the client's.

mod pipes;
mod slab;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use stanza_spec::Protocol;

use pipes::Pipes;
use slab::Slab;
use tcp::{Connection, Progress, Side};
use udp::Flows;

/// Where what comes to a socket goes to.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP; nothing else is forwarded.
    pub protocol: Protocol,
    /// The container's address and port.
    pub target: SocketAddr,
}

/// How much of it there may be at once.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// TCP connections.
    connections: usize,
    /// UDP flows.
    flows: usize,
}

/// More than this many connections are left in the kernel's queues.
const MOST_CONNECTIONS: usize = 4096;
/// UDP flows of all ports.
const MOST_FLOWS: usize = 1024;
/// Descriptors of a connection: two sockets, and a pipe each way.
const CONNECTION_DESCRIPTORS: usize = 6;
/// Descriptors that are neither a connection's nor a flow's.
const OTHER_DESCRIPTORS: usize = 64;
/// How long connections wait when something ran out, and how exact the end of a flow is.
const TICK: Duration = Duration::from_secs(1);
/// Connections that wait in the kernel: what it allows by default (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Starts listening on a bound TCP socket, before there is anybody to serve it; twice does no harm.
///
/// # Errors
/// When somebody else listens on the port.
pub fn listen(socket: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::net::listen(socket, BACKLOG) {
        // It is refused while connections of an earlier time are in TIME_WAIT, unless both sides allow it; what is accepted
        // here does.
        Err(Errno::ADDRINUSE) => {
            sockopt::set_socket_reuseaddr(socket, true)?;
            let listens = rustix::net::listen(socket, BACKLOG);
            sockopt::set_socket_reuseaddr(socket, false)?;
            Ok(listens?)
        }
        other => Ok(other?),
    }
}

/// Serves the bound sockets until `owner` can be read from, or has no other end any more.
///
/// # Errors
/// When the kernel refuses what serving needs; single connections that fail end nothing but themselves.
pub fn serve(ports: Vec<(OwnedFd, Forward)>, owner: BorrowedFd<'_>) -> io::Result<()> {
    let limits = limits(ports.len());
    Proxy::new(ports, limits, owner)?.run()
}

/// What the process's limit of descriptors, raised as far as it may be, has room for.
fn limits(ports: usize) -> Limits {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let current = getrlimit(Resource::Nofile).current;
    let room = current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let room = room.saturating_sub(ports + OTHER_DESCRIPTORS);
    let flows = MOST_FLOWS.min(room / 4).max(1);
    Limits {
        connections: MOST_CONNECTIONS.min((room - flows.min(room)) / CONNECTION_DESCRIPTORS).max(1),
        flows,
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Owner,
    Port(u32),
    Connection(u32, Side),
    Flow(u32),
}

impl Token {
    fn data(self) -> EventData {
        let (kind, side, index) = match self {
            Token::Owner => (0, 0, 0),
            Token::Port(index) => (1, 0, index),
            Token::Connection(index, side) => (2, u64::from(side == Side::Container), index),
            Token::Flow(index) => (3, 0, index),
        };
        EventData::new_u64(kind << 40 | side << 32 | u64::from(index))
    }

    fn of(data: u64) -> Token {
        let index = u32::try_from(data & u64::from(u32::MAX)).unwrap_or(0);
        match data >> 40 {
            0 => Token::Owner,
            1 => Token::Port(index),
            2 => {
                let side = if data >> 32 & 1 == 1 { Side::Container } else { Side::Client };
                Token::Connection(index, side)
            }
            _ => Token::Flow(index),
        }
    }
}

/// A published port.
enum Port {
    Tcp { socket: OwnedFd, target: SocketAddr },
    Udp { socket: UdpSocket, target: SocketAddr },
}

impl Port {
    fn new(socket: OwnedFd, forward: Forward) -> io::Result<Port> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        match forward.protocol {
            Protocol::Tcp => {
                listen(socket.as_fd())?;
                Ok(Port::Tcp { socket, target: forward.target })
            }
            Protocol::Udp => Ok(Port::Udp { socket: socket.into(), target: forward.target }),
            Protocol::Sctp => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Port::Tcp { socket, .. } => socket.as_fd(),
            Port::Udp { socket, .. } => socket.as_fd(),
        }
    }
}

struct Proxy {
    epoll: OwnedFd,
    ports: Vec<Port>,
    connections: Slab<Connection>,
    flows: Flows,
    pipes: Pipes,
    limits: Limits,
    /// Connections that could go on, but have had their turn.
    busy: VecDeque<u32>,
    /// Nothing is accepted, because something ran out.
    paused: bool,
    /// When flows were looked at last.
    looked: Instant,
}

impl Proxy {
    fn new(ports: Vec<(OwnedFd, Forward)>, limits: Limits, owner: BorrowedFd<'_>) -> io::Result<Proxy> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, owner, Token::Owner.data(), EventFlags::IN | EventFlags::RDHUP)?;
        let ports: Vec<Port> = ports
            .into_iter()
            .map(|(socket, forward)| Port::new(socket, forward))
            .collect::<io::Result<_>>()?;
        for (index, port) in (0..).zip(&ports) {
            epoll::add(&epoll, port.socket(), Token::Port(index).data(), EventFlags::IN)?;
        }
        Ok(Proxy {
            epoll,
            ports,
            connections: Slab::default(),
            flows: Flows::new(limits.flows),
            pipes: Pipes::default(),
            limits,
            busy: VecDeque::new(),
            paused: false,
            looked: Instant::now(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(256);
        loop {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let Event { flags, data } = *event;
                match Token::of(data.u64()) {
                    Token::Owner => return Ok(()),
                    Token::Port(index) => self.take_from_port(index),
                    Token::Connection(index, side) => {
                        if let Some(connection) = self.connections.get_mut(index) {
                            connection.note(side, flags);
                            self.advance(index);
                        }
                    }
                    Token::Flow(index) => self.flows.answer(index, &self.ports),
                }
            }
            for _ in 0..self.busy.len() {
                if let Some(index) = self.busy.pop_front() {
                    self.advance(index);
                }
            }
            // From here on no event of an old owner of a place is left.
            self.connections.recycle();
            self.flows.recycle();
            self.look_after();
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        if !self.busy.is_empty() {
            return Some(Timespec::default());
        }
        let waits = self.paused || !self.flows.is_empty();
        waits.then(|| Timespec { tv_sec: TICK.as_secs().cast_signed(), tv_nsec: 0 })
    }

    /// What is done now and then: ends quiet flows, and accepts again when there is room.
    fn look_after(&mut self) {
        let now = Instant::now();
        let due = now.duration_since(self.looked) >= TICK;
        if due {
            self.looked = now;
            self.flows.end_quiet_ones(now);
        }
        if self.paused && (due || self.connections.len() < self.limits.connections) {
            self.pause(false);
        }
    }

    fn pause(&mut self, paused: bool) {
        self.paused = paused;
        let flags = if paused { EventFlags::empty() } else { EventFlags::IN };
        for (index, port) in (0..).zip(&self.ports) {
            if matches!(port, Port::Tcp { .. }) {
                let _ = epoll::modify(&self.epoll, port.socket(), Token::Port(index).data(), flags);
            }
        }
    }

    fn take_from_port(&mut self, index: u32) {
        match self.ports.get(index as usize) {
            Some(Port::Tcp { target, .. }) => {
                let target = *target;
                self.accept(index, target);
            }
            Some(Port::Udp { .. }) => self.flows.take(index, &self.ports, &self.epoll),
            None => {}
        }
    }

    /// Takes what waits, as far as there is room.
    fn accept(&mut self, port: u32, target: SocketAddr) {
        loop {
            if self.connections.len() >= self.limits.connections {
                return self.pause(true);
            }
            let Some(listener) = self.ports.get(port as usize).map(Port::socket) else { return };
            let client = match tcp::accept(listener) {
                Ok(client) => client,
                // The client is gone already.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                // Descriptors or memory: later.
                Err(_) => return self.pause(true),
            };
            // A connection that cannot be made is the client's loss alone: it is told by a reset.
            let Some(connection) = Connection::open(client, target) else { continue };
            let index = self.connections.insert(connection);
            let watched = self.connections.get_mut(index).is_some_and(|connection| {
                connection.watch(&self.epoll, |side| Token::Connection(index, side).data()).is_ok()
            });
            if !watched {
                self.connections.remove(index);
            }
        }
    }

    fn advance(&mut self, index: u32) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        match connection.advance(&mut self.pipes) {
            Progress::Waits => {}
            Progress::More => {
                if !std::mem::replace(&mut connection.queued, true) {
                    self.busy.push_back(index);
                }
            }
            Progress::Over => {
                if let Some(connection) = self.connections.remove(index) {
                    connection.end(&mut self.pipes);
                }
            }
        }
    }
}
