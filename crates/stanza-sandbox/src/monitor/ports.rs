//! Published ports that the kernel cannot lead to the container, on the monitor's side: watched from the start, served by a
//! process of its own from the first client on.
//!
//! ```text
//!            a client comes             the process ends
//!  Waiting ──────────────────▶ Serving ──────────────────▶ Resting ── PAUSE after its start ──▶ Waiting
//!     └────── no process can be started ──────────────────────▲
//! ```
//!
//! A container that nobody asks this way costs one descriptor and one place in the monitor's `poll`, however many ports it has.
//! What comes while nobody serves waits in the sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use stanza_network::proxy::Forward;
use stanza_network::{Attachment, Proxied};

use crate::proxy::{ProxyProcess, way};

/// The least time between two starts: a proxy that cannot live costs no more than that.
const PAUSE: Duration = Duration::from_secs(1);

/// Ports to be served. Dropped, nobody serves them any more.
#[derive(Debug)]
pub(super) struct ProxiedPorts {
    /// Which they are.
    ports: Vec<(SocketAddr, Forward)>,
    /// An epoll that can be read from when a client has come to one of them.
    clients: OwnedFd,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Serving { process: ProxyProcess, since: Instant },
    Resting { until: Instant },
}

impl ProxiedPorts {
    /// Watches the ports that `attachment` has for a proxy, if any, in the place of those of `before`. What has not changed
    /// goes on being served as it is.
    pub(super) fn renew(
        before: Option<ProxiedPorts>,
        attachment: &mut Attachment,
    ) -> io::Result<Option<ProxiedPorts>> {
        let found = attachment.proxied()?;
        let ports: Vec<_> = found.iter().map(|port| (port.address, way(port))).collect();
        match before {
            Some(before) if before.ports == ports => Ok(Some(before)),
            _ if ports.is_empty() => Ok(None),
            _ => Ok(Some(ProxiedPorts { ports, clients: watch(&found)?, state: State::Waiting })),
        }
    }

    /// What the monitor polls: something is to be done when it can be read from.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Waiting => Some(self.clients.as_fd()),
            State::Serving { process, .. } => Some(process.as_fd()),
            State::Resting { .. } => None,
        }
    }

    /// How long the monitor may wait for that; `None` is for ever.
    pub(super) fn patience(&self) -> Option<Timespec> {
        let State::Resting { until } = self.state else { return None };
        Timespec::try_from(until.saturating_duration_since(Instant::now())).ok()
    }

    /// Does what is to be done, when the descriptor can be read from (`ready`) or the time is over.
    ///
    /// # Errors
    /// When no process can be started. It is tried again.
    pub(super) fn turn(&mut self, ready: bool, attachment: &mut Attachment) -> io::Result<()> {
        let now = Instant::now();
        match self.state {
            State::Waiting if ready => {
                let ports = attachment.proxied();
                let started = ports.and_then(|ports| ProxyProcess::start(&ports, attachment.bridges()));
                let started = started.map(|process| self.state = State::Serving { process, since: now });
                started.inspect_err(|_| self.state = State::Resting { until: now + PAUSE })
            }
            State::Serving { since, .. } if ready => {
                self.state = State::Resting { until: since + PAUSE };
                Ok(())
            }
            State::Resting { until } if until <= now => {
                self.state = State::Waiting;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// An epoll of the ports' sockets. It holds none of them: a copy may be closed while the attachment has the first.
fn watch(ports: &[Proxied]) -> io::Result<OwnedFd> {
    let clients = epoll::create(CreateFlags::CLOEXEC)?;
    for port in ports {
        epoll::add(&clients, &port.socket, EventData::new_u64(0), EventFlags::IN)?;
    }
    Ok(clients)
}
