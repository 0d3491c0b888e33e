//! The process that serves the published ports which the kernel cannot lead to the container
//! ([`stanza_network::proxy`]): how a monitor starts it, and its own side.
//!
//! ```text
//!  monitor ── fork, exec ─▶ stanza-proxy      argv[0] alone, no environment; standard input is one end of a socket
//!     ├── descriptors, DESCRIPTORS_AT_ONCE a message: 1 when more follow, 0 with the last
//!     │     the network namespace that the targets are reached from, where it is another one, then the bound sockets
//!     ├── Kind::Plan: ProxyPlan as JSON
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
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use stanza_network::Proxied;
use stanza_network::proxy::{self, Forward};
use stanza_sys::{DESCRIPTORS_AT_ONCE, receive_descriptors, send_descriptors};

use crate::attach::Connection;
use crate::frame::Kind;
use crate::spawn::{PROXY, spawn_helper, take_socket};

/// How long a process that has just been started may take to read what it is told. The monitor waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the descriptors are.
#[derive(Serialize, Deserialize, Debug)]
struct ProxyPlan {
    /// The first one is a network namespace to be entered.
    elsewhere: bool,
    /// Where each of the others leads.
    ways: Vec<Forward>,
}

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
    /// Starts one that serves `ports`, whose targets are reached from the network namespace `bridges`, or from this process's.
    pub(crate) fn start(ports: &[Proxied], bridges: Option<BorrowedFd<'_>>) -> io::Result<ProxyProcess> {
        let (child, owner) = spawn_helper(PROXY)?;
        let child = Killed(child);
        let pidfd = pidfd_open(Pid::from_child(&child.0), PidfdFlags::empty())?;
        owner.set_write_timeout(Some(PATIENCE))?;
        let sockets = ports.iter().map(|port| port.socket.as_fd());
        let descriptors: Vec<BorrowedFd<'_>> = bridges.into_iter().chain(sockets).collect();
        for (index, part) in descriptors.chunks(DESCRIPTORS_AT_ONCE).enumerate() {
            let more = (index + 1) * DESCRIPTORS_AT_ONCE < descriptors.len();
            send_descriptors(&owner, &[u8::from(more)], part)?;
        }
        let plan = ProxyPlan { elsewhere: bridges.is_some(), ways: ports.iter().map(way).collect() };
        let mut connection = Connection::new(owner);
        connection.send(Kind::Plan, &serde_json::to_vec(&plan)?)?;
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
    let (plan, mut descriptors, owner) = receive(UnixStream::from(take_socket()?))?;
    if plan.elsewhere && !descriptors.is_empty() {
        move_into_link_name_space(descriptors.remove(0).as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    if plan.ways.len() != descriptors.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    give_up_rights(&plan.ways)?;
    proxy::serve(descriptors.into_iter().zip(plan.ways).collect(), owner.as_fd())
}

/// What a monitor tells in [`ProxyProcess::start`].
fn receive(owner: UnixStream) -> io::Result<(ProxyPlan, Vec<OwnedFd>, UnixStream)> {
    let mut descriptors = Vec::new();
    let mut more = [1];
    while more == [1] {
        if receive_descriptors(&owner, &mut more, &mut descriptors)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut connection = Connection::new(owner);
    match connection.receive()? {
        (Kind::Plan, body) => Ok((serde_json::from_slice(&body)?, descriptors, connection.into_stream())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Serving needs what is open, and connections to the container's ports.
fn give_up_rights(ways: &[Forward]) -> io::Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    stanza_container::confine_to_connections(ways.iter().map(|way| way.target.port()))
}
