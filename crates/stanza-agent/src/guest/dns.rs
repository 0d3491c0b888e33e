//! DNS for the container: queries for 127.0.0.11 become frames, and the host's answers messages.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, listen, recvfrom,
    sendto, socket_with, sockopt,
};

use crate::wire::{Kind, MAX_DNS, MAX_QUERIES, Outbox};

/// Docker's address for a container's resolver.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// The most connections at once.
const MAX_STREAMS: usize = 32;

/// The shortest message: its header.
const HEADER: usize = 12;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Who asked.
#[derive(Debug)]
enum Asker {
    Datagram(SocketAddr),
    Stream(u64),
}

/// A connection.
#[derive(Debug)]
struct Client {
    id: u64,
    socket: OwnedFd,
    received: Vec<u8>,
    sending: Vec<u8>,
}

/// The relay.
#[derive(Debug)]
pub(super) struct Relay {
    datagrams: OwnedFd,
    listener: OwnedFd,
    clients: Vec<Client>,
    /// The oldest first: numbers grow.
    asked: BTreeMap<u32, Asker>,
    next_query: u32,
    next_client: u64,
}

impl Relay {
    /// Listens; `lo` is up.
    pub(super) fn open() -> io::Result<Relay> {
        let datagrams = socket_with(AddressFamily::INET, SocketType::DGRAM, FLAGS, None)?;
        bind(&datagrams, &ADDRESS)?;
        let listener = socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        bind(&listener, &ADDRESS)?;
        listen(&listener, 32)?;
        let (clients, asked) = (Vec::new(), BTreeMap::new());
        Ok(Relay { datagrams, listener, clients, asked, next_query: 1, next_client: 1 })
    }

    pub(super) fn add_to<'a>(&'a self, descriptors: &mut Vec<PollFd<'a>>) {
        if self.has_room() {
            descriptors.push(PollFd::new(&self.datagrams, PollFlags::IN));
        }
        if self.clients.len() < MAX_STREAMS {
            descriptors.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for client in &self.clients {
            let wanted = if client.sending.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            if wanted == PollFlags::OUT || self.has_room() {
                descriptors.push(PollFd::new(&client.socket, wanted));
            }
        }
    }

    /// The host may have this many queries of the guest.
    fn has_room(&self) -> bool {
        self.asked.len() < MAX_QUERIES
    }

    pub(super) fn turn(&mut self, out: &mut Outbox) {
        let mut buffer = [0; 4096];
        while self.has_room() {
            match recvfrom(&self.datagrams, &mut buffer, RecvFlags::empty()) {
                Ok((count, _, Some(from))) if count >= HEADER => {
                    if let Ok(from) = SocketAddr::try_from(from) {
                        self.ask(Asker::Datagram(from), &buffer[..count], out);
                    }
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        while self.clients.len() < MAX_STREAMS {
            let Ok(socket) = accept_with(&self.listener, FLAGS) else { break };
            let id = self.next_client;
            self.next_client += 1;
            self.clients.push(Client { id, socket, received: Vec::new(), sending: Vec::new() });
        }
        let mut clients = std::mem::take(&mut self.clients);
        clients.retain_mut(|client| self.serve(client, out));
        self.clients = clients;
    }

    /// Whether the client stays.
    fn serve(&mut self, client: &mut Client, out: &mut Outbox) -> bool {
        if !client.flush() {
            return false;
        }
        let mut buffer = [0; 4096];
        // A client that does not read its answers gets no more.
        while client.sending.is_empty() && self.has_room() {
            while let Some((length, rest)) = client.received.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                if length < HEADER {
                    return false;
                }
                let Some(message) = rest.get(..length).filter(|_| self.has_room()) else { break };
                self.ask(Asker::Stream(client.id), message, out);
                client.received.drain(..2 + length);
            }
            if client.received.len() > MAX_DNS + 2 {
                break;
            }
            match rustix::io::read(&client.socket, &mut buffer) {
                Ok(0) => return false,
                Ok(count) => client.received.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn ask(&mut self, asker: Asker, message: &[u8], out: &mut Outbox) {
        let query = self.next_query;
        self.next_query = self.next_query.wrapping_add(1);
        self.asked.insert(query, asker);
        out.push(Kind::Query, query, message);
    }

    /// Gives the host's answer to who asked. No answer is none: who asked tries again.
    pub(super) fn answer(&mut self, query: u32, message: &[u8]) {
        let Some(asker) = self.asked.remove(&query) else { return };
        if message.is_empty() {
            return;
        }
        match asker {
            Asker::Datagram(to) => {
                // Lost, as datagrams may be.
                let _ = sendto(&self.datagrams, message, SendFlags::empty(), &to);
            }
            Asker::Stream(id) => {
                let client = self.clients.iter_mut().find(|client| client.id == id);
                if let (Some(client), Ok(length)) = (client, u16::try_from(message.len())) {
                    client.sending.extend_from_slice(&length.to_be_bytes());
                    client.sending.extend_from_slice(message);
                }
            }
        }
    }
}

impl Client {
    /// Whether it is still there.
    fn flush(&mut self) -> bool {
        while !self.sending.is_empty() {
            match rustix::net::send(&self.socket, &self.sending, SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.sending.drain(..count)),
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}
