//! The clients of a container: who started it, and who attached since; and the monitor's one `poll`.
//!
//! Nobody waits for anybody: sockets are non-blocking, each client has a bounded queue, and a client that does not read
//! holds up the container's output once its queue is full, as a full pipe would, instead of losing some.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use stanza_network::dns::Resolver;

use stanza_spec::Instant;

use super::isolation::Isolation;
use super::ports::ProxiedPorts;
use crate::frame::{self, Kind};
use crate::lifecycle::ExitStatus;
use crate::log::{Log, Stream};
use crate::paths;

/// Above this many waiting bytes of any client, the container's output is not read.
const MAX_QUEUE: usize = 256 << 10;

struct Client {
    /// Its number: its place changes when others go.
    id: u64,
    stream: UnixStream,
    reader: frame::Reader,
    queue: Vec<u8>,
    /// It gets output and the exit record.
    attached: bool,
}

impl Client {
    /// Writes what the socket takes; `false` when the client has gone.
    fn flush(&mut self) -> bool {
        while !self.queue.is_empty() {
            match self.stream.write(&self.queue) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        // A burst's memory is given back.
        self.queue.shrink_to(4 << 10);
        true
    }

    /// Reads what the client sent; `false` when it has gone.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.reader.extend(&buffer[..count]);
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }
}

/// All clients of one container.
pub(super) struct Clients {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    next: u64,
}

impl Clients {
    /// The door that starts the container.
    pub(super) fn new(door: UnixStream) -> Clients {
        let mut clients = Clients { listener: None, clients: Vec::new(), next: 0 };
        clients.add(door);
        clients
    }

    fn add(&mut self, stream: UnixStream) {
        let reader = frame::Reader::default();
        self.clients.push(Client { id: self.next, stream, reader, queue: Vec::new(), attached: true });
        self.next += 1;
    }

    /// Answers a client's request, if it is still there.
    pub(super) fn answer(&mut self, client: u64, kind: Kind, body: &[u8]) {
        if let Some(client) = self.clients.iter_mut().find(|one| one.id == client) {
            frame::push(&mut client.queue, kind, body);
            client.flush();
        }
    }

    /// Lets others attach.
    pub(super) fn listen(&mut self, run_dir: &Path) -> io::Result<()> {
        let directory =
            openat(CWD, run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let listener = UnixListener::bind(paths::through(&directory, paths::ATTACH_SOCKET))?;
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Tells the starting door that the container runs; unless it stays attached, that is all it wanted.
    pub(super) fn start(&mut self, running: &[u8], attached: bool) {
        let Some(door) = self.clients.first_mut() else { return };
        frame::push(&mut door.queue, Kind::Started, running);
        let alive = door.flush() && door.stream.set_nonblocking(true).is_ok();
        if !alive || !attached {
            self.clients.clear();
        }
    }

    /// Tells the starting door why there is no container.
    pub(super) fn fail(&mut self, refusal: &[u8]) {
        if let Some(door) = self.clients.first_mut() {
            frame::push(&mut door.queue, Kind::Failed, refusal);
            door.flush();
        }
        self.clients.clear();
    }

    /// Queues output for everybody attached.
    pub(super) fn output(&mut self, stream: Stream, bytes: &[u8]) {
        let kind = match stream {
            Stream::Stdout => Kind::Stdout,
            Stream::Stderr => Kind::Stderr,
        };
        for client in self.clients.iter_mut().filter(|client| client.attached) {
            frame::push(&mut client.queue, kind, bytes);
        }
    }

    /// Queues the exit record.
    pub(super) fn exit(&mut self, record: &[u8]) {
        self.listener = None;
        for client in &mut self.clients {
            frame::push(&mut client.queue, Kind::Exit, record);
        }
    }

    /// Delivers what is queued, waiting for slow clients; whether there was anybody to the end.
    pub(super) fn flush_all(&mut self) -> bool {
        let mut told = false;
        for client in &mut self.clients {
            told |= client.stream.set_nonblocking(false).is_ok() && client.flush();
        }
        told
    }

    fn full(&self) -> bool {
        self.clients.iter().any(|client| client.queue.len() > MAX_QUEUE)
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let mut accepted = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                accepted.push(stream);
            }
        }
        accepted.into_iter().for_each(|stream| self.add(stream));
    }
}

/// What one `poll` watches, in the order of its array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Isolation,
    Listener,
    Questions,
    Resolver,
    Ports,
    Client(usize),
}

/// What a turn leaves to the monitor.
#[derive(Default)]
pub(super) struct Turn {
    /// The container has ended.
    pub(super) ended: Option<ExitStatus>,
    /// Something is to be done about the ports that are for a proxy.
    pub(super) ports: bool,
    /// Changes of the networks: the number of the client who waits for an answer, and a [`crate::NetworkChange`] as JSON.
    pub(super) networks: Vec<(u64, Vec<u8>)>,
}

