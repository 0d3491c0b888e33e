//! The process that serves the published ports which the kernel cannot lead to the container
//! ([`stanza_network::proxy`]): how a monitor starts it, and its own side.
//!
//! ```text
//!  monitor ── fork, exec ─▶ stanza-proxy      argv[0] alone, no environment; standard input is one end of a socket
//!     ├── bound sockets, DESCRIPTORS_AT_ONCE a message: 1 when more follow, 0 with the last
//!     ├── Kind::Plan: where each leads, as JSON
//!     └── end of the socket ─▶ ends
//! ```
//!
//! It keeps of the monitor's rights what it needs: the bound sockets, and connections to the ports they lead to. The kernel kills
//! it when the monitor dies, however that dies, and with it the ports are free.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{CapabilitySet, CapabilitySets};
use stanza_network::Proxied;
use stanza_network::proxy::{self, Forward};
use stanza_sys::{DESCRIPTORS_AT_ONCE, receive_descriptors, send_descriptors};

use crate::attach::Connection;
use crate::frame::Kind;
use crate::spawn::{PROXY, spawn_helper, take_socket};

/// How long a process that has just been started may take to read what it is told. The monitor waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A proxy that runs. Dropped, it is killed, and the sockets are the monitor's alone again.
#[derive(Debug)]
pub(crate) struct ProxyProcess {
    pidfd: OwnedFd,
    /// It ends with this too.
    _owner: UnixStream,
    _child: Killed,
}

/// A child that does not outlive this.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended by itself when this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ProxyProcess {
    /// Starts one that serves `ports`.
    pub(crate) fn start(ports: &[Proxied]) -> io::Result<ProxyProcess> {
        let (child, owner) = spawn_helper(PROXY)?;
        let child = Killed(child);
        let pidfd = pidfd_open(Pid::from_child(&child.0), PidfdFlags::empty())?;
        owner.set_write_timeout(Some(PATIENCE))?;
        for (index, part) in ports.chunks(DESCRIPTORS_AT_ONCE).enumerate() {
            let more = (index + 1) * DESCRIPTORS_AT_ONCE < ports.len();
            let sockets: Vec<BorrowedFd<'_>> = part.iter().map(|port| port.socket.as_fd()).collect();
            send_descriptors(&owner, &[u8::from(more)], &sockets)?;
        }
        let ways: Vec<Forward> = ports.iter().map(way).collect();
        let mut connection = Connection::new(owner);
        connection.send(Kind::Plan, &serde_json::to_vec(&ways)?)?;
        Ok(ProxyProcess { pidfd, _owner: connection.into_stream(), _child: child })
    }
}

/// It can be read from when the process has ended.
impl AsFd for ProxyProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Where what comes to a port leads.
pub(crate) fn way(port: &Proxied) -> Forward {
    Forward { protocol: port.protocol, target: port.target }
}

/// The proxy's whole life. Its standard input is the socket of the monitor that started it; returns its exit code.
#[must_use]
pub fn proxy_main() -> i32 {
    let _ = rustix::thread::set_name(c"stanza-proxy");
    // Nobody is there to be told why: the monitor sees that it ended, and starts another when a client comes.
    i32::from(serve().is_err())
}

fn serve() -> io::Result<()> {
    let (ports, owner) = receive(UnixStream::from(take_socket()?))?;
    give_up_rights(&ports)?;
    proxy::serve(ports, owner.as_fd())
}

/// What a monitor tells in [`ProxyProcess::start`].
fn receive(owner: UnixStream) -> io::Result<(Vec<(OwnedFd, Forward)>, UnixStream)> {
    let mut sockets = Vec::new();
    let mut more = [1];
    while more == [1] {
        if receive_descriptors(&owner, &mut more, &mut sockets)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut connection = Connection::new(owner);
    let (kind, body) = connection.receive()?;
    let ways: Vec<Forward> = serde_json::from_slice(&body)?;
    if kind != Kind::Plan || ways.len() != sockets.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((sockets.into_iter().zip(ways).collect(), connection.into_stream()))
}

/// Serving needs what is open, and connections to the container's ports.
fn give_up_rights(ports: &[(OwnedFd, Forward)]) -> io::Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    stanza_container::confine_to_connections(ports.iter().map(|(_, way)| way.target.port()))
}
