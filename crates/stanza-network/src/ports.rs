//! Reserving ports of the host: sockets that are bound, and do not listen unless a proxy is to serve them.
//!
//! ```text
//!   published on      sockets, of one number           led to the container by the kernel   by a proxy
//!   (nothing)         0.0.0.0:8080 and [::]:8080       where both are of one family         the rest, and ::1
//!   0.0.0.0, 192.0.2.1, 127.0.0.1   that one           a container with IPv4                one without
//!   ::, 2001:db8::1                 that one           a container with IPv6                one without
//!   ::1                             that one           never                                always
//! ```
//!
//! A socket keeps every other program off the port, as long as its owner lives and no longer. It receives nothing that
//! the kernel leads to the container: that happens before the host looks for a socket. When the rules are gone a TCP
//! client is refused, not left waiting.
//!
//! `SO_REUSEADDR` is not set: with it on both sides a second program could bind, and even listen on, a port that
//! is bound but not listening. The price, that connections in TIME_WAIT from a server the host ran on that port
//! make the plain bind fail, is paid back by [`bind_over_time_wait`].
//!
//! A kernel without SCTP sockets has no SCTP program that a port could be taken from. A name in the network name space
//! (an abstract Unix socket) keeps two containers off the same one, on whatever addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt};
use stanza_spec::Protocol;

use crate::attach::AttachError;
use crate::rules::{Targets, addresses};
use crate::{PortMap, proxy};

/// A port of the host that is taken.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// Its number, the same on every address.
    pub(crate) number: u16,
    pub(crate) sockets: Vec<Held>,
}

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) socket: OwnedFd,
    pub(crate) protocol: Protocol,
    /// What it is bound to; `None` is a mere name.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) container_port: u16,
    /// TCP clients wait in it instead of being refused.
    listens: bool,
}

impl Held {
    /// Where a proxy that leads everything has to lead what comes to the socket: to an address of its family, or else the other's.
    pub(crate) fn target(&self, targets: Targets) -> Option<SocketAddr> {
        let address = self.address?.ip();
        let target = targets.like(address).or(targets.unlike(address))?;
        Some(SocketAddr::new(target, self.container_port))
    }

    /// Where a proxy has to lead what comes to the socket; `None` when the kernel leads all of it.
    pub(crate) fn proxied(&self, targets: Targets) -> Option<SocketAddr> {
        let address = self.address?.ip();
        let target = targets.like(address).filter(|_| self.protocol != Protocol::Sctp);
        let target = match address {
            // IPv6 in the container: all but `::1` is the kernel's.
            IpAddr::V6(ip) if ip.is_unspecified() || ip.is_loopback() => target.or(targets.unlike(address)),
            _ if target.is_some() => None,
            _ => targets.unlike(address),
        };
        target.filter(|_| self.protocol != Protocol::Sctp).map(|ip| SocketAddr::new(ip, self.container_port))
    }

    /// Lets TCP clients wait for a proxy, or refuses them from now on, also those that wait.
    pub(crate) fn set_listening(&mut self, listens: bool) -> io::Result<()> {
        if self.protocol != Protocol::Tcp || self.listens == listens {
            return Ok(());
        }
        if listens {
            proxy::listen(self.socket.as_fd())?;
        } else {
            rustix::net::shutdown(&self.socket, Shutdown::Read)?;
        }
        self.listens = listens;
        Ok(())
    }
}

/// Takes the port, on all its addresses, or the first that is free of a range.
pub(crate) fn reserve(port: &PortMap) -> Result<Reserved, AttachError> {
    match (port.host_port, port.host_range) {
        (Some(number), _) => reserve_number(port, number),
        (None, None) => reserve_any(port),
        (None, Some((first, last))) => {
            let mut taken = None;
            for number in first..=last {
                match reserve_number(port, number) {
                    Err(error @ AttachError::PortTaken { .. }) => taken = Some(error),
                    result => return result,
                }
            }
            let source = Errno::ADDRINUSE.into();
            Err(match taken {
                Some(error) if first == last => error,
                _ => AttachError::RangeTaken { first, last, protocol: port.protocol, source },
            })
        }
    }
}

