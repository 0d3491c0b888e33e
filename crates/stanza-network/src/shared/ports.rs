//! Published ports of containers in the shared name space: sockets of the host, served by a process in the name space.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, pidfd_send_signal, waitid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use stanza_spec::Protocol;
use stanza_sys::{CloneFlags, Cloned, clone_process, keep_only};

use crate::inside;
use crate::proxy::{self, Forward};

/// A process that leads published ports in. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct PortProxy {
    _owner: UnixStream,
    pidfd: OwnedFd,
}

impl PortProxy {
    /// Starts serving the sockets from the name space `netns`; the caller must be single-threaded.
    pub(crate) fn start(ports: Vec<(OwnedFd, Forward)>, netns: BorrowedFd<'_>) -> io::Result<PortProxy> {
        for (socket, forward) in &ports {
            if forward.protocol == Protocol::Tcp {
                // Its connections inherit this, and those that are in TIME_WAIT when the container ends do not keep the next
                // one off the port: nor does it mind those of the last one. Nobody else can take the port of a socket that
                // listens.
                set_socket_reuseaddr(socket, true)?;
                // From here on clients wait instead of being refused.
                proxy::listen(socket.as_fd())?;
            }
        }
        let (ours, theirs) = UnixStream::pair()?;
        let owner = getpid();
        match clone_process(CloneFlags::NONE, None)? {
            Cloned::Child => {
                // Nobody is left to be told of a failure: clients are refused.
                let _ = serve(ports, netns, &theirs, owner);
                stanza_sys::exit_process(0)
            }
            Cloned::Parent { pidfd, .. } => Ok(PortProxy { _owner: ours, pidfd }),
        }
    }
}

impl Drop for PortProxy {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let wait = || waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        while let Err(rustix::io::Errno::INTR) = wait() {}
    }
}

fn serve(
    ports: Vec<(OwnedFd, Forward)>,
    netns: BorrowedFd<'_>,
    owner: &UnixStream,
    parent: Pid,
) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Ok(());
    }
    let _ = rustix::thread::set_name(c"stanza-proxy");
    inside::enter(netns)?;
    // It carries bytes of strangers: from here on with no right that they could take.
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    let mut kept: Vec<BorrowedFd<'_>> = ports.iter().map(|(socket, _)| socket.as_fd()).collect();
    kept.push(owner.as_fd());
    keep_only(3, &kept)?;
    proxy::serve(ports, owner.as_fd())
}