/// Waits for something to happen and deals with it.
pub(super) fn turn(
    clients: &mut Clients,
    log: &mut Log,
    isolation: &mut dyn Isolation,
    resolver: &mut Option<Resolver>,
    ports: Option<&ProxiedPorts>,
) -> Turn {
    let ready = wait(clients, isolation, resolver.as_ref(), ports);
    let mut turn = Turn::default();
    let mut inside = Vec::new();
    let mut gone = Vec::new();
    for (source, flags) in ready {
        let is_ready = !flags.is_empty();
        match source {
            Source::Isolation => inside.push(flags),
            Source::Listener if is_ready => clients.accept(),
            Source::Questions | Source::Resolver if is_ready => {
                if let Some(resolver) = resolver {
                    if source == Source::Questions { resolver.answer() } else { resolver.turn() }
                }
            }
            Source::Ports => turn.ports = is_ready,
            Source::Client(index) => {
                let readable = flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
                if readable && !clients.clients[index].receive() {
                    gone.push(index);
                }
            }
            Source::Listener | Source::Questions | Source::Resolver => {}
        }
    }
    turn.ended = isolation.turn(&inside, &mut |stream, bytes| keep(clients, log, stream, bytes));
    resolve(isolation, resolver.as_mut());
    turn.networks = serve(clients, isolation, &mut gone);
    for index in gone.into_iter().rev() {
        clients.clients.remove(index);
    }
    turn
}

/// Carries questions about names to the resolver, and its answers back.
fn resolve(isolation: &mut dyn Isolation, mut resolver: Option<&mut Resolver>) {
    for (number, query) in isolation.questions() {
        match &mut resolver {
            Some(resolver) => resolver.ask(number, &query),
            None => isolation.answer(number, &[]),
        }
    }
    for (number, message) in resolver.map(Resolver::answers).unwrap_or_default() {
        isolation.answer(number, &message);
    }
}

/// Output goes to the log and to everybody attached.
pub(super) fn keep(clients: &mut Clients, log: &mut Log, stream: Stream, bytes: &[u8]) {
    log.write(stream, bytes, &Instant::now().rfc3339());
    clients.output(stream, bytes);
}

/// Everything that is watched, with what happened to it.
fn wait(
    clients: &Clients,
    isolation: &dyn Isolation,
    resolver: Option<&Resolver>,
    ports: Option<&ProxiedPorts>,
) -> Vec<(Source, PollFlags)> {
    let mut fds = Vec::new();
    isolation.watch(!clients.full(), &mut fds);
    let mut sources = vec![Source::Isolation; fds.len()];
    if let Some(listener) = &clients.listener {
        sources.push(Source::Listener);
        fds.push(PollFd::new(listener, PollFlags::IN));
    }
    if let Some(resolver) = resolver {
        sources.push(Source::Questions);
        fds.push(PollFd::from_borrowed_fd(resolver.questions(), PollFlags::IN));
        sources.push(Source::Resolver);
        fds.push(PollFd::new(resolver, PollFlags::IN));
    }
    if let Some(ports) = ports.and_then(ProxiedPorts::descriptor) {
        sources.push(Source::Ports);
        fds.push(PollFd::from_borrowed_fd(ports, PollFlags::IN));
    }
    for (index, client) in clients.clients.iter().enumerate() {
        let mut flags = PollFlags::empty();
        if isolation.takes_input() {
            flags |= PollFlags::IN;
        }
        if !client.queue.is_empty() {
            flags |= PollFlags::OUT;
        }
        sources.push(Source::Client(index));
        fds.push(PollFd::new(&client.stream, flags));
    }
    let at_once = isolation.has_news().then(Timespec::default);
    let patience = at_once.or_else(|| ports.and_then(ProxiedPorts::patience));
    if poll(&mut fds, patience.as_ref()).is_err() {
        return Vec::new();
    }
    sources.into_iter().zip(fds.iter().map(PollFd::revents)).collect()
}

/// Deals with what clients sent and writes what waits for them; gives the requests that are not for here.
fn serve(clients: &mut Clients, isolation: &mut dyn Isolation, gone: &mut Vec<usize>) -> Vec<(u64, Vec<u8>)> {
    let mut networks = Vec::new();
    let mut commands = Vec::new();
    for (index, client) in clients.clients.iter_mut().enumerate() {
        loop {
            match client.reader.next() {
                Ok(Some((Kind::Exec, body))) => {
                    commands.push((index, body));
                    break;
                }
                Ok(Some((Kind::Networks, body))) => networks.push((client.id, body)),
                Ok(Some((kind, body))) => obey(kind, &body, isolation),
                Ok(None) => break,
                Err(_) => {
                    gone.push(index);
                    break;
                }
            }
        }
        // What a command's client is yet to be sent goes with it.
        if !commands.iter().any(|(command, _)| *command == index) && !client.flush() {
            gone.push(index);
        }
    }
    gone.sort_unstable();
    gone.dedup();
    for (index, plan) in commands.into_iter().rev() {
        if gone.contains(&index) {
            continue;
        }
        let client = clients.clients.remove(index);
        gone.iter_mut().filter(|other| **other > index).for_each(|other| *other -= 1);
        isolation.exec(client.stream, client.reader, client.queue, &plan);
    }
    networks
}

/// One request of a client. Nonsense is ignored: it comes from the same user's own tools.
fn obey(kind: Kind, body: &[u8], isolation: &mut dyn Isolation) {
    match (kind, body) {
        (Kind::Stdin, bytes) => isolation.push_input(bytes),
        (Kind::StdinEnd, _) => isolation.end_input(),
        (Kind::Resize, [a, b, c, d]) => {
            isolation.resize(u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]))
        }
        (Kind::Signal, [a, b, c, d]) => {
            isolation.signal(i32::from_le_bytes([*a, *b, *c, *d]));
        }
        _ => {}
    }
}