/// A number of the kernel's choice for the first address; the others may have lost it to somebody.
fn reserve_any(port: &PortMap) -> Result<Reserved, AttachError> {
    /// Each fails only when a number of some 28,000 is free in one family and taken in the other.
    const TURNS: usize = 64;
    let mut result = reserve_number(port, 0);
    for _ in 1..TURNS {
        match result {
            Err(AttachError::PortTaken { .. }) => result = reserve_number(port, 0),
            result => return result,
        }
    }
    result
}

/// Takes that number, or with 0 one of the kernel's choice, on every address.
fn reserve_number(port: &PortMap, mut number: u16) -> Result<Reserved, AttachError> {
    let mut sockets = Vec::new();
    for ip in addresses(port) {
        match take(port, SocketAddr::new(ip, number)) {
            // What is published on no address in particular is published on those that there are.
            Err(AttachError::Port { source, .. })
                if port.host_ip.is_none()
                    && ip.is_ipv6()
                    && Errno::from_io_error(&source) == Some(Errno::AFNOSUPPORT) => {}
            held => {
                let (held, taken) = held?;
                number = taken;
                sockets.extend(held);
            }
        }
    }
    Ok(Reserved { number, sockets })
}

/// Takes one address; with nothing to hold where another one of the port holds the name for both.
fn take(port: &PortMap, wanted: SocketAddr) -> Result<(Option<Held>, u16), AttachError> {
    let failed = |error: Errno| refuse(error, wanted, port.protocol);
    let held = |socket, address: Option<SocketAddr>, number| {
        let (protocol, container_port) = (port.protocol, port.container_port);
        (Some(Held { socket, protocol, address, container_port, listens: false }), number)
    };
    match bind(port.protocol, wanted) {
        Ok(socket) => {
            let number = number_of(&socket, wanted).map_err(failed)?;
            Ok(held(socket, Some(SocketAddr::new(wanted.ip(), number)), number))
        }
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if port.protocol == Protocol::Sctp => {
            if port.host_ip.is_none() && wanted.is_ipv6() {
                return Ok((None, wanted.port()));
            }
            let (socket, number) = take_name(wanted).map_err(failed)?;
            Ok(held(socket, None, number))
        }
        Err(Errno::ADDRINUSE) if port.protocol == Protocol::Tcp && wanted.port() != 0 => {
            let socket = bind_over_time_wait(wanted).map_err(failed)?;
            Ok(held(socket, Some(wanted), wanted.port()))
        }
        Err(error) => Err(failed(error)),
    }
}

fn number_of(socket: &OwnedFd, wanted: SocketAddr) -> Result<u16, Errno> {
    if wanted.port() != 0 {
        return Ok(wanted.port());
    }
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?.port())
}

fn open(protocol: Protocol, ip: IpAddr) -> Result<OwnedFd, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    let family = if ip.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, number)?;
    if ip.is_ipv6() {
        // Each family has its own: a host may have something else on the other one's port.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

fn bind(protocol: Protocol, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = open(protocol, address.ip())?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Binds to a port that nobody holds but connections in TIME_WAIT.
///
/// With `SO_REUSEADDR` the bind itself may succeed beside another bound socket, but `listen` checks again, and
/// strictly. Clearing the option after it shuts the door for others, and `shutdown` ends the listening but not
/// the binding (`inet_shutdown`, `tcp_disconnect`).
fn bind_over_time_wait(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = open(Protocol::Tcp, address.ip())?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(socket.as_fd(), 0)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    rustix::net::shutdown(&socket, Shutdown::Read)?;
    Ok(socket)
}

/// Takes the name that stands for an SCTP port on a kernel without SCTP sockets.
fn take_name(wanted: SocketAddr) -> Result<(OwnedFd, u16), Errno> {
    let number = match wanted.port() {
        // What the kernel would choose for TCP is as good as any.
        0 => number_of(&bind(Protocol::Tcp, wanted)?, wanted)?,
        number => number,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    let name = format!("stanza/sctp/{number}");
    rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok((socket, number))
}

fn refuse(error: Errno, address: SocketAddr, protocol: Protocol) -> AttachError {
    match error {
        Errno::ADDRINUSE => AttachError::PortTaken { address, protocol, source: error.into() },
        Errno::ADDRNOTAVAIL => AttachError::AddressNotLocal { address: address.ip(), source: error.into() },
        _ => AttachError::Port { address, protocol, source: error.into() },
    }
}
