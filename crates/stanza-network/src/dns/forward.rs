//! Asking others: every query goes out with an id and from a port of its own, to one server after the other.
//!
//! ```text
//!  ask ─▶ server 1 ── answer ──────────────────────────▶ passed on, but for the id
//!            │ 2 s, refused, SERVFAIL      ▲
//!            └▶ server 2 … and once again from the first │ SERVFAIL when none is left
//! ```
//!
//! A socket is connected to its server, so the kernel lets only that server's messages through; an answer is one when id
//! and question are those that were sent. Anything else is not listened to. A query that came by TCP is asked by TCP.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::rand::{GetRandomFlags, getrandom};

use super::servers::Servers;
use super::watch::{Token, Watch};
use super::wire::{self, Worth};
use super::{Reply, Upstream};

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// Queries on their way at a time; the next one is refused.
const MAX_PENDING: usize = 128;
/// The largest message.
const MAX_MESSAGE: usize = 65_535;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// Somebody at that address by UDP, who takes so many bytes.
    Datagram { from: SocketAddr, limit: usize },
    /// A connection.
    Stream(u32),
    /// The guest of a virtual machine, by the number of its question.
    Guest(u32),
}

/// How a server is asked.
#[derive(Debug)]
enum Way {
    Datagram(UdpSocket),
    /// The query as far as it is not sent, and the answer as far as it has come.
    Stream {
        stream: TcpStream,
        output: Vec<u8>,
        input: Vec<u8>,
    },
}

#[derive(Debug)]
struct Pending {
    asker: Asker,
    /// As it came.
    query: Vec<u8>,
    /// Where its question ends.
    end: usize,
    /// The id that it has on its way.
    id: u16,
    way: Option<Way>,
    /// Those that are left to ask, the next one last.
    servers: Vec<(usize, SocketAddr)>,
    /// The place of the one that is asked in the list of servers.
    server: usize,
    deadline: Instant,
    /// What a server said that could not tell.
    failure: Option<Vec<u8>>,
}

/// The queries that others are to answer.
#[derive(Debug)]
pub(super) struct Forwarder {
    servers: Servers,
    /// The server that answered last is asked first: a dead one costs its time once.
    preferred: usize,
    pending: HashMap<u32, Pending>,
    next: u32,
    buffer: Vec<u8>,
}

impl Forwarder {
    pub(super) fn new(upstream: Upstream) -> Forwarder {
        Forwarder {
            servers: Servers::new(upstream),
            preferred: 0,
            pending: HashMap::new(),
            next: 0,
            buffer: Vec::new(),
        }
    }

    /// Asks others from now on, where they are others.
    pub(super) fn set_upstream(&mut self, upstream: &Upstream) {
        if !self.servers.are_of(upstream) {
            self.servers = Servers::new(upstream.clone());
            self.preferred = 0;
        }
    }

    /// When the first server has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// Sends a query on its way, whose question ends at `end`; gives what is known at once.
    pub(super) fn ask(&mut self, watch: &Watch, asker: Asker, query: &[u8], end: usize) -> Option<Reply> {
        // A client that is tired of waiting asks again: the first query's answer is one to both.
        let is_repeated = |pending: &Pending| pending.asker == asker && pending.query == query;
        if matches!(asker, Asker::Datagram { .. }) && self.pending.values().any(is_repeated) {
            return None;
        }
        let fail = || Some(Reply { asker, end, bytes: wire::failure(query, end, ResponseCode::ServFail) });
        let (servers, changed) = self.servers.current();
        if changed {
            self.preferred = 0;
        }
        if self.pending.len() >= MAX_PENDING {
            return fail();
        }
        let first = self.preferred % servers.len().max(1);
        let numbered = servers.iter().copied().enumerate();
        let round: Vec<_> = numbered.clone().skip(first).chain(numbered.take(first)).collect();
        let servers = round.iter().rev().copied().cycle().take(round.len() * ROUNDS).collect();
        let mut pending = Pending {
            asker,
            query: query.to_vec(),
            end,
            id: 0,
            way: None,
            servers,
            server: 0,
            deadline: Instant::now(),
            failure: None,
        };
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        if !pending.ask_next(watch, number) {
            return Some(pending.give_up());
        }
        self.pending.insert(number, pending);
        None
    }

    /// Something came for a query, or failed.
    pub(super) fn turn(&mut self, watch: &Watch, number: u32) -> Option<Reply> {
        self.buffer.resize(MAX_MESSAGE, 0);
        let pending = self.pending.get_mut(&number)?;
        let (step, server) = (pending.step(watch, number, &mut self.buffer), pending.server);
        let goes_on = match step {
            Step::Wait => true,
            Step::Answered(bytes) => {
                self.preferred = server;
                return self.finish(number, bytes);
            }
            Step::Failed(failure) => {
                pending.failure = failure.or(pending.failure.take());
                pending.ask_next(watch, number)
            }
        };
        if goes_on { None } else { self.pending.remove(&number).map(Pending::give_up) }
    }

