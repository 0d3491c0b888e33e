//! UDP: a flow for each client of each port, so that answers find back.
//!
//! ```text
//!   client:port ──▶ the port's socket ──▶ flow (port, client) ──▶ its own connected socket ──▶ container
//!          ◀─────── the port's socket ◀────────────────────────── the same
//! ```
//!
//! A flow ends when it was quiet for the time that the kernel's own connection tracking waits (nf_conntrack_udp_timeout and
//! nf_conntrack_udp_timeout_stream). Answers leave by the address that the kernel chooses for the client, as with every
//! program that is bound to all addresses.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};

use super::slab::Slab;
use super::{Port, Token};

/// The largest datagram and more.
const DATAGRAM: usize = 65_536;
/// Datagrams after which others have their turn.
const TURN: usize = 64;
/// A flow without an answer.
const UNANSWERED: Duration = Duration::from_secs(30);
/// A flow with answers.
const ANSWERED: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Flow {
    socket: UdpSocket,
    port: u32,
    client: SocketAddr,
    /// When it last carried something.
    last: Instant,
    answered: bool,
}

/// All flows.
pub(super) struct Flows {
    flows: Slab<Flow>,
    by_client: HashMap<(u32, SocketAddr), u32>,
    most: usize,
    buffer: Vec<u8>,
}

impl Flows {
    pub(super) fn new(most: usize) -> Flows {
        Flows { flows: Slab::default(), by_client: HashMap::new(), most, buffer: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    pub(super) fn recycle(&mut self) {
        self.flows.recycle();
    }

    /// What clients sent to a port goes to the container.
    pub(super) fn take(&mut self, index: u32, ports: &[Port], epoll: &OwnedFd) {
        let Some(Port::Udp { socket, target }) = ports.get(index as usize) else { return };
        self.buffer.resize(DATAGRAM, 0);
        for _ in 0..TURN {
            let (count, client) = match socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Nothing waits, or an old answer was refused: datagrams may be lost.
                Err(_) => return,
            };
            // A flow that cannot be made loses its datagram.
            let Some(flow) = self.flow(index, client, *target, epoll) else { continue };
            if let Some(flow) = self.flows.get_mut(flow) {
                flow.last = Instant::now();
                let _ = flow.socket.send(&self.buffer[..count]);
            }
        }
    }

    /// What a container answered goes to the client.
    pub(super) fn answer(&mut self, index: u32, ports: &[Port]) {
        let Some(flow) = self.flows.get_mut(index) else { return };
        let Some(Port::Udp { socket, .. }) = ports.get(flow.port as usize) else { return };
        self.buffer.resize(DATAGRAM, 0);
        for _ in 0..TURN {
            match flow.socket.recv(&mut self.buffer) {
                Ok(count) => {
                    flow.last = Instant::now();
                    flow.answered = true;
                    let _ = socket.send_to(&self.buffer[..count], flow.client);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing waits, or the container refused a datagram, which ends nothing: it may listen later.
                Err(_) => return,
            }
        }
    }

    pub(super) fn end_quiet_ones(&mut self, now: Instant) {
        let is_quiet =
            |flow: &Flow| now.duration_since(flow.last) > if flow.answered { ANSWERED } else { UNANSWERED };
        let quiet: Vec<u32> =
            self.flows.iter().filter(|(_, flow)| is_quiet(flow)).map(|(index, _)| index).collect();
        quiet.into_iter().for_each(|index| self.end(index));
    }

    fn end(&mut self, index: u32) {
        if let Some(flow) = self.flows.remove(index) {
            self.by_client.remove(&(flow.port, flow.client));
        }
    }

    fn flow(&mut self, port: u32, client: SocketAddr, target: SocketAddr, epoll: &OwnedFd) -> Option<u32> {
        if let Some(index) = self.by_client.get(&(port, client)) {
            return Some(*index);
        }
        if self.flows.len() >= self.most {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.last).map(|(index, _)| index);
            oldest.into_iter().for_each(|index| self.end(index));
        }
        let socket = connect(target).ok()?;
        let index = self.flows.insert(Flow { socket, port, client, last: Instant::now(), answered: false });
        let flow = self.flows.get_mut(index)?;
        if epoll::add(epoll, &flow.socket, Token::Flow(index).data(), EventFlags::IN).is_err() {
            self.flows.remove(index);
            return None;
        }
        self.by_client.insert((port, client), index);
        Some(index)
    }
}

fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(target)?;
    Ok(socket)
}
