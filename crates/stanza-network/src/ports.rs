//! Reserving ports of the host: a socket that is bound, and never listens.
//!
//! The socket keeps every other program off the port, as long as its owner lives and no longer. It receives
//! nothing: packets to the port are led to the container before the host looks for a socket. When the rules are
//! gone a TCP client is refused, not left waiting.
//!
//! `SO_REUSEADDR` is not set: with it on both sides a second program could bind, and even listen on, a port that
//! is bound but not listening. The price, that connections in TIME_WAIT from a server the host ran on that port
//! make the plain bind fail, is paid back by [`bind_over_time_wait`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use stanza_spec::Protocol;

use crate::PortMap;
use crate::attach::AttachError;

/// Binds a socket to the port and returns it with the port number that was taken.
pub(crate) fn reserve(port: &PortMap) -> Result<(OwnedFd, u16), AttachError> {
    let ip = match port.host_ip {
        None => Ipv4Addr::UNSPECIFIED,
        Some(IpAddr::V4(ip)) => ip,
        Some(IpAddr::V6(ip)) => return Err(AttachError::Ipv6Port { address: ip }),
    };
    let wanted = SocketAddrV4::new(ip, port.host_port.unwrap_or(0));
    let failed = |error: Errno| refuse(error, wanted, port.protocol);
    let socket = bind(port.protocol, wanted)
        .or_else(|error| {
            if error == Errno::ADDRINUSE && port.protocol == Protocol::Tcp && wanted.port() != 0 {
                bind_over_time_wait(wanted)
            } else {
                Err(error)
            }
        })
        .map_err(failed)?;
    let taken = if wanted.port() != 0 {
        wanted.port()
    } else {
        let address = rustix::net::getsockname(&socket).map_err(failed)?;
        SocketAddrV4::try_from(address).map_err(failed)?.port()
    };
    Ok((socket, taken))
}

fn open(protocol: Protocol) -> Result<OwnedFd, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn bind(protocol: Protocol, address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let socket = open(protocol)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Binds to a port that nobody holds but connections in TIME_WAIT.
///
/// With `SO_REUSEADDR` the bind itself may succeed beside another bound socket, but `listen` checks again, and
/// strictly. Clearing the option after it shuts the door for others, and `shutdown` ends the listening but not
/// the binding (`inet_shutdown`, `tcp_disconnect`).
fn bind_over_time_wait(address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let socket = open(Protocol::Tcp)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(socket.as_fd(), 0)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    rustix::net::shutdown(&socket, Shutdown::Read)?;
    Ok(socket)
}

fn refuse(error: Errno, address: SocketAddrV4, protocol: Protocol) -> AttachError {
    let address = SocketAddr::V4(address);
    match error {
        Errno::ADDRINUSE => AttachError::PortTaken { address, protocol, source: error.into() },
        Errno::ADDRNOTAVAIL => AttachError::AddressNotLocal { address: address.ip(), source: error.into() },
        _ => AttachError::Port { address, protocol, source: error.into() },
    }
}