    /// Goes on to the next server for every query whose server has taken too long.
    pub(super) fn expire(&mut self, watch: &Watch, now: Instant) -> Vec<Reply> {
        let late: Vec<u32> =
            self.pending.iter().filter(|(_, one)| one.deadline <= now).map(|(number, _)| *number).collect();
        let mut replies = Vec::new();
        for number in late {
            let goes_on = self.pending.get_mut(&number).is_some_and(|one| one.ask_next(watch, number));
            if !goes_on {
                replies.extend(self.pending.remove(&number).map(Pending::give_up));
            }
        }
        if self.pending.is_empty() {
            // A burst's memory is given back.
            self.buffer = Vec::new();
            self.pending.shrink_to(8);
        }
        replies
    }

    /// Forgets what a connection that has gone had asked.
    pub(super) fn forget(&mut self, connection: u32) {
        self.pending.retain(|_, pending| pending.asker != Asker::Stream(connection));
    }

    fn finish(&mut self, number: u32, bytes: Vec<u8>) -> Option<Reply> {
        self.pending.remove(&number).map(|pending| pending.reply(bytes))
    }
}

/// What came of looking at a server's socket.
enum Step {
    Wait,
    Answered(Vec<u8>),
    /// The server failed, and may have said how.
    Failed(Option<Vec<u8>>),
}

impl Pending {
    /// Asks the next server that can be; `false` when none is left.
    fn ask_next(&mut self, watch: &Watch, number: u32) -> bool {
        // The old socket goes first, and with it everything that may still come from that server.
        self.way = None;
        while let Some((place, server)) = self.servers.pop() {
            if let Ok(way) = self.try_ask(watch, number, server) {
                (self.server, self.way) = (place, Some(way));
                self.deadline = Instant::now() + PATIENCE;
                return true;
            }
        }
        false
    }

    fn try_ask(&mut self, watch: &Watch, number: u32, server: SocketAddr) -> io::Result<Way> {
        let mut id = [0; 2];
        getrandom(&mut id, GetRandomFlags::empty())?;
        self.id = u16::from_ne_bytes(id);
        let mut query = self.query.clone();
        query[..2].copy_from_slice(&self.id.to_be_bytes());
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        if matches!(self.asker, Asker::Datagram { .. } | Asker::Guest(_)) {
            // The kernel chooses a port at random.
            let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
            connect(&socket, &server)?;
            let socket = UdpSocket::from(socket);
            socket.send(&query)?;
            watch.add(&socket, Token::Server(number), EventFlags::IN)?;
            return Ok(Way::Datagram(socket));
        }
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &server) {
            Err(Errno::INPROGRESS) => {}
            result => result?,
        }
        watch.add(&socket, Token::Server(number), EventFlags::OUT)?;
        let output = super::streams::framed(&query);
        Ok(Way::Stream { stream: TcpStream::from(socket), output, input: Vec::new() })
    }

    fn step(&mut self, watch: &Watch, number: u32, buffer: &mut [u8]) -> Step {
        let (query, end, id) = (&self.query, self.end, self.id);
        match &mut self.way {
            None => Step::Wait,
            Some(Way::Datagram(socket)) => loop {
                match socket.recv(buffer) {
                    Ok(count) => match wire::worth(query, end, id, &buffer[..count]) {
                        // Whoever lies does not keep the right answer away.
                        Worth::None => {}
                        Worth::Failure => return Step::Failed(Some(buffer[..count].to_vec())),
                        Worth::Answer => return Step::Answered(buffer[..count].to_vec()),
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Wait,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Step::Failed(None),
                }
            },
            Some(Way::Stream { stream, output, input }) => match step_stream(stream, output, input, buffer) {
                Ok(false) if output.is_empty() => {
                    match watch.change(&*stream, Token::Server(number), EventFlags::IN) {
                        Ok(()) => Step::Wait,
                        Err(_) => Step::Failed(None),
                    }
                }
                Ok(false) => Step::Wait,
                Ok(true) => match wire::worth(query, end, id, &input[2..]) {
                    Worth::None => Step::Failed(None),
                    Worth::Failure => Step::Failed(Some(input.split_off(2))),
                    Worth::Answer => Step::Answered(input.split_off(2)),
                },
                Err(_) => Step::Failed(None),
            },
        }
    }

    fn give_up(mut self) -> Reply {
        let bytes = self
            .failure
            .take()
            .unwrap_or_else(|| wire::failure(&self.query, self.end, ResponseCode::ServFail));
        self.reply(bytes)
    }

    /// What is passed on: a server's answer with the client's id.
    fn reply(self, mut bytes: Vec<u8>) -> Reply {
        bytes[..2].copy_from_slice(&self.query[..2]);
        Reply { asker: self.asker, end: self.end, bytes }
    }
}

/// Writes what is left of the query, then reads; whether the answer is whole: two bytes of length, and that many.
fn step_stream(
    stream: &mut TcpStream,
    output: &mut Vec<u8>,
    input: &mut Vec<u8>,
    buffer: &mut [u8],
) -> io::Result<bool> {
    while !output.is_empty() {
        match stream.write(output) {
            Ok(count) => drop(output.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    loop {
        let wanted = match input[..] {
            [high, low, ..] => 2 + usize::from(u16::from_be_bytes([high, low])),
            _ => 2,
        };
        if wanted > 2 && input.len() >= wanted {
            return Ok(true);
        }
        let missing = (wanted - input.len()).min(buffer.len());
        match stream.read(&mut buffer[..missing]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => input.extend(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // A length of zero is no message.
        if input[..] == [0, 0] {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}
