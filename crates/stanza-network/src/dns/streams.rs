//! The container's connections: queries with their length before them, several on one connection.
//!
//! Bounded in every way: their number, what is read ahead, what waits to be written, how long nothing happens. At worst a
//! connection's queries are all answered with 64 KiB while its client reads nothing: 576 KiB each, 18 MiB in all.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::watch::{Token, Watch};

/// Connections at a time; when one more comes, the one that has been idle longest goes.
const MAX_CONNECTIONS: usize = 32;
/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest query.
pub(super) const MAX_QUERY: usize = 4096;
/// Queries of one connection on their way at a time.
const MAX_WAITING: usize = 8;
/// Above this many waiting bytes no more queries are read.
const MAX_OUTPUT: usize = 64 << 10;

/// A message with its length before it (RFC 1035, 4.2.2).
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    // No message is longer: those of servers come with such a length, ours are limited to it.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), message].concat()
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Queries that are not answered yet.
    waiting: usize,
    /// The client sends no more.
    ended: bool,
    /// What is watched for.
    interest: EventFlags,
    last: Instant,
}

impl Connection {
    fn takes_more(&self) -> bool {
        !self.ended && self.may_ask() && !self.has_query()
    }

    fn may_ask(&self) -> bool {
        self.waiting < MAX_WAITING && self.output.len() < MAX_OUTPUT
    }

    /// Whether [`Connection::next`] has something to tell without more to be read.
    fn has_query(&self) -> bool {
        let [high, low, rest @ ..] = &self.input[..] else { return false };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        length > MAX_QUERY || length <= rest.len()
    }

    /// Reads what there is, one buffer a turn; `false` when the connection is broken.
    fn read(&mut self) -> bool {
        let mut buffer = [0; MAX_QUERY];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => self.input.extend(&buffer[..count]),
            Err(error) => {
                return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            }
        }
        true
    }

    /// The next whole query; an error when it is too long.
    fn next(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let [high, low, rest @ ..] = &self.input[..] else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > MAX_QUERY {
            return Err(());
        }
        let Some(query) = rest.get(..length) else { return Ok(None) };
        let query = query.to_vec();
        self.input.drain(..2 + length);
        Ok(Some(query))
    }

    /// Writes what the socket takes; `false` when the connection is broken.
    fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => {
                    self.output.drain(..count);
                    self.last = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.output.shrink_to(0);
        true
    }

    /// Whether nothing more will happen.
    fn is_over(&self) -> bool {
        self.ended && self.waiting == 0 && self.output.is_empty() && !self.has_query()
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Streams {
    connections: HashMap<u32, Connection>,
    next: u32,
}

impl Streams {
    /// Takes a connection that waits; gives the number of one that had to go for it.
    pub(super) fn accept(&mut self, watch: &Watch, listener: &TcpListener) -> Option<u32> {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        let oldest = || self.connections.iter().min_by_key(|(_, one)| one.last).map(|(number, _)| *number);
        let gone = if self.connections.len() < MAX_CONNECTIONS { None } else { oldest() };
        if let Some(gone) = gone {
            self.connections.remove(&gone);
        }
        self.next = self.next.wrapping_add(1);
        if watch.add(&stream, Token::Connection(self.next), EventFlags::IN).is_ok() {
            let connection = Connection {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                waiting: 0,
                ended: false,
                interest: EventFlags::IN,
                last: Instant::now(),
            };
            self.connections.insert(self.next, connection);
        }
        gone
    }

    /// Something happened to a connection; gives its next queries, if there are any, to be answered by [`Streams::send`].
    ///
    /// # Errors
    ///
    /// When the connection is no more.
    pub(super) fn turn(&mut self, number: u32, flags: EventFlags) -> Result<Vec<Vec<u8>>, ()> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(Vec::new()) };
        let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        let mut alive = !broken && connection.flush();
        if alive && flags.contains(EventFlags::IN) && connection.takes_more() {
            alive = connection.read();
        }
        let queries = if alive { self.queries(number) } else { Err(()) };
        if queries.is_err() {
            self.connections.remove(&number);
        }
        queries
    }

    fn queries(&mut self, number: u32) -> Result<Vec<Vec<u8>>, ()> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(Vec::new()) };
        let mut queries = Vec::new();
        while connection.may_ask() {
            let Some(query) = connection.next()? else { break };
            connection.waiting += 1;
            connection.last = Instant::now();
            queries.push(query);
        }
        Ok(queries)
    }

    /// Answers a query; nothing when there is no answer to it.
    ///
    /// # Errors
    ///
    /// When the connection is no more.
    pub(super) fn send(&mut self, number: u32, message: Option<&[u8]>) -> Result<(), ()> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        connection.waiting = connection.waiting.saturating_sub(1);
        if let Some(message) = message {
            connection.output.extend(framed(message));
        }
        if connection.flush() {
            return Ok(());
        }
        self.connections.remove(&number);
        Err(())
    }

    /// Watches a connection for what it can do now, or closes it when it is over.
    pub(super) fn settle(&mut self, watch: &Watch, number: u32) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, connection.takes_more());
        // Queries that are read already wait for the next turn, which comes at once when the socket takes answers.
        let goes_on = connection.may_ask() && connection.has_query();
        interest.set(EventFlags::OUT, goes_on || !connection.output.is_empty());
        let watched = interest == connection.interest
            || watch.change(&connection.stream, Token::Connection(number), interest).is_ok();
        connection.interest = interest;
        if connection.is_over() || !watched {
            self.connections.remove(&number);
        }
    }

    /// When the first connection has been idle too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.connections.values().map(|connection| connection.last + PATIENCE).min()
    }

    /// Closes connections that have been idle too long, and tells which.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u32> {
        let idle = self.connections.iter().filter(|(_, one)| one.last + PATIENCE <= now);
        let gone: Vec<u32> = idle.map(|(number, _)| *number).collect();
        for number in &gone {
            self.connections.remove(number);
        }
        gone
    }
}
